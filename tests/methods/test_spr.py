"""Spatially varying regularisation: the weight volume, its priors, and the loss that they make."""

import pytest
import torch

from regcore.errors import InputError
from regcore.losses import diffusion, lncc, weighted_diffusion
from regcore.methods import make_method
from regcore.networks.unet import FlowNetwork
from regcore.networks.weight_volume import LEAST, WeightedNetwork, WeightHead, beta_weights, gaussian_weights
from regcore.spatial import warp

PAIR = {"fixed": (1, 1, 30, 44), "moving": (1, 1, 30, 44)}


def batch():
    torch.manual_seed(1)
    return {side: torch.rand(shape) for side, shape in PAIR.items()}


def spr(**settings):
    method = make_method("spr", {"size": "tiny", "time_steps": 2, **settings})
    method.fit_to((30, 44))
    torch.manual_seed(0)
    return method, method.build(2).eval()


def test_the_authors_head_has_as_many_weights():
    assert sum(parameter.numel() for parameter in WeightHead(3, 16).parameters()) == 84_433


@pytest.mark.parametrize("features", [4, 2])
@pytest.mark.parametrize("network", ["transmorph", "unet"])
def test_a_head_fits_any_network(network, features):
    method, module = spr(network=network, features=features)
    images = batch()
    flow = method.predict(module, images["fixed"], images["moving"])
    assert flow.shape[1] == 3
    weights = method.weights(flow, images["fixed"])
    assert weights.shape == PAIR["fixed"] and weights.min() > 0 and weights.max() <= 1
    displacement, inverse = method.displacements(flow, images["fixed"])
    assert displacement.shape == inverse.shape == (1, 2, 30, 44)


def test_the_map_is_drawn_from_the_resolution_that_is_named():
    network = FlowNetwork(2, "paper-diff")
    weighted = [WeightedNetwork(network, 2, features) for features in (4, 2)]
    seen = []
    for made in weighted:
        made.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
        made(torch.rand(1, 2, 32, 64))
    assert seen == [(8, 16), (16, 32)]
    with pytest.raises(ValueError, match="features must be one of 4, 2"):
        WeightedNetwork(network, 2, 8)


def test_the_network_registers_as_without_a_head():
    torch.manual_seed(0)
    network = FlowNetwork(2, "paper-diff").eval()
    pair = torch.rand(1, 2, 32, 64)
    torch.testing.assert_close(WeightedNetwork(network, 2)(pair)[:, :2], network(pair))


def test_weights_of_the_two_priors():
    drawn = torch.tensor([-200.0, 0, 200])
    torch.testing.assert_close(beta_weights(drawn), torch.tensor([LEAST, 0.5, 1]))
    torch.testing.assert_close(gaussian_weights(drawn), torch.tensor([LEAST, 1, 5]))


@pytest.mark.parametrize(
    ("settings", "scale", "penalty"),
    [
        ({"prior": "beta", "lambda_max": 2.0, "alpha": 0.3}, 2, lambda w: -0.3 * w.log().mean()),
        ({"prior": "gaussian", "lambda_mean": 4.0, "sigma": 0.7}, 4, lambda w: 0.7 * (w - 1).square().mean()),
        ({"prior": "gaussian", "lambda_mean": 4.0, "sigma": 0}, 4, lambda w: 0 * w.mean()),
    ],
    ids=["beta", "gaussian", "no prior"],
)
def test_the_loss_is_eq_19(settings, scale, penalty):
    method, _ = spr(**settings)
    images, flow = batch(), torch.randn(1, 3, 32, 32)
    losses = method.losses(flow, images)
    displacement, weights = method.displacement(flow, images["fixed"]), method.weights(flow, images["fixed"])
    expected = {
        "lncc": lncc(images["fixed"], warp(images["moving"], displacement), 9, "voxelmorph"),
        "diffusion": weighted_diffusion(displacement, weights),
        "prior": penalty(weights),
    }
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    torch.testing.assert_close(losses["total"], expected["lncc"] + scale * expected["diffusion"] + expected["prior"])


def test_labels_may_take_part():
    method, _ = spr(gamma=2)
    images = batch()
    labels = {f"{side}_labels": (images[side] > 0.5).to(torch.int16) for side in PAIR}
    losses = method.losses(torch.randn(1, 3, 32, 32), {**images, **labels, "codes": [1]})
    parts = losses["lncc"] + 3.354 * losses["diffusion"] + losses["prior"] + 2 * losses["label_dice"]
    torch.testing.assert_close(losses["total"], parts)


def test_a_u_net_must_end_at_half_resolution():
    with pytest.raises(InputError, match="ends at half resolution, not 'paper': paper-diff"):
        make_method("spr", {"network": "unet", "architecture": "paper"})


@pytest.mark.parametrize("name", ["lambda", "smoothness", "weighting"])
def test_what_the_prior_takes_the_place_of_is_no_setting(name):
    with pytest.raises(InputError, match=name):
        make_method("spr", {name: 1})


def test_a_strong_prior_draws_the_weights_to_one():
    """The best constant weight minimises λ w d - α′ log w, for a diffusion d: w = α′ / (λ d), 1 at most."""
    method, _ = spr(prior="beta", lambda_max=2.0, alpha=0.01)
    images = batch()
    flow = torch.nn.functional.interpolate(torch.randn(1, 2, 4, 4), (32, 32), mode="bilinear")
    drawn = torch.zeros(1, 1, 1, 1, requires_grad=True)
    optimiser = torch.optim.Adam([drawn], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        losses = method.losses(torch.cat([flow, drawn.expand(1, 1, 32, 32)], 1), images)
        losses["total"].backward()
        optimiser.step()
    roughness = float(diffusion(method.displacement(flow, images["fixed"])))
    assert 0.01 / (2 * roughness) < 0.9
    assert float(drawn.detach().sigmoid()) == pytest.approx(0.01 / (2 * roughness), rel=0.03)
