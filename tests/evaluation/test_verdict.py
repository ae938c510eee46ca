"""The verdict on registrations of made images whose right answer is known."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regcore.evaluation.likeness import Likeness, content, view
from regcore.evaluation.poses import mirrored_poses, near_poses, wrong_poses
from regcore.evaluation.verdict import LIMITS, NOTES, affine_part, judge, measure, verdict
from regcore.images.field import DisplacementField
from regcore.images.grid import Grid, transform_points
from regcore.images.volume import Volume

SHAPES = {2: (90, 100), 3: (48, 56, 44)}


def anatomy(ndim, seed=0, spacing=1.0):
    """An ellipsoid with structure of two scales inside, in air; no axis of symmetry."""
    generator = np.random.default_rng(seed)
    shape = SHAPES[ndim]
    places = np.moveaxis(np.indices(shape), 0, -1)
    centre, radii = (np.array(shape) - 1) / 2, 0.4 * np.array(shape)
    inside = (((places - centre) / radii) ** 2).sum(-1) < 1
    structure = sum(
        width ** (ndim / 2) * gaussian_filter(generator.standard_normal(shape), width) for width in (2.0, 4.0)
    )
    image = np.where(inside, 100 + 30 * structure / structure.std(), 0).clip(0)
    return Volume(image.astype(np.float32), Grid.centred(shape, (spacing,) * ndim, (5.0,) * ndim))


def about_the_centre(grid, linear):
    matrix = np.eye(grid.ndim + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = grid.centre - linear @ grid.centre
    return matrix


def turn(ndim, degrees):
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(ndim)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return matrix


def affine_field(grid, matrix):
    places = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return DisplacementField.from_world(transform_points(matrix, places), grid)


def inverted(scan):
    """Bright becomes dark within the content, as from T1w to T2w."""
    return scan.with_data(np.where(scan.data > 0, 230 - scan.data, 0))


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_same_image_in_place_is_ok_and_turned_it_has_failed(ndim):
    scan = anatomy(ndim)
    right = verdict(scan, scan, DisplacementField.identity(scan.grid))
    assert (right.level, right.reasons) == ("ok", ())
    assert right.measures["likeness"] > 0.95
    for degrees in (90, 180):
        wrong = verdict(scan, scan, affine_field(scan.grid, about_the_centre(scan.grid, turn(ndim, degrees))))
        assert wrong.level == "failed"
        assert any("wrong poses" in reason for reason in wrong.reasons)


@pytest.mark.parametrize("ndim", [2, 3])
def test_inverted_contrast_is_ok_in_place_and_not_when_turned(ndim):
    scan = anatomy(ndim)
    other = inverted(scan)
    assert verdict(scan, other, DisplacementField.identity(scan.grid)).level == "ok"
    turned = affine_field(scan.grid, about_the_centre(scan.grid, turn(ndim, 20)))
    found = verdict(scan, other, turned)
    assert found.level != "ok" and "better_nearby" in found.concerns


def test_a_mirrored_image_is_suspected():
    scan = anatomy(3)
    mirror = about_the_centre(scan.grid, np.diag([-1.0, 1, 1]))
    flipped = scan.with_data(scan.data[::-1].copy())
    found = verdict(scan, flipped, DisplacementField.identity(scan.grid))
    assert found.level == "failed" and "better_mirrored" in found.concerns
    # The map that mirrors suits the images, and is said to mirror; not if it began so.
    mirrored = verdict(scan, flipped, affine_field(scan.grid, mirror))
    assert mirrored.level == "failed" and mirrored.concerns == ("mirrors",)
    assert verdict(scan, flipped, affine_field(scan.grid, mirror), start=mirror).level == "ok"


def test_the_coverage_of_a_slab_is_said_and_a_stretched_slab_has_failed():
    scan = anatomy(3)
    part = slice(20, 30)
    affine = scan.grid.affine.copy()
    affine[:-1, -1] = scan.grid.to_world(np.array([0, 0, part.start]))
    slab = Volume(scan.data[..., part], Grid((*scan.grid.shape[:2], 10), affine))
    found = verdict(scan, slab, DisplacementField.identity(scan.grid))
    assert 0.2 < found.measures["coverage"] < 0.45
    assert found.concerns == ("coverage",) and found.level in ("ok", "doubtful")
    assert "the moving image covers" in found.reasons[0]
    # The slab's 10 voxels are stretched over the 35 of the content.
    stretch = about_the_centre(scan.grid, np.diag([1, 1, 10 / 35]))
    stretched = verdict(scan, slab, affine_field(scan.grid, stretch))
    assert stretched.level == "failed" and "smallest_scale" in stretched.concerns


@pytest.mark.parametrize("ndim", [2, 3])
def test_noise_on_noise_is_not_ok(ndim):
    grid = anatomy(ndim).grid
    pair = [Volume(np.random.default_rng(seed).random(grid.shape, dtype=np.float32), grid) for seed in (1, 2)]
    found = verdict(*pair, DisplacementField.identity(grid))
    assert found.level != "ok" and "wrong_poses_z" in found.concerns


def test_a_folding_field_has_failed():
    scan = anatomy(2)
    places = torch.from_numpy(np.indices(scan.grid.shape)[None]).float()
    field = DisplacementField(4 * torch.sin(places.flip(1) / 2) * torch.sin(places / 2), scan.grid)
    found = verdict(scan, scan, field)
    assert found.measures["folds_percent"] > 10
    assert found.level == "failed" and "folds_percent" in found.concerns


def test_a_result_less_alike_than_its_start_is_named():
    scan = anatomy(2)
    shifted = affine_field(scan.grid, about_the_centre(scan.grid, np.eye(2)))
    shifted = DisplacementField(shifted.displacement + 4, scan.grid)
    found = verdict(scan, scan, shifted)
    assert "less_than_start" in found.concerns and found.measures["likeness_start"] > 0.95
    from_there = np.eye(3)
    from_there[:-1, -1] = 4
    assert "less_than_start" not in verdict(scan, scan, shifted, start=from_there).concerns


def test_a_ball_may_be_turned():
    """Other poses are as good, which is no reason against this one."""
    grid = Grid.centred((48, 48, 48), (1, 1, 1), (0, 0, 0))
    distance = np.linalg.norm(np.moveaxis(np.indices(grid.shape), 0, -1) - 23.5, axis=-1)
    ball = Volume(gaussian_filter((distance < 18).astype("f4") + (distance < 9), 1), grid)
    assert verdict(ball, ball, affine_field(grid, about_the_centre(grid, turn(3, 30)))).level == "ok"


@pytest.mark.parametrize("factor", [0.01, 100])
def test_measures_do_not_depend_on_the_unit_of_length(factor):
    """A mouse and a man: the same voxels at another spacing."""
    one, other = anatomy(2), anatomy(2, spacing=factor)
    field = torch.from_numpy(np.random.default_rng(3).standard_normal((1, 2, *one.grid.shape))).float()
    found = [measure(scan, scan, DisplacementField(field, scan.grid)) for scan in (one, other)]
    assert found[0] == pytest.approx(found[1], rel=0.02, abs=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_measures_do_not_depend_on_how_a_scan_is_stored(ndim):
    """Reversed and permuted axes, another origin, and another gain and background."""
    fixed = anatomy(ndim)
    stored = fixed.data[::-1].swapaxes(0, 1).copy()
    turned = np.eye(ndim + 1)
    turned[:, [0, 1]] = turned[:, [1, 0]]
    turned[0, 1], turned[0, -1] = -1, fixed.grid.shape[0] - 1
    moving = Volume(stored * 7 - 1000, Grid(stored.shape, fixed.grid.affine @ turned))
    plain, other = (measure(fixed, scan, DisplacementField.identity(fixed.grid)) for scan in (fixed, moving))
    assert plain["likeness"] == pytest.approx(other["likeness"], abs=0.02)
    assert judge(other).level == "ok"


def test_content_is_what_is_not_connected_with_the_border():
    image = np.full((40, 40), -1000.0)
    image[8:32, 8:32] = 40
    image[18:22, 18:22] = -1000  # air inside, as in a lung
    found = content(image)
    assert found[10:30, 10:30].all() and not found[:7].any()
    crop = np.random.default_rng(0).random((40, 40))
    assert content(crop).all()
    assert content(np.ones((9, 9))).all()


def test_a_view_keeps_to_the_content_and_to_the_number_of_cells():
    scan = anatomy(3)
    padded = Volume(np.pad(scan.data, 60), Grid(tuple(n + 120 for n in scan.grid.shape), scan.grid.affine))
    for shown in (view(scan), view(padded)):
        assert max(shown.image.grid.shape) < 60
        assert shown.extent == pytest.approx(0.8 * 56, rel=0.12)
    assert np.abs(view(padded).centre - 60 - view(scan).centre).max() < 1.5


def test_the_cells_of_a_view_lie_where_the_voxels_lie():
    """Cells of a linear ramp have the value of their place."""
    grid = Grid.centred((150, 130), (0.7, 1.1), (3, 4))
    ramp = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    shown = view(Volume(ramp[..., 0] + 2 * ramp[..., 1], grid))
    cells = shown.image.grid.to_world(np.moveaxis(np.indices(shown.image.grid.shape), 0, -1))
    values = cells[..., 0] + 2 * cells[..., 1]
    inner = (shown.image.data > 0.05) & (shown.image.data < 0.95)
    slope, offset = np.polyfit(values[inner], shown.image.data[inner], 1)
    np.testing.assert_allclose(shown.image.data[inner], slope * values[inner] + offset, atol=1e-4)


def test_a_field_and_its_matrix_map_cells_to_the_same_places():
    scan = anatomy(3)
    both = Likeness(view(scan), view(scan))
    matrix = about_the_centre(scan.grid, turn(3, 10) * 1.1)
    np.testing.assert_allclose(both.targets_of(affine_field(scan.grid, matrix)), both.targets(matrix), atol=0.3)
    np.testing.assert_allclose(affine_part(both.points, both.targets(matrix)), matrix, atol=1e-9)


@pytest.mark.parametrize(("ndim", "wrong", "near"), [(2, 18, 18), (3, 35, 32)])
def test_poses_leave_the_centre_or_turn_about_it(ndim, wrong, near):
    shown = view(anatomy(ndim))
    assert len(wrong_poses(shown)) == wrong and len(near_poses(shown)) == near
    for pose in wrong_poses(shown):
        moved = np.linalg.norm(transform_points(pose, shown.points) - shown.points, axis=1).mean()
        assert moved > 0.15 * shown.extent and np.linalg.det(pose) == pytest.approx(1)
    assert [round(np.linalg.det(pose)) for pose in mirrored_poses(shown)] == [-1] * ndim


def test_every_limit_decides_and_is_explained():
    for limit in LIMITS:
        step = (limit.failed - limit.doubtful) / 100
        others = {"wrong_poses": 35.0}
        levels = [judge({**others, limit.measure: limit.doubtful + k * step}).level for k in (-1, 1, 101)]
        assert levels == ["ok", "doubtful", "failed"]
        found = judge({**others, limit.measure: limit.failed + step})
        assert found.concerns == (limit.measure,) and found.risk > 2
        assert limit.risk(limit.good) == 0 and 0.9 < limit.risk(limit.doubtful - step) < 1
    assert set(NOTES) <= {limit.measure for limit in LIMITS}


def test_a_measure_without_a_value_is_not_judged():
    found = judge({"wrong_poses_z": float("nan"), "folds_percent": 0.0})
    assert (found.level, found.reasons) == ("ok", ())
    assert found.as_dict()["measures"] == {"wrong_poses_z": None, "folds_percent": 0.0}


def test_a_field_on_another_grid_is_refused():
    scan = anatomy(2)
    with pytest.raises(ValueError, match="not on the grid of the fixed image"):
        measure(scan, scan, DisplacementField.identity(Grid.centred((20, 20), (1, 1), (0, 0))))
