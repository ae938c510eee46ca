"""The U-Net of VoxelMorph (Balakrishnan et al., TMI 2019, Fig. 3), in two and three dimensions.

Four encoder convolutions with stride 2 lead to 1/16 of the input; the decoder alternates convolution,
nearest up-sampling and a skip connection; two more convolutions refine at full resolution, where the skip
is the raw input pair.  Kernel 3 and LeakyReLU 0.2 throughout; a 3-D network with the default features and
its flow head has 300,547 parameters.
"""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from regcore.kernels.convolution import convolve, upsampled_convolution

#: Fig. 3 of the paper, "VoxelMorph-2" of its repository.
ENCODER = (16, 32, 32, 32)
DECODER = (32, 32, 32, 32, 32, 16, 16)


def convolution(ndim: int) -> type[nn.Module]:
    """``nn.Conv2d`` or ``nn.Conv3d``."""
    return {2: nn.Conv2d, 3: nn.Conv3d}[ndim]


class UNet(nn.Module):
    """Image pair → features at full resolution.

    Parameters
    ----------
    ndim : {2, 3}
    in_channels : int
        2 for a pair of grey-scale images.
    encoder : sequence of int
        Features of each stride-2 convolution.
    decoder : sequence of int
        Features of the decoder: one for each encoder level, one more at half resolution, then the
        convolutions at full resolution.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int = 2,
        encoder: Sequence[int] = ENCODER,
        decoder: Sequence[int] = DECODER,
    ):
        super().__init__()
        conv = convolution(ndim)
        levels = len(encoder)
        if len(decoder) < levels + 2:
            raise ValueError(f"{levels} encoder levels need at least {levels + 2} decoder features, got {len(decoder)}")
        self.stride = 2**levels
        self.out_channels = decoder[-1]
        sizes = [in_channels, *encoder]
        self.down = nn.ModuleList(conv(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(sizes))
        self.up = nn.ModuleList()
        channels = encoder[-1]
        for level in range(levels):
            skip = encoder[levels - 1 - level] if level else 0
            self.up.append(conv(channels + skip, decoder[level], 3, padding=1))
            channels = decoder[level]
        self.at_half = conv(channels, decoder[levels], 3, padding=1)
        self.at_full = nn.ModuleList()
        channels = decoder[levels] + in_channels
        for features in decoder[levels + 1 :]:
            self.at_full.append(conv(channels, features, 3, padding=1))
            channels = features

    def forward(self, pair: Tensor) -> Tensor:
        """Map (B, in_channels, *space), each axis a multiple of ``stride``, to (B, out_channels, *space)."""
        skips, x = [pair], pair
        for layer in self.down:
            x = activation(convolve(x, layer.weight, layer.bias, stride=2))
            skips.append(x)
        skips.pop()
        for level, layer in enumerate(self.up):
            x = activation(convolve_joined(layer, x, skips.pop()) if level else convolve(x, layer.weight, layer.bias))
        x = activation(convolve(x, self.at_half.weight, self.at_half.bias))
        first, *rest = self.at_full
        x = activation(convolve_joined(first, x, skips.pop()))
        for layer in rest:
            x = activation(convolve(x, layer.weight, layer.bias))
        return x


class FlowHead(nn.Module):
    """Features → displacement or velocity: one convolution whose weights start near zero, N(0, 1e-5)."""

    def __init__(self, ndim: int, in_channels: int):
        super().__init__()
        self.convolution = convolution(ndim)(in_channels, ndim, 3, padding=1)
        nn.init.normal_(self.convolution.weight, std=1e-5)
        nn.init.zeros_(self.convolution.bias)

    def forward(self, features: Tensor) -> Tensor:
        return convolve(features, self.convolution.weight, self.convolution.bias)


def activation(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def convolve_joined(layer: nn.Module, coarse: Tensor, skip: Tensor) -> Tensor:
    """``layer`` of the features ``coarse``, up-sampled by two, and ``skip`` together, which are never joined."""
    features = coarse.shape[1]
    own = convolve(skip, layer.weight[:, features:], layer.bias)
    return upsampled_convolution(coarse, layer.weight[:, :features]) + own
