"""Mean squared forward difference and its gradient in Numba; a work item is a plane of a component."""

import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.diffusion.reference import numbers
from regcore.kernels.launch import jit, run


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
def set_differences(here, below, above, before, after, left, right, scales, out):
    scale_z, scale_y, scale_x = scales
    for x in range(out.size):
        out[x] = (
            scale_z * ((here[x] - below[x]) + (here[x] - above[x]))
            + scale_y * ((here[x] - before[x]) + (here[x] - after[x]))
            + scale_x * ((here[x] - left[x]) + (here[x] - right[x]))
        )


@jit
def difference_planes(start, stop, field, scales, out):
    """Gradient: ``scales`` (of Z, Y, X) times each voxel's differences from its two neighbours."""
    depth, height, width = field.shape[1:]
    for item in range(start, stop):
        volume, z = field[item // depth].reshape(depth, height * width), item % depth
        target = out[item // depth, z].reshape(height * width)
        # At a border, the neighbour is the voxel itself.
        plane, below, above = volume[z], volume[max(z - 1, 0)], volume[min(z + 1, depth - 1)]
        # The first row, all inner rows, the last row: in each case neighbours are at a fixed offset.
        for first, last in ((0, 1), (1, height - 1), (height - 1, height)):
            back, ahead = width if first > 0 else 0, width if last < height else 0
            i, j = first * width + 1, last * width - 1
            if i < j:
                set_differences(
                    plane[i:j], below[i:j], above[i:j], plane[i - back : j - back], plane[i + ahead : j + ahead],
                    plane[i - 1 : j - 1], plane[i + 1 : j + 1], scales, target[i:j],
                )  # fmt: skip
        # At both ends of a row, the loop above used a voxel of another row.
        for y in range(height):
            back, ahead = width if y > 0 else 0, width if y < height - 1 else 0
            for i, neighbour in ((y * width, 1), (y * width + width - 1, -1)):
                target[i] = (
                    scales[0] * ((plane[i] - below[i]) + (plane[i] - above[i]))
                    + scales[1] * ((plane[i] - plane[i - back]) + (plane[i] - plane[i + ahead]))
                    + scales[2] * (plane[i] - plane[i + neighbour])
                )


def volumes(field: Tensor) -> Tensor:
    """View (B, C, *space) as (B · C, Z, Y, X), with Z = 1 in 2-D."""
    space = field.shape[2:]
    return field.reshape(-1, *([1] * (3 - len(space))), *space)


def shares(field: Tensor) -> list[float]:
    """One over :func:`numbers`; 0 for a missing axis."""
    return [1 / number if number else 0.0 for number in numbers(field)]


def value(field: Tensor) -> Tensor:
    """See :func:`~regcore.kernels.diffusion.reference.diffusion_reference`."""
    array = volumes(field.contiguous())
    planes = array.shape[0] * array.shape[1]
    sums = torch.empty(planes, 3, dtype=torch.float64)
    run(square_differences, planes, field.numel(), array, sums)
    return (sums.sum(0) @ torch.tensor(shares(field), dtype=torch.float64)).to(field.dtype)


def gradient(upstream: Tensor, field: Tensor) -> Tensor:
    """Gradient of :func:`value`, times the number ``upstream``."""
    array = volumes(field.contiguous())
    out = torch.empty_like(array)
    kind = out.numpy().dtype.type
    scales = tuple(kind(2 * share * upstream.item()) for share in shares(field))
    run(difference_planes, math.prod(array.shape[:2]), field.numel(), array, scales, out)
    return out.view(field.shape)
