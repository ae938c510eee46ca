"""Convolutions with separate weights for each sample, in plain torch: one grouped convolution.

out_b = leaky ReLU(x_b * w_b + bias_b) for each sample b.
"""

import torch.nn.functional as F
from torch import Tensor

CONVOLUTION = {4: F.conv2d, 5: F.conv3d}


def sample_convolution_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1) -> Tensor:
    """Convolve each sample with its own weights, by torch's convolution with one group per sample.

    Parameters
    ----------
    x : Tensor, shape (B, C, *space)
        Padded by half a kernel of zeros.
    weight : Tensor, shape (B, F, C, k, ...)
        With an odd k.
    bias : Tensor, shape (B, F), optional
    slope : float
        Slope of a LeakyReLU for negative values; 1 for none.

    Returns
    -------
    Tensor, shape (B, F, *space)
    """
    batch, features = weight.shape[:2]
    bias = None if bias is None else bias.flatten()
    found = CONVOLUTION[x.ndim](
        x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), bias, padding=weight.shape[-1] // 2, groups=batch
    ).reshape(batch, features, *x.shape[2:])
    return found if slope == 1 else F.leaky_relu(found, slope)
