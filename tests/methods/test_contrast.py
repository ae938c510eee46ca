"""Whether two images have one contrast, and one image in the contrast of the other."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regcore.methods.contrast import agreement, in_contrast_of


def _textured(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4)
    return torch.from_numpy((noise - noise.min()) / (noise.max() - noise.min())).float()[None, None]


@pytest.mark.parametrize("shape", [(96, 80), (40, 36, 44)])
def test_agreement_is_that_of_the_local_relation(shape):
    image = _textured(shape)
    everywhere = torch.ones_like(image, dtype=torch.bool)
    assert agreement(image, 0.2 + 0.5 * image, everywhere) == pytest.approx(1, abs=1e-3)
    assert agreement(image, 1 - image, everywhere) == pytest.approx(-1, abs=1e-3)
    assert abs(agreement(image, _textured(shape, seed=1), everywhere)) < 0.5
    classes = (image * 5.99).long()
    contrasts = (
        torch.tensor(values)[classes] for values in ([0.1, 0.3, 0.5, 0.7, 0.8, 0.9], [0.9, 0.2, 0.7, 0.1, 0.6, 0.3])
    )
    assert abs(agreement(*contrasts, everywhere)) < 0.7


def test_air_does_not_speak_for_agreement():
    image = _textured((96, 80))
    shown = torch.zeros_like(image, dtype=torch.bool)
    shown[..., 24:72, 20:60] = True
    fixed, moving = image * shown, (1 - image) * shown  # an inverted contrast with black air in both
    assert agreement(fixed, moving, shown) < -0.95
    assert agreement(fixed, moving, torch.ones_like(shown)) > agreement(fixed, moving, shown) + 0.5


def test_no_structure_is_no_agreement():
    flat, everywhere = torch.full((1, 1, 32, 32), 0.5), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    assert agreement(flat, flat, everywhere) == pytest.approx(0, abs=0.01)
    assert agreement(flat, flat, ~everywhere) == 0


def test_the_relation_of_two_contrasts_is_found():
    classes = (_textured((96, 80)) * 2.99).long()
    fixed, moving = (torch.tensor(values)[classes] for values in ([0.0, 0.9, 0.3], [0.1, 0.5, 0.8]))
    everywhere = torch.ones_like(fixed, dtype=torch.bool)
    found = in_contrast_of(fixed, moving, moving, everywhere)
    torch.testing.assert_close(found, fixed, atol=0.02, rtol=0)
    # What is learned where the warped image lies is applied on the moving image's grid.
    shifted = moving.roll(7, dims=2)
    torch.testing.assert_close(
        in_contrast_of(fixed, shifted, moving, everywhere), fixed.roll(7, dims=2), atol=0.02, rtol=0
    )


def test_without_shared_content_the_moving_image_stays():
    fixed, moving = _textured((32, 32)), _textured((32, 32), seed=1)
    assert torch.equal(in_contrast_of(fixed, moving, moving, torch.zeros_like(fixed, dtype=torch.bool)), moving)
