"""Squared forward differences of a field, plain or weighted, and their gradient, each in one reading."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.gpu.launch import Volume, arithmetic, volume, where_am_i


@triton.jit
def step(values, offset, exists, here, TYPE: tl.constexpr):
    """What the voxels at ``offset`` hold more than those ``here``; 0 where there is none."""
    return tl.load(values + offset, exists, 0).to(TYPE) - tl.where(exists, here, 0.0)


@triton.jit
def value_kernel(
    field, weight, sums, depth, height, width, channels, share_z, share_y, share_x,
    WEIGHTED: tl.constexpr, TYPE: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``sums`` (programs): shares of the squared differences of a block of ``field`` (B, channels, Z, Y, X).

    A difference between p and p + e is multiplied by ``weight`` (B, 1, Z, Y, X) at p + e, where it is wanted.
    """
    b, z, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    plane, voxels = height * width, depth * height * width
    place = (z * height + y) * width + x
    ahead_z, ahead_y, ahead_x = mask & ((y * 0 + z) < depth - 1), mask & (y < height - 1), mask & (x < width - 1)
    along_z, along_y, along_x = tl.full(mask.shape, 0, TYPE), tl.full(mask.shape, 0, TYPE), tl.full(mask.shape, 0, TYPE)
    values = field + b * channels * voxels + place
    for _ in range(channels):
        here = tl.load(values, mask, 0).to(TYPE)
        dz = step(values, plane, ahead_z, here, TYPE)
        dy = step(values, width, ahead_y, here, TYPE)
        dx = step(values, 1, ahead_x, here, TYPE)
        along_z += dz * dz
        along_y += dy * dy
        along_x += dx * dx
        values += voxels
    if WEIGHTED:
        weights = weight + b * voxels + place
        along_z *= tl.load(weights + plane, ahead_z, 0).to(TYPE)
        along_y *= tl.load(weights + width, ahead_y, 0).to(TYPE)
        along_x *= tl.load(weights + 1, ahead_x, 0).to(TYPE)
    total = tl.sum(tl.sum(share_z * along_z + share_y * along_y + share_x * along_x, 1), 0)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + program, total)


@triton.jit
def gradient_kernel(
    upstream, field, weight, out, to_weight, depth, height, width, channels, share_z, share_y, share_x,
    WEIGHTED: tl.constexpr, FOR_FIELD: tl.constexpr, FOR_WEIGHT: tl.constexpr, TYPE: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Gradients of :func:`value_kernel`'s sum times ``upstream``, a number on the device."""
    b, z, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    plane, voxels = height * width, depth * height * width
    place = (z * height + y) * width + x
    level = y * 0 + z
    ahead_z, ahead_y, ahead_x = mask & (level < depth - 1), mask & (y < height - 1), mask & (x < width - 1)
    behind_z, behind_y, behind_x = mask & (level > 0), mask & (y > 0), mask & (x > 0)
    factor = tl.load(upstream).to(TYPE)
    share_z, share_y, share_x = factor * share_z, factor * share_y, factor * share_x
    forward_z = tl.full(mask.shape, 1, TYPE) * share_z
    forward_y = tl.full(mask.shape, 1, TYPE) * share_y
    forward_x = tl.full(mask.shape, 1, TYPE) * share_x
    backward_z, backward_y, backward_x = forward_z, forward_y, forward_x
    if WEIGHTED:
        weights = weight + b * voxels + place
        own = tl.load(weights, mask, 0).to(TYPE)
        forward_z *= tl.load(weights + plane, ahead_z, 0).to(TYPE)
        forward_y *= tl.load(weights + width, ahead_y, 0).to(TYPE)
        forward_x *= tl.load(weights + 1, ahead_x, 0).to(TYPE)
        backward_z *= own
        backward_y *= own
        backward_x *= own
    by_weight = tl.full(mask.shape, 0, TYPE)
    values = field + b * channels * voxels + place
    target = out + b * channels * voxels + place
    for _ in range(channels):
        here = tl.load(values, mask, 0).to(TYPE)
        before_z = step(values, -plane, behind_z, here, TYPE)
        before_y = step(values, -width, behind_y, here, TYPE)
        before_x = step(values, -1, behind_x, here, TYPE)
        if FOR_FIELD:
            slope = forward_z * step(values, plane, ahead_z, here, TYPE) + backward_z * before_z
            slope += forward_y * step(values, width, ahead_y, here, TYPE) + backward_y * before_y
            slope += forward_x * step(values, 1, ahead_x, here, TYPE) + backward_x * before_x
            tl.store(target, -2 * slope, mask)
        if FOR_WEIGHT:
            by_weight += share_z * before_z * before_z + share_y * before_y * before_y + share_x * before_x * before_x
        values += voxels
        target += voxels
    if FOR_WEIGHT:
        tl.store(to_weight + b * voxels + place, by_weight, mask)


def value(field: Tensor, weight: Tensor | None, shares: Sequence[float]) -> Tensor:
    """Σ over axes of the share times the sum of (weighted) squared differences of ``field`` (B, C, *space); a scalar.

    In 2-D the first of the three ``shares`` is that of the axis which does not exist.
    """
    field = field.contiguous()
    sizes, weighted = channels_apart(field, weight), weight is not None
    programs = sizes.grid[0] * sizes.grid[1] * sizes.grid[2]
    sums = torch.empty(programs, dtype=field.dtype, device=field.device)
    value_kernel[sizes.grid](
        field, weight.contiguous() if weighted else field, sums,
        *sizes.space, sizes.channels, *without_rows(shares, field),
        WEIGHTED=weighted, TYPE=arithmetic(field), **sizes.block,
    )  # fmt: skip
    return sums.sum(dtype=torch.float64).to(field.dtype)


def gradients(
    upstream: Tensor,
    field: Tensor,
    weight: Tensor | None,
    shares: Sequence[float],
    for_field: bool = True,
    for_weight: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`value` with respect to field and weight; empty where they are not wanted."""
    field = field.contiguous()
    sizes, weighted = channels_apart(field, weight), weight is not None
    out = torch.empty_like(field) if for_field else field.new_empty(0)
    to_weight = field.new_empty(weight.shape) if for_weight and weighted else field.new_empty(0)
    gradient_kernel[sizes.grid](
        upstream, field, weight.contiguous() if weighted else field, out, to_weight,
        *sizes.space, sizes.channels, *without_rows(shares, field),
        WEIGHTED=weighted, FOR_FIELD=for_field, FOR_WEIGHT=for_weight, TYPE=arithmetic(field), **sizes.block,
    )  # fmt: skip
    return out, to_weight


def channels_apart(field: Tensor, weight: Tensor | None) -> Volume:
    """Sizes of ``field``; without a weight, which all channels share, each channel is an element of the batch."""
    return volume(field if weight is not None else field.flatten(0, 1).unsqueeze(1))


def without_rows(shares: Sequence[float], field: Tensor) -> Sequence[float]:
    """Numbers of (Z, Y, X): in 2-D, where the first is none, those of Y and X for the axes Z and X of the kernels."""
    return shares if field.ndim == 5 else (shares[1], 0.0, shares[2])
