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
def one_over(number, TYPE: tl.constexpr):
    """1 / ``number``, and 0 for 0.  Whole numbers come to a kernel as they are, others in float32."""
    number = number.to(TYPE)
    return tl.where(number > 0, 1.0, 0.0) / tl.maximum(number, 1.0)


@triton.jit
def value_kernel(
    field, weight, sums, depth, height, width, channels, pairs_z, pairs_y, pairs_x,
    WEIGHTED: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``sums`` (programs): squared differences in a block of ``field`` (B, channels, Z, Y, X), over numbers of pairs.

    A difference between p and p + e is multiplied by ``weight`` (B, 1, Z, Y, X) at p + e, where it is wanted.
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
        weight_z, weight_y, weight_x = 1.0, 1.0, 1.0
        if WEIGHTED:
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
    WEIGHTED: tl.constexpr, FOR_FIELD: tl.constexpr, FOR_WEIGHT: tl.constexpr, TYPE: tl.constexpr,
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
        forward_z, forward_y, forward_x = share_z, share_y, share_x
        backward_z, backward_y, backward_x = share_z, share_y, share_x
        if WEIGHTED:
            weights = weight + b * voxels + place
            own = tl.load(weights, inside, 0).to(TYPE)
            forward_z *= tl.load(weights + plane, ahead_z, 0).to(TYPE)
            forward_y *= tl.load(weights + width, ahead_y, 0).to(TYPE)
            forward_x *= tl.load(weights + 1, ahead_x, 0).to(TYPE)
            backward_z *= own
            backward_y *= own
            backward_x *= own
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


def value(field: Tensor, weight: Tensor | None, pairs: Sequence[int]) -> Tensor:
    """Σ over axes of (weighted) squared differences of ``field`` (B, C, *space), each over a number; a scalar.

    Parameters
    ----------
    pairs : sequence of int
        These numbers along (Z, Y, X); in 2-D the first is that of the axis which does not exist.
    """
    field = field.contiguous()
    sizes, weighted = channels_apart(field, weight), weight is not None
    sums = torch.empty(sizes.tiles[0] * sizes.tiles[1] * sizes.tiles[2], dtype=field.dtype, device=field.device)
    value_kernel[sizes.tiles](
        field, weight.contiguous() if weighted else field, sums,
        *sizes.space, sizes.channels, *without_rows(pairs, field),
        WEIGHTED=weighted, TYPE=arithmetic(field), **sizes.tile,
    )  # fmt: skip
    return sums.sum(dtype=torch.float64).to(field.dtype)


def gradients(
    upstream: Tensor,
    field: Tensor,
    weight: Tensor | None,
    pairs: Sequence[int],
    for_field: bool = True,
    for_weight: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`value` with respect to field and weight; empty where they are not wanted."""
    field = field.contiguous()
    sizes, weighted = channels_apart(field, weight), weight is not None
    out = torch.empty_like(field) if for_field else field.new_empty(0)
    to_weight = field.new_empty(weight.shape) if for_weight and weighted else field.new_empty(0)
    gradient_kernel[sizes.tiles](
        upstream, field, weight.contiguous() if weighted else field, out, to_weight,
        *sizes.space, sizes.channels, *without_rows(pairs, field),
        WEIGHTED=weighted, FOR_FIELD=for_field, FOR_WEIGHT=for_weight, TYPE=arithmetic(field), **sizes.tile,
    )  # fmt: skip
    return out, to_weight


def channels_apart(field: Tensor, weight: Tensor | None) -> Volume:
    """Sizes of ``field``; without a weight, which all channels share, each channel is an element of the batch."""
    return volume(field if weight is not None else field.flatten(0, 1).unsqueeze(1))


def without_rows(pairs: Sequence[int], field: Tensor) -> Sequence[int]:
    """Numbers of (Z, Y, X): in 2-D, where the first is none, those of Y and X for the axes Z and X of the kernels."""
    return pairs if field.ndim == 5 else (pairs[1], 0, pairs[2])
