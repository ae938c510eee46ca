"""The ``regcore`` command: single pairs and trained models, without a workflow."""

import math
import sys
from pathlib import Path

import click

import regcore
from regcore.alignment.settings import ALIGNMENTS
from regcore.errors import InputError, RegistrationFailed, explained
from regcore.images.matrix_formats import FORMATS
from regcore.methods import METHODS, installed_methods
from regcore.methods.constants import LABEL_WEIGHTS
from regcore.models.released import released_model
from regcore.process.logs import log_to
from regcore.settings.base import LARGEST_SEED, MOST_THREADS

SEED = click.IntRange(0, LARGEST_SEED)
THREADS = click.IntRange(1, MOST_THREADS)
#: The largest edge of doctor's volumes, and the most points along each axis of tune's sweep.
LONGEST_EDGE, MOST_POINTS = 1024, 10_000

READY = [
    name
    for name, method in METHODS.items()
    if not (method.learned or method.imported or method.pretrained) or any(released_model(name, n) for n in (2, 3))
] + list(installed_methods())

#: Exit status of a registration that ran but, with --strict, cannot be believed.
NOT_CREDIBLE = 3

CONVENTIONS = """
\b
FILES AND COORDINATES
  Images are NIfTI (.nii, .nii.gz), 2-D or 3-D, any orientation, spacing and size;
  headers are read as ITK reads them, with a warning where programs disagree.
  Outside the moving image, a warped image has its background, labels have 0.
  A displacement is an ITK vector NIfTI (5-D, intent 1007) on the fixed image's
  grid, in LPS millimetres: warped(x) = moving(x + u(x)).  antsApplyTransforms,
  SimpleITK, ITK-SNAP and 3D Slicer apply it directly.
  affine.mat is an ITK transform (LPS mm); affine.txt has the same map in RAS mm,
  fixed -> moving, as NiftyReg and greedy read it.
"""


#: What an option of a mask says about the methods.
MASKED = f", in the alignment and in {', '.join(name for name, method in METHODS.items() if method.uses_masks)}."
#: What the options of further images and labels say about the methods.
TAKE_CHANNELS = ", ".join(name for name, method in METHODS.items() if method.uses_channels)
TAKE_LABELS = ", ".join(name for name, method in METHODS.items() if method.uses_labels)
MATRIX_FORMAT = click.option(
    "--matrix-format",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="The program that wrote the matrix; needed only for text that is bare numbers.",
)
#: The option of the commands that warp an image.
FILL = click.option(
    "--fill",
    type=float,
    help="Value outside MOVING.  Default: its background (padding or air, estimated at its border).",
)


class FriendlyGroup(click.Group):
    """Print errors that are no fault of the program as one message, without a traceback, and exit with status 2.

    A registration that failed, with images that can be read, ends with status 1.

    Examples
    --------
    >>> import click
    >>> from click.testing import CliRunner
    >>> from regcore.commands.cli import FriendlyGroup
    >>> from regcore.errors import InputError
    >>> @click.group(cls=FriendlyGroup)
    ... def tool():
    ...     pass
    >>> @tool.command()
    ... def look():
    ...     raise InputError("scan.nii: damaged; copy it again")
    >>> result = CliRunner().invoke(tool, ["look"])
    >>> result.exit_code, result.output
    (2, 'regcore: scan.nii: damaged; copy it again\\n')
    """

    def invoke(self, ctx):
        given = list(ctx.args)  # emptied when they are parsed
        try:
            return super().invoke(ctx)
        except RegistrationFailed as error:
            click.echo(f"regcore: the registration failed: {error}", err=True)
            ctx.exit(1)
        except Exception as error:
            message = explained(error)
            if message is None:
                raise
            if isinstance(error, MemoryError | RuntimeError):  # which name no file
                message = ", ".join(word for word in given if Path(word).is_file()) + f": {message}"
            click.echo(f"regcore: {message}", err=True)
            ctx.exit(2)


class Weights(click.ParamType):
    """Numbers above 0, between commas or spaces.

    Examples
    --------
    >>> from regcore.commands.cli import Weights
    >>> Weights().convert("1, 0.5", None, None)
    (1.0, 0.5)
    """

    name = "weights"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(word) for word in value.replace(",", " ").split())
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number < math.inf for number in numbers):
            self.fail(f"{value!r}: give numbers above 0, such as 1 0.5", param, ctx)
        return numbers


class WithWeights(click.Command):
    """A command whose option ``--weights`` takes all the numbers that follow it.

    Examples
    --------
    >>> import click
    >>> from click.testing import CliRunner
    >>> from regcore.commands.cli import Weights, WithWeights
    >>> @click.command(cls=WithWeights)
    ... @click.option("--weights", type=Weights())
    ... @click.argument("image")
    ... def look(weights, image):
    ...     click.echo((weights, image))
    >>> CliRunner().invoke(look, ["--weights", "1", "0.5", "a.nii"]).output
    "((1.0, 0.5), 'a.nii')\\n"
    """

    def parse_args(self, ctx, args):
        joined: list[str] = []
        for word in args:
            if len(joined) > 1 and joined[-2] == "--weights" and _is_number(word):
                joined[-1] += f" {word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


@click.group(cls=FriendlyGroup, epilog=CONVENTIONS)
@click.version_option(regcore.__version__)
def main() -> None:
    """Deformable registration of medical images."""
    log_to()


@main.command(cls=WithWeights, epilog=CONVENTIONS)
@click.argument("fixed", type=click.Path(path_type=Path))
@click.argument("moving", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help=f"{', '.join(READY)}, or the folder of a trained model (results/<study>/models/<name>).",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a setting of the method; repeatable.")
@click.option(
    "--lambda",
    "amount",
    type=float,
    help="The weight λ; short for --set lambda=…. Works for a trained hypernetwork too.",
)
@click.option(
    "--affine",
    type=click.Choice(ALIGNMENTS),
    help="The first alignment, whose result is part of the displacement: auto (as free as the images allow, at most "
    "affine), rigid, similarity, affine or translation by regcore's own aligner; centre (of the grids); none (the "
    "headers, or --init, are right); an affine map by ANTs (ants), or by mutual information (nmi) or MIND (mind).  "
    "Default: auto, or what a trained model was trained with.",
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="MATRIX",
    help="Start the alignment from this matrix; with --affine none, use it as it is.  ITK (.mat, .tfm, .txt, .h5), an "
    "LTA, regcore's affine.mat or affine.txt, or bare numbers with --matrix-format.",
)
@MATRIX_FORMAT
@click.option("--fixed-mask", type=click.Path(path_type=Path), help=f"Ignore FIXED where this mask is 0{MASKED}")
@click.option("--moving-mask", type=click.Path(path_type=Path), help=f"Ignore MOVING where this mask is 0{MASKED}")
@click.option(
    "--fixed-lesion",
    type=click.Path(path_type=Path),
    help="Ignore FIXED where this map is not 0, and around it: a lesion, an implant, a resection.",
)
@click.option("--moving-lesion", type=click.Path(path_type=Path), help="The same for MOVING.")
@click.option(
    "--lesion-margin",
    type=click.FloatRange(0),
    metavar="MM",
    help="How far around a lesion the image is ignored too.  Default: two voxels.",
)
@click.option(
    "--fixed",
    "further_fixed",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A further image of the fixed subject, in register with FIXED by its header, on any grid; repeatable.  "
    f"Compared with the --moving at the same place, besides FIXED and MOVING, in {TAKE_CHANNELS}.",
)
@click.option(
    "--moving",
    "further_moving",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A further image of the moving subject, in register with MOVING; as many as --fixed.",
)
@click.option(
    "--weights",
    type=Weights(),
    metavar="NUMBER...",
    help="Weight of each pair of images, that of FIXED and MOVING first, e.g. 1 0.5.  Default: all equal.",
)
@click.option(
    "--fixed-labels",
    type=click.Path(path_type=Path),
    help=f"A label map of FIXED that guides the registration in {TAKE_LABELS}: labels that --moving-labels has too are "
    "brought to overlap.  The overlap of these labels is then no measure of the result.",
)
@click.option("--moving-labels", type=click.Path(path_type=Path), help="The label map of MOVING, with the same codes.")
@click.option(
    "--label-weight",
    type=click.FloatRange(0, min_open=True),
    help="Weight of one minus the mean Dice of the labels, beside a similarity of weight 1.  Default, by similarity: "
    f"{', '.join(f'{weight:g} for {name}' for name, weight in LABEL_WEIGHTS.items())}.",
)
@FILL
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed for the sampling of the affine alignment.")
@click.option("--threads", default=1, show_default=True, type=THREADS, help="Threads of torch and ITK.")
@click.option("--strict", is_flag=True, help=f"Exit with status {NOT_CREDIBLE} if the verdict is 'failed'.")
def register(
    fixed,
    moving,
    output,
    method,
    settings,
    amount,
    further_fixed,
    further_moving,
    weights,
    fixed_labels,
    moving_labels,
    label_weight,
    seed,
    threads,
    strict,
    fill,
    **options,
) -> None:
    """Register MOVING to FIXED.

    A trained hypernetwork (hypermorph, hypertransmorph, hyperspr) registers with the hyperparameters tuned by its
    study, unless --lambda or --set (window, gamma, alpha, ...) gives others.  With synthmorph, they are settings of the
    descent that follows the network (those of refine); --set iterations=0 is the network alone.

    Writes warped.nii.gz, displacement.nii.gz, inverse.nii.gz (if the method provides one), the first alignment
    alone (affine.mat for ITK programs, affine.txt) and register.json to the output folder. All results of an
    earlier registration in it are replaced, as one, when the new ones are complete; other files in it stay.

    Prints a verdict on the result: ok, doubtful or failed, with the reasons and what to do.  It compares the images in
    many other poses, whatever their contrasts, and looks at the field.
    """
    _check_fill(fill)
    chosen = _parse(settings)
    if amount is not None:
        if "lambda" in chosen:
            raise InputError("--lambda and --set lambda=… are the same setting; give only one")
        chosen["lambda"] = amount
    _settle(threads)
    from regcore.commands.guides import Guides
    from regcore.commands.register import register_files
    from regcore.commands.remedies import explained
    from regcore.commands.scans import PairOptions
    from regcore.evaluation.verdict import FAILED

    guides = Guides(further_fixed, further_moving, weights or (), fixed_labels, moving_labels, label_weight)
    report = register_files(fixed, moving, output, method, chosen, PairOptions(**options), seed, fill, guides)
    for note in report["notes"]:
        click.echo(f"note: {note}", err=True)
    if report["choices"]:
        known = {name.replace("_", " "): value for name, value in report["choices"].items() if value is not None}
        click.echo("chosen: " + ", ".join(f"{name} {value}" for name, value in known.items()))
    level = report["verdict"]["level"]
    click.echo(f"{output}: {level}, folds {report['folds_percent']:.3f} %, {sum(report['seconds'].values()):.1f} s")
    for line in explained(report["verdict"]):
        click.echo(line)
    if strict and level == FAILED:
        sys.exit(NOT_CREDIBLE)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("cohort", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--split", default="validation", show_default=True, help="Split to draw the pairs from.")
@click.option("--pairs", default=20, show_default=True, type=click.IntRange(min=1), help="Number of pairs to draw.")
@click.option(
    "--contrasts",
    nargs=2,
    multiple=True,
    metavar="FIXED MOVING",
    help="Contrasts of the pairs; repeatable, --pairs pairs of each.  Required if the split has several contrasts.",
)
@click.option(
    "--pair-table",
    type=click.Path(path_type=Path),
    help="Use the pairs in this table (columns fixed and moving: scans or subjects) instead of drawing pairs.",
)
@click.option("--labels", multiple=True, metavar="CODES", help="Score only this label or range (1-35); repeatable.")
@click.option(
    "--per",
    type=click.Choice(["label", "pair", "dataset", "task", "contrasts"]),
    help="Also find the best values separately for each of these.",
)
@click.option("--points", type=click.IntRange(2, MOST_POINTS), help="Values of each hyperparameter in the sweep.")
@click.option(
    "--seed", default=0, show_default=True, type=SEED, help="Seed for the pairs, the alignments and the resampling."
)
@click.option("--threads", default=1, show_default=True, type=THREADS, help="Threads of torch and ITK.")
def tune(model, cohort, output, split, pairs, contrasts, pair_table, labels, per, points, seed, threads) -> None:
    """Find the best hyperparameters of a hypernetwork MODEL for the labelled scans of a COHORT, without any training.

    MODEL is a folder (results/<study>/models/<name>).  COHORT is a tab-separated table with the columns subject,
    session, split, contrast, image and labels; paths are relative to it.  Scans are prepared as by regcore register.

    Writes curve.csv and curve.png (Dice at every point of a sweep) and tuned.json to the output folder, and with --per
    groups.csv.  All results of an earlier tuning in it are replaced, as one; other files in it stay.
    """
    _settle(threads)
    from regcore.commands.tune import summary, tune_model

    found = tune_model(
        model,
        cohort,
        output,
        split=split,
        pairs=pairs,
        contrasts=contrasts,
        pair_table=pair_table,
        labels=labels,
        per=per,
        points=points,
        seed=seed,
    )
    click.echo(summary(found))


@main.command(epilog=CONVENTIONS)
@click.argument("transform", type=click.Path(path_type=Path))
@click.argument("moving", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The warped image (NIfTI).")
@click.option("--labels", is_flag=True, help="MOVING is a label map: nearest neighbour, the same labels, 0 outside.")
@FILL
@click.option("--fixed", type=click.Path(path_type=Path), help="For a matrix: the image whose grid the result gets.")
@MATRIX_FORMAT
def apply(transform, moving, output, labels, fill, fixed, matrix_format) -> None:
    """Warp MOVING, which may be on any grid, with a TRANSFORM: a displacement (NIfTI) or a matrix.

    The result is on the grid of the displacement, that is, of the fixed image.  A matrix, such as affine.mat, has no
    grid: give the fixed image with --fixed.
    """
    _check_suffix(output)
    _check_fill(fill)
    if labels and fill is not None:
        raise InputError("--fill: label maps are 0 outside; leave out --fill or --labels")
    from regcore.commands.apply import read_transform
    from regcore.images.volume import read_labels, read_volume
    from regcore.process.outputs import require_writable

    field = read_transform(transform, moving, fixed, matrix_format)
    require_writable(output, 4 * math.prod(field.grid.shape), [transform, moving])
    image = read_labels(moving) if labels else read_volume(moving)
    field.warp(image, nearest=labels, fill=fill).save(output)


@main.command(epilog=CONVENTIONS)
@click.argument("displacement", type=click.Path(path_type=Path))
@click.argument("fixed_labels", type=click.Path(path_type=Path))
@click.argument("moving_labels", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="CSV file; default: print to the screen.")
def evaluate(displacement, fixed_labels, moving_labels, output) -> None:
    """Score a DISPLACEMENT: Dice and surface distances of every label, folds, spread of the Jacobian.

    The columns are label, metric and value; label -1 marks measures of the whole field.
    """
    from regcore.cohort.labels import found_labels, scored_labels
    from regcore.cohort.settings import LabelSettings
    from regcore.evaluation.evaluate import evaluate_field
    from regcore.images.field import read_field
    from regcore.images.volume import read_labels
    from regcore.process.files import atomic_write
    from regcore.process.outputs import require_writable

    if output is not None:
        require_writable(output, inputs=[displacement, fixed_labels, moving_labels])
    field, fixed, moving = read_field(displacement), read_labels(fixed_labels), read_labels(moving_labels)
    _same_dimensions(displacement, field.grid.ndim, moving_labels, moving.grid.ndim)
    labels = scored_labels(found_labels([fixed.data, moving.data]), LabelSettings(), None)
    table = evaluate_field(field, fixed, moving, labels["index"].tolist())
    if output is None:
        click.echo(table.to_csv(index=False), nl=False)
        return
    with atomic_write(output) as path:
        table.to_csv(path, index=False)


@main.command()
@click.argument("architectures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The figure (PNG).")
def draw(architectures, output) -> None:
    """Draw ARCHITECTURES of AutoReg side by side.

    Each is an architecture file, the folder of a search (results/<study>/architectures/<name>), or a trained model.
    """
    if output.suffix != ".png":
        raise InputError(f"{output}: the output must end in .png")
    from regcore.autoreg.search import read_found
    from regcore.process.outputs import require_writable
    from regcore.reporting.architectures import headings, side_by_side
    from regcore.reporting.figures import save_figure

    require_writable(output)
    found = [read_found(path, "regcore draw") for path in architectures]
    save_figure(side_by_side(dict(zip(headings(architectures), found, strict=True))), output)


@main.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: a GPU if there is one.")
@click.option("--size", nargs=3, type=click.IntRange(8, LONGEST_EDGE), help="Size of the timed volumes in voxels.")
@click.option("--threads", default=1, show_default=True, type=THREADS, help="Threads on a CPU.")
def doctor(device, size, threads) -> None:
    """List the kernels, whether each runs on this machine, how it agrees with its reference, and how fast it is."""
    import torch

    from regcore.commands.doctor import report
    from regcore.process.devices import default_device
    from regcore.process.threads import tune_process

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: torch {torch.__version__} finds no GPU")
    tune_process(threads)
    text, healthy = report(torch.device(device) if device else default_device(), size)
    click.echo(text)
    if not healthy:
        click.echo("regcore: a kernel disagrees with its reference", err=True)
        sys.exit(1)


def _settle(threads: int) -> None:
    import os

    from regcore.images.ants import THREADS_VARIABLE
    from regcore.process.threads import tune_process

    os.environ[THREADS_VARIABLE] = str(threads)
    tune_process(threads)


def _parse(settings: tuple[str, ...]) -> dict:
    import yaml

    parsed = {}
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InputError(f"--set {item}: write KEY=VALUE")
        if key in parsed:
            raise InputError(f"--set {item}: {key} is set twice; give it once")
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {item}: not a value; write a number, a word or [a, list]") from error
    return parsed


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_suffix(path: Path) -> None:
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: the output must end in .nii or .nii.gz")


def _check_fill(fill: float | None) -> None:
    if fill is not None and not math.isfinite(fill):
        raise InputError(f"--fill {fill}: must be a finite number, because regcore reads no image with NaN or infinity")


def _same_dimensions(first: Path, first_ndim: int, second: Path, second_ndim: int) -> None:
    if first_ndim != second_ndim:
        raise InputError(
            f"{first} is {first_ndim}-D and {second} is {second_ndim}-D; both must have the same number of dimensions"
        )


if __name__ == "__main__":
    sys.exit(main())
