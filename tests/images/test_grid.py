"""Grids: coordinates, and when two grids are the same."""

import numpy as np
import pytest
from support.images import GRIDS, per_grid

from regcore.images.grid import Grid


@per_grid
def test_to_world_follows_the_affine_and_to_voxels_undoes_it(grid, generator):
    voxels = generator.uniform(-3, 9, (4, 5, grid.ndim))
    homogeneous = np.concatenate([voxels, np.ones((4, 5, 1))], axis=-1)
    expected = np.einsum("ij,abj->abi", grid.affine, homogeneous)[..., :-1]
    np.testing.assert_allclose(grid.to_world(voxels), expected, atol=1e-12)
    np.testing.assert_allclose(grid.to_voxels(expected), voxels, atol=1e-12)


def test_spacing_is_the_length_of_a_step_along_each_array_axis():
    np.testing.assert_allclose(GRIDS[0].spacing, [2, 2, 1.125], atol=1e-12)
    np.testing.assert_allclose(GRIDS[1].spacing, [1, 3], atol=1e-12)


@per_grid
def test_same_as_tolerates_a_share_of_the_smallest_voxel_and_no_more(grid):
    def shifted(mm: float) -> Grid:
        affine = grid.affine.copy()
        affine[0, -1] += mm
        return Grid(grid.shape, affine)

    size = grid.spacing.min()
    assert grid.same_as(shifted(0.9e-3 * size))
    assert not grid.same_as(shifted(1.1e-3 * size))
    assert grid.same_as(shifted(0.5 * size), voxels=0.6)


def test_same_as_is_as_strict_for_micrometres_as_for_millimetres():
    small = Grid((50, 40), np.diag([1e-3, 1e-3, 1]))
    moved = small.affine.copy()
    moved[0, -1] = 0.4e-3  # less than half a micrometre
    assert not small.same_as(Grid(small.shape, moved), voxels=0.05)


@per_grid
def test_same_as_sees_shape_flip_and_a_rotation_that_keeps_the_origin(grid):
    taller = Grid((grid.shape[0] + 1, *grid.shape[1:]), grid.affine)
    flipped = grid.affine.copy()
    flipped[:, 0] *= -1
    swapped = grid.affine.copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    assert not grid.same_as(taller)
    assert not grid.same_as(Grid(grid.shape, flipped))
    assert not grid.same_as(Grid(grid.shape, swapped))


def test_same_as_sees_another_number_of_voxels_between_the_same_corners():
    coarse, fine = Grid.centred((6, 5), (2, 1), (0, 0)), Grid.centred((11, 5), (1, 1), (0, 0))
    np.testing.assert_array_equal(coarse.corners(), fine.corners())
    assert not coarse.same_as(fine)


def test_same_as_sees_a_spacing_error_that_only_adds_up_at_the_far_corner():
    a = Grid.centred((201, 3), (1, 1), (0, 0))
    affine = a.affine.copy()
    affine[0, 0] += 1e-5  # 2 micrometres at voxel 200
    assert not a.same_as(Grid(a.shape, affine))


def test_overlaps_compares_world_boxes():
    here = Grid.centred((11, 11), (1, 1), (0, 0))  # covers -5 … 5
    assert here.overlaps(Grid.centred((3, 3), (1, 1), (5.9, 0)))
    assert not here.overlaps(Grid.centred((3, 3), (1, 1), (6.1, 0)))
    assert not here.overlaps(Grid.centred((3, 3), (1, 1), (0, -6.1)))
    mirrored = Grid((11, 11), np.array([[-1, 0, 15], [0, 1, -5], [0, 0, 1]]))  # covers x 5 … 15
    assert here.overlaps(mirrored)


@pytest.mark.parametrize("shape", [(10, 7), (10, 7, 4)])
def test_centred_is_axis_aligned_around_its_centre(shape):
    spacing, centre = (1.0, 2.5, 4.0)[: len(shape)], (3.0, -8.0, 20.0)[: len(shape)]
    grid = Grid.centred(shape, spacing, centre)
    np.testing.assert_array_equal(grid.affine[:-1, :-1], np.diag(spacing))
    np.testing.assert_allclose(grid.centre, centre, atol=1e-12)
    np.testing.assert_allclose(grid.corners().mean(axis=0), centre, atol=1e-12)
    np.testing.assert_allclose(np.ptp(grid.corners(), axis=0), np.multiply(spacing, np.array(shape) - 1), atol=1e-12)


def test_a_grid_needs_an_affine_of_its_dimension_and_keeps_its_own_copy():
    with pytest.raises(ValueError, match="3x3"):
        Grid((4, 5), np.eye(4))
    affine = np.eye(3)
    grid = Grid((4, 5), affine)
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 9
