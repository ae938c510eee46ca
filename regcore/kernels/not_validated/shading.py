"""A bias field, clipping, normalisation and a power; the equations are in :mod:`regcore.kernels.shading.reference`.

One pass multiplies, clips and finds the extremes, a second normalises.  The bias field is interpolated from its coarse
voxels where needed and never stored; the coarse field stays in the cache.

A program finds the extremes of its voxels, and torch those over programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import volume, where_am_i

#: Voxels of a program of the second pass.
VOXELS = 1024


@triton.jit
def between(position, ratio, size):
    """The two coarse voxels around a fine one, and the weight of the second."""
    place = position.to(tl.float32) * ratio
    first = tl.minimum(place.to(tl.int32), size - 1)
    return first, tl.minimum(first + 1, size - 1), place - first.to(tl.float32)


@triton.jit
def mixed(a, b, weight):
    return a + weight * (b - a)


@triton.jit
def shade_kernel(
    image, field, out, ends, brightest, depth, height, width, planes, rows, columns, ratio_z, ratio_y, ratio_x,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` = ``image`` (Z, Y, X) · exp(``field`` (planes, rows, columns)), clipped; ``ends`` (2, programs)."""
    _, z, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    z0, z1, wz = between(z, ratio_z, planes)
    y0, y1, wy = between(tl.minimum(y, height - 1), ratio_y, rows)
    x0, x1, wx = between(tl.minimum(x, width - 1), ratio_x, columns)
    a = mixed(tl.load(field + (z0 * rows + y0) * columns + x0), tl.load(field + (z0 * rows + y0) * columns + x1), wx)
    b = mixed(tl.load(field + (z0 * rows + y1) * columns + x0), tl.load(field + (z0 * rows + y1) * columns + x1), wx)
    c = mixed(tl.load(field + (z1 * rows + y0) * columns + x0), tl.load(field + (z1 * rows + y0) * columns + x1), wx)
    d = mixed(tl.load(field + (z1 * rows + y1) * columns + x0), tl.load(field + (z1 * rows + y1) * columns + x1), wx)
    here = (z * height + y) * width + x
    value = tl.load(image + here, mask, 0) * tl.exp(mixed(mixed(a, b, wy), mixed(c, d, wy), wz))
    # Comparisons with NaN are false, so NaN is kept.
    value = tl.where(value < 0, 0.0, value)
    value = tl.where(value > brightest, brightest, value)
    tl.store(out + here, value, mask)
    program = z * tl.num_programs(0) + tl.program_id(0)
    target = ends + program
    tl.store(target, tl.max(tl.max(tl.where(mask, -value, -float("inf")), 1), 0))
    tl.store(target + tl.num_programs(0) * tl.num_programs(1), tl.max(tl.max(tl.where(mask, value, 0.0), 1), 0))


@triton.jit
def stretch_kernel(image, ends, out, exponent, count, VOXELS: tl.constexpr):
    """``out`` = (``image`` - low) / (high - low) to the power of ``exponent``, for ``ends`` (-low, high)."""
    here = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    mask = here < count
    minus_low, high = tl.load(ends), tl.load(ends + 1)
    extent = tl.maximum(high + minus_low, 1.1754943508222875e-38)
    above = tl.load(image + here, mask, 0) + minus_low
    value = above * (1 / extent)
    value = tl.where(above >= extent, 1.0, value)  # exactly 1, despite rounding
    # Comparisons with NaN are false, so NaN is kept.
    power = tl.exp2(exponent * tl.log2(tl.where(value <= 0, 1.0, value)))
    tl.store(out + here, tl.where(value <= 0, 0.0, power), mask)


def shade(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    image, field = image.contiguous(), field.contiguous()
    out = torch.empty_like(image)
    fine, coarse = volume(image), volume(field)
    blocks, planes, _ = fine.grid
    ends = image.new_empty(2, blocks * planes)
    ratios = [(n - 1) / (m - 1) if m > 1 else 0.0 for n, m in zip(coarse.space, fine.space, strict=True)]
    shade_kernel[fine.grid](
        image, field, out, ends, float(brightest), *fine.space, *coarse.space, *ratios, **fine.block
    )  # fmt: skip
    return out, ends.amax(1)


def stretch(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    image = image.contiguous()
    out = torch.empty_like(image)
    grid = (triton.cdiv(image.numel(), VOXELS),)
    stretch_kernel[grid](image, ends.contiguous(), out, float(exponent), image.numel(), VOXELS=VOXELS)
    return out
