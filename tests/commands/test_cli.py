"""The regcore command: its results, and one clear message for every bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from regcore.alignment.settings import PreprocessSettings
from regcore.commands import register as pairwise
from regcore.commands.cli import main
from regcore.commands.remedies import REMEDIES
from regcore.evaluation.verdict import LIMITS
from regcore.images.field import read_field
from regcore.images.volume import Grid, Volume, read_labels, read_volume
from regcore.methods import make_method
from regcore.models.trained import save_model
from regcore.training.trainer import Trained


def blob(shape, grid, centre_mm, radius_mm):
    """A smooth ball with a darker core, and its label map."""
    points = grid.to_world(np.moveaxis(np.indices(shape), 0, -1))
    distance = np.linalg.norm((points - centre_mm) / radius_mm, axis=-1)
    labels = (distance < 1).astype(np.int32) + (distance < 0.5)
    return gaussian_filter(labels.astype("f4") ** 0.5 * 100, 1), labels


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two balls of different size and place, on grids that differ in shape, spacing and orientation."""
    folder = tmp_path_factory.mktemp("pair")
    fixed_grid = Grid.centred((40, 44, 36), (1.5, 1.5, 1.5), (0, 0, 0))
    flipped = np.array([[0, -2.0, 0, 40], [1.2, 0, 0, -35], [0, 0, 2.0, -30], [0, 0, 0, 1]])
    moving_grid = Grid((56, 40, 32), flipped)
    for name, grid, centre, radius in (
        ("fixed", fixed_grid, (0, 0, 0), (18, 18, 18)),
        ("moving", moving_grid, (3, -2, 2), (21, 16, 18)),
    ):
        image, labels = blob(grid.shape, grid, centre, radius)
        Volume(image, grid).save(folder / f"{name}.nii.gz")
        Volume(labels, grid).save(folder / f"{name}_labels.nii.gz")
    return folder


def improved(verdict):
    measures = verdict["measures"]
    return measures["likeness"] > measures["likeness_start"]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def registered(pair):
    out = pair / "out"
    result = run(
        "register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", out, "--method", "syn",
        "--set", "iterations=[20, 10]", "--set", "metric=meansquares",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.slow
def test_register_writes_the_four_files_and_improves_the_match(registered):
    assert {p.name for p in registered.iterdir()} == {
        "warped.nii.gz",
        "displacement.nii.gz",
        "inverse.nii.gz",
        "register.json",
    }
    report = json.loads((registered / "register.json").read_text())
    assert improved(report["verdict"]) and report["verdict"]["level"] == "ok"
    assert report["folds_percent"] == 0
    assert report["settings"]["iterations"] == [20, 10]
    assert "SyNOnly" in report["commands"][-1] and report["tool"].startswith("antspyx")
    assert set(report["seconds"]) == {"load", "align", "compute", "warp", "save", "judge"}
    assert {"regcore", "torch", "antspyx"} <= set(report["versions"])


def test_the_inverse_undoes_the_displacement(registered, pair):
    forward, inverse = read_field(registered / "displacement.nii.gz"), read_field(registered / "inverse.nii.gz")
    assert inverse.grid.same_as(read_volume(pair / "moving.nii.gz").grid)
    points = np.random.default_rng(0).uniform(-12, 12, (200, 3))
    assert np.abs(inverse.at(forward.at(points)) - points).max() < 0.5


def test_apply_repeats_the_warp_of_register_and_keeps_labels_whole(registered, pair, tmp_path):
    field = registered / "displacement.nii.gz"
    assert run("apply", field, pair / "moving.nii.gz", "-o", tmp_path / "w.nii.gz").exit_code == 0
    repeated, first = read_volume(tmp_path / "w.nii.gz"), read_volume(registered / "warped.nii.gz")
    # The field went through float32 millimetres on disk.
    np.testing.assert_allclose(repeated.data, first.data, atol=1e-2)
    assert run("apply", field, pair / "moving_labels.nii.gz", "-o", tmp_path / "l.nii.gz", "--labels").exit_code == 0
    assert set(np.unique(read_labels(tmp_path / "l.nii.gz").data)) == {0, 1, 2}


def test_evaluate_prints_and_writes_dice_and_folds(registered, pair, tmp_path):
    arguments = ("evaluate", registered / "displacement.nii.gz", pair / "fixed_labels.nii.gz")
    printed = run(*arguments, pair / "moving_labels.nii.gz")
    assert printed.exit_code == 0
    assert run(*arguments, pair / "moving_labels.nii.gz", "-o", tmp_path / "s.csv").exit_code == 0
    assert (tmp_path / "s.csv").read_text() == printed.output
    table = pd.read_csv(tmp_path / "s.csv").set_index(["label", "metric"])["value"]
    assert table[1, "dice"] > 0.85 and table[2, "dice"] > 0.85
    assert table[-1, "folds_percent"] == 0


@pytest.mark.slow
def test_affine_and_identity_give_fields_with_an_exact_inverse(pair, tmp_path):
    for method in ("affine", "identity"):
        out = tmp_path / method
        result = run("register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", out, "--method", method)
        assert result.exit_code == 0, result.output
        forward, inverse = read_field(out / "displacement.nii.gz"), read_field(out / "inverse.nii.gz")
        points = np.random.default_rng(1).uniform(-10, 10, (50, 3))
        np.testing.assert_allclose(inverse.at(forward.at(points)), points, atol=1e-3)
        if method == "identity":
            np.testing.assert_allclose(forward.at(points), points, atol=1e-4)


def shifted(source, target, offset):
    volume = read_volume(source)
    affine = volume.grid.affine.copy()
    affine[:-1, -1] += offset
    Volume(volume.data, Grid(volume.grid.shape, affine)).save(target)
    return target


def test_disjoint_images_are_refused_and_accepted_with_centre(pair, tmp_path):
    far = shifted(pair / "moving.nii.gz", tmp_path / "far.nii.gz", 500)
    refused = run("register", pair / "fixed.nii.gz", far, "-o", tmp_path / "out", "--method", "affine")
    assert refused.exit_code == 2
    assert "far.nii.gz" in refused.output and "--centre" in refused.output
    assert not (tmp_path / "out").exists()
    accepted = run("register", pair / "fixed.nii.gz", far, "-o", tmp_path / "out", "--method", "affine", "--centre")
    assert accepted.exit_code == 0, accepted.output
    report = json.loads((tmp_path / "out" / "register.json").read_text())
    assert report["verdict"]["measures"]["likeness"] > 0.9


def test_register_says_what_it_thinks_of_the_result(slices, tmp_path):
    """One image turned by 90° and left there: failed, with the reason and the remedy; an exit status with --strict."""
    fixed = read_volume(slices / "fixed.nii.gz")
    places = np.random.default_rng(0).standard_normal(fixed.grid.shape)
    textured = fixed.with_data((fixed.data + 600 * gaussian_filter(places, 3) * (fixed.data > 50)).astype("f4"))
    textured.save(tmp_path / "fixed.nii.gz")
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    Volume(textured.data, Grid(fixed.grid.shape, turned @ fixed.grid.affine)).save(tmp_path / "turned.nii.gz")
    command = ["register", tmp_path / "fixed.nii.gz", tmp_path / "turned.nii.gz", "--method", "identity"]
    result = run(*command, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0].startswith(f"{tmp_path / 'out'}: failed, ")
    assert "wrong poses" in result.output and "  -> look at warped.nii.gz" in result.output
    kept = json.loads((tmp_path / "out" / "register.json").read_text())["verdict"]
    assert kept["level"] == "failed" and len(kept["reasons"]) == len(kept["concerns"]) > 0
    strict = run(*command, "-o", tmp_path / "strict", "--strict")
    assert strict.exit_code == 3 and strict.output.splitlines()[1:] == result.output.splitlines()[1:]
    assert (tmp_path / "strict" / "warped.nii.gz").is_file()
    in_place = [tmp_path / "fixed.nii.gz", tmp_path / "fixed.nii.gz"]
    right = run("register", *in_place, "--method", "identity", "-o", tmp_path / "right", "--strict")
    assert right.exit_code == 0 and ": ok, " in right.output and right.output.count("\n") == 1


def test_every_concern_has_a_remedy():
    assert set(REMEDIES) == {limit.measure for limit in LIMITS}


def bad_image(kind, good, folder):
    """Write a file that is wrong in one way."""
    path = folder / f"{kind}.nii.gz"
    volume = read_volume(good)
    if kind == "missing":
        return path
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:-2000])
    elif kind == "text":
        path.write_text("this is no image")
    elif kind == "nan":
        data = volume.data.copy()
        data[3, 3, 3] = np.nan
        volume.with_data(data).save(path)
    elif kind == "infinite":
        data = volume.data.copy()
        data[3, 3, 3] = np.inf
        volume.with_data(data).save(path)
    elif kind == "constant":
        volume.with_data(np.full_like(volume.data, 7)).save(path)
    elif kind == "one-slice":
        Volume(volume.data[:, :, :1], Grid((*volume.data.shape[:2], 1), volume.grid.affine)).save(path)
    elif kind == "series":
        import nibabel as nib

        nib.save(nib.Nifti1Image(np.stack([volume.data] * 3, -1), np.eye(4)), path)
    elif kind == "flat":
        Volume(volume.data[:, :, 18], Grid.centred(volume.data.shape[:2], (1, 1), (0, 0))).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("missing", "check the path"),
        ("truncated", "copy"),
        ("text", "convert or copy"),
        ("nan", "nan_to_num"),
        ("infinite", "nan_to_num"),
        ("constant", "nothing to register"),
        ("one-slice", "squeeze"),
        ("series", "pick one volume"),
        ("flat", "2-D"),
    ],
)
@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_a_bad_image_ends_in_one_message_and_no_output(pair, tmp_path, kind, remedy, role):
    good = pair / "fixed.nii.gz"
    bad = bad_image(kind, good, tmp_path)
    images = (bad, good) if role == "fixed" else (good, bad)
    result = run("register", *images, "-o", tmp_path / "out", "--method", "affine")
    assert result.exit_code == 2
    assert bad.name in result.output and remedy in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "sin"], "did you mean 'syn'"),
        (["--method", "voxelmorph"], "trained"),
        (["--method", "syn", "--set", "iteration=[1]"], "did you mean 'iterations'"),
        (["--method", "syn", "--set", "radius=0"], "radius"),
        (["--method", "syn", "--set", "radius"], "KEY=VALUE"),
        (["--method", "syn", "--lambda", "0.3"], "--method syn: unknown key 'lambda'"),
        (["--method", "hypermorph", "--lambda", "0.3"], "needs training first"),
        (["--method", "identity", "--centre"], "use affine"),
    ],
)
def test_a_wrong_method_or_setting_is_explained(pair, tmp_path, options, words):
    result = run("register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "out").exists()


def test_apply_and_evaluate_refuse_what_does_not_fit(registered, pair, tmp_path):
    field = registered / "displacement.nii.gz"
    for arguments, words in (
        (("apply", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", tmp_path / "x.nii.gz"), "displacement field"),
        (("apply", field, pair / "moving.nii.gz", "-o", tmp_path / "x.png"), ".nii.gz"),
        (("apply", field, pair / "moving.nii.gz", "-o", tmp_path / "x.nii.gz", "--labels"), "whole numbers"),
        (("evaluate", field, pair / "moving_labels.nii.gz", pair / "moving_labels.nii.gz"), "grid"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert words in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_installed_command_ends_without_traceback(tmp_path):
    command = shutil.which("regcore", path=str(Path(sys.executable).parent))
    assert command, "the package is not installed: pip install -e ."
    done = subprocess.run(
        [command, "register", "a.nii", "b.nii", "-o", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "a.nii: no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_explains_files_and_coordinates():
    for command in ("register", "apply", "evaluate"):
        assert "LPS" in run(command, "--help").output


SHORT = ["--method", "instance", "--set", "shrink=[4, 2]", "--set", "iterations=[20, 20]"]


@pytest.fixture(scope="module")
def masks(pair):
    """A mask of each image, which hides one half of it."""
    for name in ("fixed", "moving"):
        volume = read_volume(pair / f"{name}.nii.gz")
        data = np.ones(volume.grid.shape, np.int16)
        data[: volume.grid.shape[0] // 2] = 0
        Volume(data, volume.grid).save(pair / f"{name}_mask.nii.gz")
    return pair / "fixed_mask.nii.gz", pair / "moving_mask.nii.gz"


@pytest.fixture(scope="module")
def optimised(pair):
    out = pair / "instance"
    result = run("register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", out, *SHORT)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.slow
def test_instance_writes_the_four_files_and_improves_the_match(optimised):
    names = {"warped.nii.gz", "displacement.nii.gz", "inverse.nii.gz", "register.json"}
    assert {p.name for p in optimised.iterdir()} == names
    report = json.loads((optimised / "register.json").read_text())
    assert improved(report["verdict"]) and report["verdict"]["level"] == "ok"
    assert report["folds_percent"] == 0
    assert report["settings"]["iterations"] == [20, 20] and report["settings"]["similarity"] == "lncc"
    assert report["fixed_mask"] is None and report["moving_mask"] is None
    forward, inverse = read_field(optimised / "displacement.nii.gz"), read_field(optimised / "inverse.nii.gz")
    points = np.random.default_rng(1).uniform(-10, 10, (50, 3))
    assert np.linalg.norm(inverse.at(forward.at(points)) - points, axis=1).max() < 0.75


@pytest.mark.slow
def test_masks_are_recorded_and_change_the_field(pair, masks, optimised, tmp_path):
    plain = read_field(optimised / "displacement.nii.gz").displacement
    for number, options in enumerate((["--fixed-mask", masks[0]], ["--moving-mask", masks[1]])):
        out = tmp_path / str(number)
        result = run("register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", out, *SHORT, *options)
        assert result.exit_code == 0, result.output
        report = json.loads((out / "register.json").read_text())
        expected = [None, None]
        expected[number] = str(options[1])
        assert [report["fixed_mask"], report["moving_mask"]] == expected
        masked = read_field(out / "displacement.nii.gz").displacement
        assert (masked - plain).abs().max() > 0.1


def test_the_moving_mask_is_aligned_with_its_image(pair, tmp_path, monkeypatch):
    """The mask is the ball that the image shows."""
    handed = []
    real = pairwise.register_scans
    monkeypatch.setattr(pairwise, "register_scans", lambda *scans, **kw: handed.extend(scans[1:]) or real(*scans, **kw))
    options = ["--method", "instance", "--set", "shrink=[4]", "--set", "iterations=[1]"]
    options += ["--fixed-mask", pair / "fixed_labels.nii.gz", "--moving-mask", pair / "moving_labels.nii.gz"]
    result = run("register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    for scan in handed:
        assert scan.mask.grid.same_as(handed[0].image.grid)
        ball, mask = scan.image.data > 0.35, scan.mask.data > 0
        assert 2 * (ball & mask).sum() > 0.95 * (ball.sum() + mask.sum())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wrong grid", ["moving_mask.nii.gz", "not on the grid of its image", "fixed.nii.gz"]),
        ("empty", ["empty.nii.gz", "the mask is empty"]),
        ("missing", ["none.nii.gz", "no such file"]),
        ("fractions", ["fixed.nii.gz", "whole numbers"]),
        ("method", ["--method syn takes no masks", "instance does"]),
    ],
)
def test_a_mask_that_cannot_be_used_is_explained(pair, masks, tmp_path, kind, words):
    options, mask = SHORT, masks[0]
    if kind == "wrong grid":
        mask = masks[1]
    elif kind == "empty":
        mask = tmp_path / "empty.nii.gz"
        volume = read_labels(masks[0])
        volume.with_data(np.zeros_like(volume.data)).save(mask)
    elif kind == "missing":
        mask = tmp_path / "none.nii.gz"
    elif kind == "fractions":
        mask = pair / "fixed.nii.gz"
    else:
        options = ["--method", "syn"]
    images = pair / "fixed.nii.gz", pair / "moving.nii.gz"
    result = run("register", *images, "-o", tmp_path / "out", *options, "--fixed-mask", mask)
    assert result.exit_code == 2
    assert all(word in result.output for word in words)
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_moving_mask_is_on_the_grid_of_the_moving_image(pair, masks, tmp_path):
    images = pair / "fixed.nii.gz", pair / "moving.nii.gz"
    result = run("register", *images, "-o", tmp_path / "out", *SHORT, "--moving-mask", masks[0])
    assert result.exit_code == 2
    assert "not on the grid of its image" in result.output and "moving.nii.gz" in result.output


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Two discs and the folder of a network for them that no one trained."""
    folder = tmp_path_factory.mktemp("slices")
    grid = Grid.centred((40, 44), (1.5, 1.5), (0, 0))
    for name, centre, radius in (("fixed", (0, 0), (18, 18)), ("moving", (2, -1), (21, 16))):
        Volume(blob(grid.shape, grid, centre, radius)[0], grid).save(folder / f"{name}.nii.gz")
    torch.manual_seed(0)
    method = make_method("voxelmorph", {"lambda": 0.001})
    method.module = method.build(2)
    trained = Trained(method.module.state_dict(), [], {})
    preprocess = PreprocessSettings(affine="affine")
    save_model(folder / "model", "voxelmorph", method, trained, read_volume(folder / "fixed.nii.gz"), grid, preprocess)
    return folder


def test_refine_starts_from_the_folder_of_a_model(slices, tmp_path):
    images = slices / "fixed.nii.gz", slices / "moving.nii.gz"
    after = []
    for number, options in enumerate((["iterations=0"], ["iterations=60", "step=0.1"])):
        settings = [part for option in options for part in ("--set", option)]
        out = tmp_path / str(number)
        start = f"start={slices / 'model'}"
        result = run("register", *images, "-o", out, "--method", "refine", "--set", start, *settings)
        assert result.exit_code == 0, result.output
        report = json.loads((out / "register.json").read_text())
        assert report["method"] == "refine" and report["settings"]["start"] == str(slices / "model")
        assert {p.name for p in out.iterdir()} >= {"warped.nii.gz", "displacement.nii.gz", "inverse.nii.gz"}
        after.append(report["verdict"]["measures"]["likeness"])
    assert 1 - after[1] < 0.5 * (1 - after[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give the folder of a trained model, --set start=<folder>"),
        (["--set", "start="], "give the folder of a trained model, --set start=<folder>"),
        (["--set", "start=nowhere"], "nowhere: not a model folder"),
        (["--set", "start=nowhere", "--set", "iteration=3"], "did you mean 'iterations'"),
    ],
)
def test_a_refinement_without_a_model_is_explained(slices, tmp_path, options, words):
    images = slices / "fixed.nii.gz", slices / "moving.nii.gz"
    result = run("register", *images, "-o", tmp_path / "out", "--method", "refine", *options)
    assert result.exit_code == 2
    assert words in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()
