"""Convolutions of features: kept off torch's slow path, and on a finer grid without making the finer features.

After nearest-neighbour up-sampling a kernel of three voxels sees only two different ones along each axis.
For even voxels 2i the taps (a, b, c) meet the coarse voxels (i - 1, i, i), for odd ones 2i + 1 (i, i, i + 1):
so a kernel of two, (a, b + c) or (a + b, c), does on the coarse image.  One convolution with 2^D times the
features and kernels of two voxels gives all parities, with (3/2)^D times fewer multiplications; what is
left is to put its features where they belong.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.kernels.launch import has_kernel, jit, run

CONVOLUTION = {4: F.conv2d, 5: F.conv3d}
#: The layout (B, *space, C), in which convolutions are fastest on CPUs and GPUs alike.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
#: Batch 1, and channels times the first two sizes up to this number: torch then leaves oneDNN aside.
SLOW_PATH = 20480


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Convolve ``x`` (B, C, *space) with ``weight`` (F, C, k, ...) and half a kernel of zeros beyond the border.

    On a CPU torch does small 3-D convolutions of one sample far more slowly than it could.  There few
    channels are filled up with zeros to eight, and where that is not enough a sample of zeros is added.
    """
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


def laid_out(tensor: Tensor) -> Tensor:
    """The tensor in the layout of :data:`CHANNELS_LAST`; unlike ``contiguous`` this also works under ``vmap``."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def upsampled_convolution_reference(image: Tensor, weight: Tensor) -> Tensor:
    """Convolve ``image`` (B, C, *space), up-sampled by two, with ``weight`` (F, C, 3, ...) → (B, F, *2 space)."""
    finer = F.interpolate(image, scale_factor=2, mode="nearest")
    return CONVOLUTION[image.ndim](finer, weight, padding=1)


def upsampled_convolution(image: Tensor, weight: Tensor) -> Tensor:
    """As :func:`upsampled_convolution_reference`, by the kernel where it can."""
    if not has_kernel(image, weight):
        return upsampled_convolution_reference(image, weight)
    by_parity = convolve(image, parity_weights(weight))
    return torch.ops.regcore.interleave(by_parity)


def parity_weights(weight: Tensor) -> Tensor:
    """Kernels (F, C, 3, ...) of the finer image as (2^D F, C, 2, ...) of the coarse one.

    Parities are in the order of ``itertools.product((0, 1), repeat=D)``: 0 is even.
    """
    for axis in reversed(range(2, weight.ndim)):
        a, b, c = weight.unbind(axis)
        even, odd = torch.stack([a, b + c], axis), torch.stack([a + b, c], axis)
        weight = torch.cat([even, odd])
    return laid_out(weight)


@jit
def interleave_rows(start, stop, by_parity, out):
    """``out``[2i + p] = ``by_parity``[i + p, p]: (B, z + 1, y + 1, x + 1, 2, 2, 2, F) → (B, 2z, 2y, 2x, F)."""
    depth, height, width, features = out.shape[1:]
    for item in range(start, stop):
        b = item // (depth * height)
        z = item // height % depth
        y = item % height
        source = by_parity[b, z // 2 + z % 2, y // 2 + y % 2]
        row = out[b, z, y]
        for x in range(width):
            values = source[x // 2 + x % 2, z % 2, y % 2, x % 2]
            for feature in range(features):
                row[x, feature] = values[feature]


@jit
def separate_rows(start, stop, fine, out):
    """The transpose of :func:`interleave_rows`: what no voxel was taken from is zero."""
    depth, height, width, features = fine.shape[1:]
    for item in range(start, stop):
        b = item // ((depth // 2 + 1) * (height // 2 + 1))
        i = item // (height // 2 + 1) % (depth // 2 + 1)
        j = item % (height // 2 + 1)
        for pz in range(2):
            for py in range(2):
                z, y = 2 * (i - pz) + pz, 2 * (j - py) + py
                inside = 0 <= z < depth and 0 <= y < height
                for k in range(width // 2 + 1):
                    for px in range(2):
                        x = 2 * (k - px) + px
                        target = out[b, i, j, k, pz, py, px]
                        if inside and 0 <= x < width:
                            values = fine[b, z, y, x]
                            for feature in range(features):
                                target[feature] = values[feature]
                        else:
                            target[:] = 0


@jit
def interleave_flat_rows(start, stop, by_parity, out):
    """:func:`interleave_rows` in 2-D: (B, y + 1, x + 1, 2, 2, F) → (B, 2y, 2x, F)."""
    height, width, features = out.shape[1:]
    for item in range(start, stop):
        b, y = item // height, item % height
        source, row = by_parity[b, y // 2 + y % 2], out[b, y]
        for x in range(width):
            values = source[x // 2 + x % 2, y % 2, x % 2]
            for feature in range(features):
                row[x, feature] = values[feature]


@jit
def separate_flat_rows(start, stop, fine, out):
    """:func:`separate_rows` in 2-D."""
    height, width, features = fine.shape[1:]
    for item in range(start, stop):
        b, j = item // (height // 2 + 1), item % (height // 2 + 1)
        for py in range(2):
            y = 2 * (j - py) + py
            for k in range(width // 2 + 1):
                for px in range(2):
                    x = 2 * (k - px) + px
                    target = out[b, j, k, py, px]
                    if 0 <= y < height and 0 <= x < width:
                        values = fine[b, y, x]
                        for feature in range(features):
                            target[feature] = values[feature]
                    else:
                        target[:] = 0


def fine_shape(by_parity: Tensor) -> tuple[int, ...]:
    space = by_parity.shape[2:]
    return by_parity.shape[0], by_parity.shape[1] // 2 ** len(space), *[2 * (n - 1) for n in space]


def channels_last(tensor: Tensor) -> Tensor:
    """View (B, C, *space), in the layout of that name, as (B, *space, C)."""
    return tensor.contiguous(memory_format=CHANNELS_LAST[tensor.ndim]).movedim(1, -1)


@torch.library.custom_op("regcore::interleave", mutates_args=(), device_types="cpu")
def _interleave(by_parity: Tensor) -> Tensor:
    out = by_parity.new_empty(fine_shape(by_parity)).contiguous(memory_format=CHANNELS_LAST[by_parity.ndim])
    ndim = by_parity.ndim - 2
    source = channels_last(by_parity).unflatten(-1, (*[2] * ndim, out.shape[1]))
    rows = math.prod((out.shape[0], *out.shape[2:-1]))
    run(interleave_rows if ndim == 3 else interleave_flat_rows, rows, out.numel(), source, channels_last(out))
    return out


@_interleave.register_fake
def _(by_parity: Tensor) -> Tensor:
    return by_parity.new_empty(fine_shape(by_parity)).contiguous(memory_format=CHANNELS_LAST[by_parity.ndim])


@torch.library.custom_op("regcore::interleave_backward", mutates_args=(), device_types="cpu")
def _interleave_backward(gradient: Tensor) -> Tensor:
    ndim = gradient.ndim - 2
    space = [n // 2 + 1 for n in gradient.shape[2:]]
    out = gradient.new_empty(gradient.shape[0], *space, *[2] * ndim, gradient.shape[1])
    rows = math.prod((gradient.shape[0], *space[:-1]))
    run(separate_rows if ndim == 3 else separate_flat_rows, rows, out.numel(), channels_last(gradient), out)
    return out.flatten(-ndim - 1).movedim(-1, 1)


@_interleave_backward.register_fake
def _(gradient: Tensor) -> Tensor:
    ndim = gradient.ndim - 2
    shape = gradient.shape[0], gradient.shape[1] * 2**ndim, *[n // 2 + 1 for n in gradient.shape[2:]]
    return gradient.new_empty(shape).contiguous(memory_format=CHANNELS_LAST[gradient.ndim])


def _backward(ctx, gradient: Tensor) -> Tensor:
    return torch.ops.regcore.interleave_backward(gradient)


_interleave.register_autograd(_backward)


def _over_samples(operator):
    """The rule of ``vmap`` for an operator that treats every sample alike: one more axis of samples."""

    def rule(info, in_dims: tuple[int | None, ...], tensor: Tensor) -> tuple[Tensor, int]:
        moved = tensor.movedim(in_dims[0], 0)
        return operator(moved.flatten(0, 1)).unflatten(0, moved.shape[:2]), 0

    return rule


_interleave.register_vmap(_over_samples(torch.ops.regcore.interleave))
_interleave_backward.register_vmap(_over_samples(torch.ops.regcore.interleave_backward))
