import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from regcore.alignment.aligner import align_images
from regcore.errors import InputError
from regcore.images.volume import Grid, Volume


def head(ndim: int, seed: int = 0) -> Volume:
    """An egg with folds inside and two dark chambers, off the middle of its image."""
    shape = (72, 60, 64)[:ndim]
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    radius = np.sqrt(sum((x * s) ** 2 for x, s in zip(places, (1.4, 1.7, 1.6), strict=False)))
    folds = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    data = np.where(radius < 1, 60 + 25 * folds / folds.std() - 30 * (places[0] > 0.2), 0)
    data[(radius < 0.45) & (places[1] > 0.05)] = 15
    data = np.clip(data, 0, None) * (radius < 1) + 8 * (radius < 1)
    return Volume(data.astype(np.float32), Grid.centred(shape, (2.5,) * ndim, (7, -9, 4)[:ndim]))


def moved(volume: Volume, matrix: np.ndarray, keep: slice | None = None) -> Volume:
    """The image under a map of the world, on a grid of its own around where it then is."""
    ndim = volume.grid.ndim
    centre = matrix[:-1, :-1] @ volume.grid.centre + matrix[:-1, -1]
    grid = Grid.centred([84] * ndim, np.linspace(2.3, 2.6, ndim), centre)
    to_voxels = np.linalg.inv(volume.grid.affine) @ np.linalg.inv(matrix) @ grid.affine
    data = affine_transform(volume.data, to_voxels[:-1, :-1], to_voxels[:-1, -1], output_shape=grid.shape, order=1)
    if keep is None:
        return Volume(data, grid)
    affine = grid.affine.copy()
    affine[:-1, -1] += affine[:-1, 0] * keep.start
    return Volume(data[keep], Grid(data[keep].shape, affine))


def some_map(volume: Volume, angles: tuple[float, ...], scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    ndim = volume.grid.ndim
    rotation = Rotation.from_euler("xyz", (0, 0, *angles)[-3:], degrees=True).as_matrix()[:ndim, :ndim]
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = scale * rotation
    matrix[:-1, -1] = volume.grid.centre + shift - matrix[:-1, :-1] @ volume.grid.centre
    return matrix


def voxels_apart(volume: Volume, found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance of two maps over an image's content, in voxels."""
    points = volume.grid.to_world(np.argwhere(volume.data > 5)[::37])
    places = [points @ m[:-1, :-1].T + m[:-1, -1] for m in (found, true)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).mean() / volume.grid.spacing.min())


@pytest.mark.parametrize("angle", [0, 30, 90, 135, 180])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_slice_is_found_however_it_is_turned_in_either_contrast(angle, inverted):
    fixed = head(2)
    true = some_map(fixed, (angle,), scale=1.1, shift=150.0)
    moving = moved(fixed, true)
    if inverted:
        moving = moving.with_data(np.where(moving.data > 5, 150 - moving.data, 0))
    assert voxels_apart(fixed, align_images(fixed, moving).matrix, true) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("angles", [(100, 20, -60), (10, 80, 170)])
def test_a_volume_is_found_however_it_is_turned(angles):
    fixed = head(3)
    true = some_map(fixed, angles, scale=0.85, shift=-120.0)
    moving = moved(fixed, true)
    moving = moving.with_data(np.where(moving.data > 5, 150 - moving.data, 0))
    assert voxels_apart(fixed, align_images(fixed, moving).matrix, true) < 0.5


@pytest.mark.slow
def test_a_slab_is_not_stretched_over_the_whole():
    fixed = head(3)
    true = some_map(fixed, (15, -10, 40))
    found = align_images(fixed, moved(fixed, true, keep=slice(36, 48)))
    assert found.kind == "similarity" and "thin" in found.notes[0]
    assert voxels_apart(fixed, found.matrix, true) < 1.5


def test_swapped_images_give_the_inverse():
    fixed = head(2)
    moving = moved(fixed, some_map(fixed, (50,), shift=30.0))
    there, back = align_images(fixed, moving).matrix, align_images(moving, fixed).matrix
    assert voxels_apart(fixed, back @ there, np.eye(3)) < 1e-6


def test_a_motion_of_the_header_moves_the_result_by_that_motion():
    fixed = head(2)
    moving = moved(fixed, some_map(fixed, (25,), shift=10.0))
    motion = some_map(moving, (70,), shift=-300.0)
    carried = Volume(moving.data, Grid(moving.grid.shape, motion @ moving.grid.affine))
    expected = motion @ align_images(fixed, moving).matrix
    assert voxels_apart(fixed, align_images(fixed, carried).matrix, expected) < 0.1


def test_storage_of_the_moving_image_does_not_matter():
    fixed = head(2)
    moving = moved(fixed, some_map(fixed, (25,), shift=10.0))
    flipped = moving.grid.affine.copy()
    flipped[:-1, -1] += flipped[:-1, 0] * (moving.grid.shape[0] - 1)
    flipped[:-1, 0] *= -1
    other = Volume(moving.data[::-1].T, Grid(moving.grid.shape[::-1], flipped[:, [1, 0, 2]]))
    assert voxels_apart(fixed, align_images(fixed, other).matrix, align_images(fixed, moving).matrix) < 0.1


@pytest.mark.parametrize("unit", [1e-2, 1e3])
def test_only_sizes_relative_to_the_content_count(unit):
    fixed = head(2)
    moving = moved(fixed, some_map(fixed, (60,), shift=10.0))
    scale = np.diag([unit, unit, 1])
    scaled = [Volume(v.data, Grid(v.grid.shape, scale @ v.grid.affine)) for v in (fixed, moving)]
    expected = scale @ align_images(fixed, moving).matrix @ np.linalg.inv(scale)
    assert voxels_apart(scaled[0], align_images(*scaled).matrix, expected) < 0.1


def test_a_perturbation_changes_nothing_and_the_same_call_gives_the_same_bits():
    fixed = head(2)
    moving = moved(fixed, some_map(fixed, (4,), shift=2.0))
    found = align_images(fixed, moving).matrix
    noise = np.random.default_rng(1).normal(size=moving.data.shape).astype(np.float32)
    nudged = moving.with_data(moving.data + 1e-6 * noise * (moving.data > 0))
    assert np.array_equal(found, align_images(fixed, moving).matrix)
    assert voxels_apart(fixed, align_images(fixed, nudged).matrix, found) < 0.05


def test_degrees_of_freedom_are_those_asked_for():
    fixed = head(2)
    moving = moved(fixed, some_map(fixed, (20,), scale=1.1))
    rigid = align_images(fixed, moving, "rigid").matrix[:2, :2]
    assert np.allclose(rigid @ rigid.T, np.eye(2), atol=1e-5)
    similarity = align_images(fixed, moving, "similarity").matrix[:2, :2]
    assert np.allclose(similarity @ similarity.T, 1.21 * np.eye(2), atol=0.02)
    assert np.allclose(align_images(fixed, moving, "translation").matrix[:2, :2], np.eye(2))


def test_what_a_mask_excludes_does_not_count():
    fixed = head(2)
    true = some_map(fixed, (20,), shift=10.0)
    moving = moved(fixed, true)
    implant = moving.data.copy()
    implant[:, :30] = np.random.default_rng(2).uniform(0, 400, implant[:, :30].shape)
    mask = np.ones(implant.shape, np.int32)
    mask[:, :30] = 0
    found = align_images(fixed, moving.with_data(implant), moving_mask=moving.with_data(mask))
    assert voxels_apart(fixed, found.matrix, true) < 1.5


def test_a_start_is_a_candidate_that_wins_where_nothing_is_better():
    fixed = head(2)
    start = some_map(fixed, (45,), shift=500.0)
    found = align_images(fixed, moved(fixed, start), "rigid", start=start)
    assert voxels_apart(fixed, found.matrix, start) < 0.3


def test_an_impossible_pair_is_refused():
    fixed = head(2)
    with pytest.raises(InputError, match="2-D"):
        align_images(fixed, head(3))
    with pytest.raises(InputError, match="no content inside its mask"):
        align_images(fixed, fixed, moving_mask=fixed.with_data(np.zeros(fixed.data.shape, np.int32)))
