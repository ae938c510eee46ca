"""Convolutions of features that avoid torch's slow path, and of up-sampled features without storing them.

:mod:`~regcore.kernels.convolution.reference` explains how an up-sampled convolution is computed on the coarse grid.
:mod:`~regcore.kernels.convolution.cpu` has the Numba kernels that rearrange its features; on a GPU the reference runs.
For weights that differ between samples, see :mod:`regcore.kernels.sample_convolution`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.kernels.convolution import cpu
from regcore.kernels.convolution.cpu import fine_shape
from regcore.kernels.convolution.reference import parity_weights, upsampled_convolution_reference
from regcore.kernels.dispatch import has_kernel
from regcore.kernels.launch import cpu_operator
from regcore.kernels.layout import CHANNELS_LAST, laid_out
from regcore.kernels.sample_convolution import differs_by_sample, of_samples
from regcore.kernels.sample_convolution.reference import CONVOLUTION

#: With batch 1 and channels times the first two sizes up to this number, torch does not use oneDNN.
SLOW_PATH = 20480


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Convolve, with half a kernel of zeros beyond the border.

    On a CPU torch does small 3-D convolutions of one sample far more slowly than it could.  There few
    channels are filled up with zeros to eight, and where that is not enough a sample of zeros is added.

    Parameters
    ----------
    x : Tensor, shape (B, C, *space)
        Features.
    weight : Tensor, shape (F, C, k, ...)
        With an odd k.
    bias : Tensor, shape (F,), optional
        Added to every voxel.
    stride : int
        Voxels between two results along each axis.

    Returns
    -------
    Tensor, shape (B, F, *space / stride)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.convolution import convolve
    >>> convolve(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))[0, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    if differs_by_sample(x, weight, stride):
        return of_samples(x, weight, bias)
    function, padding = CONVOLUTION[x.ndim], weight.shape[-1] // 2
    if not x.is_cpu or x.ndim == 4:
        return function(x, weight, bias, stride, padding)
    missing = 8 - x.shape[1]
    if missing > 0:
        more = (0, 0) * 3 + (0, missing)
        x, weight = laid_out(F.pad(x, more)), F.pad(weight, more)
    if x.shape[0] > 1 or math.prod(x.shape[1:4]) > SLOW_PATH:
        return function(x, weight, bias, stride, padding)
    pair = laid_out(torch.cat([x, torch.zeros_like(x)]))
    return function(pair, weight, bias, stride, padding)[:1]


def rectified_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, slope: float = 0.2
) -> Tensor:
    """:func:`convolve` and a LeakyReLU.

    Parameters
    ----------
    x, weight, bias, stride
        As for :func:`convolve`.
    slope : float
        Slope of the LeakyReLU for negative values.

    Returns
    -------
    Tensor, shape (B, F, *space / stride)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.convolution import rectified_convolution
    >>> rectified_convolution(torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 1, 1), slope=0.5)[0, 0].tolist()
    [[-0.5, -0.5], [-0.5, -0.5]]
    """
    if differs_by_sample(x, weight, stride):
        return of_samples(x, weight, bias, slope)
    return F.leaky_relu(convolve(x, weight, bias, stride), slope)


def upsampled_convolution(image: Tensor, weight: Tensor) -> Tensor:
    """As :func:`upsampled_convolution_reference`, with the kernel if possible.

    Parameters
    ----------
    image : Tensor, shape (B, C, *space)
        Features.
    weight : Tensor, shape (F, C, 3, ...)
        Applied to ``image`` after each voxel is repeated along each axis.

    Returns
    -------
    Tensor, shape (B, F, *2 space)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.convolution import upsampled_convolution
    >>> tuple(upsampled_convolution(torch.ones(1, 1, 4, 4), torch.ones(2, 1, 3, 3)).shape)
    (1, 2, 8, 8)
    """
    if differs_by_sample(image, weight):
        return of_samples(F.interpolate(image, scale_factor=2, mode="nearest"), weight)
    if not has_kernel(image, weight):
        return upsampled_convolution_reference(image, weight)
    by_parity = convolve(image, parity_weights(weight))
    return torch.ops.regcore.interleave(by_parity)


@cpu_operator("regcore::interleave")
def _interleave(by_parity: Tensor) -> Tensor:
    return cpu.interleave(by_parity)


@_interleave.register_fake
def _(by_parity: Tensor) -> Tensor:
    return by_parity.new_empty(fine_shape(by_parity)).contiguous(memory_format=CHANNELS_LAST[by_parity.ndim])


@cpu_operator("regcore::interleave_backward")
def _interleave_backward(gradient: Tensor) -> Tensor:
    return cpu.separate(gradient)


@_interleave_backward.register_fake
def _(gradient: Tensor) -> Tensor:
    ndim = gradient.ndim - 2
    shape = gradient.shape[0], gradient.shape[1] * 2**ndim, *[n // 2 + 1 for n in gradient.shape[2:]]
    return gradient.new_empty(shape).contiguous(memory_format=CHANNELS_LAST[gradient.ndim])


def _backward(ctx, gradient: Tensor) -> Tensor:
    return torch.ops.regcore.interleave_backward(gradient)


_interleave.register_autograd(_backward)


def _over_samples(operator):
    """The ``vmap`` rule of an operator that treats all samples alike: one more axis of samples."""

    def rule(info, in_dims: tuple[int], tensor: Tensor) -> tuple[Tensor, int]:
        moved = tensor.movedim(in_dims[0], 0)
        return operator(moved.flatten(0, 1)).unflatten(0, moved.shape[:2]), 0

    return rule


_interleave.register_vmap(_over_samples(torch.ops.regcore.interleave))
_interleave_backward.register_vmap(_over_samples(torch.ops.regcore.interleave_backward))
