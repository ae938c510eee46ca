"""Gaussian smoothing along one axis at a time; the value at the edge continues beyond the border."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import arithmetic, volume, where_am_i

#: The cache of Gaussians, and its maximum size.
MOST_KEPT = 1024
_KEPT: dict[tuple, Tensor] = {}
#: Largest radius for which the loop is unrolled, so that all loads are in flight at once.
UNROLLED = 8


@triton.jit
def weighted_pair(values, weights, k, place, position, size, stride, mask, TYPE: tl.constexpr):
    """``weights``[k] times the sum of the two voxels that are k away from ``place``, clamped at the edge."""
    before = place - tl.minimum(position, k) * stride
    after = place + tl.minimum(size - 1 - position, k) * stride
    pair = tl.load(values + before, mask, 0).to(TYPE) + tl.load(values + after, mask, 0).to(TYPE)
    return tl.load(weights + k).to(TYPE) * pair


@triton.jit
def smooth_kernel(
    values, weights, out, radius, depth, height, width,
    AXIS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` = ``values`` (B, 1, Z, Y, X) smoothed along one axis by half a Gaussian, ``weights`` (radius + 1).

    ``RADIUS`` is the radius if the loop over it is unrolled, else 0.
    """
    b, group, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, depth)):
        place = b * depth * height * width + (z * height + y) * width + x
        position, size, stride = z + 0 * x + 0 * y, depth, height * width
        if AXIS == 1:
            position, size, stride = y + 0 * x, height, width
        if AXIS == 2:
            position, size, stride = x + 0 * y, width, 1
        total = tl.load(weights).to(TYPE) * tl.load(values + place, mask, 0).to(TYPE)
        if RADIUS > 0:
            for k in tl.static_range(1, RADIUS + 1):
                total += weighted_pair(values, weights, k, place, position, size, stride, mask, TYPE)
        else:
            for k in range(1, radius + 1):
                total += weighted_pair(values, weights, k, place, position, size, stride, mask, TYPE)
        tl.store(out + place, total, mask)


def smooth(values: Tensor, sigmas: Sequence[float], radii: Sequence[int]) -> Tensor:
    """(B, C, *space) smoothed along each axis by its own Gaussian, truncated at a radius; 0 for no smoothing."""
    values = values.contiguous()
    sizes = volume(values.flatten(0, 1).unsqueeze(1))
    axes = range(3) if values.ndim == 5 else (0, 2)
    for axis, sigma, radius in zip(axes, sigmas, radii, strict=True):
        if radius == 0:
            continue
        out = torch.empty_like(values)
        smooth_kernel[sizes.tiles](
            values, half_gaussian(sigma, radius, values), out, radius, *sizes.space,
            AXIS=axis, RADIUS=radius if radius <= UNROLLED else 0, TYPE=arithmetic(values), **sizes.tile,
        )  # fmt: skip
        values = out
    return values


def half_gaussian(sigma: float, radius: int, values: Tensor) -> Tensor:
    """Half of the sampled Gaussian, centre first, as in :func:`~regcore.kernels.smoothing.reference.taps`.

    Computed on the device, because a copy from the CPU would make it wait. The first ones are cached, so that a CUDA
    graph finds them again.
    """
    key = (sigma, values.dtype, values.device)
    if key in _KEPT:
        return _KEPT[key]
    steps = torch.arange(radius + 1, dtype=torch.float64, device=values.device) / sigma
    weights = torch.exp(-0.5 * steps * steps)
    weights = (weights / (2 * weights.sum() - 1)).to(torch.promote_types(values.dtype, torch.float32))
    recording = values.is_cuda and torch.cuda.is_current_stream_capturing()
    if len(_KEPT) < MOST_KEPT and not recording:
        _KEPT[key] = weights
    return weights
