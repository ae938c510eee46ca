"""The example of docs/new-method.md: its own package, which a study and the command find by its entry point."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from support.paths import ROOT
from support.snakemake import regcore_command, snakemake

from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import Grid, Volume, read_volume

PAGE, EXAMPLE = ROOT / "docs" / "new-method.md", ROOT / "docs" / "examples" / "new-method"
GRID = Grid.centred((32, 32), (1, 1), (0, 0))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the example is installed into, without a network."""
    folder, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("source") / "example"
    shutil.copytree(EXAMPLE, source)  # setuptools leaves files in the folder that it builds from
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, cwd=folder)
    return folder


@pytest.fixture
def known(installed, monkeypatch):
    """Processes that are started know the installed example."""
    monkeypatch.setenv("PYTHONPATH", f"{installed}:{ROOT}")


def write_discs(folder):
    """A cohort of discs of different sizes, each its own: two scans in each split."""
    distance = np.linalg.norm(np.moveaxis(np.indices(GRID.shape), 0, -1) - 15.5, axis=-1)
    rows = []
    for number, split in enumerate(["train"] * 2 + ["validation"] * 2 + ["test"] * 2):
        radius = 8 + number % 2 * 2 + number // 2 * 0.25
        Volume(1 / (1 + np.exp(distance - radius)).astype("f4"), GRID).save(folder / f"s{number}.nii.gz")
        Volume((distance < radius).astype(np.int16), GRID).save(folder / f"s{number}_seg.nii.gz")
        rows.append((f"s{number}", "1", split, "T1w", f"s{number}.nii.gz", f"s{number}_seg.nii.gz"))
    columns = ["subject", "session", "split", "contrast", "image", "labels"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "cohort.tsv", sep="\t", index=False)


def test_the_page_shows_the_example():
    page = PAGE.read_text()
    for name in ("descent_registration.py", "pyproject.toml"):
        assert (EXAMPLE / name).read_text() in page, name


@pytest.mark.slow
def test_the_example_registers_two_files(known, tmp_path):
    write_discs(tmp_path)
    fixed, moving = tmp_path / "s4.nii.gz", tmp_path / "s5.nii.gz"
    done = regcore_command(tmp_path, "register", fixed, moving, "--method", "descent", "--set", "steps=60", "-o", "out")
    assert done.returncode == 0, done.output
    field = read_field(next((tmp_path / "out").glob("*displacement*.nii.gz")))
    target, source = read_volume(fixed), read_volume(moving)
    before = np.square(source.data - target.data).mean()
    assert np.square(field.warp(source).data - target.data).mean() < 0.2 * before


@pytest.mark.workflow
def test_the_example_runs_in_a_study_beside_imported_fields(known, tmp_path):
    write_discs(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "pairs.tsv").write_text("fixed\tmoving\tfield\ns4\ts5\ta.nii.gz\ns5\ts4\ta.nii.gz\n")
    DisplacementField.identity(GRID).save(tmp_path / "theirs" / "a.nii.gz")
    config = {
        "study": "mine",
        "cohort": {"table": "cohort.tsv"},
        "preprocess": {"affine": "none", "shape": [32, 32]},
        "methods": {
            "theirs": {"method": "imported", "folder": "theirs"},
            "descent": {"steps": 60},
            "rigid": {"method": "descent", "steps": 60, "lambda": 100},
        },
        "evaluation": {"spotlight": ["descent"]},
    }
    done = snakemake(tmp_path, "--cores", "2", config=config)
    assert done.returncode == 0, done.output
    summary = pd.read_csv(tmp_path / "results" / "mine" / "tables" / "summary.csv", index_col="method")
    assert (summary["pairs"] == 2).all() and (summary["failed"] == 0).all()
    assert summary.loc["descent", "dice_mean"] > summary.loc["theirs", "dice_mean"] + 0.05
    assert summary.loc["descent", "dice_mean"] > summary.loc["rigid", "dice_mean"] + 0.05
