"""Networks of the ``voxelmorph`` package and of MONAI give the same flow with their weights in ours."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcore.errors import InputError
from regcore.networks.imported import weights_from_monai, weights_from_voxelmorph
from regcore.networks.unet import ARCHITECTURES, Architecture, FlowNetwork
from regcore.spatial import integrate

pytestmark = pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")

SHAPES = [(48, 64), (32, 48, 32)]
#: Voxels from the border at which nothing is left of what lies beyond it, for flows of a few voxels.
MARGIN = 8


class Peer(NamedTuple):
    """Another package's network, its flow head, its answers to a pair, and its weights for our network."""

    network: nn.Module
    head: nn.Module
    flow: Callable[[Tensor], Tensor]
    displacement: Callable[[Tensor], Tensor]
    convert: Callable[[], tuple[Architecture, dict[str, Tensor]]]


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(0)


def voxelmorph(ndim: int, features=(16, 32, 24, 32), slope: float | None = None, **unet) -> Peer:
    """``VxmPairwise``, with ReLUs where no ``slope`` is given, as by default."""
    models = pytest.importorskip("voxelmorph.nn.models", reason="compares with the voxelmorph package")
    activation = nn.ReLU if slope is None else nn.LeakyReLU(slope)
    network = models.VxmPairwise(
        ndim, 1, 1, nb_features=features, activations=activation, integration_steps=7, unet_kwargs=unet
    )
    rules = {} if slope is None else {"slope": slope}
    if "upsample_mode" in unet:
        rules["upsampling"] = unet["upsample_mode"]
    return Peer(
        network,
        network.flow_layer.conv0,
        lambda pair: network(pair[:, :1], pair[:, 1:], return_field_type="velocity"),
        lambda pair: network(pair[:, :1], pair[:, 1:], return_field_type="displacement"),
        lambda: weights_from_voxelmorph(network.state_dict(), **rules),
    )


def monai(ndim: int, features=(16, 32, 32, 32, 24, 32), last=(16, 12), slope: float | None = None, **unet) -> Peer:
    """``VoxelMorph`` around a ``VoxelMorphUNet``, whose features are given as the pairs (down, up) of each level."""
    nets = pytest.importorskip("monai.networks.nets", reason="compares with MONAI")
    if slope is not None:
        unet |= {name: ("leakyrelu", {"negative_slope": slope}) for name in ("act", "final_conv_act")}
    unet = {"in_channels": 2, "unet_out_channels": 28, **unet}
    backbone = nets.VoxelMorphUNet(ndim, channels=features, final_conv_channels=last, **unet)
    network = nets.VoxelMorph(backbone, integration_steps=7, spatial_dims=ndim)
    rules = {} if slope is None else {"slope": slope}
    return Peer(
        network,
        backbone.net[1].final_conv_out.conv,
        backbone,
        lambda pair: network(pair[:, :1], pair[:, 1:])[1],
        lambda: weights_from_monai(network.state_dict(), **rules),
    )


PEERS = {
    "voxelmorph": voxelmorph,
    "voxelmorph, up and down unlike": lambda ndim: voxelmorph(ndim, [[8, 16, 24], [20, 12, 6]]),
    "voxelmorph, nearest": lambda ndim: voxelmorph(ndim, slope=0.2, upsample_mode="nearest"),
    "voxelmorph, one level": lambda ndim: voxelmorph(ndim, [[5], [7]]),
    "monai": monai,
    "monai, strided": lambda ndim: monai(ndim, use_maxpool=False),
    "monai, another slope": lambda ndim: monai(ndim, slope=0.05),
    "monai, nothing at the end": lambda ndim: monai(ndim, (8, 12, 16, 20, 24, 28, 20, 12), ()),
    "monai, one level": lambda ndim: monai(ndim, (8, 12)),
}


def smooth_pair(shape) -> Tensor:
    """Moving and fixed image of zero mean and unit variance, (1, 2, *space)."""
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(shape)]
    pair = torch.rand(1, 2, *shape)
    for _ in range(4):
        pair = pool(pair, 5, stride=1, padding=2)
    return (pair - pair.mean()) / pair.std()


def randomise(peer: Peer, pair: Tensor) -> None:
    """Weights that keep signals alive through all layers, biases that count, and a flow of a few voxels."""
    with torch.inference_mode():
        for layer in peer.network.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight)
                layer.bias.normal_(std=0.1)
        flow = peer.flow(pair)
        peer.head.weight *= (
            3 / (flow - flow.flatten(2).mean(2).view(*flow.shape[:2], *[1] * (flow.ndim - 2))).abs().max()
        )
        peer.head.bias.normal_(std=0.3)


def in_ours(peer: Peer, ndim: int) -> FlowNetwork:
    architecture, weights = peer.convert()
    network = FlowNetwork(ndim, architecture)
    network.load_state_dict(weights)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
@pytest.mark.parametrize("make", PEERS.values(), ids=PEERS)
def test_our_network_with_their_weights_gives_their_flow(make, shape):
    ndim, pair = len(shape), smooth_pair(shape)
    peer = make(ndim)
    randomise(peer, pair)
    with torch.inference_mode():
        theirs, ours = peer.flow(pair), in_ours(peer, ndim)(pair)
    assert theirs.flatten(2).std(2).min() > 0.1  # voxels: a flow that varies, not a bias
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
@pytest.mark.parametrize("make", [voxelmorph, monai], ids=["voxelmorph", "monai"])
def test_the_integrated_displacement_is_theirs_away_from_the_border(make, shape):
    """Seven squarings at full resolution, where both packages have corners on corners, as we do.

    Beyond the grid their velocity is 0 and ours that at the edge: near the border the displacements
    differ by up to 2 voxels.  At half resolution there is nothing to compare: ``VxmPairwise`` does not
    integrate there, and MONAI doubles the velocity in place of halving it.
    """
    ndim, pair = len(shape), smooth_pair(shape)
    peer = make(ndim)
    randomise(peer, pair)
    inside = (..., *[slice(MARGIN, -MARGIN)] * ndim)
    with torch.inference_mode():
        flow = in_ours(peer, ndim)(pair)
        ours, theirs = integrate(flow, 7), peer.displacement(pair)
    assert (theirs - flow)[inside].abs().max() > 0.1  # voxels: integration changes something
    torch.testing.assert_close(ours[inside], theirs[inside], atol=1e-4, rtol=0)


def test_four_levels_of_monai_are_the_authors_current_network():
    peer = monai(3, (16, 32, 32, 32, 32, 32, 32, 32), (16, 16), unet_out_channels=32)
    architecture, _ = peer.convert()
    assert architecture == ARCHITECTURES["code"]
    assert sum(parameter.numel() for parameter in peer.network.parameters()) == 327_331


def test_the_backbone_of_monai_converts_without_the_network_around_it():
    peer = monai(2)
    architecture, weights = weights_from_monai(peer.network.backbone.state_dict())
    around, same = peer.convert()
    assert architecture == around
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[key], same[key]) for key in same)


def test_the_state_dict_is_left_as_it_was():
    for make, convert in ((voxelmorph, weights_from_voxelmorph), (monai, weights_from_monai)):
        state = make(2).network.state_dict()
        before = {key: tensor.clone() for key, tensor in state.items()}
        convert(state)
        assert state.keys() == before.keys()
        assert all(torch.equal(state[key], before[key]) for key in before)


WEIGHTS = {
    "voxelmorph": (voxelmorph, weights_from_voxelmorph, "model.upsampling_conv_blocks.1.conv_block.conv0"),
    "monai": (monai, weights_from_monai, "net.0.1.submodule.2.0.conv"),
}


def refusal(convert, state) -> str:
    with pytest.raises(InputError) as refused:
        convert(state)
    return str(refused.value)


@pytest.mark.parametrize(("make", "convert", "layer"), WEIGHTS.values(), ids=WEIGHTS)
def test_a_missing_extra_or_misshapen_tensor_is_named(make, convert, layer):
    full = {key.removeprefix("backbone."): tensor for key, tensor in make(3).network.state_dict().items()}
    weight = full[f"{layer}.weight"]
    for key in (f"{layer}.weight", f"{layer}.bias"):
        assert f"'{key}' is missing" in refusal(convert, {k: v for k, v in full.items() if k != key})
    assert "'norm.weight' belongs to no layer" in refusal(convert, full | {"norm.weight": weight})
    narrow = refusal(convert, full | {f"{layer}.weight": weight[:, 1:]})
    assert f"'{layer}.weight' has the shape" in narrow
    assert str(tuple(weight.shape)) in narrow
    assert "with a kernel of 3" in refusal(convert, full | {f"{layer}.weight": weight[..., 1:]})
    assert f"'{layer}.weight' is missing" in refusal(convert, full | {f"{layer}.weight": weight.tolist()})


@pytest.mark.parametrize(("convert", "first"), [(weights_from_voxelmorph, "model."), (weights_from_monai, "net.")])
def test_the_weights_of_another_network_are_refused(convert, first):
    message = refusal(convert, FlowNetwork(2).state_dict())
    assert message.startswith(f"'{first}")
    assert "is missing" in message


def test_variants_that_have_no_counterpart_are_refused():
    transposed = voxelmorph(2, upsample_mode="transposed").network.state_dict()
    assert "upsample.conv.bias' belongs to no layer" in refusal(weights_from_voxelmorph, transposed)
    normalised = monai(2, norm="batch").network.state_dict()
    assert "adn.N" in refusal(weights_from_monai, normalised)
    without_bias = monai(2, bias=False).network.state_dict()
    assert "'net.0.0.conv.bias' is missing" in refusal(weights_from_monai, without_bias)
    wide = monai(2, in_channels=4).network.state_dict()
    assert "'net.0.0.conv.weight' has the shape (16, 4, 3, 3)" in refusal(weights_from_monai, wide)
