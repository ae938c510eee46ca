"""The regcore command: its results, and one clear message for every bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from regcore.alignment.settings import PreprocessSettings
from regcore.commands import register as pairwise
from regcore.commands.cli import main
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
    assert report["correlation_after"] > 0.98 > report["correlation_before"]
    assert report["folds_percent"] == 0
    assert report["settings"]["iterations"] == [20, 10]
    assert "SyNOnly" in report["commands"][-1] and report["tool"].startswith("antspyx")
    assert set(report["seconds"]) == {"load", "align", "compute", "warp", "save"}
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


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """Two scans with air of -1000 HU; the moving one covers less of it."""
    folder = tmp_path_factory.mktemp("ct")
    for name, shape, radius in (("fixed", (30, 32), 9), ("moving", (20, 22), 8)):
        grid = Grid.centred(shape, (1.5, 1.5), (0, 0))
        image, _ = blob(shape, grid, (0, 0), radius)
        Volume(np.round(12 * image - 1000).astype(np.int16), grid).save(folder / f"{name}.nii.gz")
    return folder


def test_outside_the_moving_image_is_its_air(ct, tmp_path):
    images = ct / "fixed.nii.gz", ct / "moving.nii.gz"
    field = tmp_path / "out" / "displacement.nii.gz"
    assert run("register", *images, "-o", tmp_path / "out", "--method", "identity").exit_code == 0
    assert run("apply", field, images[1], "-o", tmp_path / "applied.nii.gz").exit_code == 0
    for path in (tmp_path / "out" / "warped.nii.gz", tmp_path / "applied.nii.gz"):
        warped = read_volume(path).data
        assert warped.min() == -1000 and (warped == 0).mean() < 0.01
        assert (warped[:3] == -1000).all()
    assert json.loads((tmp_path / "out" / "register.json").read_text())["fill"] == -1000


def test_fill_gives_another_value_outside(ct, tmp_path):
    images = ct / "fixed.nii.gz", ct / "moving.nii.gz"
    out = tmp_path / "out"
    assert run("register", *images, "-o", out, "--method", "identity", "--fill", -2048).exit_code == 0
    assert read_volume(out / "warped.nii.gz").data[0, 0] == -2048
    applied = tmp_path / "applied.nii.gz"
    assert run("apply", out / "displacement.nii.gz", images[1], "-o", applied, "--fill", 5).exit_code == 0
    assert read_volume(applied).data[0, 0] == 5


def test_a_fill_that_makes_no_sense_is_refused(ct, tmp_path):
    images = ct / "fixed.nii.gz", ct / "moving.nii.gz"
    for command in (
        ("register", *images, "-o", tmp_path / "out", "--method", "identity", "--fill", "nan"),
        ("apply", images[0], images[1], "-o", tmp_path / "w.nii", "--fill", "inf"),
    ):
        refused = run(*command)
        assert refused.exit_code == 2 and "must be a finite number" in refused.output
    labels = run("apply", images[0], images[1], "-o", tmp_path / "w.nii", "--labels", "--fill", 1)
    assert labels.exit_code == 2 and "label maps are 0 outside" in labels.output
    assert not list(tmp_path.iterdir())


def test_apply_gives_back_labels_above_two_to_the_31(ct, tmp_path):
    assert run("register", *[ct / "moving.nii.gz"] * 2, "-o", tmp_path / "out", "--method", "identity").exit_code == 0
    codes = np.zeros((20, 22), dtype=np.int64)
    codes[5:9], codes[9:14] = 4_000_000_001, 3
    Volume(codes, Grid.centred((20, 22), (1.5, 1.5), (0, 0))).save(tmp_path / "codes.nii.gz")
    field = tmp_path / "out" / "displacement.nii.gz"
    assert run("apply", field, tmp_path / "codes.nii.gz", "-o", tmp_path / "w.nii.gz", "--labels").exit_code == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "w.nii.gz").data, codes)
    scores = run("evaluate", field, tmp_path / "codes.nii.gz", tmp_path / "codes.nii.gz")
    assert "4000000001,dice,1.0" in scores.output


def test_a_command_says_by_file_name_that_a_header_has_no_position(ct, tmp_path):
    shutil.copy(ct / "moving.nii.gz", tmp_path / "codeless.nii.gz")
    image = nib.load(tmp_path / "codeless.nii.gz")
    image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(nib.Nifti1Image(image.get_fdata(), None, image.header), tmp_path / "codeless.nii.gz")
    result = run("register", ct / "fixed.nii.gz", tmp_path / "codeless.nii.gz", "-o", tmp_path / "out", "--method",
        "affine")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.output.count(f"{tmp_path / 'codeless.nii.gz'}: neither its qform nor its sform is set") == 1


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
    assert json.loads((tmp_path / "out" / "register.json").read_text())["correlation_after"] > 0.9


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
    elif kind == "coronal slice":
        slab = volume.data[:, 22:23]
        Volume(slab, Grid(slab.shape, volume.grid.affine)).save(path)
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
        ("coronal slice", "out of the x-y plane"),
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
    assert report["correlation_after"] > 0.98 > report["correlation_before"]
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
        after.append(report["correlation_after"])
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
