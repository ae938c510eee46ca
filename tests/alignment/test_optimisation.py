"""Affine alignment by optimisation, of images whose true map is known."""

import numpy as np
import pytest
import torch

from regcore.alignment.optimisation import LEVELS, SIMILARITIES, optimise_affine
from regcore.alignment.preprocess import Scan, align
from regcore.alignment.resampling import coarsened, resample
from regcore.errors import InputError
from regcore.images.volume import Grid, Volume
from regcore.synthesis.anatomy import build_anatomy
from regcore.synthesis.mr_contrast import tissue_signals


def image(anatomy, contrast):
    signals = tissue_signals(contrast)
    return Volume(sum(signals[k] * f for k, f in anatomy.fractions.items()).astype(np.float32), anatomy.grid)


def random_map(ndim, seed):
    """Shears, scales and turns of several per cent, and a shift of up to 8 mm."""
    generator = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] += 0.07 * generator.standard_normal((ndim, ndim))
    matrix[:-1, -1] = generator.uniform(-8, 8, ndim)
    return matrix


def distances(found, true, anatomy):
    """How far from each other two maps take the voxels of the brain, mm."""
    points = anatomy.grid.to_world(np.argwhere(anatomy.labels > 0)[::97])
    moved = [points @ matrix[:-1, :-1].T + matrix[:-1, -1] for matrix in (found, true)]
    return np.linalg.norm(moved[0] - moved[1], axis=1)


@pytest.fixture(scope="module", params=[(2, 1.0), (3, 3.0)], ids=["2-D", "3-D"])
def anatomy(request):
    return build_anatomy(*request.param, -14)


#: In voxels.  Across contrasts the optimum of NMI in the coarse volume is not the true map.
LIMITS = {("nmi", "T1w"): 0.15, ("nmi", "T2w"): 0.4, ("mind", "T1w"): 0.5, ("mind", "T2w"): 1}


def unlikeness(similarity, fixed, moving, matrix):
    """The loss of a map on the finest of the images' levels."""
    pair = [coarsened(volume, LEVELS[-1][0] * volume.grid.spacing[0]) for volume in (fixed, moving)]
    images = [Volume(resample(pair[1], pair[0].grid, matrix).data, pair[0].grid), pair[0]]
    return float(
        SIMILARITIES[similarity](*[torch.from_numpy(v.data.astype(np.float32))[None, None] for v in images[::-1]])
    )


@pytest.mark.parametrize(("similarity", "contrast"), LIMITS)
def test_a_known_map_is_found_again_whatever_the_contrast(anatomy, similarity, contrast):
    """To a fraction of a voxel, from 5 to 16 mm; and nothing is left to gain."""
    true = random_map(anatomy.grid.ndim, 1)
    fixed = image(anatomy, "T1w")
    moving = resample(image(anatomy, contrast), anatomy.grid, np.linalg.inv(true))
    found = align(Scan(fixed), Scan(moving), similarity).matrix
    assert distances(np.eye(len(true)), true, anatomy).mean() > 4
    assert distances(found, true, anatomy).mean() < LIMITS[similarity, contrast] * anatomy.grid.spacing[0]
    assert unlikeness(similarity, fixed, moving, found) < unlikeness(similarity, fixed, moving, true) + 1e-3


def test_images_need_not_lie_on_one_grid():
    anatomy = build_anatomy(2, 1.0, -14)
    fixed = image(anatomy, "T1w")
    true = np.array([[0.0, 1.05, 40], [-0.95, 0.05, -30], [0, 0, 1]])
    true[:2, :2] = true[:2, :2] @ np.linalg.inv([[0, 1], [-1, 0]])  # nearly upright, far away
    grid = Grid.centred([90, 90], np.array([2.0, 2.2]), np.array([40.0, -30.0]))
    moving = resample(fixed, grid, np.linalg.inv(true))
    assert distances(align(Scan(fixed), Scan(moving), "nmi").matrix, true, anatomy).mean() < 0.5


def test_an_empty_image_cannot_be_aligned():
    anatomy = build_anatomy(2, 1.0, -14)
    fixed = image(anatomy, "T1w")
    with pytest.raises(InputError, match="is empty"):
        optimise_affine(fixed, fixed.with_data(np.zeros_like(fixed.data)), "nmi")


def test_a_start_far_away_is_improved():
    """A quarter turn, which the optimiser does not find from the centres."""
    anatomy = build_anatomy(2, 1.0, -14)
    fixed, true = image(anatomy, "T1w"), random_map(2, 1)
    moving = resample(fixed, anatomy.grid, np.linalg.inv(true))
    turned = np.array([[0.0, -1, 30], [1, 0, -20], [0, 0, 1]])
    grid = Grid(moving.grid.shape, turned @ moving.grid.affine)
    start = turned.copy()
    found = align(Scan(fixed), Scan(Volume(moving.data, grid)), "nmi", start=start).matrix
    assert distances(start, turned @ true, anatomy).mean() > 4
    assert distances(found, turned @ true, anatomy).mean() < 0.3
    without = align(Scan(fixed), Scan(Volume(moving.data, grid)), "nmi").matrix
    assert distances(without, turned @ true, anatomy).mean() > 4
    np.testing.assert_array_equal(start, turned)


def test_masks_are_refused_by_name():
    fixed = image(build_anatomy(2, 1.0, -14), "T1w")
    masked = Scan(fixed, fixed.with_data(np.ones(fixed.grid.shape, np.uint8)))
    with pytest.raises(InputError, match="'mind' takes no masks; auto, "):
        align(masked, Scan(fixed), "mind")
