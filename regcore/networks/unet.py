"""The U-Nets of VoxelMorph (Balakrishnan et al., TMI 2019) and its successors, in two and three dimensions.

An :class:`Architecture` lists the convolutions of a network, and :data:`ARCHITECTURES` names those of papers and
their code.  All have kernels of 3 and LeakyReLU 0.2.  Up-sampled features and a skip connection are convolved
separately and summed, so that they are never concatenated.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from regcore.errors import did_you_mean
from regcore.kernels.convolution import convolve, rectified_convolution, upsampled_convolution
from regcore.kernels.layout import CHANNELS_LAST, laid_out
from regcore.networks.decoded import Decoded

CHOICES = {
    "downsampling": ("stride", "max-pool"),
    "full_skip": ("images", "features"),
    "upsampling": ("nearest", "linear"),
    "initialisation": ("uniform", "he"),
}


@dataclass(frozen=True)
class Architecture:
    """The convolutions of a U-Net, from the images down to 1/2ⁿ of their resolution and back up.

    The features before each halving go to the skip connection of that resolution.

    Attributes
    ----------
    encoder : tuple of int
        Features of the n convolutions on the way down.
    decoder : tuple of int
        Features of the n convolutions on the way up: at 1/2ⁿ, …, 1/4, 1/2, all except the first after a skip
        connection.
    at_half : tuple of int
        Features of further convolutions at half resolution.
    at_full : tuple of int
        Features of the convolutions at full resolution, the first after a skip connection.  None: the
        output stays at half resolution.
    downsampling : {"stride", "max-pool"}
        How resolution is halved: the next convolution has stride two, or follows max pooling over blocks of two
        voxels along each axis.
    full_skip : {"images", "features"}
        Content of the skip connection at full resolution: the images, so that the first convolution already halves
        them, or features from a first convolution at full resolution.
    upsampling : {"nearest", "linear"}
        Linear maps corner voxels onto corner voxels.
    slope : float
        Slope of the LeakyReLU for negative values; 0 is the ReLU.
    initialisation : {"uniform", "he"}
        Distribution of the initial weights: torch's narrow uniform one, or He's normal one, with which features are as
        large in deep layers as in the first.

    Examples
    --------
    >>> from regcore.networks.unet import Architecture
    >>> architecture = Architecture((16, 32), (32, 32), at_full=(16,))
    >>> architecture.stride, architecture.resolution, architecture.widened(0.5).encoder
    (4, 1, (8, 16))
    """

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    at_half: tuple[int, ...] = ()
    at_full: tuple[int, ...] = ()
    downsampling: str = "stride"
    full_skip: str = "images"
    upsampling: str = "nearest"
    slope: float = 0.2
    initialisation: str = "uniform"

    def __post_init__(self):
        if len(self.encoder) != len(self.decoder) or not self.encoder:
            raise ValueError(
                f"encoder and decoder need one convolution or more, and the same number, "
                f"not {self.encoder} and {self.decoder}"
            )
        for name, features in self.features().items():
            if any(n < 1 for n in features):
                raise ValueError(f"{name} must have 1 feature or more in each convolution, not {features}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    def features(self) -> dict[str, tuple[int, ...]]:
        """The four groups of convolutions, by name."""
        return {name: getattr(self, name) for name in ("encoder", "decoder", "at_half", "at_full")}

    def widened(self, width: float) -> "Architecture":
        """Multiply the features of every convolution by ``width``, rounded to the nearest number.

        Raises
        ------
        ValueError
            A convolution would have no features.
        """
        wider: dict[str, Any] = {
            name: tuple(round(width * n) for n in group) for name, group in self.features().items()
        }
        return replace(self, **wider)

    @property
    def stride(self) -> int:
        """Each axis of the images must be a multiple of this."""
        return 2 ** len(self.encoder)

    @property
    def resolution(self) -> int:
        """1 if the output is at full resolution, 2 if it is at half."""
        return 1 if self.at_full else 2

    def skips(self, in_channels: int) -> list[int]:
        """Channels of each skip connection, the finest first."""
        return [in_channels, *self.encoder[:-1]] if self.full_skip == "images" else list(self.encoder)

    def channels(self, in_channels: int) -> list[tuple[int, int]]:
        """Input and output channels of every convolution, in order, for images of ``in_channels`` channels."""
        skips = self.skips(in_channels)
        outputs = [*self.encoder, *self.decoder, *self.at_half, *self.at_full]
        inputs = [in_channels, *outputs[:-1]]
        levels, half = len(self.encoder), len(self.at_half)
        joined = [*[0] * levels, 0, *reversed(skips[1:]), *[0] * half, *(skips[:1] if self.at_full else [])]
        return [(own + skip, out) for own, out, skip in itertools.zip_longest(inputs, outputs, joined, fillvalue=0)]


#: Parameter counts are of the 3-D network for a pair of grey-scale images, including the flow head.
ARCHITECTURES = {
    # TMI 2019, Fig. 3; "VoxelMorph-2" of CVPR 2018 and its repository.  300,547
    "paper": Architecture((16, 32, 32, 32), (32, 32, 32, 32), at_half=(32,), at_full=(16, 16)),
    # "VoxelMorph-1": one convolution fewer at full resolution, and fewer features in the last three.  223,363
    "paper-vm1": Architecture((16, 32, 32, 32), (32, 32, 32, 8), at_half=(8,), at_full=(8,)),
    # The diffeomorphic network of MICCAI 2018, which has a second head for log σ.  265,075, 266,374 with both
    "paper-diff": Architecture((16, 32, 32, 32), (32, 32, 32, 32), at_half=(16,)),
    # The first PyTorch version of the authors' library; "VoxelMorph-2" among TransMorph's baselines.  301,411
    "strided": Architecture((16, 32, 32, 32), (32, 32, 32, 32), at_full=(32, 16, 16)),
    # "VoxelMorph-1" among TransMorph's baselines.  274,387
    "strided-vm1": Architecture((8, 32, 32, 32), (32, 32, 32, 32), at_full=(32, 8, 8)),
    # The authors' library since it uses max pooling.  327,331
    "code": Architecture(
        (16, 32, 32, 32),
        (32, 32, 32, 32),
        at_full=(32, 16, 16),
        downsampling="max-pool",
        full_skip="features",
    ),
    # The same library at half resolution: the network whose weights HyperMorph predicts (IPMI 2021).  313,507
    "half": Architecture(
        (16, 32, 32, 32),
        (32, 32, 32, 32),
        at_half=(32, 16, 16),
        downsampling="max-pool",
        full_skip="features",
    ),
    # The VoxelMorph that TM-SPR is compared with: 16, 32, 64, 96, 128 on the way down from full resolution to 1/16, and
    # 128, 96, 64, 32 on the way up.  2,133,011
    "wide": Architecture((16, 32, 64, 96), (128, 128, 96, 64), at_full=(32,), full_skip="features"),
    # SynthMorph's code (TMI 2022); the paper uses ×4.  1,336,387; 21,270,787 with width 4
    "synthmorph": Architecture((64,) * 4, (64,) * 4, at_half=(64, 64), initialisation="he"),
}


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


def _note(seen: list[Tensor] | None, features: Tensor) -> None:
    if seen is not None:
        seen.append(features)


def named_architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ValueError(f"there is no architecture '{name}'{did_you_mean(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def convolution(ndim: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """``nn.Conv2d`` or ``nn.Conv3d``."""
    if ndim == 2:
        return nn.Conv2d
    if ndim == 3:
        return nn.Conv3d
    raise KeyError(ndim)
