"""Dice of the released models' fields, and of descents from them, on training pairs of the real cohorts.

    python benchmarks/descent.py lncc=0.5,1,2 mind=0.1,0.2 --output docs/results/synthmorph/descent.csv
    python benchmarks/descent.py --summary --output docs/results/synthmorph/descent.csv
    python benchmarks/descent.py lncc=2 mind=0.2 --cost

A descent runs to the largest of ``--iterations`` and is looked at after each of them; its results do not depend on how
far it goes.  Dice is measured on the grid of the registration.  Zero iterations are the network alone, and ``affine``
is what it starts from.  What is in the output is not repeated.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from capture import sources
from scipy.ndimage import binary_closing, binary_dilation

from regcore.alignment.prepared import Prepared
from regcore.alignment.preprocess import Scan
from regcore.alignment.resampling import resample
from regcore.commands.scans import prepared_pair
from regcore.evaluation.regularity import folds
from regcore.images.volume import Volume
from regcore.methods.base import Registration, as_registration, as_tensor
from regcore.methods.refine import Refine
from regcore.methods.registration import register_scans
from regcore.models.released import released_model
from regcore.models.trained import Model, load_model
from regcore.process.files import atomic_write
from regcore.process.threads import tune_process
from regcore.training.validation import LabelledPairs

#: Voxels of a brain's grid along its longest axis: about 2 mm, to measure many settings.
VOXELS = 90
#: Settings of a descent that differ between rows; an empty one has its default.
SETTINGS = ("similarity", "lambda", "window", "step")


@dataclass(frozen=True)
class Task:
    """Pairs of one kind: ``moving`` onto ``fixed``, by the name of their scans."""

    name: str
    ndim: int
    pairs: list[tuple[str, str]]


def tasks(pairs: int) -> list[Task]:
    """As many pairs of each kind, only of training subjects."""
    brains, crops, slices = (sources.subjects(c, "train") for c in ("oasis-brains", "hippocampus", "brain-slices"))
    onto_average = [f"oasis-brains:{brain}:T1w" for brain in brains[-pairs:]]
    return [
        Task("brains T1w", 3, _between("oasis-brains", brains, pairs)),
        *(
            Task(f"brains T1w to {contrast}", 3, [(f"avg152:avg:{contrast}", brain) for brain in onto_average])
            for contrast in ("T2w", "PDw")
        ),
        Task("hippocampi", 3, _between("hippocampus", crops, pairs)),
        Task("slices", 2, _between("brain-slices", slices, pairs)),
    ]


def _between(cohort: str, subjects: list[str], pairs: int) -> list[tuple[str, str]]:
    """Pairs of subjects, each in one pair if there are enough."""
    half = len(subjects) // 2
    return [(f"{cohort}:{subjects[i % half]}:T1w", f"{cohort}:{subjects[half + i % half]}:T1w") for i in range(pairs)]


class Watched(Refine):
    """A refinement whose displacement is kept after some numbers of iterations."""

    def watch(self, iterations: list[int]) -> None:
        self.counts, self.found = iterations, dict[int, torch.Tensor]()

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        start, images = self._known_start(), [as_tensor(volume) for volume in (fixed, moving)]
        with torch.no_grad():
            flow = start.refinable(start.predict(start.network, *images))
            for number, (_, current) in enumerate(self.descent(flow, *images)):
                flow = current
                if number in self.counts:
                    self.found[number] = start.displacement(flow, images[0])
            return as_registration(*start.displacements(flow, images[0]), fixed, moving)


def brain_of(name: str) -> tuple[Scan, Volume]:
    """A scan and its labels; of a whole head, only the brain."""
    scan = sources.load(name)
    image = scan.image
    if name.startswith("avg152"):
        labels = resample(scan.labels, image.grid, np.eye(4), nearest=True).data > 0
        # Labels leave out most of the fluid around and between them.
        brain = binary_dilation(binary_closing(labels, iterations=4), iterations=1)
        image = image.with_data(np.where(brain, image.data, 0).astype(np.float32))
    return Scan(image), scan.labels


def prepared(model: Model, names: tuple[str, str]) -> tuple[tuple[Prepared, Prepared], LabelledPairs]:
    """Both scans as the command prepares them for the model, and their labels on the same grid."""
    (fixed, fixed_labels), (moving, moving_labels) = map(brain_of, names)
    scans = prepared_pair(fixed, moving, model, "auto", None, seed=0)
    grid = scans[0].image.grid
    labels = {
        name: resample(one, grid, scan.to_native, nearest=True).data
        for name, one, scan in zip(names, (fixed_labels, moving_labels), scans, strict=True)
    }
    return scans, LabelledPairs([names], {}, labels)


def measure(task: Task, names: tuple[str, str], descents: list[dict[str, Any]], iterations: list[int]) -> list[dict]:
    """Rows of one pair, with the columns of the table."""
    model = released(task.ndim)
    scans, labelled = prepared(model, names)
    codes = sorted(set(np.unique(labelled.labels[names[0]])) & set(np.unique(labelled.labels[names[1]])) - {0})
    rows: list[dict] = []

    def add(chosen: dict[str, Any], count: int, displacement: torch.Tensor) -> None:
        dice = round(float(np.nanmean(labelled.dice(names, displacement, codes))), 4)
        facts = {"dice": dice, "folds_percent": round(folds(displacement), 4)}
        rows.append({"task": task.name, "pair": " ".join(names), **chosen, "iterations": count, **facts})
        print(*rows[-1].values(), flush=True)

    shape = scans[0].image.grid.shape
    add(dict.fromkeys(SETTINGS, "") | {"similarity": "affine"}, 0, torch.zeros(1, task.ndim, *shape))
    for chosen in descents:
        method = Watched(settings_of(chosen, max(iterations)))
        method.start_from(model.method)
        method.watch([0, *iterations])
        register_scans(method, *scans)
        for count, displacement in method.found.items():
            add(chosen, count, displacement)
    return rows


def released(ndim: int) -> Model:
    folder = released_model("synthmorph", ndim)
    assert folder is not None
    model = load_model(folder)
    return replace(model, voxels=VOXELS) if ndim == 3 else model


def settings_of(chosen: dict[str, Any], iterations: int) -> dict[str, Any]:
    return {**{key: value for key, value in chosen.items() if value != ""}, "iterations": iterations}


def cost(task: Task, descents: list[dict[str, Any]], iterations: int = 8) -> None:
    """Print the CPU seconds of the network, and of one iteration of every descent, on a task's first pair."""
    model = released(task.ndim)
    images = [as_tensor(scan.image) for scan in prepared(model, task.pairs[0])[0]]

    def predicted() -> torch.Tensor:
        with torch.no_grad():
            return model.method.predict(model.method.network, *images)

    flow = predicted()
    before = time.process_time()
    predicted()
    said = [f"network {time.process_time() - before:.2f}"]
    for chosen in descents:
        method = Refine(settings_of(chosen, iterations))
        method.start_from(model.method)
        steps = method.descent(flow, *images)
        next(steps), next(steps)  # the first call compiles
        before = time.process_time()
        number = sum(1 for _ in steps)
        said.append(f"{chosen['similarity']} {(time.process_time() - before) / number:.3f}")
    print(task.name, "x".join(map(str, images[0].shape[2:])), *said, flush=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Points of Dice above the network alone on the same pairs, and the largest share of folds, per cent; by task."""
    keys = [*SETTINGS, "iterations"]
    alone = table[(table["iterations"] == 0) & (table["similarity"] != "affine")]
    alone = alone.groupby(["task", "pair"])["dice"].first().rename("alone")
    table = table.join(alone, on=["task", "pair"])
    table["points"] = 100 * (table["dice"] - table["alone"])
    by_task = table.groupby([*keys, "task"], sort=False).agg(
        points=("points", "mean"), pairs=("pair", "nunique"), folds=("folds_percent", "max")
    )
    return by_task.unstack("task").round(2)


def read(output: Path) -> pd.DataFrame:
    """The table, or one without rows; an empty setting has its default."""
    if not output.is_file():
        return pd.DataFrame(columns=["task", "pair", *SETTINGS])
    return pd.read_csv(output, dtype=dict.fromkeys(SETTINGS, str), keep_default_na=False)


def descent(text: str) -> list[dict[str, Any]]:
    name, _, weights = text.partition("=")
    name, *options = name.split(":")
    given: dict[str, Any] = {"window": "", "step": 0.1}
    given |= {key: float(value) if key == "step" else int(value) for key, value in (o.split("@") for o in options)}
    return [{"similarity": name, "lambda": float(weight), **given} for weight in weights.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("descents", nargs="*", type=descent, help="SIMILARITY[:window@N][:step@X]=LAMBDA,LAMBDA")
    parser.add_argument("--tasks", nargs="*", help="default: all")
    parser.add_argument("--pairs", type=int, default=4, help="of each task")
    parser.add_argument("--iterations", type=int, nargs="*", default=[25, 50, 100])
    parser.add_argument("--output", type=Path, help="CSV; rows are added")
    parser.add_argument("--summary", action="store_true", help="print the means of the output, and measure nothing")
    parser.add_argument("--cost", action="store_true", help="print the CPU seconds of an iteration on each first pair")
    arguments = parser.parse_args()
    if not (arguments.output or arguments.cost):
        parser.error("--output is needed, but with --cost")
    if arguments.summary:
        print(summary(read(arguments.output)).to_string())
        return
    tune_process(1)
    descents = [one for several in arguments.descents for one in several]
    for task in tasks(arguments.pairs):
        if arguments.cost:
            cost(task, descents)
            continue
        for names in task.pairs if arguments.tasks is None or task.name in arguments.tasks else []:
            table = read(arguments.output)
            known = set(table[["task", "pair", *SETTINGS]].itertuples(index=False, name=None))
            left = [one for one in descents if (task.name, " ".join(names), *map(str, one.values())) not in known]
            if left:
                rows = pd.DataFrame(measure(task, names, left, arguments.iterations))
                rows = pd.concat([table, rows]) if len(table) else rows
                with atomic_write(arguments.output) as path:  # the affine start of a known pair is measured again
                    rows.drop_duplicates(["task", "pair", *SETTINGS, "iterations"]).to_csv(path, index=False)


if __name__ == "__main__":
    main()
