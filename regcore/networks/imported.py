"""Weights of other packages' VoxelMorph, converted to a :class:`~regcore.networks.unet.FlowNetwork`.

    architecture, weights = weights_from_monai(torch.load("voxelmorph.pt", weights_only=True))
    network = FlowNetwork(3, architecture)
    network.load_state_dict(weights)

Features and depth follow from the shapes.  What a state dict does not show (activation, up-sampling) is an argument,
with the package's default.  All networks take the moving image first and return voxels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.errors import InputError
from regcore.networks.unet import Architecture, FlowNetwork


class Layer(NamedTuple):
    """Weight (F, C, k, ...) and bias (F) of a convolution, and its name in the original state dict."""

    name: str
    weight: Tensor
    bias: Tensor

    @property
    def features(self) -> int:
        return len(self.bias)


class Source:
    """A state dict read one convolution at a time, so that errors can name what is missing or left over."""

    def __init__(self, state: Mapping[str, Tensor], network: str):
        self.left, self.network = dict(state), network

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.left

    def layer(self, name: str, kernel: int = 3) -> Layer:
        weight, bias = self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias")
        sizes = tuple(weight.shape[2:])
        if sizes not in ((kernel,) * 2, (kernel,) * 3) or bias.shape != weight.shape[:1]:
            raise InputError(
                f"'{name}.weight' {tuple(weight.shape)} and its bias {tuple(bias.shape)} are not a 2-D or 3-D "
                f"convolution with a kernel of {kernel}, as expected in {self.network}"
            )
        return Layer(name, weight, bias)

    def finish(self) -> None:
        """Refuse layers that have not been read: the converted network does not have them."""
        if self.left:
            raise InputError(f"'{min(self.left)}' belongs to no layer of {self.network} that can be converted")

    def _tensor(self, key: str) -> Tensor:
        if not isinstance(self.left.get(key), Tensor):
            raise InputError(f"'{key}' is missing: this is not {self.network}, or a variant that cannot be converted")
        return self.left.pop(key)


def weights_from_voxelmorph(
    state: Mapping[str, Tensor], upsampling: str = "linear", slope: float = 0.0
) -> tuple[Architecture, dict[str, Tensor]]:
    """Convert ``VxmPairwise`` of the ``voxelmorph`` package (0.3.4, torch).

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of a network without normalisation, with any number of features and levels.
    upsampling : {"linear", "nearest"}
        ``upsample_mode`` of its U-Net.
    slope : float
        Slope of its activations for negative values: 0 for the ReLU.

    Returns
    -------
    architecture : Architecture
    weights : dict of str to Tensor
        State dict of ``FlowNetwork(ndim, architecture)``.  That U-Net ends in a linear convolution; here it
        is an activated one with twice the features, see :func:`rectified`.

    Raises
    ------
    InputError
        A key is missing, unexpected or of the wrong shape.
    """
    source = Source(state, "voxelmorph's VxmPairwise")
    levels = 1
    while source.has(f"model.downsampling_conv_blocks.{levels}.conv_block.conv0"):
        levels += 1
    down = [source.layer(f"model.downsampling_conv_blocks.{i}.conv_block.conv0") for i in range(levels)]
    bottom = source.layer("model.lowest_resolution_conv_block.conv0")
    up = [source.layer(f"model.upsampling_conv_blocks.{i}.conv_block.conv0") for i in range(levels)]
    end, flow = rectified(source.layer("model.out_layer.conv0", kernel=1), source.layer("flow_layer.conv0"), slope)
    source.finish()
    return converted(source, down, [bottom, *up], [end], flow, upsampling=upsampling, slope=slope)


def weights_from_monai(state: Mapping[str, Tensor], slope: float = 0.2) -> tuple[Architecture, dict[str, Tensor]]:
    """Convert ``VoxelMorphUNet`` of MONAI, or the ``VoxelMorph`` around it.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of a network without normalisation, with any number of features and levels, with max
        pooling or without.
    slope : float
        Slope of its activations for negative values.

    Returns
    -------
    architecture : Architecture
    weights : dict of str to Tensor
        State dict of ``FlowNetwork(ndim, architecture)``.

    Raises
    ------
    InputError
        A key is missing, unexpected or of the wrong shape.
    """
    state = {key.removeprefix("backbone."): tensor for key, tensor in state.items()}
    source = Source(state, "MONAI's VoxelMorphUNet")
    # Each level contains the next lower one: net.0, net.0.1.submodule, net.0.1.submodule.1.submodule, ...
    inner = ".1.submodule"
    pooled = source.has(f"net.0{inner}.0.1.conv")
    entry = ".0.1.conv" if pooled else ".0.conv"
    levels = 1
    while source.has(f"net.0{inner * (levels + 1)}{entry}"):
        levels += 1
    down = [source.layer(f"net.0{inner * i}{entry if i else '.0.conv'}") for i in range(levels)]
    bottom = source.layer(f"net.0{inner * levels}{entry}")
    up = [source.layer(f"net.0{inner * i}.2{'.0' if i else ''}.conv") for i in reversed(range(levels))]
    up = [features_first(layer, skip.features) for layer, skip in zip(up, reversed(down), strict=True)]
    end: list[Layer] = []
    while source.has(f"net.1.final_conv_{len(end)}.conv"):
        end.append(source.layer(f"net.1.final_conv_{len(end)}.conv"))
    flow = source.layer("net.1.final_conv_out.conv")
    source.finish()
    downsampling = "max-pool" if pooled else "stride"
    return converted(source, down, [bottom, *up], end, flow, downsampling=downsampling, slope=slope)


def rectified(linear: Layer, following: Layer, slope: float) -> tuple[Layer, Layer]:
    """Append an activation a (LeakyReLU) to ``linear``, which has a kernel of one voxel, without changing the result.

    y = (a(y) - a(-y)) / (1 + slope), so the layer outputs y and -y, with a kernel of three that is zero around its
    centre, and the following layer takes their difference.
    """
    ndim = linear.weight.ndim - 2
    weight = F.pad(linear.weight, [1] * 2 * ndim)
    both = Layer(linear.name, torch.cat([weight, -weight]), torch.cat([linear.bias, -linear.bias]))
    difference = torch.cat([following.weight, -following.weight], dim=1) / (1 + slope)
    return both, Layer(following.name, difference, following.bias)


def features_first(layer: Layer, skip: int) -> Layer:
    """Reorder the input channels of a layer that takes the skip connection before the up-sampled features."""
    return layer._replace(weight=torch.cat([layer.weight[:, skip:], layer.weight[:, :skip]], dim=1))


def converted(
    source: Source, down: list[Layer], up: list[Layer], end: list[Layer], flow: Layer, **rules
) -> tuple[Architecture, dict[str, Tensor]]:
    """Architecture and weights of a network with features in its skip connection at full resolution.

    ``down`` and ``up`` are the convolutions from full resolution to 1/2ⁿ (``up[0]``) and back.
    """
    *coarser, full = up
    architecture = Architecture(
        encoder=tuple(layer.features for layer in down),
        decoder=tuple(layer.features for layer in coarser),
        at_full=tuple(layer.features for layer in (full, *end)),
        full_skip="features",
        **{"downsampling": "max-pool", **rules},
    )
    with torch.device("meta"):
        expected = FlowNetwork(flow.weight.ndim - 2, architecture).state_dict()
    names = [key.removesuffix(".weight") for key in expected if key.endswith(".weight")]
    weights: dict[str, Tensor] = {}
    for name, layer in zip(names, (*down, *up, *end, flow), strict=True):
        needed = tuple(expected[f"{name}.weight"].shape)
        if layer.weight.shape != needed:
            raise InputError(
                f"'{layer.name}.weight' has the shape {tuple(layer.weight.shape)}, but {source.network} with these "
                f"features and two grey-scale images needs {needed}"
            )
        weights |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return architecture, weights
