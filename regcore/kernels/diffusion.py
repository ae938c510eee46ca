"""Mean squared forward difference of a field, and its gradient, each in one reading of the field."""

import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import has_kernel, jit, run


def diffusion_reference(field: Tensor) -> Tensor:
    """Mean over the axes of the mean squared forward difference of ``field`` (B, C, *space)."""
    axes = range(2, field.ndim)
    return torch.stack([field.diff(dim=axis).square().mean() for axis in axes]).mean()


def diffusion(field: Tensor) -> Tensor:
    """As :func:`diffusion_reference`, by the kernel where it can."""
    if has_kernel(field) and min(field.shape[2:]) > 1:
        return torch.ops.regcore.diffusion(field)
    return diffusion_reference(field)


@jit
def square_differences(start, stop, field, sums):
    """Sums of squared differences along (Z, Y, X) in each plane of ``field`` (N, Z, Y, X)."""
    depth, height, width = field.shape[1:]
    total = np.empty((3, width))
    for item in range(start, stop):
        volume, z = field[item // depth], item % depth
        total[:] = 0
        along_z, along_y, along_x = total[0], total[1], total[2]
        for y in range(height):
            row = volume[z, y]
            if z + 1 < depth:
                ahead = volume[z + 1, y]
                for x in range(width):
                    along_z[x] += (ahead[x] - row[x]) ** 2
            if y + 1 < height:
                ahead = volume[z, y + 1]
                for x in range(width):
                    along_y[x] += (ahead[x] - row[x]) ** 2
            ahead = row[1:]
            for x in range(width - 1):
                along_x[x] += (ahead[x] - row[x]) ** 2
        for axis in range(3):
            sums[item, axis] = total[axis].sum()


@jit
def add_differences(row, below, above, before, after, whole, scales, target):
    """The part of a row that has both neighbours along it; ``whole`` is one voxel longer on both sides."""
    scale_z, scale_y, scale_x = scales
    left, right = whole[:-2], whole[2:]
    for x in range(target.size):
        target[x] = (
            scale_z * ((row[x] - below[x]) + (row[x] - above[x]))
            + scale_y * ((row[x] - before[x]) + (row[x] - after[x]))
            + scale_x * ((row[x] - left[x]) + (row[x] - right[x]))
        )


@jit
def difference_rows(start, stop, field, scales, out):
    """Gradient: ``scales`` (of Z, Y, X) times what each voxel differs by from its two neighbours."""
    depth, height, width = field.shape[1:]
    scale_z, scale_y, scale_x = scales
    for item in range(start, stop):
        volume, z = field[item // depth], item % depth
        gradient = out[item // depth, z]
        for y in range(height):
            row, target = volume[z, y], gradient[y]
            # At a border the neighbour is the voxel itself.
            below, above = volume[max(z - 1, 0), y], volume[min(z + 1, depth - 1), y]
            before, after = volume[z, max(y - 1, 0)], volume[z, min(y + 1, height - 1)]
            add_differences(row[1:-1], below[1:-1], above[1:-1], before[1:-1], after[1:-1], row, scales, target[1:-1])
            for x, neighbour in ((0, 1), (width - 1, width - 2)):
                target[x] = (
                    scale_z * ((row[x] - below[x]) + (row[x] - above[x]))
                    + scale_y * ((row[x] - before[x]) + (row[x] - after[x]))
                    + scale_x * (row[x] - row[neighbour])
                )


def volumes(field: Tensor) -> Tensor:
    """View (B, C, *space) as (B · C, Z, Y, X), with Z = 1 in 2-D."""
    space = field.shape[2:]
    return field.reshape(-1, *([1] * (3 - len(space))), *space)


def shares(field: Tensor) -> list[float]:
    """One over the number of differences along (Z, Y, X), and over the number of axes; 0 for no axis."""
    space = field.shape[2:]
    pairs = [field.numel() // size * (size - 1) * len(space) for size in space]
    return [0.0] * (3 - len(space)) + [1 / number for number in pairs]


@torch.library.custom_op("regcore::diffusion", mutates_args=(), device_types="cpu")
def _diffusion(field: Tensor) -> Tensor:
    array = volumes(field.contiguous())
    planes = array.shape[0] * array.shape[1]
    sums = torch.empty(planes, 3, dtype=torch.float64)
    run(square_differences, planes, field.numel(), array, sums)
    return (sums.sum(0) @ torch.tensor(shares(field), dtype=torch.float64)).to(field.dtype)


@_diffusion.register_fake
def _(field: Tensor) -> Tensor:
    return field.new_empty(())


@torch.library.custom_op("regcore::diffusion_backward", mutates_args=(), device_types="cpu")
def _diffusion_backward(gradient: Tensor, field: Tensor) -> Tensor:
    array = volumes(field.contiguous())
    out = torch.empty_like(array)
    kind = out.numpy().dtype.type
    scales = tuple(kind(2 * share * gradient.item()) for share in shares(field))
    run(difference_rows, math.prod(array.shape[:2]), field.numel(), array, scales, out)
    return out.view(field.shape)


@_diffusion_backward.register_fake
def _(gradient: Tensor, field: Tensor) -> Tensor:
    return field.new_empty(field.shape)


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(ctx, gradient: Tensor) -> Tensor:
    return torch.ops.regcore.diffusion_backward(gradient, ctx.saved_tensors[0])


_diffusion.register_autograd(_backward, setup_context=_remember)
