"""Convolution of an image that is up-sampled by two, in plain torch.

After nearest-neighbour up-sampling, a kernel of three voxels covers only two different ones along each axis.  For
even voxels 2i the taps (a, b, c) meet the coarse voxels (i - 1, i, i), for odd ones 2i + 1 (i, i, i + 1).  So a kernel
of two, (a, b + c) or (a + b, c), on the coarse image is enough.  One convolution with 2^D times the features and
kernels of two voxels gives all parities, with (3/2)^D times fewer multiplications.  Its features are then interleaved.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.kernels.layout import laid_out
from regcore.kernels.sample_convolution.reference import CONVOLUTION


def upsampled_convolution_reference(image: Tensor, weight: Tensor) -> Tensor:
    """Convolve ``image`` (B, C, *space), up-sampled by two, with ``weight`` (F, C, 3, ...) → (B, F, *2 space)."""
    finer = F.interpolate(image, scale_factor=2, mode="nearest")
    return CONVOLUTION[image.ndim](finer, weight, padding=1)


def parity_weights(weight: Tensor) -> Tensor:
    """Kernels (F, C, 3, ...) of the finer image as (2^D F, C, 2, ...) of the coarse one.

    Parities are in the order of ``itertools.product((0, 1), repeat=D)``: 0 is even.
    """
    for axis in reversed(range(2, weight.ndim)):
        a, b, c = weight.unbind(axis)
        even, odd = torch.stack([a, b + c], axis), torch.stack([a + b, c], axis)
        weight = torch.cat([even, odd])
    return laid_out(weight)
