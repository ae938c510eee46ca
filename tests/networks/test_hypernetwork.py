"""The hypernetwork: its size, its start, its gradients, and several rows of hyperparameters at once."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from regcore.networks.hypernetwork import Hypernetwork, all_at_once, each_alone
from regcore.networks.unet import ARCHITECTURES, FlowNetwork

PAPER, CODE = {"hidden": [64] * 4, "final": "tanh"}, {"hidden": [128] * 6, "final": "relu", "generated": ["unet"]}


def flow_network(ndim, architecture="half", scale=0.1):
    """A U-Net whose flow is not near zero, so that differences can be seen."""
    torch.manual_seed(0)
    network = FlowNetwork(ndim, architecture)
    nn.init.normal_(network.head.convolution.weight, std=scale)
    return network


def rows(count, inputs=1):
    return torch.linspace(0, 1, count * inputs).reshape(count, inputs)


def test_the_papers_network_has_313507_generated_weights_and_20_million_in_all():
    made = Hypernetwork(FlowNetwork(3, "half"), 1, **PAPER)
    assert made.count == 313_507
    mlp = (1 * 64 + 64) + 3 * (64 * 64 + 64)
    assert sum(p.numel() for p in made.parameters()) == mlp + 313_507 * 65


def test_in_the_code_the_flow_has_weights_of_its_own():
    made = Hypernetwork(FlowNetwork(3, "half"), 1, **CODE)
    head = 16 * 3 * 27 + 3
    assert made.count == 313_507 - head
    assert sum(p.numel() for p in made.network.parameters()) == head
    assert isinstance(made.mlp[-1], nn.ReLU) and len(made.mlp) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "ndim", "how"),
    [
        (name, ndim, (PAPER, CODE)[(number + ndim) % 2])  # each with both, one in 2-D and the other in 3-D
        for number, name in enumerate(sorted(ARCHITECTURES))
        for ndim in (2, 3)
    ],
)
def test_the_first_output_has_the_scale_of_the_wrapped_network(architecture, ndim, how):
    network = flow_network(ndim, architecture)
    pair = torch.rand(1, 2, *[32] * ndim)
    with torch.no_grad():
        expected = network(pair)
        made = Hypernetwork(network, 2, **how)
        for row in rows(3, 2):
            found = made(pair, row[None])
            assert found.std() / expected.std() == pytest.approx(1, abs=0.25)
            assert not torch.allclose(found, expected, rtol=1e-3), "hyperparameters have to matter"


def test_zero_spread_gives_the_wrapped_network_itself():
    network = flow_network(2)
    pair = torch.rand(2, 2, 32, 32)
    expected = network(pair)
    made = Hypernetwork(copy.deepcopy(network), 1)
    nn.init.zeros_(made.weights.weight)
    torch.testing.assert_close(made(pair, torch.tensor([[0.3]])), expected)


def test_generated_weights_are_the_map_of_the_mlp():
    """Against the formula, with the network's parameters as they are shaped and named."""
    network = flow_network(2)
    shapes = {name: value.shape for name, value in network.named_parameters()}
    made = Hypernetwork(network, 2)
    two = rows(2, 2)
    weights = made.generate(two)
    assert {name: value.shape[1:] for name, value in weights.items()} == shapes
    hidden = made.mlp(two)
    flat = hidden @ made.weights.weight.T + made.weights.bias
    place = 0
    for value in weights.values():
        piece = flat[:, place : place + value[0].numel()]
        kernel_last = value.movedim(2, -1) if value.ndim > 3 else value
        torch.testing.assert_close(kernel_last.reshape(2, -1), piece)
        place += piece.shape[1]
    assert place == made.count


@pytest.mark.slow
@pytest.mark.parametrize("generated", [None, ["unet"], ["head"], ["unet.up", "head"]])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_batch_at_once_is_the_loop_over_samples(ndim, generated):
    made = Hypernetwork(flow_network(ndim), 1, generated=generated)
    nn.init.normal_(made.weights.weight, std=0.05)
    pair, weights = torch.rand(3, 2, *[16] * ndim), made.generate(rows(3))
    alone, together = each_alone(made.network, weights, pair), all_at_once(made.network, weights, pair)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    for n in range(3):
        torch.testing.assert_close(alone[n : n + 1], made(pair[n : n + 1], rows(3)[n : n + 1]), rtol=1e-4, atol=1e-5)
    gradients = [
        torch.autograd.grad(out.square().sum(), made.weights.weight, retain_graph=True) for out in (alone, together)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("generated", [None, ["head"]])
def test_one_pair_meets_many_rows(generated):
    made = Hypernetwork(flow_network(2), 1, generated=generated)
    nn.init.normal_(made.weights.weight, std=0.05)
    pair = torch.rand(1, 2, 32, 32)
    expected = torch.cat([made(pair, row[None]) for row in rows(5)])
    torch.testing.assert_close(made(pair, rows(5)), expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_depend_on_hyperparameters_is_computed_once():
    """With the head alone generated the U-Net sees one sample, however many rows there are."""
    made = Hypernetwork(flow_network(2), 1, generated=["head"])
    seen = []
    made.network.unet.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    made(torch.rand(1, 2, 32, 32), rows(6))
    assert seen == [(1, 2, 32, 32)]


def test_the_gradient_reaches_the_hyperparameters():
    torch.manual_seed(1)
    made = Hypernetwork(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 3)), 2, hidden=[8]).double()
    pair = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    for count in (1, 2):
        inputs = torch.rand(count, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda row: made(pair, row), inputs)


def test_any_network_can_be_wrapped():
    """Linear layers, normalisation and a parameter outside of any layer: what has weights has them generated."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(0.5))
            self.body = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2))

        def forward(self, x):
            return self.body(x) + self.shift

    network = Odd()
    expected = copy.deepcopy(network)
    made = Hypernetwork(network, 1, hidden=[4])
    assert not list(made.network.parameters()) and made.count == 1 + 28 + 8 + 10
    weights = {name: value[0] for name, value in made.generate(torch.tensor([[0.2]])).items()}
    x = torch.rand(3, 6)
    torch.testing.assert_close(made(x, torch.tensor([[0.2]])), functional_call(expected, weights, (x,)))


def test_a_network_that_keeps_statistics_or_draws_at_random_can_be_wrapped():
    noisy = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 3))
    made = Hypernetwork(noisy, 1, hidden=[4])
    made(torch.rand(3, 2, 8, 8), rows(3))
    assert made.network[1].num_batches_tracked == 3, "one after the other"
    dropping = Hypernetwork(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout(0.5)), 1, hidden=[4], generated=["0"])
    nn.init.zeros_(dropping.weights.weight)
    weights = dropping.generate(rows(2))
    first, second = all_at_once(dropping.network, weights, torch.ones(2, 2, 8, 8))
    assert not torch.equal(first, second), "each row draws its own"


def test_lambda_keeps_its_digits_in_bfloat16():
    made = Hypernetwork(flow_network(2), 1)
    lambdas = torch.linspace(0.9, 1, 101)[:, None]
    exact = made.generate(lambdas)["head.convolution.weight"]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(made.generate(lambdas)["head.convolution.weight"], exact)
        assert made(torch.rand(1, 2, 16, 16), lambdas[:1]).isfinite().all()


def test_its_state_is_the_hypernetwork_and_loads_into_another():
    first, second = (Hypernetwork(flow_network(2), 1, generated=["unet"]) for _ in range(2))
    nn.init.normal_(first.weights.bias)
    assert set(first.state_dict()) == {name for name, _ in first.named_parameters()}
    second.load_state_dict(first.state_dict())
    pair = torch.rand(1, 2, 16, 16)
    torch.testing.assert_close(second(pair, rows(1)), first(pair, rows(1)))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"inputs": 0}, "needs hyperparameters and layers"),
        ({"hidden": []}, "needs hyperparameters and layers"),
        ({"final": "sine"}, "final must be one of tanh, relu, not 'sine'"),
        ({"generated": ["tail"]}, "no part 'tail' with weights; it has unet, head"),
    ],
)
def test_a_hypernetwork_that_cannot_be(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Hypernetwork(FlowNetwork(2), **{"inputs": 1, **options})


def test_rows_that_fit_no_sample():
    made = Hypernetwork(flow_network(2), 1)
    with pytest.raises(ValueError, match="3 samples cannot have 2 rows"):
        made(torch.rand(3, 2, 16, 16), rows(2))
