"""TransMorph with a field composed of several steps: the network of TM-SPR (Chen et al., 2022 and 2024).

A Swin transformer takes the pair at half resolution, and a convolutional decoder up-samples its features to half
resolution.  There, several steps each take the fixed image and the moving image as warped so far, and add a small
displacement to the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcore.kernels.convolution import convolve
from regcore.networks.decoded import Decoded
from regcore.networks.swin import SwinEncoder
from regcore.networks.unet import FlowHead, convolution
from regcore.spatial import compose, resample, warp

NORM: dict[str, dict[int, type[nn.Module]]] = {
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
}
POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
COMPOSITIONS = ("paper", "code")
#: Voxels of an image for each token of the coarsest stage: half resolution, patches of four, two mergings.
STRIDE = 32


@dataclass(frozen=True)
class TransMorphSize:
    """Sizes of a TransMorph.

    Parameters
    ----------
    embed : int
        Features of the encoder's first stage.
    depths, heads : tuple of int
        Blocks of each stage, and heads of their attention, which divide the features of the stage.
    last : int
        Features of each step's last convolution.
    """

    embed: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    last: int


#: Parameter counts are of the 3-D network with windows (5, 6, 7), BatchNorm and seven steps.
SIZES = {
    # The authors' network.  17,574,333
    "regular": TransMorphSize(96, (4, 4, 5), (8, 8, 8), 16),
    "small": TransMorphSize(48, (4, 4, 2), (4, 4, 4), 16),
    "tiny": TransMorphSize(24, (2, 2, 2), (4, 4, 4), 8),
}


class TransMorph(nn.Module):
    """Image pair, moving and fixed → velocity at half resolution, in its voxels [1]_ [2]_.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    window : sequence of int
        Tokens along each axis of a window of the encoder; :func:`window_for` gives a suitable one for a volume.
    size : str
        A name in :data:`SIZES`.
    steps : int
        Number of displacements that the field is composed of.
    compose : {"paper", "code"}
        How a step's displacement v is composed with the field u so far.  v moves the image warped by u, so the paper
        has v + u ∘ (id + v).  The authors' code has u + v ∘ (id + v), where the increment is warped by itself.
    norm : {"batch", "instance"}
        Normalisation of the convolutions outside the decoder; the code has BatchNorm.  The decoder always has
        InstanceNorm.
    drop_path, checkpointing
        As in :class:`~regcore.networks.swin.SwinEncoder`.

    Attributes
    ----------
    stride : int
        The caller pads images to multiples of it.
    resolution : int
        2: the result is at half resolution.
    warps : bool
        True: the network warps, which several rows of a hypernetwork cannot do at once.
    quarter_channels, half_channels : int
        Features at a quarter and at half resolution, for a :class:`~regcore.networks.weight_volume.WeightHead`.

    Raises
    ------
    ValueError
        An unknown size, composition or norm, or a window that does not fit ``ndim``.

    References
    ----------
    .. [1] Chen, Frey, He, Segars, Li and Du, "TransMorph: Transformer for unsupervised medical image registration",
       Medical Image Analysis 2022.
    .. [2] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.transmorph import TransMorph, window_for
    >>> network = TransMorph(2, window_for((32, 32)), size="tiny", steps=1).eval()
    >>> tuple(network(torch.zeros(1, 2, 32, 32)).shape)
    (1, 2, 16, 16)
    """

    stride, resolution = STRIDE, 2
    warps = True

    def __init__(
        self,
        ndim: int,
        window: Sequence[int],
        size: str = "regular",
        steps: int = 7,
        compose: str = "paper",
        norm: str = "batch",
        drop_path: float = 0.3,
        checkpointing: bool = False,
    ):
        super().__init__()
        for value, known, what in ((size, SIZES, "size"), (compose, COMPOSITIONS, "compose"), (norm, NORM, "norm")):
            if value not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, not {value!r}")
        if len(window) != ndim or min(window) < 1:
            raise ValueError(f"window must be {ndim} numbers of tokens, not {list(window)}")
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, not {steps}")
        numbers, self.composition = SIZES[size], compose
        embed = numbers.embed
        self.encoder = SwinEncoder(
            ndim, window, embed, numbers.depths, numbers.heads, drop_path=drop_path, checkpointing=checkpointing
        )
        self.up = nn.ModuleList(
            [
                Upwards(ndim, 4 * embed, 2 * embed, 2 * embed),
                Upwards(ndim, 2 * embed, embed, embed),
                Upwards(ndim, embed, embed // 2, embed // 2),
            ]
        )
        self.at_quarter = Convolved(ndim, 2, embed // 2, norm)
        self.looks = nn.ModuleList(Convolved(ndim, 2, embed // 2, norm) for _ in range(steps))
        self.decoders = nn.ModuleList(Upwards(ndim, embed // 2, embed // 2, numbers.last) for _ in range(steps))
        self.heads = nn.ModuleList(FlowHead(ndim, numbers.last) for _ in range(steps))
        self.quarter_channels, self.half_channels = embed // 2, numbers.last

    def forward(self, pair: Tensor) -> Tensor:
        """Map (B, 2, *space), sizes multiples of 32, to (B, D, *space / 2)."""
        return self.decode(pair).flow

    def decode(self, pair: Tensor) -> Decoded:
        """The flow, and the features it was computed from."""
        half = _pooled(pair)
        finest, middle, coarsest = self.encoder(half)
        features = self.up[0](coarsest, middle)
        features = self.up[1](features, finest)
        quarter = self.up[2](features, self.at_quarter(_pooled(half)))
        moving, fixed = half.split(1, dim=1)
        field: Tensor | None = None
        warped, seen = moving, []
        for look, decoder, head in zip(self.looks, self.decoders, self.heads, strict=True):
            seen.append(decoder(quarter, look(torch.cat([warped, fixed], 1))))
            step: Tensor = head(seen[-1]).float()
            field = step if field is None else self._joined(field, step)
            warped = warp(moving, field.to(moving.dtype))
        assert field is not None  # there is one look or more
        return Decoded(field, quarter, sum(seen))

    def _joined(self, field: Tensor, step: Tensor) -> Tensor:
        if self.composition == "code":
            return field + warp(step, step)
        return compose(step, field)


@dataclass(frozen=True)
class TransMorphDesign:
    """A :class:`TransMorph`, see there; without a ``window`` it is made with the smallest."""

    window: Sequence[int] | None
    size: str
    steps: int
    compose: str
    norm: str
    drop_path: float
    keeps_checkpoints: bool
    stride = STRIDE

    @property
    def ndim(self) -> int | None:
        return len(self.window) if self.window else None

    def build(self, ndim: int) -> TransMorph:
        return TransMorph(
            ndim,
            self.window or [1] * ndim,
            size=self.size,
            steps=self.steps,
            compose=self.compose,
            norm=self.norm,
            drop_path=self.drop_path,
            checkpointing=self.keeps_checkpoints,
        )


class Upwards(nn.Module):
    """Up-sample features by two, join them with a skip connection, and apply two convolutions."""

    def __init__(self, ndim: int, own: int, skip: int, out: int):
        super().__init__()
        self.first = Convolved(ndim, own + skip, out, "instance")
        self.second = Convolved(ndim, out, out, "instance")

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        return self.second(self.first(torch.cat([resample(coarse, skip.shape[2:]), skip], 1)))


class Convolved(nn.Sequential):
    """Convolution, normalisation, LeakyReLU 0.01."""

    def __init__(self, ndim: int, own: int, out: int, norm: str):
        super().__init__(
            convolution(ndim)(own, out, 3, padding=1, bias=False), NORM[norm][ndim](out), nn.LeakyReLU(0.01)
        )

    def forward(self, features: Tensor) -> Tensor:
        layer: Any
        layer, norm, activation = self
        return activation(norm(convolve(features, layer.weight)))


def window_for(shape: Sequence[int]) -> list[int]:
    """Window as large as the coarsest grid of tokens: (5, 6, 7) for 160 × 192 × 224 voxels.

    Parameters
    ----------
    shape : sequence of int
        Voxels along each array axis.

    Returns
    -------
    list of int

    Examples
    --------
    >>> from regcore.networks.transmorph import window_for
    >>> window_for((160, 192, 224))
    [5, 6, 7]
    """
    return [-(-n // STRIDE) for n in shape]


def _pooled(images: Tensor) -> Tensor:
    """Averages over three voxels along each axis, at half the resolution."""
    return POOL[images.ndim - 2](images, 3, stride=2, padding=1)
