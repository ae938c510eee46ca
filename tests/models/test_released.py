"""Models that come with regcore, and how a trained model becomes one."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from regcore.alignment.settings import PreprocessSettings
from regcore.commands.cli import main
from regcore.commands.scans import _grid_around
from regcore.errors import InputError
from regcore.evaluation.overlap import dice
from regcore.images.field import read_field
from regcore.images.volume import Grid, Volume, read_labels, read_volume
from regcore.methods import make_method
from regcore.methods.settings.refine import WITHOUT_IMAGES
from regcore.models import released
from regcore.models.released import release, released_model, released_models
from regcore.models.trained import load_model, save_model
from regcore.training.trainer import Trained

PREPROCESS = PreprocessSettings(affine="affine")
LARGEST_BYTES = 8_000_000


def trained(folder, ndim=2, **settings):
    """An untrained network in a folder such as training writes, with a reference image of its study."""
    torch.manual_seed(0)
    method = make_method("synthmorph", {"width": 0.125, "shape_maps": 1, **settings})
    method.module = method.build(ndim)
    torch.nn.init.normal_(method.module.head.convolution.weight, std=0.02)
    grid = Grid.centred((48,) * ndim, (2,) * ndim, (0,) * ndim)
    reference = Volume(np.ones(grid.shape, np.float32), grid)
    left = Trained(method.module.state_dict(), [{"step": 1}], {"steps": 1, "device": "none"})
    save_model(folder, "synthmorph", method, left, reference, grid, PREPROCESS)
    return folder


def ellipse(folder, name, spacing, shape, radii, contrast):
    """An image of three nested ellipses, each with its own intensity."""
    ndim = len(shape)
    grid = Grid.centred(shape, (spacing,) * ndim, (0,) * ndim)
    points = grid.to_world(np.moveaxis(np.indices(shape), 0, -1))
    distance = np.linalg.norm(points / radii, axis=-1)
    image = np.select([distance < 0.4, distance < 0.7, distance < 1], contrast, 0).astype("f4")
    Volume(gaussian_filter(image, 0.7), grid).save(folder / name)
    return folder / name


def lobed(folder, name, spacing, shape, radii, contrast, depth):
    """The same with three lobes each in the plane of the first two axes, and labels 1, 2, 3 beside it."""
    ndim = len(shape)
    grid = Grid.centred(shape, (spacing,) * ndim, (0,) * ndim)
    points = grid.to_world(np.moveaxis(np.indices(shape), 0, -1)) / radii
    distance = np.linalg.norm(points, axis=-1) / (1 + depth * np.cos(3 * np.arctan2(points[..., 1], points[..., 0])))
    nested = [distance < 0.4, distance < 0.7, distance < 1]
    Volume(np.select(nested, [1, 2, 3], 0).astype(np.int16), grid).save(folder / f"{name}_labels.nii.gz")
    image = np.select(nested, contrast, 0).astype("f4")
    Volume(gaussian_filter(image, 0.7), grid).save(folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def register(*arguments):
    return CliRunner().invoke(main, ["register", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A released 2-D model in a folder of its own."""
    monkeypatch.setattr(released, "FOLDER", tmp_path / "released")
    release(trained(tmp_path / "model"), tmp_path / "released")
    return tmp_path / "released"


def test_a_released_model_has_no_scan_of_its_study(models):
    folder = models / "synthmorph-2d"
    assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "model.json", "history.csv"}
    model = load_model(folder)
    assert model.space is None and model.ndim == 2 and model.voxels == 48
    assert model.facts["steps"] == 1
    assert released_models() == {"synthmorph-2d": folder}
    assert released_model("synthmorph", 2) == folder and released_model("synthmorph", 3) is None


def test_its_grid_and_passes_can_be_chosen_after_training(tmp_path):
    model = load_model(release(trained(tmp_path / "model", passes=2), tmp_path / "released", voxels=80, passes=3))
    assert model.voxels == 80 and model.method.settings.passes == 3
    assert load_model(release(trained(tmp_path / "m", passes=2), tmp_path / "b")).method.settings.passes == 2


@pytest.mark.parametrize("settings", [{"maps": "cohort"}, {"maps": "cohort", "loss": "svf"}])
def test_what_saw_a_cohort_is_not_released(tmp_path, settings):
    with pytest.raises(InputError, match="trained on shapes"):
        release(trained(tmp_path / "model", **settings), tmp_path / "released")
    assert not (tmp_path / "released").exists()


def test_no_model(tmp_path):
    with pytest.raises(InputError, match=r"not a model folder \(no model.json\)"):
        release(tmp_path, tmp_path / "released")


def test_register_takes_the_model_of_the_images_dimension(models, tmp_path):
    fixed = ellipse(tmp_path, "fixed.nii.gz", 1, (140, 120), (50, 40), (200, 120, 60))
    moving = ellipse(tmp_path, "moving.nii.gz", 1.3, (100, 110), (42, 45), (30, 90, 160))
    result = register(fixed, moving, "-o", tmp_path / "out", "--method", "synthmorph")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "affine.mat",
        "affine.txt",
        "warped.nii.gz",
        "displacement.nii.gz",
        "inverse.nii.gz",
        "register.json",
    }
    field = read_field(tmp_path / "out" / "displacement.nii.gz")
    assert field.grid.same_as(read_volume(fixed).grid)
    report = json.loads((tmp_path / "out" / "register.json").read_text())
    assert report["method"] == "synthmorph" and report["settings"]["start"] == "synthmorph-2d"
    assert report["settings"]["similarity"] == WITHOUT_IMAGES and report["settings"]["iterations"] > 0


def test_its_grid_surrounds_the_fixed_images_content_at_the_models_size(models, tmp_path, monkeypatch):
    from regcore.commands import register as pairwise

    seen = []
    real = pairwise.register_scans
    monkeypatch.setattr(pairwise, "register_scans", lambda *given, **kw: seen.append(given) or real(*given, **kw))
    fixed = ellipse(tmp_path, "fixed.nii.gz", 1, (200, 180), (60, 40), (200, 120, 60))
    small = ellipse(tmp_path, "small.nii.gz", 1, (30, 26), (13, 10), (200, 120, 60))
    for image in (fixed, small):
        assert register(image, image, "-o", tmp_path / "out", "--method", "synthmorph").exit_code == 0
    large, native = (given[1].image.grid for given in seen)
    assert max(large.shape) == 48 and large.spacing[0] == pytest.approx(large.spacing[1])
    assert native.spacing == pytest.approx(np.ones(2))  # no finer than the image, which has fewer voxels


@pytest.mark.parametrize("longest", range(65, 200, 7))
def test_no_axis_of_its_grid_has_more_voxels_than_the_model(longest):
    shown = np.pad(np.ones((longest, longest // 2), np.float32), 20)
    image = Volume(shown, Grid.centred(shown.shape, (1, 1), (0, 0)))
    assert max(_grid_around(image, 64).shape) == 64


def test_without_a_model_of_the_dimension_a_method_must_be_trained(models, tmp_path):
    volume = ellipse(tmp_path, "fixed.nii.gz", 2, (30, 30, 30), (20, 25, 22), (200, 120, 60))
    result = register(volume, volume, "-o", tmp_path / "out", "--method", "synthmorph")
    assert result.exit_code == 2 and "needs training first" in result.output


def pair(folder):
    """Two shapes of other contrasts, which no affine map brings onto each other."""
    shape, radii = (64, 60), (26, 22)
    return (
        lobed(folder, "fixed", 1, shape, radii, (200, 120, 60), depth=0.2),
        lobed(folder, "moving", 1, shape, radii, (60, 90, 160), depth=0),
    )


def test_without_iterations_it_is_the_network_alone(models, tmp_path):
    images, out = pair(tmp_path), tmp_path / "out"
    network = str(models / "synthmorph-2d")
    for folder, method in (("descent", ["synthmorph", "--set", "iterations=0"]), ("network", [network])):
        assert register(*images, "-o", out / folder, "--method", *method).exit_code == 0
    for name in ("displacement", "inverse", "warped"):
        found, expected = (read_bits(out / folder / f"{name}.nii.gz") for folder in ("descent", "network"))
        assert np.array_equal(found, expected), name
    assert np.abs(read_bits(out / "network" / "displacement.nii.gz")).max() > 0


def read_bits(path):
    return np.asarray(nib.load(path).dataobj)


def test_settings_are_those_of_the_descent_from_its_field(models, tmp_path):
    images = pair(tmp_path)
    given = ["--set", "similarity=mse", "--lambda", "0.2", "--set", "iterations=3"]
    result = register(*images, "-o", tmp_path / "out", "--method", "synthmorph", *given)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "register.json").read_text())["settings"] == {
        "start": "synthmorph-2d",
        "similarity": "mse",
        "window": 5,
        "bins": 32,
        "lambda": 0.2,
        "iterations": 3,
        "step": 0.1,
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("maps=shapes", "--method synthmorph: unknown key 'maps'"),
        ("similarity=nnmi", "'nnmi' is not possible; did you mean 'nmi'"),
        ("start=model", "--method synthmorph: starts from synthmorph-2d; for another, use --method refine"),
    ],
)
def test_other_settings_are_refused(models, tmp_path, setting, words):
    image = ellipse(tmp_path, "fixed.nii.gz", 1, (60, 60), (20, 25), (200, 120, 60))
    result = register(image, image, "-o", tmp_path / "out", "--method", "synthmorph", "--set", setting)
    assert result.exit_code == 2 and words in result.output


def test_refine_names_it_too(models, tmp_path):
    images = pair(tmp_path)
    given = [["synthmorph"], ["refine", "--set", "start=synthmorph-2d"]]
    for number, method in enumerate(given):
        result = register(*images, "-o", tmp_path / str(number), "--method", *method, "--set", "iterations=2")
        assert result.exit_code == 0, result.output
    assert np.array_equal(*(read_bits(tmp_path / str(n) / "displacement.nii.gz") for n in range(2)))


def test_a_model_is_named_by_its_folder_alone(models, tmp_path):
    image = ellipse(tmp_path, "fixed.nii.gz", 1, (60, 60), (20, 25), (200, 120, 60))
    result = register(image, image, "-o", tmp_path / "out", "--method", "pretrained")
    assert result.exit_code == 2 and "give the folder of the trained model itself" in result.output


def test_a_study_names_it(models):
    method = make_method("pretrained", {"model": "synthmorph-2d"})
    assert method.ndim == 2 and method.folder == models / "synthmorph-2d"


@pytest.mark.slow
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_models_that_regcore_has(ndim, tmp_path):
    folder = Path(released.__file__).parent / f"synthmorph-{ndim}d"
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST_BYTES
    assert (folder / "README.md").is_file()
    assert load_model(folder).method.settings.maps == "shapes"
    # The moving shape is an ellipse, of which no affine alignment makes the lobes of the fixed one.
    shape, radii, spacing = ((120, 110), (46, 38), 1) if ndim == 2 else ((60, 56, 50), (48, 40, 44), 2)
    scans = {
        "fixed": lobed(tmp_path, "fixed", spacing, shape, radii, (200, 120, 60), depth=0.2),
        "moving": lobed(tmp_path, "moving", spacing, shape, radii, (40, 90, 160), depth=0),
    }
    result = register(scans["fixed"], scans["moving"], "-o", tmp_path / "out", "--method", "synthmorph")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "register.json").read_text())
    assert report["folds_percent"] < 0.01
    labels = {side: read_labels(tmp_path / f"{side}_labels.nii.gz") for side in scans}
    before = dice(labels["fixed"].data, labels["moving"].data, [1, 2, 3]).mean()
    moved = read_field(tmp_path / "out" / "displacement.nii.gz").warp(labels["moving"], nearest=True)
    after = dice(labels["fixed"].data, moved.data, [1, 2, 3]).mean()
    assert 1 - after < 0.6 * (1 - before)
