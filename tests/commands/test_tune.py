"""Tuning a hypernetwork on a cohort: models whose dependence on the hyperparameters is known."""

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter

from regcore.alignment.preprocess import Scan
from regcore.alignment.settings import PreprocessSettings
from regcore.cohort.table import read_cohort
from regcore.commands import tune as cohort_module
from regcore.commands.cli import main
from regcore.commands.scans import prepare_for
from regcore.commands.tune import tune_model
from regcore.errors import InputError
from regcore.images.field import read_field
from regcore.images.volume import Grid, Volume, read_volume
from regcore.methods import make_method
from regcore.models.trained import load_model, save_model
from regcore.training.trainer import Trained
from regcore.tuning.amortised import tune

SHAPE = (32, 48)
#: How far (voxels) the models move the image along each axis where all hyperparameters are 1.
REACH = (10.0, 8.0)
PREPROCESS = PreprocessSettings(affine="centre")
GRID = Grid.centred(SHAPE, (1, 1), (0, 0))


def square(corner, value=1):
    """A label map with a square of 12 voxels, of which another label fills the middle."""
    data = np.zeros(SHAPE, np.int16)
    x, y = corner
    data[x : x + 12, y : y + 12] = value
    data[x + 4 : x + 8, y + 4 : y + 8] = value + 1
    return data


def save_scan(folder, name, labels):
    Volume(labels, GRID).save(folder / f"{name}_labels.nii.gz")
    Volume(gaussian_filter(labels.astype("f4"), 1), GRID).save(folder / f"{name}.nii.gz")


def moving_model(prior):
    """A hypernetwork whose flow is, everywhere, hyperparameter times :data:`REACH` along the axis of its place."""
    count = len(prior)
    settings = {"prior": prior, "hidden": [count], "final": "relu", "flow": "displacement", "similarity": "mse"}
    if "gamma" in prior:
        settings["observed"] = "all"
    method = make_method("hypermorph", settings)
    network = method.build(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.mlp[0].weight.copy_(torch.eye(count))
        *_, last = network.generated  # the bias of the flow's convolution, at half resolution
        assert network.shapes[-1] == (2,), last
        for place in range(count):
            steps = SHAPE[place] - 1, SHAPE[place] // 2 - 1  # the corners of both grids coincide
            network.weights.weight[network.count - 2 + place, place] = REACH[place] * steps[1] / steps[0]
    method.module = network.eval()
    return method


def save(folder, name, method):
    trained = Trained(method.module.state_dict(), [], {})
    save_model(folder, name, method, trained, read_volume(folder.parent / "a0.nii.gz"), GRID, PREPROCESS)


SCANS = [
    # subject, split, contrast, dataset, corner of the square
    ("a0", "validation", "T1w", "A", (4, 10)),
    ("a1", "validation", "T1w", "A", (7, 10)),
    ("a2", "validation", "T1w", "A", (10, 10)),
    ("b0", "test", "T1w", "B", (4, 10)),
    ("b1", "test", "T1w", "B", (11, 16)),
    ("c0", "train", "T1w", "A", (4, 10)),
    ("c1", "train", "T2w", "B", (8, 10)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort, two models that move the image by their hyperparameters, and one without a hypernetwork."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tune")
    rows = []
    for subject, split, contrast, dataset, corner in SCANS:
        save_scan(folder, subject, square(corner))
        files = {"image": f"{subject}.nii.gz", "labels": f"{subject}_labels.nii.gz"}
        row = {"subject": subject, "session": "1", "split": split, "contrast": contrast, "dataset": dataset}
        rows.append({**row, **files})
    pd.DataFrame(rows).to_csv(folder / "cohort.tsv", sep="\t", index=False)
    pairs = [("a0", "a1"), ("a1", "a2"), ("b0", "b1")]  # moved by 3, 3 and 7 voxels; the last also by 6 across
    pd.DataFrame(pairs, columns=["fixed", "moving"]).to_csv(folder / "pairs.tsv", sep="\t", index=False)
    save(folder / "hyper", "hypermorph", moving_model({"lambda": [0, 1]}))
    save(folder / "hyper2", "hypermorph", moving_model({"lambda": [0, 1], "gamma": [0, 1]}))
    torch.manual_seed(0)
    fixed = make_method("voxelmorph", {"lambda": 0.25})
    fixed.module = fixed.build(2)
    save(folder / "fixed", "voxelmorph", fixed)
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def quick(monkeypatch):
    """The gradient from one start alone, for tests of other things."""
    monkeypatch.setattr(cohort_module, "tune", partial(tune, starts=1))


@pytest.fixture(scope="module")
def tuned(folder):
    """The command on listed pairs, per dataset: its output, and the folder that it wrote."""
    out = folder / "out"
    options = ["--pair-table", folder / "pairs.tsv", "--per", "dataset", "--points", 21]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort_module, "tune", partial(tune, starts=1))
        result = run("tune", folder / "hyper", folder / "cohort.tsv", "-o", out, *options)
    assert result.exit_code == 0, result.output
    return result.output, out


@pytest.mark.slow
def test_lambda_is_where_the_known_shift_is(tuned):
    """3 of 10 voxels in dataset A; in B 7, but 6 across that no λ undoes."""
    report = json.loads((tuned[1] / "tuned.json").read_text())
    groups = {name: found["values"]["lambda"] for name, found in report["groups"].items()}
    assert set(groups) == {"A", "B"}
    # Nearest neighbour makes steps one voxel wide.
    assert groups["A"] == pytest.approx(0.3, abs=0.051) and groups["B"] == pytest.approx(0.7, abs=0.051)
    assert report["groups"]["A"]["dice"] == 1 > report["groups"]["B"]["dice"]
    assert [report["groups"][name]["pairs"] for name in "AB"] == [2, 1]


@pytest.mark.slow
def test_the_gradient_finds_the_shift_between_the_points_of_any_grid(folder, tmp_path):
    (tmp_path / "pairs.tsv").write_text("fixed\tmoving\na0\ta1\n")
    options = {"pair_table": tmp_path / "pairs.tsv", "points": 3}
    report = tune_model(folder / "hyper", folder / "cohort.tsv", tmp_path / "out", **options)
    assert report["gradient"]["values"]["lambda"] == pytest.approx(0.3, abs=0.005)
    assert report["gradient"]["overlap"] == pytest.approx(1, abs=0.02)
    assert report["settings_swept"] == 3 and report["best"]["values"]["lambda"] == 0.5


def test_what_is_printed_is_the_best_of_the_written_curve(tuned):
    printed, out = tuned
    curve = pd.read_csv(out / "curve.csv")
    assert list(curve) == ["lambda", "mean", "sd"] and len(curve) == 21
    best = curve.loc[curve["mean"].idxmax()]
    first, second, *groups = [line for line in printed.splitlines() if "regcore:" not in line]
    assert first.startswith(f"lambda* = {best['lambda']:.3g} (95 % of resampled pairs: ")
    ends = f"at ends 0: {curve['mean'].iloc[0]:.3f}, 1: {curve['mean'].iloc[-1]:.3f}"
    assert f"; mean Dice {best['mean']:.3f}, {ends}; 3 pairs, " in first
    assert second.startswith("the gradient of the overlap leads to lambda = ")
    by_group = pd.read_csv(out / "groups.csv")
    for line, name in zip(groups, "AB", strict=True):
        own = by_group[by_group["dataset"] == name]
        assert line.startswith(f"{name}: lambda* = {own.loc[own['mean'].idxmax(), 'lambda']:.3g}")
    assert "resampled" in groups[0] and "resampled" not in groups[1]  # of one pair there is nothing to draw


def test_the_report_says_what_it_was_made_of(tuned, folder):
    report = json.loads((tuned[1] / "tuned.json").read_text())
    assert report["model"] == str(folder / "hyper") and report["cohort"] == str(folder / "cohort.tsv")
    assert [pair["pair"] for pair in report["pairs"]] == [
        "a0_1_T1w--a1_1_T1w",
        "a1_1_T1w--a2_1_T1w",
        "b0_1_T1w--b1_1_T1w",
    ]
    assert report["labels"] == [1, 2] and report["stored"] == {"lambda": None}
    assert set(report["seconds"]) == {"prepare", "tune", "sweep", "total"} and "torch" in report["versions"]
    assert {path.name for path in tuned[1].iterdir()} == {"curve.csv", "curve.png", "groups.csv", "tuned.json"}
    assert Image.open(tuned[1] / "curve.png").size > (400, 300)
    assert not list(Path(tempfile.gettempdir()).glob("regcore-tune-*"))


@pytest.mark.slow
def test_progress_is_told(folder, tmp_path, caplog, quick):
    with caplog.at_level("INFO", logger="regcore"):
        tune_model(folder / "hyper", folder / "cohort.tsv", tmp_path, pairs=2, points=2)
    assert [m.split()[0] for m in caplog.messages].count("swept") == 2
    assert sum(m.startswith("prepared ") for m in caplog.messages) >= 2


def test_drawn_pairs_are_of_the_split_and_of_different_subjects(folder):
    cohort = read_cohort(folder / "cohort.tsv")
    drawn = [cohort_module._drawn(cohort, "validation", [], 4, seed) for seed in (1, 1, 2)]
    for table in drawn:
        subjects = [[cohort.table.at[scan, "subject"] for scan in pair] for pair in table[["fixed", "moving"]].values]
        assert len(subjects) == 4 and all(a != b and {a, b} <= {"a0", "a1", "a2"} for a, b in subjects)
    assert drawn[0].equals(drawn[1]) and not drawn[0].equals(drawn[2])


@pytest.mark.slow
def test_contrasts_and_labels_are_those_that_are_wanted(folder, tmp_path, quick):
    options = ["--split", "train", "--contrasts", "T1w", "T2w", "--labels", "2-9", "--points", 3]
    result = run("tune", folder / "hyper", folder / "cohort.tsv", "-o", tmp_path, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "tuned.json").read_text())
    assert [(pair["fixed"], pair["moving"]) for pair in report["pairs"]] == [("c0_1_T1w", "c1_1_T2w")]
    assert report["labels"] == [2]
    assert "sd" in (tmp_path / "curve.csv").read_text() and "; 1 pair, " in result.output


@pytest.mark.slow
@pytest.mark.parametrize("per", ["label", "pair", "task", "contrasts"])
def test_each_grouping_names_its_groups(folder, tmp_path, quick, per):
    (tmp_path / "pairs.tsv").write_text("fixed\tmoving\na0\ta1\nc0\tc1\n")
    options = {"pair_table": tmp_path / "pairs.tsv", "points": 2, "per": per}
    report = tune_model(folder / "hyper", folder / "cohort.tsv", tmp_path / "out", **options)
    assert (
        list(report["groups"])
        == {
            "label": ["label 1", "label 2"],
            "pair": ["a0_1_T1w--a1_1_T1w", "c0_1_T1w--c1_1_T2w"],
            "task": ["across"],
            "contrasts": ["T1w to T1w", "T2w to T1w"],
        }[per]
    )


@pytest.mark.slow
def test_two_hyperparameters_are_found_together(folder, tmp_path, quick):
    (tmp_path / "pairs.tsv").write_text("fixed\tmoving\nb0\tb1\n")
    options = ["--pair-table", tmp_path / "pairs.tsv", "--points", 11, "--per", "label"]
    result = run("tune", folder / "hyper2", folder / "cohort.tsv", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "tuned.json").read_text())
    assert report["best"]["values"] == {"lambda": pytest.approx(0.7), "gamma": pytest.approx(0.75, abs=0.06)}
    assert report["gradient"]["values"] == {
        "lambda": pytest.approx(0.7, abs=0.01),
        "gamma": pytest.approx(0.75, abs=0.01),
    }
    assert "gamma* = " in result.output and "at the worst setting" in result.output
    assert len(pd.read_csv(tmp_path / "out" / "curve.csv")) == 121


def edited(folder, target, **changes):
    """The cohort with other cells: ``subject__column=value``; paths are made absolute."""
    table = pd.read_csv(folder / "cohort.tsv", sep="\t", dtype=str, keep_default_na=False)
    for column in ("image", "labels"):
        table[column] = [str(folder / value) for value in table[column]]
    for cell, value in changes.items():
        subject, column = cell.split("__")
        if column not in table:
            table[column] = ""
        table.loc[table["subject"] == subject, column] = value
    table.to_csv(target, sep="\t", index=False)
    return target


def refused(*arguments):
    """The one message of a run that must fail."""
    result = run("tune", *arguments)
    assert result.exit_code == 2, result.output
    assert result.output.startswith("regcore: ") and result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "atlas"], ["cohort.tsv", "--split atlas", "no scan", "train"]),
        (["--split", "tset"], ["did you mean 'test'"]),
        (["--contrasts", "T1w", "T2w"], ["--contrasts T2w", "no validation scan", "T1w"]),
        (["--split", "train"], ["several contrasts (T1w, T2w)", "--contrasts FIXED MOVING"]),
        (["--split", "train", "--contrasts", "T2w", "T2w"], ["too few scans for a pair"]),
        (["--labels", "7-9"], ["--labels: none of these", "1 to 2"]),
        (["--labels", "left"], ["--labels: 'left' is neither"]),
        (["--pair-table", "none.tsv"], ["none.tsv: no such list of pairs"]),
    ],
)
def test_a_wrong_option_is_explained_before_any_work(folder, tmp_path, options, words):
    message = refused(folder / "hyper", folder / "cohort.tsv", "-o", tmp_path / "out", *options)
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


def test_a_model_or_cohort_that_does_not_fit_is_explained(folder, tmp_path):
    out = ["-o", tmp_path / "out"]
    message = refused(folder / "fixed", folder / "cohort.tsv", *out)
    assert "fixed: a model of the method voxelmorph has no hypernetwork" in message
    assert "not a model folder" in refused("syn", folder / "cohort.tsv", *out)
    assert "none.tsv: no such cohort table" in refused(folder / "hyper", "none.tsv", *out)
    bare = edited(folder, tmp_path / "bare.tsv", a1__labels="", a2__labels="")
    message = refused(folder / "hyper", bare, *out)
    assert "bare.tsv" in message and "a1_1_T1w has none, and 1 more" in message
    solid = Grid.centred((16, 16, 16), (1, 1, 1), (0, 0, 0))
    data = np.zeros(solid.shape, np.int16)
    data[4:9, 4:9, 4:9] = 1
    cells = {}
    for n in range(3):
        Volume(data + n * (data > 0), solid).save(tmp_path / f"solid{n}.nii.gz")
        cells |= {f"a{n}__{column}": str(tmp_path / f"solid{n}.nii.gz") for column in ("image", "labels")}
    message = refused(folder / "hyper", edited(folder, tmp_path / "solid.tsv", **cells), *out)
    assert "hyper: a 2-D model cannot register 3-D images" in message
    gone = edited(folder, tmp_path / "gone.tsv", a1__image=str(tmp_path / "gone.nii.gz"))
    assert "gone.nii.gz: no such file" in refused(folder / "hyper", gone, *out)
    other = edited(folder, tmp_path / "other.tsv", **{f"a{n}__dataset": "" for n in range(3)})
    assert "--per dataset: no pair" in refused(folder / "hyper", other, *out, "--per", "dataset")
    (tmp_path / "empty.tsv").write_text("fixed\tmoving\n")
    assert "has no pairs" in refused(folder / "hyper", other, *out, "--pair-table", tmp_path / "empty.tsv")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to_is_found_before_any_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("regcore.commands.tune._prepared", None)
    (tmp_path / "file").write_text("")
    for out, words in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "below", "cannot be written to")):
        assert f"{out}: {words}" in refused(folder / "hyper", folder / "cohort.tsv", "-o", out)


@pytest.mark.slow
def test_groups_of_an_earlier_tuning_do_not_stay_beside_a_new_one(folder, tmp_path, quick):
    arguments = ("tune", folder / "hyper", folder / "cohort.tsv", "-o", tmp_path / "out", "--pairs", 1, "--points", 2)
    for options, names in ((["--per", "label"], {"groups.csv"}), ([], set())):
        result = run(*arguments, *options)
        assert result.exit_code == 0, result.output
        found = {path.name for path in (tmp_path / "out").iterdir()}
        assert found == {"curve.csv", "curve.png", "tuned.json"} | names


def test_a_mask_counts_where_the_training_masked(folder, tmp_path):
    """Without it the bright margin would be what is brought to 1, and the square dark."""
    method = moving_model({"lambda": [0, 1]})
    trained = Trained(method.module.state_dict(), [], {})
    reference = read_volume(folder / "a0.nii.gz")
    save_model(
        tmp_path / "model", "hypermorph", method, trained, reference, GRID, PREPROCESS.with_values({"mask": True})
    )
    data, mask = read_volume(folder / "a1.nii.gz").data, np.ones(SHAPE, np.int16)
    data[:3], mask[:3] = 50, 0
    Volume(data, GRID).save(tmp_path / "bright.nii.gz")
    Volume(mask, GRID).save(tmp_path / "mask.nii.gz")
    files = {"a1__image": str(tmp_path / "bright.nii.gz"), "a1__mask": str(tmp_path / "mask.nii.gz")}
    cohort = read_cohort(edited(folder, tmp_path / "cohort.tsv", **files))
    pair = ("a0_1_T1w", "a1_1_T1w")
    labelled = cohort_module._prepared(load_model(tmp_path / "model"), cohort, pair, [pair], 0)
    image = labelled.images[pair[1]][0, 0].numpy()
    assert image[:3].max() == 0 and image[labelled.labels[pair[1]] == 2].min() > 0.5


def test_a_row_is_what_the_workflow_takes_for_one(folder, tmp_path):
    wrong = edited(folder, tmp_path / "cohort.tsv", a1__split="tests")
    with pytest.raises(InputError, match=r"cohort\.tsv, line \d+: split: 'tests' is not possible; did you mean 'test'"):
        tune_model(folder / "hyper", wrong, tmp_path / "out")


@pytest.mark.parametrize(("options", "amount"), [(["--lambda", 0.3], 0.3), (["--set", "lambda=0.7"], 0.7)])
def test_register_moves_as_far_as_lambda_says(folder, tmp_path, options, amount):
    images = folder / "a0.nii.gz", folder / "a1.nii.gz"
    result = run("register", *images, "-o", tmp_path, "--method", folder / "hyper", *options)
    assert result.exit_code == 0, result.output
    field = read_field(tmp_path / "displacement.nii.gz").displacement
    assert field[0, 0, 8:-8, 8:-8].numpy() == pytest.approx(amount * REACH[0], abs=1e-3)
    assert field[0, 1].abs().max() < 1e-3
    assert json.loads((tmp_path / "register.json").read_text())["settings"]["lambda"] == amount


def test_a_model_without_a_reference_prepares_no_scan(folder):
    model = replace(load_model(folder / "hyper"), space=None)
    with pytest.raises(InputError, match="hypermorph has no reference image"):
        prepare_for(model, Scan(read_volume(folder / "a0.nii.gz")), seed=0)


def test_register_takes_every_hyperparameter(folder, tmp_path):
    images = folder / "b0.nii.gz", folder / "b1.nii.gz"
    options = ["--lambda", 0.7, "--set", "gamma=0.75"]
    result = run("register", *images, "-o", tmp_path, "--method", folder / "hyper2", *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "register.json").read_text())
    measures = report["verdict"]["measures"]
    assert report["settings"]["gamma"] == 0.75 and measures["likeness"] > measures["likeness_start"]


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("fixed", ["--lambda", 0.3], "a model of the method voxelmorph: its settings were fixed in"),
        ("fixed", ["--set", "gamma=0.3"], "--lambda and --set have no effect"),
        ("hyper", ["--lambda", 1.5], "hyper: lambda = 1.5 lies outside [0, 1], the range of training"),
        ("hyper", ["--lambda", "nan"], "lambda = nan lies outside"),
        ("hyper", ["--set", "window=7"], "no hyperparameter 'window'; known are: lambda"),
        ("hyper2", ["--set", "gama=0.3"], "no hyperparameter 'gama'; did you mean 'gamma'?"),
        ("hyper", ["--set", "lambda=much"], "lambda must be a number, not 'much'"),
        ("hyper", ["--lambda", 0.3, "--set", "lambda=0.3"], "give only one"),
        ("hyper", [], "hyper: the model is not tuned: no value for lambda"),
        ("hyper2", ["--lambda", 0.3], "hyper2: the model is not tuned: no value for gamma"),
    ],
)
def test_a_hyperparameter_that_cannot_be_had_is_explained(folder, tmp_path, model, options, words):
    images = folder / "a0.nii.gz", folder / "a1.nii.gz"
    result = run("register", *images, "-o", tmp_path / "out", "--method", folder / model, *options)
    assert result.exit_code == 2
    assert words in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()
