"""The regcore command: its results, and one clear message for every bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
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
from regcore.commands.remedies import REMEDIES
from regcore.evaluation.verdict import LIMITS
from regcore.images.field import read_field
from regcore.images.grid import transform_points
from regcore.images.masks import read_mask
from regcore.images.matrices import save_matrix
from regcore.images.volume import Grid, Volume, read_labels, read_volume
from regcore.methods import make_method
from regcore.methods.registration import register_scans
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
def test_register_writes_its_files_and_improves_the_match(registered):
    assert {p.name for p in registered.iterdir()} == {
        "warped.nii.gz",
        "displacement.nii.gz",
        "inverse.nii.gz",
        "affine.mat",
        "affine.txt",
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


def test_disjoint_images_are_aligned_unless_the_headers_are_to_be_trusted(pair, tmp_path):
    far = shifted(pair / "moving.nii.gz", tmp_path / "far.nii.gz", 500)
    images = pair / "fixed.nii.gz", far
    refused = run("register", *images, "-o", tmp_path / "out", "--method", "affine", "--affine", "none")
    assert refused.exit_code == 2
    assert "far.nii.gz" in refused.output and "'auto' or 'centre'" in refused.output
    assert not (tmp_path / "out").exists()
    accepted = run("register", *images, "-o", tmp_path / "out", "--method", "affine", "--affine", "centre")
    assert accepted.exit_code == 0, accepted.output
    report = json.loads((tmp_path / "out" / "register.json").read_text())
    assert report["affine"] == report["aligned"] == "centre" and report["init"] is None
    assert report["verdict"]["measures"]["likeness"] > 0.5


#: A matrix that puts the pair's moving ball near the fixed one.
NEAR = np.array([[1.1, 0.05, 0, 3], [-0.05, 0.9, 0, -2], [0, 0, 1, 2], [0, 0, 0, 1]])


def given(pair, out, *options):
    """Register the pair by a matrix alone; what the field does to some points."""
    images = pair / "fixed.nii.gz", pair / "moving.nii.gz"
    result = run("register", *images, "-o", out, "--method", "affine", "--affine", "none", *options)
    assert result.exit_code == 0, result.output
    return read_field(out / "displacement.nii.gz").at(POINTS)


POINTS = np.random.default_rng(1).uniform(-15, 15, (40, 3))


def test_a_given_matrix_is_taken_as_it_is_and_written_again(pair, tmp_path):
    save_matrix(NEAR, tmp_path / "start")
    moved = given(pair, tmp_path / "a", "--init", tmp_path / "start.mat")
    np.testing.assert_allclose(moved, transform_points(NEAR, POINTS), atol=1e-3)
    for name in ("affine.mat", "affine.txt"):
        np.testing.assert_allclose(given(pair, tmp_path / "b", "--init", tmp_path / "a" / name), moved, atol=1e-6)
    np.savetxt(tmp_path / "bare.txt", NEAR)
    refused = run(
        "register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", tmp_path / "c", "--init", tmp_path / "bare.txt"
    )
    assert refused.exit_code == 2 and "--matrix-format fsl, greedy, niftyreg or regcore" in refused.output
    again = given(pair, tmp_path / "d", "--init", tmp_path / "bare.txt", "--matrix-format", "niftyreg")
    np.testing.assert_allclose(again, moved, atol=1e-6)


def test_apply_takes_a_matrix_and_the_image_whose_grid_it_needs(pair, tmp_path):
    save_matrix(NEAR, tmp_path / "start")
    given(pair, tmp_path / "a", "--init", tmp_path / "start.mat")
    warped = read_volume(tmp_path / "a" / "warped.nii.gz")
    for name in ("affine.mat", "affine.txt"):
        out = tmp_path / "w.nii.gz"
        done = run("apply", tmp_path / "a" / name, pair / "moving.nii.gz", "-o", out, "--fixed", pair / "fixed.nii.gz")
        assert done.exit_code == 0, done.output
        np.testing.assert_allclose(read_volume(out).data, warped.data, atol=0.02)
    refused = run("apply", tmp_path / "a" / "affine.mat", pair / "moving.nii.gz", "-o", tmp_path / "x.nii.gz")
    assert refused.exit_code == 2 and "--fixed" in refused.output
    field = tmp_path / "a" / "displacement.nii.gz"
    both = run("apply", field, pair / "moving.nii.gz", "-o", tmp_path / "x.nii.gz", "--fixed", pair / "fixed.nii.gz")
    assert both.exit_code == 2 and "grid of its own" in both.output
    assert not (tmp_path / "x.nii.gz").exists()


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
        (["--method", "identity", "--affine", "auto"], "use --method affine"),
        (["--method", "identity", "--init", "a.mat"], "use --method affine"),
        (["--affine", "centre", "--init", "a.mat"], "--affine centre takes no start"),
        (["--affine", "none", "--init", "a.mat"], "a.mat: no such file"),
        (["--lesion-margin", "3"], "give --fixed-lesion or --moving-lesion"),
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
def test_instance_writes_its_files_and_improves_the_match(optimised):
    names = {"warped.nii.gz", "displacement.nii.gz", "inverse.nii.gz", "affine.mat", "affine.txt", "register.json"}
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
    """The affine map is the same, so that only what the method makes of a mask can differ."""
    plain = read_field(optimised / "displacement.nii.gz").displacement
    aligned = ["--init", optimised / "affine.mat", "--affine", "none"]
    for number, options in enumerate((["--fixed-mask", masks[0]], ["--moving-mask", masks[1]])):
        out = tmp_path / str(number)
        result = run("register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", out, *SHORT, *aligned, *options)
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
        ("method", ["--method dipy takes no masks", "syn, niftyreg, greedy", "--init <its output>/affine.mat"]),
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
        options = ["--method", "dipy"]
    images = pair / "fixed.nii.gz", pair / "moving.nii.gz"
    result = run("register", *images, "-o", tmp_path / "out", *options, "--fixed-mask", mask)
    assert result.exit_code == 2
    assert all(word in result.output for word in words)
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_lesions_are_grown_and_excluded(pair, tmp_path, monkeypatch):
    """Of the fixed image by the given margin, of the moving one by two voxels, and together with a mask."""
    handed = []
    monkeypatch.setattr(pairwise, "register_scans", lambda *scans, **kw: handed.extend(scans[1:]) or real(*scans, **kw))
    real = register_scans
    lesions = {}
    for name in ("fixed", "moving"):
        volume = read_labels(pair / f"{name}_labels.nii.gz")
        data = np.zeros(volume.grid.shape, np.int16)
        data[20, 20, 16] = 3
        lesions[name] = volume.with_data(data)
        lesions[name].save(tmp_path / f"{name}_lesion.nii.gz")
    options = ["--method", "affine", "--affine", "none", "--fixed-mask", pair / "fixed_labels.nii.gz"]
    options += ["--fixed-lesion", tmp_path / "fixed_lesion.nii.gz", "--lesion-margin", "4.5"]
    images = pair / "fixed.nii.gz", pair / "moving.nii.gz"
    result = run("register", *images, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    ball = read_labels(pair / "fixed_labels.nii.gz").data > 0
    near = np.linalg.norm((np.moveaxis(np.indices(ball.shape), 0, -1) - [20, 20, 16]) * 1.5, axis=-1) < 4.6
    np.testing.assert_array_equal(handed[0].mask.data > 0, ball & ~near)
    assert handed[1].mask is None
    moving = read_volume(pair / "moving.nii.gz")
    mask = read_mask(moving, lesion=tmp_path / "moving_lesion.nii.gz").data
    assert mask[20, 20, 16] == mask[22, 20, 16] == mask[20, 22, 16] == mask[23, 20, 16] == 0  # 4 mm
    assert mask[24, 20, 16] == mask[20, 24, 16] == 1
    covering = ["--fixed-lesion", tmp_path / "fixed_lesion.nii.gz", "--lesion-margin", "500"]
    refused = run("register", *images, "-o", tmp_path / "no", "--method", "affine", *covering)
    assert refused.exit_code == 2 and "cover all that counts" in refused.output


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
    # The images are aligned before, so what is left to gain is what an affine map cannot reach.
    assert 1 - after[1] < 0.75 * (1 - after[0])


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


FAST = ["--method", "identity"]
DEMONS = ["--set", "shrink=[4]", "--set", "iterations=[1]"]


def images(pair):
    return pair / "fixed.nii.gz", pair / "moving.nii.gz"


@pytest.mark.slow
def test_a_second_registration_leaves_nothing_of_the_first(pair, tmp_path):
    """Of another pair, by a method without an inverse."""
    fixed, moving = images(pair)
    out = tmp_path / "out"
    assert run("register", fixed, moving, "-o", out, *FAST).exit_code == 0
    assert (out / "inverse.nii.gz").is_file()
    second = run("register", moving, fixed, "-o", out, "--method", "demons", *DEMONS, "--affine", "none")
    assert second.exit_code == 0, second.output
    written = {"warped.nii.gz", "displacement.nii.gz", "affine.mat", "affine.txt", "register.json"}
    assert {path.name for path in out.iterdir()} == written
    assert json.loads((out / "register.json").read_text())["fixed"] == str(moving)


def test_an_output_that_cannot_be_written_is_refused_before_the_registration(pair, tmp_path, monkeypatch):
    def never(*arguments, **named):
        raise AssertionError("the registration began")

    monkeypatch.setattr(pairwise, "read_volume", never)
    (tmp_path / "file").write_text("x")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "warped.nii.gz").write_text("mine")
    for output, words in (
        (tmp_path / "file", "is a file"),
        ("/proc/x", "cannot be written to"),
        (tmp_path / "notes", "warped.nii.gz"),
    ):
        result = run("register", *images(pair), "-o", output, *FAST)
        assert result.exit_code == 2 and result.output.count("\n") == 1
        assert f"regcore: {output}: " in result.output and words in result.output and "-o" in result.output
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "notes", "warped.nii.gz"]


def test_a_disk_without_room_is_refused_before_the_registration(pair, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4096))
    monkeypatch.setattr(pairwise, "read_volume", None)
    result = run("register", *images(pair), "-o", tmp_path / "out", *FAST)
    # 40·44·36 voxels of an image and three components, 56·40·32 of three
    assert result.exit_code == 2 and "may need 1.9 MB" in result.output and "0.0 MB are free" in result.output
    assert result.output.count("\n") == 1 and not any(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_one_message_and_leaves_the_earlier_results(pair, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run("register", *images(pair), "-o", out, *FAST).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(image, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nibabel.save", full)
    result = run("register", *images(pair), "-o", out, *FAST)
    assert result.exit_code == 2
    assert result.output == f"regcore: {out / 'warped.nii.gz'}: No space left on device\n"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_lack_of_memory_is_one_message_and_names_the_images(pair, tmp_path, monkeypatch):
    for error in (MemoryError("Unable to allocate 9 TiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):

        def fails(*arguments, error=error, **named):
            raise error

        monkeypatch.setattr(pairwise, "register_scans", fails)
        result = run("register", *images(pair), "-o", tmp_path / "out", *FAST)
        assert result.exit_code == 2 and result.output.count("\n") == 1
        assert "not enough memory" in result.output and all(str(image) in result.output for image in images(pair))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("x"), KeyError("x"), OSError("x")])
def test_a_fault_of_the_program_keeps_its_traceback(pair, tmp_path, monkeypatch, error):
    def fails(*arguments, **named):
        raise error

    monkeypatch.setattr(pairwise, "register_scans", fails)
    with pytest.raises(type(error)):
        run("register", *images(pair), "-o", tmp_path / "out", *FAST)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "a=[1"], "--set a=[1: not a value"),
        (["--set", "a=\x00"], "not a value"),
        (["--set", "=1"], "KEY=VALUE"),
        (["--set", "radius=1", "--set", "radius=2"], "radius is set twice"),
        (["--threads", "0"], "--threads"),
        (["--threads", "-1"], "--threads"),
        (["--threads", "99999999999"], "--threads"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "99999999999"], "--seed"),
        (["--method", "elastix", "--set", "seed=99999999999"], "seed"),
        (["--lambda", "nan"], "lambda"),
    ],
)
def test_an_option_without_sense_is_explained(pair, tmp_path, options, words):
    result = run("register", *images(pair), "-o", tmp_path / "out", "--method", "affine", *options)
    assert result.exit_code == 2 and words in result.output and "Traceback" not in result.output
    assert not any(tmp_path.iterdir())


def test_every_number_on_the_command_line_has_its_range():
    """A number without one goes to the tools as it is."""
    for command in main.commands.values():
        for option in command.params:
            if isinstance(option.type, click.types.IntParamType):
                assert isinstance(option.type, click.IntRange), f"{command.name} --{option.name}"
                assert option.type.min is not None, f"{command.name} --{option.name}"


@pytest.mark.parametrize("verb", ["apply", "evaluate"])
def test_an_output_file_is_refused_before_the_work(registered, pair, tmp_path, monkeypatch, verb):
    monkeypatch.setattr("regcore.images.field.read_field", None)
    field, labels = registered / "displacement.nii.gz", pair / "moving_labels.nii.gz"
    inputs = (field, labels) if verb == "apply" else (field, pair / "fixed_labels.nii.gz", labels)
    (tmp_path / "folder.nii.gz").mkdir()
    for output, words in ((tmp_path / "folder.nii.gz", "is a folder"), ("/proc/x.nii.gz", "cannot be written")):
        result = run(verb, *inputs, "-o", output)
        assert result.exit_code == 2 and f"regcore: {output}: {words}" in result.output
    result = run(verb, *inputs, "-o", labels)
    assert result.exit_code == 2 and "moving_labels.nii.gz: is also an input" in result.output


@pytest.mark.parametrize("value", [1e39, 1e20])
def test_values_beyond_single_precision_are_refused(pair, tmp_path, value):
    import nibabel as nib

    data = np.arange(24000.0).reshape(40, 30, 20) / 24000 * value
    nib.save(nib.Nifti1Image(data, np.diag([1.5, 1.5, 1.5, 1])), tmp_path / "huge.nii.gz")
    result = run("register", pair / "fixed.nii.gz", tmp_path / "huge.nii.gz", "-o", tmp_path / "out", *FAST)
    assert result.exit_code == 2 and "huge.nii.gz: intensities of up to 1e+" in result.output
    assert result.output.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_image_that_cannot_fit_into_memory_is_refused_before_it_is_read(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("regcore.images.nifti.ALWAYS_FITS", 0)
    monkeypatch.setattr("regcore.images.nifti.free_memory", lambda: 100_000)
    result = run("register", *images(pair), "-o", tmp_path / "out", *FAST)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "fixed.nii.gz: reading an image of shape (40, 44, 36) takes about 1 MiB of memory" in result.output
