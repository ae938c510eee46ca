"""Features that change with the contrast, against a network whose features are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from regcore.evaluation.variability import feature_variability
from regcore.experiments.synthmorph import series_of_pairs
from regcore.networks.unet import ARCHITECTURES, FlowNetwork


def pair(scale=1.0, fixed=0.0):
    generator = torch.Generator().manual_seed(0)
    moving = scale * torch.rand(1, 1, 32, 32, generator=generator)
    return torch.cat([moving, torch.full_like(moving, fixed)], 1)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_convolution_is_seen_and_the_last_is_the_output(name):
    network = FlowNetwork(2, name).unet
    seen = []
    with torch.inference_mode():
        result = network(pair(), seen)
        assert torch.equal(result, network(pair()))
    rules = ARCHITECTURES[name]
    assert [x.shape[1] for x in seen] == [*rules.encoder, *rules.decoder, *rules.at_half, *rules.at_full]
    assert torch.equal(seen[-1], result)


def test_without_biases_features_double_with_the_image():
    """LeakyReLU is homogeneous: of twice the image they are twice as large, so they differ by their own size."""
    network = FlowNetwork(2, "paper-diff").unet
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(weight)
    found = feature_variability(network, [[pair(), pair(2.0)]])
    np.testing.assert_allclose(found[:, 1], 1, rtol=1e-4)
    thrice = feature_variability(network, [[pair(), pair(2.0), pair(3.0)], [pair(), pair(), pair()]])
    np.testing.assert_allclose(thrice[:, 1], (1.5 + 0) / 2, rtol=1e-4)
    np.testing.assert_allclose(thrice[:, 0], 0.75 * found[:, 0], rtol=1e-4)


def test_the_difference_is_the_root_mean_square_over_space():
    network = FlowNetwork(2, "paper").unet
    images = [pair(), pair(1.5, 0.3)]
    layers = []
    for image in images:
        seen = []
        with torch.inference_mode():
            network(image, seen)
        layers.append(seen[0].numpy().astype(float))
    expected = np.sqrt(((layers[1] - layers[0]) ** 2).mean((0, 2, 3))).mean()
    assert feature_variability(network, [images])[0, 0] == pytest.approx(expected, rel=1e-5)


def test_one_contrast_does_not_vary():
    network = FlowNetwork(2, "paper").unet
    with pytest.raises(ValueError, match="two or more contrasts"):
        feature_variability(network, [[pair()]])
    with pytest.raises(ValueError, match="no series"):
        feature_variability(network, [])


def test_a_series_is_one_pair_of_subjects_in_several_contrasts():
    contrasts = ["FLASH-40", "FLASH-4", "FLASH-20", "T1w", "MPRAGE-300"]
    scans = [(f"{subject}_{contrast}", subject, contrast) for subject in "abc" for contrast in contrasts]
    table = pd.DataFrame(scans, columns=["scan", "subject", "contrast"]).set_index("scan")
    rows = [("a_FLASH-40", f"b_{contrast}") for contrast in contrasts[1:]] + [("c_T1w", "b_FLASH-4")]
    rows += [("a_FLASH-40", "c_FLASH-20"), ("a_FLASH-40", "c_FLASH-4")]
    pairs = pd.DataFrame(rows, columns=["fixed", "moving"])
    assert series_of_pairs(pairs, table) == {
        "FLASH": [("a_FLASH-40", ["b_FLASH-20", "b_FLASH-4"]), ("a_FLASH-40", ["c_FLASH-20", "c_FLASH-4"])]
    }
