"""Look-up of label codes, and the overlap of labels with its gradient, in Numba.

Most voxels map into a cell whose corners share one label. They need one look-up, and have no gradient.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.label_dice.reference import place_type
from regcore.kernels.launch import as_planes, jit, run
from regcore.kernels.warp.cpu import locate_row, slopes


@jit
def look_up(start, stop, labels, table, out):
    """``out`` = ``table`` at each label; its last entry is for every label beyond it."""
    last = table.size - 1
    for x in range(start, stop):
        label = np.int64(labels[x])
        out[x] = table[label if 0 <= label < last else last]


@jit
def one_label(labels, i, j, k, m):
    """Whether the eight corners of a cell, at i, j, k, m and the next voxels, share a label."""
    one = np.uint64(1)
    first = labels[i]
    near = (labels[i + one] == first) & (labels[j] == first) & (labels[j + one] == first)
    far = (labels[k] == first) & (labels[k + one] == first) & (labels[m] == first) & (labels[m + one] == first)
    return near & far


@jit
def overlap_planes(start, stop, fixed, moving, displacement, sums):
    """A, P and F of each plane of rows: ``sums`` (planes, 3, K + 1)."""
    depth, height, width = moving.shape[2:]
    rows, columns, length = displacement.shape[2:]
    base = np.empty(length, np.int32)
    w = np.empty((6, length), displacement.dtype)
    down = np.int64(width) if height > 1 else np.int64(0)
    deep = np.int64(height * width)
    for item in range(start, stop):
        b, z = item // rows, item % rows
        labels = moving[b, 0].reshape(depth * height * width)
        sums[item] = 0
        a, p, f = sums[item, 0], sums[item, 1], sums[item, 2]
        for y in range(columns):
            locate_row(displacement, b, z, y, (depth, height, width), np.bool_(False), base, w)
            here = fixed[b, 0, z, y]
            for x in range(length):
                i = np.uint64(base[x])
                j = np.uint64(base[x] + down)
                k = np.uint64(base[x] + deep)
                m = np.uint64(base[x] + deep + down)
                f[here[x]] += 1
                first = labels[i]
                near_low, near_high = w[0, x] * w[2, x], w[0, x] * w[3, x]
                far_low, far_high = w[1, x] * w[2, x], w[1, x] * w[3, x]
                if one_label(labels, i, j, k, m):
                    weight = (near_low + near_high + far_low + far_high) * (w[4, x] + w[5, x])
                    p[first] += weight
                    if first == here[x]:
                        a[first] += weight
                else:
                    for side in range(4):
                        corner = i if side == 0 else j if side == 1 else k if side == 2 else m
                        weight = (
                            near_low if side == 0 else near_high if side == 1 else far_low if side == 2 else far_high
                        )
                        for last in range(2):
                            label = labels[corner + np.uint64(last)]
                            share = weight * w[4 + last, x]
                            p[label] += share
                            if label == here[x]:
                                a[label] += share


@jit
def overlap_gradient_rows(start, stop, fixed, moving, displacement, by_both, by_warped, out):
    """Gradient with respect to the displacement, of tables ``by_both`` and ``by_warped`` (B, K + 1)."""
    depth, height, width = moving.shape[2:]
    axes, rows, columns, length = displacement.shape[1:]
    kind = displacement.dtype.type
    base = np.empty(length, np.int32)
    w = np.empty((6, length), displacement.dtype)
    s = np.zeros((6, length), displacement.dtype)
    value = np.empty(8, displacement.dtype)
    down = np.int64(width) if height > 1 else np.int64(0)
    deep = np.int64(height * width)
    for item in range(start, stop):
        b = item // (rows * columns)
        z = item // columns % rows
        y = item % columns
        locate_row(displacement, b, z, y, (depth, height, width), np.bool_(False), base, w)
        slopes(displacement[b, 0, z, y], kind(z), kind(0), depth, np.bool_(False), s[0], s[1])
        if axes == 3:
            slopes(displacement[b, 1, z, y], kind(y), kind(0), height, np.bool_(False), s[2], s[3])
        slopes(displacement[b, axes - 1, z, y], kind(0), kind(1), width, np.bool_(False), s[4], s[5])
        labels = moving[b, 0].reshape(depth * height * width)
        here = fixed[b, 0, z, y]
        a, p = by_both[b], by_warped[b]
        out_z, out_y, out_x = out[b, 0, z, y], out[b, axes // 2, z, y], out[b, axes - 1, z, y]
        for x in range(length):
            i = np.uint64(base[x])
            j = np.uint64(base[x] + down)
            k = np.uint64(base[x] + deep)
            m = np.uint64(base[x] + deep + down)
            # Inside one label the gradient is zero, except at the border, where weights fall to zero.
            inner = (s[0, x] + s[1, x] == 0) & (s[2, x] + s[3, x] == 0) & (s[4, x] + s[5, x] == 0)
            if inner and one_label(labels, i, j, k, m):
                continue
            for side in range(4):
                corner = i if side == 0 else j if side == 1 else k if side == 2 else m
                for last in range(2):
                    label = labels[corner + np.uint64(last)]
                    value[2 * side + last] = p[label] + (a[label] if label == here[x] else kind(0))
            row_i, row_j = w[4, x] * value[0] + w[5, x] * value[1], w[4, x] * value[2] + w[5, x] * value[3]
            row_k, row_m = w[4, x] * value[4] + w[5, x] * value[5], w[4, x] * value[6] + w[5, x] * value[7]
            out_z[x] = s[0, x] * (w[2, x] * row_i + w[3, x] * row_j) + s[1, x] * (w[2, x] * row_k + w[3, x] * row_m)
            if axes == 3:
                out_y[x] = w[0, x] * (s[2, x] * row_i + s[3, x] * row_j) + w[1, x] * (s[2, x] * row_k + s[3, x] * row_m)
            row_i, row_j = s[4, x] * value[0] + s[5, x] * value[1], s[4, x] * value[2] + s[5, x] * value[3]
            row_k, row_m = s[4, x] * value[4] + s[5, x] * value[5], s[4, x] * value[6] + s[5, x] * value[7]
            out_x[x] = w[0, x] * (w[2, x] * row_i + w[3, x] * row_j) + w[1, x] * (w[2, x] * row_k + w[3, x] * row_m)


def places(labels: Tensor, codes: Sequence[int]) -> Tensor:
    """The index of each label in the ascending ``codes``, or their number for other labels."""
    table = torch.full((codes[-1] + 2,), len(codes), dtype=place_type(codes))
    table[list(codes)] = torch.arange(len(codes), dtype=table.dtype)
    out = torch.empty(labels.shape, dtype=table.dtype)
    run(look_up, labels.numel(), labels.numel(), labels.contiguous().view(-1), table, out.view(-1))
    return out


def overlaps(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums A, P and F, each (B, K), in the type of the displacement."""
    batch = displacement.shape[0]
    fixed, moving, displacement = as_planes(fixed), as_planes(moving), as_planes(displacement)
    planes = batch * displacement.shape[2]
    sums = torch.empty(planes, 3, count + 1, dtype=torch.float64)
    run(overlap_planes, planes, displacement[:, 0].numel(), fixed, moving, displacement, sums)
    sums = sums.view(batch, -1, 3, count + 1).sum(1).to(displacement.dtype)
    both, warped, sizes = (sums[:, kind, :count].clone() for kind in range(3))
    return both, warped, sizes


def overlaps_backward(
    by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor
) -> Tensor:
    """Gradient with respect to the displacement, of the gradients (B, K) of A and P."""
    out = torch.zeros_like(displacement, memory_format=torch.contiguous_format)
    by_both, by_warped = (torch.nn.functional.pad(table, (0, 1)) for table in (by_both, by_warped))
    arrays = [as_planes(tensor) for tensor in (fixed, moving, displacement)]
    rows = math.prod((out.shape[0], *out.shape[2:-1]))
    run(overlap_gradient_rows, rows, rows * out.shape[-1], *arrays, by_both, by_warped, as_planes(out))
    return out
