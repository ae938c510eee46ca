"""The U-Nets of VoxelMorph (Balakrishnan et al., TMI 2019) and its successors, in two and three dimensions.

:mod:`regcore.networks.unet_architecture` lists the convolutions of each network.  All have kernels of 3 and LeakyReLU
0.2.  Up-sampled features and a skip connection are convolved separately and summed, so that they are never
concatenated.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from regcore.kernels.convolution import convolve, rectified_convolution, upsampled_convolution
from regcore.kernels.layout import CHANNELS_LAST, laid_out
from regcore.networks.decoded import Decoded
from regcore.networks.unet_architecture import ARCHITECTURES, Architecture, named_architecture


class UNet(nn.Module):
    """Image pair → features: the U-Net of VoxelMorph [1]_.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    in_channels : int
        2 for a pair of grey-scale images.
    architecture : Architecture
        Its convolutions.
    width : float
        Multiplies the features of every convolution; 2 is the "×2" of Table III.

    Attributes
    ----------
    stride : int
        Each axis must be a multiple of it.
    resolution : int
        1 if the features are at full resolution, 2 if they are at half.
    out_channels : int

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Fig. 3 and Table III.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.unet import UNet
    >>> network = UNet(ndim=2)
    >>> network.stride, tuple(network(torch.zeros(1, 2, 16, 16)).shape)
    (16, (1, 16, 16, 16))
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int = 2,
        architecture: Architecture = ARCHITECTURES["paper"],
        width: float = 1,
    ):
        super().__init__()
        self.architecture = architecture.widened(width)
        self.stride, self.resolution = architecture.stride, architecture.resolution
        channels = self.architecture.channels(in_channels)
        self.out_channels = channels[-1][1]
        layers = iter(convolution(ndim)(*pair, 3, padding=1) for pair in channels)

        def group(features: tuple[int, ...]) -> nn.ModuleList:
            return nn.ModuleList(itertools.islice(layers, len(features)))

        self.down, self.up = group(architecture.encoder), group(architecture.decoder)
        self.at_half, self.at_full = group(architecture.at_half), group(architecture.at_full)
        if architecture.initialisation == "he":
            for layer in (*self.down, *self.up, *self.at_half, *self.at_full):
                nn.init.kaiming_normal_(layer.weight, a=architecture.slope)
                nn.init.zeros_(layer.bias)

    def forward(self, pair: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """Map (B, in_channels, *space) to (B, out_channels, *space / resolution).

        The output of every convolution is appended to the list ``seen``, in order.
        """
        skips, x = [], pair
        bottom, *up = self.up
        for layer, halved in zip([*self.down, bottom], self._halvings(), strict=True):
            if halved:
                skips.append(x)
                x = self._convolved_at_half(layer, x)
            else:
                x = self._convolved(layer, x)
            _note(seen, x)
        for layer in up:
            x = self._joined(layer, x, skips.pop())
            _note(seen, x)
        for layer in self.at_half:
            x = self._convolved(layer, x)
            _note(seen, x)
        for number, layer in enumerate(self.at_full):
            x = self._convolved(layer, x) if number else self._joined(layer, x, skips.pop())
            _note(seen, x)
        return x

    def _halvings(self) -> list[bool]:
        """Whether each convolution on the way down, and the first on the way up, halves the resolution."""
        halvings = [True] * len(self.down)
        return [*halvings, False] if self.architecture.full_skip == "images" else [False, *halvings]

    def _convolved(self, layer: Any, x: Tensor, stride: int = 1) -> Tensor:
        return rectified_convolution(x, layer.weight, layer.bias, stride, self.architecture.slope)

    def _convolved_at_half(self, layer: Any, x: Tensor) -> Tensor:
        if self.architecture.downsampling == "stride":
            return self._convolved(layer, x, stride=2)
        pool = {4: F.max_pool2d, 5: F.max_pool3d}[x.ndim]
        return self._convolved(layer, pool(x, 2))

    def _joined(self, layer: Any, coarse: Tensor, skip: Tensor) -> Tensor:
        """``layer`` of ``coarse`` (up-sampled by two) and ``skip``, without concatenating them."""
        features = coarse.shape[1]
        own = convolve(skip, layer.weight[:, features:], layer.bias)
        weight = layer.weight[:, :features]
        if self.architecture.upsampling == "nearest":
            return F.leaky_relu(upsampled_convolution(coarse, weight) + own, self.architecture.slope)
        mode = {4: "bilinear", 5: "trilinear"}[coarse.ndim]
        finer = F.interpolate(coarse, size=skip.shape[2:], mode=mode, align_corners=True)
        return F.leaky_relu(convolve(finer, weight) + own, self.architecture.slope)


class FlowHead(nn.Module):
    """Features → displacement or velocity: one convolution whose weights start near zero, N(0, 1e-5).

    Parameters
    ----------
    ndim : {2, 3}
        D.
    in_channels : int
        Channels of the features.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.unet import FlowHead
    >>> tuple(FlowHead(2, in_channels=16)(torch.zeros(1, 16, 8, 8)).shape)
    (1, 2, 8, 8)
    """

    def __init__(self, ndim: int, in_channels: int):
        super().__init__()
        self.convolution = convolution(ndim)(in_channels, ndim, 3, padding=1)
        nn.init.normal_(self.convolution.weight, std=1e-5)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)

    def forward(self, features: Tensor) -> Tensor:
        return convolve(features, self.convolution.weight, self.convolution.bias)


class FlowNetwork(nn.Module):
    """U-Net and flow head: image pair → displacement or velocity, in voxels of the grid it is given on.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    architecture : str or Architecture
        A name in :data:`ARCHITECTURES`, or your own architecture.
    width : float
        Multiplies the features of every convolution.
    in_channels : int
        2 for a pair of grey-scale images.

    Attributes
    ----------
    stride : int
        Each axis of the images must be a multiple of it.
    resolution : int
        1 if the flow is at full resolution, 2 if it is at half.

    Raises
    ------
    ValueError
        ``architecture`` is not known, or ``width`` leaves a convolution without features.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.unet import FlowNetwork
    >>> network = FlowNetwork(2, "paper-diff", width=0.5)
    >>> network.resolution, tuple(network(torch.zeros(1, 2, 16, 16)).shape)
    (2, (1, 2, 8, 8))
    """

    def __init__(self, ndim: int, architecture: str | Architecture = "paper", width: float = 1, in_channels: int = 2):
        super().__init__()
        if isinstance(architecture, str):
            architecture = named_architecture(architecture)
        self.unet = UNet(ndim, in_channels, architecture, width)
        self.head = FlowHead(ndim, self.unet.out_channels)
        self.stride, self.resolution = self.unet.stride, self.unet.resolution
        self.to(memory_format=CHANNELS_LAST[ndim + 2])  # type: ignore[call-overload]  # torch declares no memory_format

    def forward(self, pair: Tensor) -> Tensor:
        """Map (B, in_channels, *space) to (B, D, *space / resolution)."""
        return self.head(self.unet(laid_out(pair))).contiguous()

    def decode(self, pair: Tensor) -> Decoded:
        """The flow, and the decoder's features at a quarter and at half resolution."""
        seen: list[Tensor] = []
        flow = self.head(self.unet(laid_out(pair), seen)).contiguous()
        half = len(self.unet.down) + len(self.unet.up) - 1
        return Decoded(flow, seen[half - 1], seen[half])

    @property
    def quarter_channels(self) -> int:
        return self.unet.architecture.decoder[-2]

    @property
    def half_channels(self) -> int:
        return self.unet.architecture.decoder[-1]


@dataclass(frozen=True)
class UNetDesign:
    """A :class:`FlowNetwork`, see there.

    Attributes
    ----------
    architecture : str
        A name in :data:`ARCHITECTURES`.
    width : float
        Multiplies the features of every convolution.
    channels : mapping of int → int, optional
        Dimensions of the images → channels of a pair; two by default.

    Examples
    --------
    >>> from regcore.networks.unet import UNetDesign
    >>> design = UNetDesign("paper", width=0.5)
    >>> design.stride, type(design.build(ndim=2)).__name__
    (16, 'FlowNetwork')
    """

    architecture: str
    width: float = 1
    channels: Mapping[int, int] | None = None
    ndim = None
    keeps_checkpoints = False

    @property
    def stride(self) -> int:
        return named_architecture(self.architecture).stride

    def build(self, ndim: int) -> FlowNetwork:
        channels = self.channels[ndim] if self.channels else 2
        return FlowNetwork(ndim, self.architecture, self.width, channels)


def _note(seen: list[Tensor] | None, features: Tensor) -> None:
    if seen is not None:
        seen.append(features)


def convolution(ndim: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """``nn.Conv2d`` or ``nn.Conv3d``."""
    if ndim == 2:
        return nn.Conv2d
    if ndim == 3:
        return nn.Conv3d
    raise KeyError(ndim)
