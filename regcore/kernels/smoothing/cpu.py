"""Gaussian smoothing in Numba: all three axes of a plane in one pass.

A work item is a plane.  It is smoothed over neighbouring planes first, then over its rows, then along them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import jit, run
from regcore.kernels.smoothing.reference import taps


@jit
def scale(total, weight, values):
    for x in range(total.size):
        total[x] = weight * values[x]


@jit
def add_pair(total, weight, before, after):
    for x in range(total.size):
        total[x] += weight * (before[x] + after[x])


@jit
def add_two_pairs(total, weight, before, after, next_weight, next_before, next_after):
    for x in range(total.size):
        total[x] += weight * (before[x] + after[x]) + next_weight * (next_before[x] + next_after[x])


@jit
def smooth_across(rows, index, column, weights, total):
    """``total`` = row ``column`` of rows[index], smoothed over the first axis of ``rows``."""
    last, radius = rows.shape[0] - 1, weights.size - 1
    scale(total, weights[0], rows[index, column])
    k = 1
    while k < radius:
        add_two_pairs(
            total,
            weights[k],
            rows[max(0, index - k), column],
            rows[min(last, index + k), column],
            weights[k + 1],
            rows[max(0, index - k - 1), column],
            rows[min(last, index + k + 1), column],
        )
        k += 2
    if k == radius:
        add_pair(total, weights[k], rows[max(0, index - k), column], rows[min(last, index + k), column])


@jit
def smooth_along(row, weights, total):
    """``total`` = the inner part of ``row``, which has a margin as wide as the radius, smoothed along the row."""
    radius, length = weights.size - 1, total.size
    scale(total, weights[0], row[radius : radius + length])
    for k in range(1, radius + 1):
        add_pair(total, weights[k], row[radius - k : radius - k + length], row[radius + k : radius + k + length])


@jit
def smooth_planes(start, stop, fields, over_planes, over_rows, along_rows, out):
    """Smooth planes ``start`` to ``stop`` of (fields, depth, height, width) along all three axes."""
    depth, height, width = fields.shape[1:]
    margin = along_rows.size - 1
    plane = np.empty((height, 1, width), fields.dtype)
    row = np.empty(width + 2 * margin, fields.dtype)
    for item in range(start, stop):
        field = fields[item // depth]
        z = item % depth
        for y in range(height):
            smooth_across(field, z, y, over_planes, plane[y, 0])
        for y in range(height):
            smooth_across(plane, y, np.int64(0), over_rows, row[margin : margin + width])
            row[:margin] = row[margin]
            row[margin + width :] = row[margin + width - 1]
            smooth_along(row, along_rows, out[item // depth, z, y])


def smooth(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    """(B, C, *space) smoothed along each axis by its own Gaussian."""
    weights = [torch.tensor(taps(sigma), dtype=values.dtype) for sigma in sigmas]
    if values.ndim == 4:
        weights.insert(1, torch.ones(1, dtype=values.dtype))
    fields = values.reshape(-1, values.shape[2], 1 if values.ndim == 4 else values.shape[3], values.shape[-1])
    fields = fields.contiguous()
    out = torch.empty_like(fields)
    run(smooth_planes, fields.shape[0] * fields.shape[1], fields.numel(), fields, *weights, out)
    return out.reshape(values.shape)
