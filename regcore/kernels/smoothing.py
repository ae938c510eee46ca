"""Gaussian smoothing of images and fields, axis by axis; beyond the border the value at the edge goes on."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import has_kernel, jit, on_its_device, run

#: Where the Gaussian is cut off, in standard deviations.
TRUNCATE = 3.0


def radius_of(sigma: float) -> int:
    """Voxels from the centre to where the Gaussian is cut off."""
    return math.ceil(TRUNCATE * sigma)


def taps(sigma: float) -> list[float]:
    """Half of the sampled Gaussian, centre first, so normalised that the whole sums to one."""
    radius = radius_of(sigma)
    values = [math.exp(-0.5 * (k / sigma) * (k / sigma)) if k else 1.0 for k in range(radius + 1)]
    total = 2 * math.fsum(values) - 1
    return [value / total for value in values]


def gaussian_reference(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    """(B, C, *space) smoothed along each axis of ``space`` with its own standard deviation, in voxels."""
    for axis, sigma in enumerate(sigmas, start=2):
        weights, length = taps(sigma), values.shape[axis]
        positions = torch.arange(length, device=values.device)
        smoothed = weights[0] * values
        for k, weight in enumerate(weights[1:], start=1):
            before = values.index_select(axis, (positions - k).clamp_min(0))
            after = values.index_select(axis, (positions + k).clamp_max(length - 1))
            smoothed = smoothed + weight * (before + after)
        values = smoothed
    return values


def gaussian(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    """See :func:`gaussian_reference`, which also runs where a gradient is wanted."""
    if not has_kernel(values, operator="smoothing") or (values.requires_grad and torch.is_grad_enabled()):
        return gaussian_reference(values, sigmas)
    if values.is_cuda:
        return torch.ops.regcore.gaussian(values, list(sigmas))
    weights = [torch.tensor(taps(sigma), dtype=values.dtype) for sigma in sigmas]
    if values.ndim == 4:
        weights.insert(1, torch.ones(1, dtype=values.dtype))
    fields = values.reshape(-1, values.shape[2], 1 if values.ndim == 4 else values.shape[3], values.shape[-1])
    fields = fields.contiguous()
    out = torch.empty_like(fields)
    run(smooth_planes, fields.shape[0] * fields.shape[1], fields.numel(), fields, *weights, out)
    return out.reshape(values.shape)


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
    """``total`` = the inner part of ``row``, which has a margin as wide as the radius, smoothed along itself."""
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
            smooth_across(plane, y, 0, over_rows, row[margin : margin + width])
            row[:margin] = row[margin]
            row[margin + width :] = row[margin + width - 1]
            smooth_along(row, along_rows, out[item // depth, z, y])


@torch.library.custom_op("regcore::gaussian", mutates_args=(), device_types="cuda")
@on_its_device
def _gaussian(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    from regcore.kernels.gpu import smoothing as gpu

    smoothed = gpu.smooth(values, sigmas, [radius_of(sigma) for sigma in sigmas])
    return smoothed.clone() if smoothed is values else smoothed


@_gaussian.register_fake
def _(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    return values.new_empty(values.shape)
