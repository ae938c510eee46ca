"""What is done to real training pairs: flips, deformations and lookup tables."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from regcore.methods import make_method
from regcore.synthesis.augmentation import deformed, flipped, recoloured
from regcore.synthesis.noise import Draws, uniform


def seeded(seed=0):
    return Draws(seed)


def batch(size=2):
    draws = seeded()
    found = {side: uniform(0, 1, draws, (size, 1, 24, 32)) for side in ("fixed", "moving")}
    for side in ("fixed", "moving"):
        found[f"{side}_labels"] = (4 * found[side]).to(torch.int16)
    return {**found, "codes": [1, 2, 3]}


def test_a_batch_is_flipped_as_a_whole():
    plain, seen = batch(), set()
    for seed in range(30):
        found = flipped(plain, seeded(seed))
        for axes in ((), (2,), (3,), (2, 3)):
            if all(torch.equal(found[name], plain[name].flip(axes)) for name in plain if name != "codes"):
                seen.add(axes)
        assert found["codes"] == plain["codes"]
    assert seen == {(), (2,), (3,), (2, 3)}


@pytest.mark.slow
def test_every_image_has_a_deformation_of_its_own_with_its_labels():
    """Labels are the quarters of the intensities, and remain so where interpolation does not blend."""
    smooth = batch()
    ramp = torch.linspace(0, 0.999, 32).expand(2, 1, 24, 32).clone()
    smooth |= dict.fromkeys(("fixed", "moving"), ramp)
    smooth |= {f"{side}_labels": (4 * ramp).to(torch.int16) for side in ("fixed", "moving")}
    found = deformed(smooth, seeded(3))
    images = [found["fixed"][0], found["fixed"][1], found["moving"][0], found["moving"][1]]
    for number, image in enumerate(images):
        assert not torch.equal(image, ramp[0])
        assert all(not torch.equal(image, other) for other in images[:number])
    inside = found["fixed"] > 0
    assert ((4 * found["fixed"]).to(torch.int16) == found["fixed_labels"])[inside].float().mean() > 0.9


def test_a_lookup_table_is_smoothed_noise():
    entries = torch.arange(256) / 255
    table = recoloured(entries.view(1, 1, 16, 16), seeded())[0, 0].flatten().numpy()
    noise = uniform(0, 1, seeded(), (1, 1, 256, 1)).flatten().numpy().astype(float)
    expected = gaussian_filter1d(noise, 64, mode="nearest", truncate=3)
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(table, expected, atol=2e-3)


def test_every_image_has_a_lookup_table_of_its_own():
    images = batch()["fixed"][:1].expand(2, -1, -1, -1)
    first, second = recoloured(images, seeded())
    assert not torch.equal(first, second)
    assert float(first.min()) >= 0 and float(first.max()) <= 1


def test_augmented_pairs_follow_torchs_seed():
    method = make_method("voxelmorph", {"augmentation": "deformations", "flips": True, "lambda": 1})
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(method.augmented(batch())[0]["moving"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_with_random_contrasts_the_loss_sees_the_images_themselves():
    method = make_method("voxelmorph", {"augmentation": "contrasts", "lambda": 1})
    plain = batch()
    compared, seen = method.augmented(plain)
    assert compared is plain and not torch.equal(seen["fixed"], plain["fixed"])


@pytest.mark.parametrize("name", ["voxelmorph", "hypermorph"])
@pytest.mark.parametrize("augmentation", ["deformations", "contrasts", None])
def test_augmented_training_steps(name, augmentation):
    settings = {"augmentation": augmentation, "flips": True, "architecture": "paper-diff"}
    method = make_method(name, settings | ({"hidden": [4]} if name == "hypermorph" else {"lambda": 1}))
    torch.manual_seed(0)
    module = method.build(2)
    found = {side: torch.rand(2, 1, 32, 32) for side in ("fixed", "moving")}
    losses = method.training_step(module, found)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
