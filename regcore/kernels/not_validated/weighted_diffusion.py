"""Weighted squared forward differences of a field, and the gradients of field and weight; each reads inputs once."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.diffusion.gpu import one_over, step, without_rows
from regcore.kernels.triton_launch import arithmetic, volume, where_am_i


@triton.jit
def value_kernel(
    field, weight, sums, depth, height, width, channels, pairs_z, pairs_y, pairs_x,
    TYPE: tl.constexpr, PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``sums`` (programs): squared differences in a block of ``field`` (B, channels, Z, Y, X), over numbers of pairs.

    A difference between p and p + e is multiplied by ``weight`` (B, 1, Z, Y, X) at p + e.
    """
    b, group, y, x, inside = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    plane, voxels = height * width, depth * height * width
    along_z, along_y, along_x = (
        tl.full(inside.shape, 0, TYPE), tl.full(inside.shape, 0, TYPE), tl.full(inside.shape, 0, TYPE)
    )  # fmt: skip
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, depth)):
        place = (z * height + y) * width + x
        ahead_z, ahead_y, ahead_x = (
            inside & (y * 0 + z < depth - 1),
            inside & (y < height - 1),
            inside & (x < width - 1),
        )
        weights = weight + b * voxels + place
        weight_z = tl.load(weights + plane, ahead_z, 0).to(TYPE)
        weight_y = tl.load(weights + width, ahead_y, 0).to(TYPE)
        weight_x = tl.load(weights + 1, ahead_x, 0).to(TYPE)
        values = field + b * channels * voxels + place
        for _ in range(channels):
            here = tl.load(values, inside, 0).to(TYPE)
            dz = step(values, plane, ahead_z, here, TYPE)
            dy = step(values, width, ahead_y, here, TYPE)
            dx = step(values, 1, ahead_x, here, TYPE)
            along_z += weight_z * dz * dz
            along_y += weight_y * dy * dy
            along_x += weight_x * dx * dx
            values += voxels
    along_z *= one_over(pairs_z, TYPE)
    along_y *= one_over(pairs_y, TYPE)
    along_x *= one_over(pairs_x, TYPE)
    total = tl.sum(tl.sum(along_z + along_y + along_x, 1), 0)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + program, total)


@triton.jit
def gradient_kernel(
    upstream, field, weight, out, to_weight, depth, height, width, channels, pairs_z, pairs_y, pairs_x,
    FOR_FIELD: tl.constexpr, FOR_WEIGHT: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Gradients of :func:`value_kernel`'s sum times ``upstream``, a number on the device."""
    b, group, y, x, inside = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    plane, voxels = height * width, depth * height * width
    factor = tl.load(upstream).to(TYPE)
    share_z = factor * one_over(pairs_z, TYPE)
    share_y = factor * one_over(pairs_y, TYPE)
    share_x = factor * one_over(pairs_x, TYPE)
    ahead_y, ahead_x = inside & (y < height - 1), inside & (x < width - 1)
    behind_y, behind_x = inside & (y > 0), inside & (x > 0)
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, depth)):
        place = (z * height + y) * width + x
        ahead_z, behind_z = inside & (y * 0 + z < depth - 1), inside & (y * 0 + z > 0)
        weights = weight + b * voxels + place
        own = tl.load(weights, inside, 0).to(TYPE)
        forward_z = share_z * tl.load(weights + plane, ahead_z, 0).to(TYPE)
        forward_y = share_y * tl.load(weights + width, ahead_y, 0).to(TYPE)
        forward_x = share_x * tl.load(weights + 1, ahead_x, 0).to(TYPE)
        backward_z, backward_y, backward_x = share_z * own, share_y * own, share_x * own
        by_weight = tl.full(inside.shape, 0, TYPE)
        values = field + b * channels * voxels + place
        target = out + b * channels * voxels + place
        for _ in range(channels):
            here = tl.load(values, inside, 0).to(TYPE)
            before_z = step(values, -plane, behind_z, here, TYPE)
            before_y = step(values, -width, behind_y, here, TYPE)
            before_x = step(values, -1, behind_x, here, TYPE)
            if FOR_FIELD:
                slope = forward_z * step(values, plane, ahead_z, here, TYPE) + backward_z * before_z
                slope += forward_y * step(values, width, ahead_y, here, TYPE) + backward_y * before_y
                slope += forward_x * step(values, 1, ahead_x, here, TYPE) + backward_x * before_x
                tl.store(target, -2 * slope, inside)
            if FOR_WEIGHT:
                by_weight += share_z * before_z * before_z + share_y * before_y * before_y
                by_weight += share_x * before_x * before_x
            values += voxels
            target += voxels
        if FOR_WEIGHT:
            tl.store(to_weight + b * voxels + place, by_weight, inside)


def value(field: Tensor, weight: Tensor, pairs: Sequence[int]) -> Tensor:
    """Σ over axes of weighted squared differences of ``field`` (B, C, *space), each divided by a number; a scalar.

    Parameters
    ----------
    weight : Tensor, shape (B, 1, *space)
    pairs : sequence of int
        These numbers along (Z, Y, X); in 2-D the first belongs to the missing axis.
    """
    field, weight = field.contiguous(), weight.contiguous()
    sizes = volume(field)
    sums = torch.empty(sizes.tiles[0] * sizes.tiles[1] * sizes.tiles[2], dtype=field.dtype, device=field.device)
    value_kernel[sizes.tiles](
        field, weight, sums, *sizes.space, sizes.channels, *without_rows(pairs, field),
        TYPE=arithmetic(field), **sizes.tile,
    )  # fmt: skip
    return sums.sum(dtype=torch.float64).to(field.dtype)


def gradients(
    upstream: Tensor, field: Tensor, weight: Tensor, pairs: Sequence[int], for_field: bool, for_weight: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`value` with respect to field and weight; empty if not needed."""
    field, weight = field.contiguous(), weight.contiguous()
    sizes = volume(field)
    out = torch.empty_like(field) if for_field else field.new_empty(0)
    to_weight = field.new_empty(weight.shape) if for_weight else field.new_empty(0)
    gradient_kernel[sizes.tiles](
        upstream, field, weight, out, to_weight, *sizes.space, sizes.channels, *without_rows(pairs, field),
        FOR_FIELD=for_field, FOR_WEIGHT=for_weight, TYPE=arithmetic(field), **sizes.tile,
    )  # fmt: skip
    return out, to_weight
