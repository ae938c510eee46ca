"""The U-Net, its flow head, and the fields that VoxelMorph makes with them."""

import pytest
import torch
import torch.nn.functional as F

from regcore.methods import make_method
from regcore.methods.voxelmorph import VelocityNetwork
from regcore.networks.unet import DECODER, ENCODER, FlowHead, UNet, activation
from regcore.spatial import compose, identity

#: Spatial shapes; the network itself needs multiples of 16.
MULTIPLES = [(32, 48), (16, 32, 16)]
ODD = [(33, 47), (17, 15, 18)]


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(0)


def random_pair(shape) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, moving = torch.rand(2, 1, 1, *shape)
    return fixed, moving


def test_the_network_of_the_paper_has_its_number_of_parameters():
    assert sum(parameter.numel() for parameter in VelocityNetwork(3).parameters()) == 300_547


def test_the_parameters_are_those_of_figure_3():
    """Inputs and outputs of every convolution, skips included, counted by hand."""
    layers = [(2, 16), (16, 32), (32, 32), (32, 32)]  # down
    layers += [(32, 32), (64, 32), (64, 32), (48, 32), (32, 32)]  # up, and once more at half resolution
    layers += [(34, 16), (16, 16), (16, 2)]  # full resolution, where the skip is the pair; the flow
    expected = sum(9 * inputs * outputs + outputs for inputs, outputs in layers)
    assert sum(parameter.numel() for parameter in VelocityNetwork(2).parameters()) == expected


@pytest.mark.parametrize("shape", MULTIPLES, ids=["2-D", "3-D"])
def test_the_output_has_the_shape_of_the_input(shape):
    ndim = len(shape)
    network = UNet(ndim, in_channels=3)
    with torch.inference_mode():
        features = network(torch.rand(2, 3, *shape))
        assert features.shape == (2, 16, *shape) == (2, network.out_channels, *shape)
        assert FlowHead(ndim, 16)(features).shape == (2, ndim, *shape)


@pytest.mark.parametrize("shape", MULTIPLES, ids=["2-D", "3-D"])
def test_an_untrained_network_hardly_moves_anything(shape):
    """The head starts with weights N(0, 1e-5): not zero, or nothing could be learnt, but far below a voxel."""
    with torch.inference_mode():
        velocity = VelocityNetwork(len(shape))(torch.cat(random_pair(shape), dim=1))
    assert velocity.shape == (1, len(shape), *shape)
    assert 0 < velocity.abs().max() < 1e-3


def test_the_head_starts_with_the_stated_weights():
    weight = FlowHead(3, 16).convolution.weight  # 1296 values: their spread is known to 2 %
    assert weight.std().item() == pytest.approx(1e-5, rel=0.1)
    assert not FlowHead(3, 16).convolution.bias.any()


def test_negative_activations_keep_a_fifth():
    assert activation(torch.tensor([-1.0, 0.0, 2.0])).tolist() == pytest.approx([-0.2, 0, 2])


def test_the_network_sees_both_images():
    network = UNet(2)
    pair = torch.rand(1, 2, 32, 32)
    for channel in (0, 1):
        other = pair.clone()
        other[:, channel] += 1
        with torch.inference_mode():
            assert not torch.allclose(network(pair), network(other), atol=1e-4)


def test_every_parameter_gets_a_gradient():
    network = VelocityNetwork(2)
    network(torch.rand(1, 2, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_other_features_change_depth_and_width():
    network = UNet(2, encoder=(4, 6), decoder=(8, 8, 8, 5))
    assert network.stride == 4
    with torch.inference_mode():
        assert network(torch.rand(1, 2, 12, 20)).shape == (1, 5, 12, 20)


def test_too_few_decoder_features_are_refused():
    with pytest.raises(ValueError, match="4 encoder levels need at least 6 decoder features, got 5"):
        UNet(2, encoder=ENCODER, decoder=DECODER[:5])
    UNet(2, encoder=ENCODER, decoder=DECODER[:6])


@pytest.mark.parametrize("shape", ODD, ids=["2-D", "3-D"])
def test_voxelmorph_registers_images_of_any_shape(shape):
    method = make_method("voxelmorph")
    fixed, moving = random_pair(shape)
    with torch.inference_mode():
        forward, inverse = method.displacements(method.build(len(shape)), fixed, moving)
    assert forward.shape == inverse.shape == (1, len(shape), *shape)
    assert forward.isfinite().all()


@pytest.mark.parametrize("shape", ODD, ids=["2-D", "3-D"])
def test_forward_and_inverse_of_voxelmorph_cancel(shape):
    """Random weights, scaled until something moves by 3 voxels; images are smooth, or the map would be noise.

    Four voxels from the border, interpolation leaves 0.06 to 0.2 voxels (eight seeds), -u in place of the
    inverse 0.66 to 1.2.
    """
    method, ndim = make_method("voxelmorph"), len(shape)
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[ndim]
    pair = torch.stack(random_pair(shape))[:, 0]
    for _ in range(4):
        pair = pool(pair, 5, stride=1, padding=2)
    network = method.build(ndim)
    with torch.inference_mode():
        small, _ = method.displacements(network, pair[:1], pair[1:])
        network.head.convolution.weight *= 3 / small.abs().max()
        forward, inverse = method.displacements(network, pair[:1], pair[1:])
    assert 2 < forward.abs().max() < 4

    def largest_inside(displacement: torch.Tensor) -> float:
        return displacement[(..., *[slice(4, -4)] * ndim)].norm(dim=1).max().item()

    assert largest_inside(compose(forward, inverse)) < 0.3
    assert largest_inside(compose(inverse, forward)) < 0.3
    assert largest_inside(compose(forward, -forward)) > 0.6


class KnownVelocity(torch.nn.Module):
    """In place of the network: v(p) = rates · (p - c) on the padded grid, and what it was shown."""

    def __init__(self, rates):
        super().__init__()
        self.unet = UNet(2, encoder=(2,) * 4, decoder=(2,) * 6)  # for its stride alone
        self.rates = torch.tensor(rates, dtype=torch.float64)

    def forward(self, pair):
        self.pair = pair
        points = identity(pair.shape[2:], self.rates)
        column = (1, -1, *[1] * len(self.rates))
        return self.rates.view(column) * (points - points.flatten(2).mean(2).view(column))


@pytest.mark.parametrize("shape", ODD, ids=["2-D", "3-D"])
def test_voxelmorph_integrates_the_velocity_in_voxels_of_the_image(shape):
    """Half resolution, seven squarings, back and crop, all exact on a linear velocity: (1 + r / 2⁷)^(2⁷) - 1.

    The forward map contracts, so that no path leaves the grid.
    """
    ndim = len(shape)
    rates = (-0.3, -0.1, -0.2)[:ndim]
    fixed, moving = (image.double() for image in random_pair(shape))
    network = KnownVelocity(rates)
    forward, _ = make_method("voxelmorph").displacements(network, fixed, moving)
    padded = [-(-n // 16) * 16 for n in shape]
    for axis, rate in enumerate(rates):
        line = torch.arange(shape[axis], dtype=torch.float64) - (padded[axis] - 1) / 2
        expected = (((1 + rate / 2**7) ** 2**7 - 1) * line).view([-1 if a == axis else 1 for a in range(ndim)])
        torch.testing.assert_close(forward[0, axis], expected.expand(shape), atol=1e-12, rtol=0)

    assert network.pair.shape == (1, 2, *padded)
    assert torch.equal(network.pair[(0, 0, *[slice(n) for n in shape])], moving[0, 0])
    assert torch.equal(network.pair[(0, 1, *[slice(n) for n in shape])], fixed[0, 0])
