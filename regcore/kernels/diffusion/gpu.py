"""Squared forward differences of a field, and their gradient, in Triton; each reads the field once."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import arithmetic, volume, where_am_i


@triton.jit
def step(values, offset, exists, here, TYPE: tl.constexpr):
    """Values at ``offset`` minus those ``here``; 0 where there is no such voxel."""
    return tl.load(values + offset, exists, 0).to(TYPE) - tl.where(exists, here, 0.0)


@triton.jit
def one_over(number, TYPE: tl.constexpr):
    """1 / ``number``, and 0 for 0.  Kernels receive integers exactly, other numbers in float32."""
    number = number.to(TYPE)
    return tl.where(number > 0, 1.0, 0.0) / tl.maximum(number, 1.0)


@triton.jit
def value_kernel(
    field, sums, depth, height, width, pairs_z, pairs_y, pairs_x,
    TYPE: tl.constexpr, PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``sums`` (programs): squared differences in a block of ``field`` (B, 1, Z, Y, X), divided by numbers of pairs."""
    b, group, y, x, inside = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    along_z, along_y, along_x = (
        tl.full(inside.shape, 0, TYPE), tl.full(inside.shape, 0, TYPE), tl.full(inside.shape, 0, TYPE)
    )  # fmt: skip
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, depth)):
        values = field + b * depth * height * width + (z * height + y) * width + x
        here = tl.load(values, inside, 0).to(TYPE)
        dz = step(values, height * width, inside & (y * 0 + z < depth - 1), here, TYPE)
        dy = step(values, width, inside & (y < height - 1), here, TYPE)
        dx = step(values, 1, inside & (x < width - 1), here, TYPE)
        along_z += dz * dz
        along_y += dy * dy
        along_x += dx * dx
    along_z *= one_over(pairs_z, TYPE)
    along_y *= one_over(pairs_y, TYPE)
    along_x *= one_over(pairs_x, TYPE)
    total = tl.sum(tl.sum(along_z + along_y + along_x, 1), 0)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + program, total)


@triton.jit
def gradient_kernel(
    upstream, field, out, depth, height, width, pairs_z, pairs_y, pairs_x,
    TYPE: tl.constexpr, PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Gradient of :func:`value_kernel`'s sum times ``upstream``, a number on the device."""
    b, group, y, x, inside = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    plane = height * width
    factor = tl.load(upstream).to(TYPE)
    share_z = factor * one_over(pairs_z, TYPE)
    share_y = factor * one_over(pairs_y, TYPE)
    share_x = factor * one_over(pairs_x, TYPE)
    ahead_y, ahead_x = inside & (y < height - 1), inside & (x < width - 1)
    behind_y, behind_x = inside & (y > 0), inside & (x > 0)
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, depth)):
        place = b * depth * plane + (z * height + y) * width + x
        values = field + place
        ahead_z, behind_z = inside & (y * 0 + z < depth - 1), inside & (y * 0 + z > 0)
        here = tl.load(values, inside, 0).to(TYPE)
        before_z = step(values, -plane, behind_z, here, TYPE)
        before_y = step(values, -width, behind_y, here, TYPE)
        before_x = step(values, -1, behind_x, here, TYPE)
        slope = share_z * step(values, plane, ahead_z, here, TYPE) + share_z * before_z
        slope += share_y * step(values, width, ahead_y, here, TYPE) + share_y * before_y
        slope += share_x * step(values, 1, ahead_x, here, TYPE) + share_x * before_x
        tl.store(out + place, -2 * slope, inside)


def value(field: Tensor, pairs: Sequence[int]) -> Tensor:
    """Σ over axes of squared differences of ``field`` (B, C, *space), each divided by a number; a scalar.

    Parameters
    ----------
    pairs : sequence of int
        These numbers along (Z, Y, X); in 2-D the first belongs to the missing axis.
    """
    field = field.contiguous()
    sizes = volume(field.flatten(0, 1).unsqueeze(1))
    sums = torch.empty(sizes.tiles[0] * sizes.tiles[1] * sizes.tiles[2], dtype=field.dtype, device=field.device)
    value_kernel[sizes.tiles](
        field, sums, *sizes.space, *without_rows(pairs, field), TYPE=arithmetic(field), **sizes.tile
    )
    return sums.sum(dtype=torch.float64).to(field.dtype)


def gradient(upstream: Tensor, field: Tensor, pairs: Sequence[int]) -> Tensor:
    """Gradient of :func:`value`, times the number ``upstream``."""
    field = field.contiguous()
    sizes = volume(field.flatten(0, 1).unsqueeze(1))
    out = torch.empty_like(field)
    gradient_kernel[sizes.tiles](
        upstream, field, out, *sizes.space, *without_rows(pairs, field), TYPE=arithmetic(field), **sizes.tile
    )
    return out


def without_rows(pairs: Sequence[int], field: Tensor) -> Sequence[int]:
    """Numbers of (Z, Y, X). In 2-D, those of Y and X, for the axes Z and X of the kernels."""
    return pairs if field.ndim == 5 else (pairs[1], 0, pairs[2])
