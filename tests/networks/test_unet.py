"""The U-Nets, their flow head, and the fields that VoxelMorph makes with them."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from regcore.methods import make_method
from regcore.networks.unet import ARCHITECTURES, Architecture, FlowHead, FlowNetwork, UNet
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


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def counted(layers, taps: int) -> int:
    """Weights and biases of convolutions of the given inputs and outputs."""
    return sum(taps * inputs * outputs + outputs for inputs, outputs in layers)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("paper", 300_547),
        ("paper-vm1", 223_363),
        ("strided", 301_411),
        ("strided-vm1", 274_387),
        ("code", 327_331),
        ("half", 313_507),
        ("synthmorph", 1_336_387),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, published):
    assert parameters(FlowNetwork(3, name)) == published


def test_the_diffeomorphic_network_has_its_number_of_parameters_with_a_second_head_for_the_variance():
    assert parameters(FlowNetwork(3, "paper-diff")) + parameters(FlowHead(3, 16)) == 266_374


@pytest.mark.parametrize(("features", "published"), [(64, 1_336_387), (256, 21_270_787)], ids=["code", "paper"])
def test_an_architecture_can_be_made_up(features, published):
    """SynthMorph (TMI 2022): four levels, two more convolutions at half resolution, as many features everywhere."""
    synthmorph = Architecture((features,) * 4, (features,) * 4, at_half=(features,) * 2)
    with torch.device("meta"):
        assert parameters(FlowNetwork(3, synthmorph)) == published


#: Inputs and outputs of the convolutions down to 1/16, and up to 1/4.
DOWN = [(2, 16), (16, 32), (32, 32), (32, 32)]
UP = [(32, 32), (64, 32), (64, 32)]


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("paper", [(48, 32), (32, 32), (34, 16), (16, 16), (16, 2)]),
        ("paper-vm1", [(48, 8), (8, 8), (10, 8), (8, 2)]),
        ("paper-diff", [(48, 32), (32, 16), (16, 2)]),
        ("strided", [(48, 32), (34, 32), (32, 16), (16, 16), (16, 2)]),
        ("code", [(64, 32), (48, 32), (32, 16), (16, 16), (16, 2)]),
        ("half", [(64, 32), (32, 32), (32, 16), (16, 16), (16, 2)]),
    ],
)
def test_convolutions_have_the_inputs_and_outputs_of_their_source(name, fine):
    """Skips included, counted by hand; ``fine`` are those from half resolution on, the flow last."""
    network = FlowNetwork(2, name)
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == DOWN + UP + fine
    assert parameters(network) == counted(DOWN + UP + fine, taps=9)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_halve_and_activate_as_their_source(name):
    """The paper takes steps of two (Section IV-A), the code of today pools; LeakyReLU of 0.2 in all of them."""
    rules = ARCHITECTURES[name]
    assert rules.downsampling == ("max-pool" if name in ("code", "half") else "stride")
    assert (rules.upsampling, rules.slope) == ("nearest", 0.2)


def test_width_multiplies_the_features_but_not_the_images():
    """Table III doubles the features of every layer."""
    doubled = [(2, 32), (32, 64), (64, 64), (64, 64)]
    doubled += [(64, 64), (128, 64), (128, 64), (96, 64), (64, 64)]
    doubled += [(66, 32), (32, 32), (32, 2)]
    network = FlowNetwork(2, width=2)
    assert parameters(network) == counted(doubled, taps=9)
    assert network.unet.out_channels == 32
    assert (network.stride, network.resolution) == (16, 1)


def written_out(network: UNet, pair: torch.Tensor) -> torch.Tensor:
    """The U-Net in plain torch, tensors joined, from its weights alone."""
    plan = network.architecture
    convolve = {4: F.conv2d, 5: F.conv3d}[pair.ndim]
    pool = {4: F.max_pool2d, 5: F.max_pool3d}[pair.ndim]
    linear = {"mode": {4: "bilinear", 5: "trilinear"}[pair.ndim], "align_corners": True}
    how = {"nearest": {"mode": "nearest"}, "linear": linear}[plan.upsampling]

    def step(layer, x, stride=1):
        y = convolve(x, layer.weight, layer.bias, stride=stride, padding=1)
        return torch.where(y < 0, plan.slope * y, y)

    def halved(layer, x):
        return step(layer, x, stride=2) if plan.downsampling == "stride" else step(layer, pool(x, 2))

    def joined(layer, x, skip):
        return step(layer, torch.cat([F.interpolate(x, scale_factor=2, **how), skip], dim=1))

    bottom, *up = network.up
    if plan.full_skip == "images":
        levels = [pair]
        for layer in network.down:
            levels.append(halved(layer, levels[-1]))
        x = step(bottom, levels.pop())
    else:
        levels = [step(network.down[0], pair)]
        for layer in network.down[1:]:
            levels.append(halved(layer, levels[-1]))
        x = halved(bottom, levels[-1])
    for layer in up:
        x = joined(layer, x, levels.pop())
    for layer in network.at_half:
        x = step(layer, x)
    for number, layer in enumerate(network.at_full):
        x = step(layer, x) if number else joined(layer, x, levels.pop())
    return x


VARIANTS = {
    **ARCHITECTURES,
    "strided features": dataclasses.replace(ARCHITECTURES["code"], downsampling="stride"),
    "pooled images": dataclasses.replace(ARCHITECTURES["paper"], downsampling="max-pool"),
    "linear": dataclasses.replace(ARCHITECTURES["paper"], upsampling="linear"),
    "ReLU": dataclasses.replace(ARCHITECTURES["paper"], slope=0.0),
    "one level": Architecture((4,), (5,), at_full=(6,)),
    "uneven": Architecture((4, 6), (8, 7), at_half=(3, 9), at_full=(5,), full_skip="features"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", MULTIPLES, ids=["2-D", "3-D"])
@pytest.mark.parametrize("name", VARIANTS)
def test_features_are_those_of_the_convolutions_written_out(name, shape):
    """In double precision; activations are of the order of 0.1."""
    network = UNet(len(shape), in_channels=3, architecture=VARIANTS[name]).double()
    pair = torch.rand(2, 3, *shape, dtype=torch.float64)
    with torch.inference_mode():
        features = network(pair)
        torch.testing.assert_close(features, written_out(network, pair), atol=1e-12, rtol=0)
    assert features.shape == (2, network.out_channels, *[n // network.resolution for n in shape])
    assert features.abs().max() > 0.01


@pytest.mark.parametrize("shape", MULTIPLES, ids=["2-D", "3-D"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_flow_has_the_resolution_that_the_network_states(name, shape):
    network = FlowNetwork(len(shape), name)
    assert network.resolution == (2 if name in ("half", "paper-diff", "synthmorph") else 1)
    with torch.inference_mode():
        flow = network(torch.rand(2, 2, *shape))
    assert flow.shape == (2, len(shape), *[n // network.resolution for n in shape])
    assert flow.is_contiguous()


def test_an_unknown_architecture_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="there is no architecture 'stridden'; did you mean 'strided'"):
        FlowNetwork(2, "stridden")
    with pytest.raises(ValueError, match="known are: code, half, paper,"):
        FlowNetwork(2, "transformer")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decoder": (8, 8)}, "the same number, not \\(4, 6, 8\\) and \\(8, 8\\)"),
        ({"encoder": (), "decoder": ()}, "one convolution or more"),
        ({"at_half": (8, 0)}, "at_half must have 1 feature or more"),
        ({"downsampling": "mean"}, "downsampling must be one of stride, max-pool, not 'mean'"),
        ({"full_skip": "none"}, "full_skip must be one of images, features, not 'none'"),
        ({"upsampling": "cubic"}, "upsampling must be one of nearest, linear, not 'cubic'"),
    ],
)
def test_an_impossible_architecture_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**{"encoder": (4, 6, 8), "decoder": (8, 8, 8), **wrong})


def test_a_width_may_be_less_than_one():
    widths = [layer.out_channels for layer in FlowNetwork(2, "synthmorph", width=0.5).unet.down]
    assert widths == [32] * 4


def test_a_width_without_features_is_refused():
    with pytest.raises(ValueError, match="must have 1 feature or more in each convolution"):
        FlowNetwork(2, width=0)


def test_features_of_he_weights_are_as_large_in_deep_layers_as_in_the_first():
    torch.manual_seed(0)
    seen: list = []
    FlowNetwork(2, "synthmorph").unet(torch.randn(1, 2, 64, 64), seen)
    scales = [float(features.square().mean().sqrt()) for features in seen]
    assert all(0.3 < scale / scales[0] < 3 for scale in scales)


@pytest.mark.parametrize("shape", MULTIPLES, ids=["2-D", "3-D"])
def test_an_untrained_network_hardly_moves_anything(shape):
    """The head starts with weights N(0, 1e-5): not zero, or nothing could be learnt, but far below a voxel."""
    with torch.inference_mode():
        velocity = FlowNetwork(len(shape))(torch.cat(random_pair(shape), dim=1))
    assert velocity.shape == (1, len(shape), *shape)
    assert 0 < velocity.abs().max() < 1e-3


def test_the_head_starts_with_the_stated_weights():
    weight = FlowHead(3, 16).convolution.weight  # 1296 values: their spread is known to 2 %
    assert weight.std().item() == pytest.approx(1e-5, rel=0.1)
    assert not FlowHead(3, 16).convolution.bias.any()


def test_the_network_sees_both_images():
    network = UNet(2)
    pair = torch.rand(1, 2, 32, 32)
    for channel in (0, 1):
        other = pair.clone()
        other[:, channel] += 1
        with torch.inference_mode():
            assert not torch.allclose(network(pair), network(other), atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_gets_a_gradient(name):
    network = FlowNetwork(2, name)
    network(torch.rand(1, 2, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def displacements(method, network, fixed, moving):
    return method.displacements(method.predict(network, fixed, moving), fixed)


@pytest.mark.parametrize("shape", ODD, ids=["2-D", "3-D"])
def test_voxelmorph_registers_images_of_any_shape(shape):
    method = make_method("voxelmorph")
    fixed, moving = random_pair(shape)
    with torch.inference_mode():
        forward, inverse = displacements(method, method.build(len(shape)), fixed, moving)
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
        small, _ = displacements(method, network, pair[:1], pair[1:])
        network.head.convolution.weight *= 3 / small.abs().max()
        forward, inverse = displacements(method, network, pair[:1], pair[1:])
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
        self.rates = torch.tensor(rates, dtype=torch.float64)

    def forward(self, pair):
        self.pair = pair
        points = identity(pair.shape[2:], self.rates)
        column = (1, -1, *[1] * len(self.rates))
        return self.rates.view(column) * (points - points.flatten(2).mean(2).view(column))


@pytest.mark.parametrize("shape", ODD, ids=["2-D", "3-D"])
def test_voxelmorph_integrates_the_velocity_in_voxels_of_the_image(shape):
    """Half resolution, seven squarings, back and crop, all exact on a linear velocity: (1 + r / 2⁷)^(2⁷) - 1.

    The forward map contracts, so that no path leaves the grid.  Flows are float32.
    """
    ndim = len(shape)
    rates = (-0.3, -0.1, -0.2)[:ndim]
    fixed, moving = (image.double() for image in random_pair(shape))
    network = KnownVelocity(rates)
    forward, _ = displacements(make_method("voxelmorph"), network, fixed, moving)
    padded = [-(-n // 16) * 16 for n in shape]
    for axis, rate in enumerate(rates):
        line = torch.arange(shape[axis], dtype=torch.float64) - (padded[axis] - 1) / 2
        expected = (((1 + rate / 2**7) ** 2**7 - 1) * line).view([-1 if a == axis else 1 for a in range(ndim)])
        torch.testing.assert_close(forward[0, axis], expected.expand(shape).float(), atol=1e-5, rtol=0)

    assert network.pair.shape == (1, 2, *padded)
    assert torch.equal(network.pair[(0, 0, *[slice(n) for n in shape])], moving[0, 0])
    assert torch.equal(network.pair[(0, 1, *[slice(n) for n in shape])], fixed[0, 0])
