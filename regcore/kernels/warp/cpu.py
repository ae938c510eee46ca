"""Linear interpolation and its two gradients in Numba.

An image is (B, C, Z, Y, X) and a displacement (B, D, z, y, x); a 2-D one has Y = y = 1 and no component for that axis.
A work item is a row along x.  Positions, weights and indices of a row are computed first, in loops that vectorise, so
that the loop that gathers or scatters does nothing else.
"""

import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import as_planes, jit, run


@jit
def locate(shift, start, step, size, edge, stride, base, low, high):
    """Add ``stride`` times the cell to ``base``; set the weights of the cell's two voxels."""
    one = low.dtype.type(1)
    zero = low.dtype.type(0)
    margin = zero if edge else one
    least = -margin
    most = low.dtype.type(size) - one + margin
    last = low.dtype.type(size - 2)
    for x in range(shift.size):
        p = start + step * low.dtype.type(x) + shift[x]
        # Comparisons with NaN are false, so NaN gets a cell and is kept in the weights.
        p = least if p < least else p
        p = most if p > most else p
        cell = np.floor(p)
        cell = cell if cell > zero else zero
        cell = cell if cell < last else last
        base[x] += np.int32(cell) * np.int32(stride)
        below = one - abs(p - cell)
        above = one - abs(p - cell - one)
        low[x] = zero if below < zero else below
        high[x] = zero if above < zero else above


@jit
def slopes(shift, start, step, size, edge, low, high):
    """Set the derivatives of the two weights with respect to the position."""
    one = low.dtype.type(1)
    zero = low.dtype.type(0)
    margin = zero if edge else one
    least = -margin
    most = low.dtype.type(size) - one + margin
    last = low.dtype.type(size - 1)
    for x in range(shift.size):
        p = start + step * low.dtype.type(x) + shift[x]
        inside = one if least <= p <= most else zero
        rising = zero if edge else (one if p < zero else zero)  # towards the first voxel, from outside
        falling = zero if edge else (one if p >= last else zero)  # away from the last voxel
        between = one - rising - falling
        low[x] = inside * (rising - between)
        high[x] = inside * (between - falling)


@jit
def locate_row(displacement, b, z, y, size, edge, base, weights):
    """Cells and the weights (low z, high z, low y, high y, low x, high x) of one row."""
    axes = displacement.shape[1]
    kind = weights.dtype.type
    depth, height, width = size
    base[:] = 0
    locate(displacement[b, 0, z, y], kind(z), kind(0), depth, edge, height * width, base, weights[0], weights[1])
    if axes == 3:
        locate(displacement[b, 1, z, y], kind(y), kind(0), height, edge, width, base, weights[2], weights[3])
    else:
        weights[2, :] = 1
        weights[3, :] = 0
    locate(displacement[b, axes - 1, z, y], kind(0), kind(1), width, edge, np.int64(1), base, weights[4], weights[5])


@jit
def warp_rows(start, stop, image, displacement, edge, out):
    channels, depth, height, width = image.shape[1:]
    rows, columns, length = displacement.shape[2:]
    base = np.empty(length, np.int32)
    w = np.empty((6, length), displacement.dtype)
    down = np.int64(width) if height > 1 else np.int64(0)
    deep = np.int64(height * width)
    for item in range(start, stop):
        b = item // (rows * columns)
        z = item // columns % rows
        y = item % columns
        locate_row(displacement, b, z, y, (depth, height, width), edge, base, w)
        for c in range(channels):
            values = image[b, c].reshape(depth * height * width)
            row = out[b, c, z, y]
            for x in range(length):
                i = np.uint64(base[x])
                j = np.uint64(base[x] + down)
                k = np.uint64(base[x] + deep)
                m = np.uint64(base[x] + deep + down)
                one = np.uint64(1)
                near = w[2, x] * (w[4, x] * values[i] + w[5, x] * values[i + one]) + w[3, x] * (
                    w[4, x] * values[j] + w[5, x] * values[j + one]
                )
                far = w[2, x] * (w[4, x] * values[k] + w[5, x] * values[k + one]) + w[3, x] * (
                    w[4, x] * values[m] + w[5, x] * values[m + one]
                )
                row[x] = w[0, x] * near + w[1, x] * far


@jit
def pull_gradient_rows(start, stop, gradient, image, displacement, edge, out):
    """Add to ``out`` the gradient with respect to the displacement: Σ_c gradient_c · ∇image_c(p + u)."""
    channels, depth, height, width = image.shape[1:]
    axes, rows, columns, length = displacement.shape[1:]
    kind = displacement.dtype.type
    base = np.empty(length, np.int32)
    w = np.empty((6, length), displacement.dtype)
    s = np.zeros((6, length), displacement.dtype)
    down = np.int64(width) if height > 1 else np.int64(0)
    deep = np.int64(height * width)
    for item in range(start, stop):
        b = item // (rows * columns)
        z = item // columns % rows
        y = item % columns
        locate_row(displacement, b, z, y, (depth, height, width), edge, base, w)
        slopes(displacement[b, 0, z, y], kind(z), kind(0), depth, edge, s[0], s[1])
        if axes == 3:
            slopes(displacement[b, 1, z, y], kind(y), kind(0), height, edge, s[2], s[3])
        slopes(displacement[b, axes - 1, z, y], kind(0), kind(1), width, edge, s[4], s[5])
        for c in range(channels):
            values = image[b, c].reshape(depth * height * width)
            g = gradient[b, c, z, y]
            out_z = out[b, 0, z, y]
            out_y = out[b, axes // 2, z, y]
            out_x = out[b, axes - 1, z, y]
            for x in range(length):
                i = np.uint64(base[x])
                j = np.uint64(base[x] + down)
                k = np.uint64(base[x] + deep)
                m = np.uint64(base[x] + deep + down)
                one = np.uint64(1)
                i0, i1, j0, j1 = values[i], values[i + one], values[j], values[j + one]
                k0, k1, m0, m1 = values[k], values[k + one], values[m], values[m + one]
                row_i = w[4, x] * i0 + w[5, x] * i1
                row_j = w[4, x] * j0 + w[5, x] * j1
                row_k = w[4, x] * k0 + w[5, x] * k1
                row_m = w[4, x] * m0 + w[5, x] * m1
                near = w[2, x] * row_i + w[3, x] * row_j
                far = w[2, x] * row_k + w[3, x] * row_m
                out_z[x] += g[x] * (s[0, x] * near + s[1, x] * far)
                if axes == 3:
                    out_y[x] += g[x] * (
                        w[0, x] * (s[2, x] * row_i + s[3, x] * row_j) + w[1, x] * (s[2, x] * row_k + s[3, x] * row_m)
                    )
                near = w[2, x] * (s[4, x] * i0 + s[5, x] * i1) + w[3, x] * (s[4, x] * j0 + s[5, x] * j1)
                far = w[2, x] * (s[4, x] * k0 + s[5, x] * k1) + w[3, x] * (s[4, x] * m0 + s[5, x] * m1)
                out_x[x] += g[x] * (w[0, x] * near + w[1, x] * far)


@jit
def cell_of(p, size):
    """First voxel of the cell to which a position beyond the border is moved."""
    cell = np.floor(p)
    cell = cell if cell > 0 else cell - cell
    return np.int64(cell) if cell < size - 2 else np.int64(size - 2)


@jit
def reach_rows(start, stop, displacement, depth, reach):
    """Set the first and last plane of the image from which each row along x is interpolated."""
    rows, columns, length = displacement.shape[2:]
    for item in range(start, stop):
        z = item // columns % rows
        shift = displacement[item // (rows * columns), 0, z, item % columns]
        nearest = shift[0]
        farthest = shift[0]
        for x in range(length):
            nearest = shift[x] if shift[x] < nearest else nearest
            farthest = shift[x] if shift[x] > farthest else farthest
        reach[item, 0] = cell_of(z + nearest, depth)
        reach[item, 1] = cell_of(z + farthest, depth) + 1


@jit
def push_slabs(start, stop, slabs, gradient, displacement, reach, edge, out):
    """Add to ``out`` the gradient with respect to the image: every voxel adds to the 8 it was interpolated from.

    A work item is a slab of ``out`` along its first axis, and writes only its own voxels. So threads do not
    conflict, and each voxel is summed in the order of the rows, whatever the number of threads.
    """
    batch, channels, depth, height, width = out.shape
    rows, columns, length = displacement.shape[2:]
    base = np.empty(length, np.int32)
    w = np.empty((6, length), displacement.dtype)
    down = np.int64(width) if height > 1 else np.int64(0)
    deep = np.int64(height * width)
    first = depth * start // slabs
    end = depth * stop // slabs
    for item in range(batch * rows * columns):
        if reach[item, 1] < first or reach[item, 0] >= end:
            continue
        b = item // (rows * columns)
        z = item // columns % rows
        y = item % columns
        locate_row(displacement, b, z, y, (depth, height, width), edge, base, w)
        for c in range(channels):
            values = out[b, c].reshape(depth * height * width)
            g = gradient[b, c, z, y]
            for x in range(length):
                one = np.uint64(1)
                if first * deep <= base[x] < end * deep:
                    i = np.uint64(base[x])
                    j = np.uint64(base[x] + down)
                    near = g[x] * w[0, x]
                    values[i] += near * w[2, x] * w[4, x]
                    values[i + one] += near * w[2, x] * w[5, x]
                    values[j] += near * w[3, x] * w[4, x]
                    values[j + one] += near * w[3, x] * w[5, x]
                if first * deep <= base[x] + deep < end * deep:
                    k = np.uint64(base[x] + deep)
                    m = np.uint64(base[x] + deep + down)
                    far = g[x] * w[1, x]
                    values[k] += far * w[2, x] * w[4, x]
                    values[k + one] += far * w[2, x] * w[5, x]
                    values[m] += far * w[3, x] * w[4, x]
                    values[m + one] += far * w[3, x] * w[5, x]


def forward(image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """``image`` (B, C, *moving) at p + u(p) → (B, C, *fixed)."""
    out = image.new_empty(image.shape[:2] + displacement.shape[2:])
    image, displacement, planes = as_planes(image), as_planes(displacement), as_planes(out)
    rows = math.prod((displacement.shape[0], *displacement.shape[2:4]))
    run(warp_rows, rows, rows * displacement.shape[-1], image, displacement, edge, planes)
    return out


def pull(gradient: Tensor, image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """Gradient with respect to the displacement."""
    out = torch.zeros_like(displacement, memory_format=torch.contiguous_format)
    rows = math.prod((displacement.shape[0], *displacement.shape[2:-1]))
    voxels = rows * displacement.shape[-1]
    arrays = [as_planes(tensor) for tensor in (gradient, image, displacement)]
    run(pull_gradient_rows, rows, voxels, *arrays, edge, as_planes(out))
    return out


def push(gradient: Tensor, image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """Gradient with respect to the image."""
    out = torch.zeros_like(image, memory_format=torch.contiguous_format)
    slabs = min(out.shape[2], 4 * torch.get_num_threads())
    rows = math.prod((displacement.shape[0], *displacement.shape[2:-1]))
    voxels = rows * displacement.shape[-1]
    reach = torch.empty(rows, 2, dtype=torch.int32)
    displacement = as_planes(displacement)
    run(reach_rows, rows, voxels, displacement, out.shape[2], reach)
    run(push_slabs, slabs, voxels, slabs, as_planes(gradient), displacement, reach, edge, as_planes(out))
    return out
