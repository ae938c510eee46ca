"""The weight volume of TM-SPR (Section 3.5, Fig. 5): how strongly each voxel's displacement is regularised.

A head of three convolutions takes low-resolution features of a registration network's decoder.  Its map is smooth
because it is coarse.  It works with every network that has ``decode``.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regcore.networks.decoded import Decoding
from regcore.networks.design import Design
from regcore.networks.transmorph import NORM
from regcore.networks.unet import convolution
from regcore.spatial import resample

FEATURES = 48
#: Bounds of the weights, as in the authors' code: log 0 is infinite, and the Gaussian prior is unbounded.
LEAST, MOST_GAUSSIAN = 1e-6, 5.0
RESOLUTIONS = (4, 2)


class WeightHead(nn.Module):
    """Features → one map of unbounded values, at the same resolution (Fig. 5 of TM-SPR [1]_).

    Parameters
    ----------
    ndim : {2, 3}
        D.
    channels : int
        Channels of the features.
    norm : {"batch", "instance"}
        Normalisation of its convolutions.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Section 3.5.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.weight_volume import WeightHead
    >>> tuple(WeightHead(2, channels=32)(torch.zeros(1, 32, 8, 8)).shape)
    (1, 1, 8, 8)
    """

    def __init__(self, ndim: int, channels: int, norm: str = "batch"):
        super().__init__()
        layer = convolution(ndim)
        self.layers = nn.Sequential(
            layer(channels, FEATURES, 3, padding=1, bias=False),
            NORM[norm][ndim](FEATURES),
            nn.LeakyReLU(0.01),
            layer(FEATURES, FEATURES, 3, padding=1, bias=False),
            NORM[norm][ndim](FEATURES),
            nn.LeakyReLU(0.01),
            layer(FEATURES, 1, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class WeightedNetwork(nn.Module):
    """A registration network and its weight head: image pair → flow, and the head's map as one more channel.

    Parameters
    ----------
    network : nn.Module
        A :class:`~regcore.networks.decoded.Decoding`.
    ndim : {2, 3}
        D.
    features : {4, 2}
        The head takes features at a quarter (the paper) or at half of the resolution (the authors' code).
    norm : {"batch", "instance"}
        Normalisation of the head.

    Attributes
    ----------
    stride, resolution : int
        Those of the network.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.unet import FlowNetwork
    >>> from regcore.networks.weight_volume import WeightedNetwork
    >>> network = WeightedNetwork(FlowNetwork(2), ndim=2)
    >>> tuple(network(torch.zeros(1, 2, 16, 16)).shape)
    (1, 3, 16, 16)
    """

    def __init__(self, network: Decoding, ndim: int, features: int = 4, norm: str = "batch"):
        super().__init__()
        if features not in RESOLUTIONS:
            raise ValueError(f"features must be one of {', '.join(map(str, RESOLUTIONS))}, not {features}")
        self.network, self.features = network, features
        self.stride, self.resolution = network.stride, network.resolution
        self.warps = getattr(network, "warps", False)
        channels = network.quarter_channels if features == 4 else network.half_channels
        self.head = WeightHead(ndim, channels, norm)

    def forward(self, pair: Tensor) -> Tensor:
        """Map (B, 2, *space) to (B, D + 1, *space / resolution)."""
        decoded = self.network.decode(pair)
        drawn = self.head(decoded.quarter if self.features == 4 else decoded.half)
        drawn = resample(drawn.float(), decoded.flow.shape[2:])
        return torch.cat([decoded.flow.float(), drawn], 1)


@dataclass(frozen=True)
class WeightedDesign:
    """A :class:`WeightedNetwork` around the network of another design."""

    inner: Design
    features: int
    norm: str

    @property
    def stride(self) -> int:
        return self.inner.stride

    @property
    def ndim(self) -> int | None:
        return self.inner.ndim

    @property
    def keeps_checkpoints(self) -> bool:
        return self.inner.keeps_checkpoints

    def build(self, ndim: int) -> WeightedNetwork:
        network: Any = self.inner.build(ndim)  # one that decodes
        return WeightedNetwork(network, ndim, self.features, self.norm)


def beta_weights(drawn: Tensor) -> Tensor:
    """w = λ / λ_max in (0, 1] from the head's map.

    Parameters
    ----------
    drawn : Tensor, shape (B, 1, *space)
        Unbounded.

    Returns
    -------
    Tensor, shape (B, 1, *space)
        For :func:`regcore.losses.priors.beta_log_prior`.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.weight_volume import beta_weights
    >>> [round(weight, 3) for weight in beta_weights(torch.tensor([-100.0, 0.0, 100.0])).tolist()]
    [0.0, 0.5, 1.0]
    """
    return drawn.sigmoid().clamp(min=LEAST)


def gaussian_weights(drawn: Tensor) -> Tensor:
    """w = λ / λ_mean > 0 from the head's map; 1 where the map is 0.

    Parameters
    ----------
    drawn : Tensor, shape (B, 1, *space)
        Unbounded.

    Returns
    -------
    Tensor, shape (B, 1, *space)
        For :func:`regcore.losses.priors.gaussian_log_prior`.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.weight_volume import gaussian_weights
    >>> gaussian_weights(torch.tensor([0.0, 100.0])).tolist()
    [1.0, 5.0]
    """
    return F.softplus(drawn + torch.expm1(torch.ones((), device=drawn.device)).log()).clamp(LEAST, MOST_GAUSSIAN)
