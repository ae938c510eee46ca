"""Searches in the workflow, for hyperparameters and for architectures: one small study has both."""

import re
import shutil
from pathlib import Path

import pytest
from support.marks import marks_its_tests
from support.snakemake import snakemake
from support.studies import small_study

from regcore.autoreg.search import FOUND

RESULTS = Path("results", "discs")
CELLS = {"method": "autoreg", "steps": 4, "validate_every": 2, "learning_rate": 0.01}
CELL_SEARCH = {
    **{"what": ["feature"], "epoch": 2, "warmup": 1, "epochs": 2, "learning_rate": 0.01},
    **{"architecture_rate": 0.1, "objective_rate": 0.1},
}
UNET = {"method": "voxelmorph", "steps": 12, "validate_every": 2, "learning_rate": 0.01}
LAMBDA = {"ranges": {"lambda": [0.01, 1]}, "workers": 2, "warmup": 1, "startup_trials": 2}
#: What the two kinds of searches lead to.
OF_CELLS = (RESULTS / "figures" / "architecture_ar.png", RESULTS / "models" / "ar", RESULTS / "models" / "moved")
OF_VALUES = (RESULTS / "figures" / "search_vm.png",)


def config(folder, trials=2):
    return {
        "study": "discs",
        "cohort": {"table": str(folder / "cohort.tsv")},
        "preprocess": {"affine": "none", "shape": [32, 32]},
        "methods": {
            "ar": {**CELLS, "channels": 2, "autosearch": CELL_SEARCH},
            "moved": {**CELLS, "autosearch": {"start": "ar", "what": []}},
            "vm": {**UNET, "tune": {**LAMBDA, "trials": trials}},
        },
    }


@pytest.fixture(scope="module")
@marks_its_tests("workflow")
def searched(tmp_path_factory):
    """A study in which every search has ended."""
    folder = tmp_path_factory.mktemp("study")
    small_study(folder, {"identity": None})
    done = snakemake(folder, "--cores", "2", *OF_CELLS, *OF_VALUES, config=config(folder))
    assert done.returncode == 0, done.output
    return folder


def planned(folder, *targets, **changes):
    """Jobs of another run, by rule."""
    done = snakemake(folder, "-n", "--cores", "2", *targets, config=config(folder, **changes))
    assert done.returncode == 0, done.output
    return dict(re.findall(r"^(\w+) +(\d+)$", done.output, flags=re.MULTILINE)), done.output


def test_a_finished_search_has_nothing_to_do(searched):
    _, output = planned(searched, *OF_CELLS, *OF_VALUES)
    assert "Nothing to be done" in output


def test_an_edited_architecture_is_trained_anew_also_where_another_entry_begins_from_it(searched, tmp_path):
    file = searched / RESULTS / "architectures" / "ar" / FOUND
    shutil.copy2(file, tmp_path)
    file.write_text(file.read_text().replace("3-Conv", "1-Conv"))
    counts, _ = planned(searched, *OF_CELLS)
    shutil.copy2(tmp_path / FOUND, file)
    assert counts["train"] == "2" and counts["architecture"] == "1", "the search of 'moved' alone is done again"


def test_one_more_trial_is_run_alone(searched):
    counts, _ = planned(searched, *OF_VALUES, trials=3)
    assert counts["trial"] == "1" and counts["search"] == "1" and "train" not in counts
