"""Several images of each subject, in the methods that take them: each shows what the others do not."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support.tools import skip_without

from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.methods import METHODS, make_method, method_info, methods_with
from regcore.methods.base import Channel

SHAPE = (64, 60)
#: Settings that are quick on a small image.
QUICK = {
    "syn": {"iterations": [40, 20, 5]},
    "greedy": {},
    "instance": {"shrink": [4, 2, 1], "iterations": [40, 40, 40]},
    "auto": {"contrasts": "same", "shrink": [4, 2, 1], "iterations": [40, 40, 40]},
}


def halves() -> tuple[list[Volume], list[Volume], np.ndarray]:
    """Two fixed and two moving images, with detail in one half each, and the displacement of both."""
    random, grid = np.random.default_rng(0), Grid.centred(SHAPE, (1.5, 1.5), (0, 0))
    places = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    fading = np.prod([np.cos(np.pi / 2 * place) for place in places], axis=0)
    displacement = np.stack([fading * gaussian_filter(random.standard_normal(SHAPE), 6) for _ in SHAPE])
    displacement /= np.sqrt((displacement**2).mean())
    truth = DisplacementField(torch.from_numpy(displacement[None]).float(), grid)
    first = np.indices(SHAPE)[0] < SHAPE[0] // 2
    moving = []
    for side in (first, ~first):
        texture = gaussian_filter(random.standard_normal(SHAPE), 2)
        texture = (texture - texture.min()) / np.ptp(texture)
        moving.append(Volume(np.where(side, texture, 0.3).astype(np.float32), grid))
    return [truth.warp(image) for image in moving], moving, displacement


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_further_channel_shows_what_the_first_does_not(name):
    method = make_method(name, QUICK[name])
    skip_without(name, method.settings)
    fixed, moving, truth = halves()

    def error(weight) -> float:
        """In the half that the first channel does not show."""
        channels = {"channels": [Channel(fixed[1], moving[1], weight)]} if weight else {}
        found = method.register(fixed[0], moving[0], **channels)
        if method_info(name).external:
            assert ("fixed_2" in found.commands[-1]) == bool(weight)
        return np.linalg.norm(found.field.displacement[0].numpy() - truth, axis=0)[36:-4, 4:-4].mean()

    assert error(0.5) < 0.5 * error(None)


def test_every_method_that_takes_channels_is_tested():
    assert set(QUICK) == set(methods_with("uses_channels")) & set(METHODS)


def test_the_calls_of_the_tools_have_the_weights():
    method = make_method("greedy")
    assert method.arguments(2, [0.5, 0.25]).startswith(
        "-d 2 -w 0.25 -i fixed.nii.gz moving.nii.gz -w 0.5 -i fixed_2.nii.gz moving_2.nii.gz "
        "-w 0.25 -i fixed_3.nii.gz moving_3.nii.gz -m NCC 2x2 "
    )
