"""Convolutions with weights of their own for each sample, in plain torch: one convolution in as many groups as samples.

out_b = leaky ReLU(x_b * w_b + bias_b) for each sample b.
"""

import torch.nn.functional as F
from torch import Tensor

CONVOLUTION = {4: F.conv2d, 5: F.conv3d}


def sample_convolution_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1) -> Tensor:
    """Convolve each sample with weights of its own: torch's convolution in as many groups as there are samples.

    Parameters
    ----------
    x : Tensor, shape (B, C, *space)
        Half a kernel of zeros lies beyond the border.
    weight : Tensor, shape (B, F, C, k, ...)
        With an odd k.
    bias : Tensor, shape (B, F), optional
    slope : float
        Of a LeakyReLU for negative values; 1 is none.

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
