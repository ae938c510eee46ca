"""Muon, beside torch's, which takes matrices alone and computes in bfloat16."""

import pytest
import torch
from torch import nn

from regcore.networks.unet import FlowNetwork
from regcore.training.muon import MOMENTUM, UPDATE, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_become_about_one_and_vectors_stay(shape):
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    found = orthogonalised(left * values.clamp(min=0.1) @ right)
    alone = left.mT @ found @ right.mT
    assert torch.allclose(alone, torch.diag(alone.diagonal()), atol=1e-9)
    assert alone.diagonal().min() > 0.6 and alone.diagonal().max() < 1.25


def test_zero_stays_zero():
    assert torch.equal(orthogonalised(torch.zeros(4, 9)), torch.zeros(4, 9))


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.zeros(12, 30)) for _ in range(2))
    # torch's momentum is the sum of gradients, ours their mean; only the direction matters.
    optimisers = [
        Muon([ours], 0.01),
        torch.optim.Muon([theirs], lr=0.01, weight_decay=0, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(4):
        gradient = torch.randn(12, 30)
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.999
    assert float(ours.detach().norm()) == pytest.approx(float(theirs.detach().norm()), rel=0.02)


def test_an_update_is_as_large_as_adams():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(32, 64, 3, 3))
    weight.grad = torch.randn_like(weight)
    Muon([weight], 0.01).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(UPDATE * 0.01, rel=0.25)


def test_biases_and_flow_heads_take_the_steps_of_adam():
    torch.manual_seed(0)
    ours, theirs = (nn.ModuleList([nn.Conv2d(4, 2, 3), nn.BatchNorm1d(3)]) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimisers = [Muon(ours.parameters(), 0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)]
    for _ in range(3):
        gradients = [torch.randn_like(parameter) for parameter in ours.parameters()]
        for module, optimiser in zip((ours, theirs), optimisers, strict=True):
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
            optimiser.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_of_a_flow_network_the_convolutions_are_orthogonalised_but_not_the_head():
    network = FlowNetwork(2, "paper-diff")
    orthogonal, others = (group["params"] for group in Muon(network.parameters(), 1e-3).param_groups)
    assert {id(weight) for weight in orthogonal} == {id(p) for p in network.unet.parameters() if p.ndim > 1}
    assert any(parameter is network.head.convolution.weight for parameter in others)


def test_a_parameter_without_a_gradient_stays():
    weight = nn.Parameter(torch.ones(4, 4))
    Muon([weight], 0.1).step()
    assert torch.equal(weight, torch.ones(4, 4))


def test_a_closure_gives_the_gradients_and_its_loss_is_returned():
    torch.manual_seed(0)
    given, closed = (nn.Parameter(torch.ones(8, 9)) for _ in range(2))
    optimiser = Muon([closed], 0.01)

    def closure() -> float:
        optimiser.zero_grad()
        loss = closed.square().sum()
        loss.backward()
        return loss.item()

    given.square().sum().backward()
    assert Muon([given], 0.01).step() is None
    assert optimiser.step(closure) == 72
    assert torch.equal(given, closed)
    assert not torch.equal(closed, torch.ones(8, 9))
