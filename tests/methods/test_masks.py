"""Masks in the methods that take them: a lesion that only one of two images shows does not pull."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support.tools import skip_without

from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.methods import METHODS, make_method, methods_with_masks
from regcore.methods.classical.external import joined_mask

#: Settings that are quick on a small image.
QUICK = {
    "syn": {"iterations": [40, 20, 5]},
    "greedy": {},
    "niftyreg": {"similarity": "lncc", "spacing_mm": 5, "iterations": 100, "bending_energy": 0.0005},
    "elastix": {
        "similarity": "ncc",
        "levels": 2,
        "iterations": 200,
        "samples": 1000,
    },  # mutual information shrugs it off
    "instance": {"shrink": [4, 2, 1], "iterations": [40, 40, 40]},
    "auto": {"shrink": [4, 2, 1], "iterations": [40, 40, 40]},
}
CASES = [(name, side) for name in QUICK for side in ("fixed", "moving")]
#: Radius of the lesion and of what is excluded around it, in voxels.
LESION, EXCLUDED = 5, 8


def pair_with_lesion(side: str) -> tuple[Volume, Volume, Volume, np.ndarray, np.ndarray]:
    """Two noisy textures, the mask of the one with a lesion, distances from its centre, and the true displacement."""
    random, shape = np.random.default_rng(0), (72, 64)
    grid = Grid.centred(shape, (1.5, 1.5), (0, 0))
    texture = gaussian_filter(random.standard_normal(shape), 2)
    texture = (texture - texture.min()) / np.ptp(texture)
    places = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    fading = np.prod([np.cos(np.pi / 2 * place) for place in places], axis=0)
    displacement = np.stack([fading * gaussian_filter(random.standard_normal(shape), 6) for _ in shape])
    displacement /= np.sqrt((displacement**2).mean())
    truth = DisplacementField(torch.from_numpy(displacement[None]).float(), grid)
    images = {"fixed": truth.warp(Volume(texture, grid)).data, "moving": texture}
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) / 2, axis=-1)
    for name, image in images.items():
        noisy = image + 0.01 * random.standard_normal(shape)
        noisy[(distance < LESION) & (name == side)] = 1
        images[name] = np.clip(noisy, 0, 1).astype(np.float32)
    mask = Volume((distance > EXCLUDED).astype(np.uint8), grid)
    return Volume(images["fixed"], grid), Volume(images["moving"], grid), mask, distance, displacement


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), CASES)
def test_a_masked_lesion_does_not_pull(name, side):
    method = make_method(name, QUICK[name])
    skip_without(name, method.settings)
    fixed, moving, mask, distance, truth = pair_with_lesion(side)
    errors = []
    for given in (None, mask):
        found = method.register(fixed, moving, **{f"{side}_mask": given}).field.displacement[0].numpy()
        errors.append(np.linalg.norm(found - truth, axis=0)[distance < EXCLUDED + 4].mean())
    assert errors[1] < 0.8 * errors[0], errors


def test_every_method_that_takes_masks_is_tested():
    assert {*QUICK, "affine"} == set(methods_with_masks()) & set(METHODS)


def test_joined_masks_leave_what_both_leave():
    grid = Grid.centred((2, 2), (1, 1), (0, 0))
    first, second = (Volume(np.array(data), grid) for data in ([[0, 1], [1, 1]], [[1, 1], [0, 2]]))
    assert joined_mask(first, second).data.tolist() == [[False, True], [False, True]]
    assert joined_mask(first, None) is first and joined_mask(None, second) is second
    assert joined_mask(None, None) is None
