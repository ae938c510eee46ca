"""The joint histogram of two images as a product of matrices, W_fᵀ W_m, and its gradients.

The windows of a block of voxels are computed in registers and never stored.  Every program sums over many blocks, and
torch adds the programs' results, so that runs are reproducible.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import arithmetic

#: Arithmetic for products of float32 windows: "tf32x3" is about as exact as float32, "tf32" (10 bits) is faster,
#: and "ieee" does not use tensor cores.
PRECISION = "tf32x3"
#: Programs that share the voxels: twice what the 132 processors of an H100 run at once (13 each, limited by registers),
#: so that none runs alone at the end; their histograms take 14 MB with 32 bins.
PROGRAMS = 3432
#: Voxels per block and warps per program, by the largest number of bins they are for.  Warps of one program that share
#: a histogram read the windows twice, so one warp is best as long as the histogram fits.
HISTOGRAM_BLOCK = {32: (32, 1), 64: (32, 4)}
GRADIENT_BLOCK = {32: (128, 4), 64: (64, 8)}

# Windows are (bins, voxels): one lane per voxel with all of its bins, so that their sums
# need no other lanes.


@triton.jit
def windows(x, SHARPNESS: tl.constexpr, BINS: tl.constexpr, PADDED: tl.constexpr, FAST: tl.constexpr):
    """Differences d of positions x (1, voxels) and the centres of bins, and 2^(−SHARPNESS d²), with maximum 1.

    Both (PADDED, voxels); the second is zero beyond the last bin.
    """
    # The smallest squared distance belongs to the nearest centre. Comparisons with NaN are false, so NaN is kept.
    nearest = tl.floor(x + 0.5)
    nearest = tl.where(nearest < 0, 0.0, nearest)
    nearest = tl.where(nearest > BINS - 1, BINS - 1.0, nearest)
    least = SHARPNESS * (x - nearest) * (x - nearest)
    centres = tl.arange(0, PADDED)[:, None]
    d = x - centres.to(x.dtype)
    exponent = least - SHARPNESS * (d * d)
    if FAST:  # without instructions for subnormal numbers
        gaussian = tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [exponent], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        gaussian = tl.exp2(exponent)
    return d, gaussian if BINS == PADDED else tl.where(centres < BINS, gaussian, 0.0)


@triton.jit
def leading_bits(values):
    """Values truncated to the 10 bits of a tensor core."""
    return (values.to(tl.int32, bitcast=True) & -(2**13)).to(tl.float32, bitcast=True)


@triton.jit
def multiply(a, b, total, PRECISION: tl.constexpr):
    """``total`` + a · b."""
    if PRECISION == "tf32x3":  # fewer instructions than Triton's version, which rounds and checks for NaN
        high_a, high_b = leading_bits(a), leading_bits(b)
        total = tl.dot(a - high_a, high_b, total, input_precision="tf32")
        total = tl.dot(high_a, b - high_b, total, input_precision="tf32")
        return tl.dot(high_a, high_b, total, input_precision="tf32")
    return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def positions(values, place, end, TYPE: tl.constexpr):
    return tl.load(values + place, place < end, 0).to(TYPE)


@triton.jit
def histogram_kernel(
    fixed, warped, out, voxels, chunk,
    SHARPNESS: tl.constexpr, BINS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, TYPE: tl.constexpr,
    PRECISION: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """``out`` (R, programs, BINS, BINS): sums of products of windows over ``chunk`` voxels of ``fixed``, ``warped``
    (R, voxels)."""
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    start = part * chunk
    end = tl.minimum(start + chunk, voxels)
    fixed += row * voxels
    warped += row * voxels
    total = tl.zeros((PADDED, PADDED), TYPE)
    place = start + tl.arange(0, BLOCK)
    x, y = positions(fixed, place, end, TYPE), positions(warped, place, end, TYPE)
    for _ in range(start, end, BLOCK):
        exists = place < end
        place += BLOCK
        # The next block is loaded while this one is computed.
        next_x, next_y = positions(fixed, place, end, TYPE), positions(warped, place, end, TYPE)
        _, by_fixed = windows(x[None, :], SHARPNESS, BINS, PADDED, FAST)
        _, by_warped = windows(y[None, :], SHARPNESS, BINS, PADDED, FAST)
        by_fixed *= (tl.where(exists, 1.0, 0.0) / (tl.sum(by_fixed, 0) * tl.sum(by_warped, 0)))[None, :]
        total = multiply(by_fixed, tl.trans(by_warped), total, PRECISION)
        x, y = next_x, next_y
    rows, columns = tl.arange(0, PADDED)[:, None], tl.arange(0, PADDED)[None, :]
    target = out + (row * tl.num_programs(0) + part) * BINS * BINS + rows * BINS + columns
    tl.store(target, total, (rows < BINS) & (columns < BINS))


@triton.jit
def slope_kernel(
    own, other, gradient, out, voxels, chunk, own_stride, other_stride,
    SHARPNESS: tl.constexpr, BINS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, TYPE: tl.constexpr,
    PRECISION: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """``out`` (R, voxels) = Σₖ u wₖ (k − Σⱼ j wⱼ) over the windows w of positions ``own``, with their gradient u.

    u is ``gradient`` (R, BINS, BINS), with its strides along the bins of the two images, times the windows of
    ``other``.
    """
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    start = part * chunk
    end = tl.minimum(start + chunk, voxels)
    rows, columns = tl.arange(0, PADDED)[:, None], tl.arange(0, PADDED)[None, :]
    table = gradient + row * BINS * BINS + rows * own_stride + columns * other_stride
    table = tl.load(table, (rows < BINS) & (columns < BINS), 0).to(TYPE)
    own += row * voxels
    other += row * voxels
    out += row * voxels
    place = start + tl.arange(0, BLOCK)
    x, y = positions(own, place, end, TYPE), positions(other, place, end, TYPE)
    for _ in range(start, end, BLOCK):
        following = place + BLOCK
        next_x, next_y = positions(own, following, end, TYPE), positions(other, following, end, TYPE)
        _, by_other = windows(y[None, :], SHARPNESS, BINS, PADDED, FAST)
        upstream = multiply(table, by_other, tl.zeros((PADDED, BLOCK), TYPE), PRECISION)
        d, w = windows(x[None, :], SHARPNESS, BINS, PADDED, FAST)
        whole = tl.sum(w, 0)
        middle = tl.sum(w * d, 0) / whole
        slope = tl.sum(w * upstream * (middle[None, :] - d), 0)
        tl.store(out + place, slope / (whole * tl.sum(by_other, 0)), place < end)
        place = following
        x, y = next_x, next_y


def forward(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
    """Joint histogram (R, bins, bins) of two (R, voxels) of positions in bins."""
    fixed, warped = fixed.contiguous(), warped.contiguous()
    rows, voxels = fixed.shape
    block, warps = block_for(HISTOGRAM_BLOCK, fixed, bins)
    programs, chunk = shares(rows, voxels, block)
    parts = fixed.new_empty(rows, programs, bins, bins)
    histogram_kernel[programs, rows](
        fixed, warped, parts, voxels, chunk, **constants(fixed, bins, width), BLOCK=block, num_warps=warps
    )
    return (parts.sum(1, dtype=torch.float64) / voxels).to(fixed.dtype)


def backward(
    gradient: Tensor, fixed: Tensor, warped: Tensor, width: float, for_fixed: bool, for_warped: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the positions for that of their histogram, (R, bins, bins); empty if not needed."""
    gradient = (gradient / (fixed.shape[1] * width**2)).contiguous()
    fixed, warped = fixed.contiguous(), warped.contiguous()
    bins = gradient.shape[1]
    return (
        slopes(fixed, warped, gradient, bins, 1, width) if for_fixed else fixed.new_empty(0),
        slopes(warped, fixed, gradient, 1, bins, width) if for_warped else warped.new_empty(0),
    )


def slopes(own: Tensor, other: Tensor, gradient: Tensor, own_stride: int, other_stride: int, width: float) -> Tensor:
    """Gradient of the positions ``own``; the strides are those of ``gradient`` along the bins of the two images."""
    rows, voxels = own.shape
    bins = gradient.shape[1]
    out = torch.empty_like(own)
    block, warps = block_for(GRADIENT_BLOCK, own, bins)
    programs, chunk = shares(rows, voxels, block)
    slope_kernel[programs, rows](
        own, other, gradient, out, voxels, chunk, own_stride, other_stride,
        **constants(own, bins, width), BLOCK=block, num_warps=warps,
    )  # fmt: skip
    return out


def constants(positions: Tensor, bins: int, width: float) -> dict:
    kind = arithmetic(positions)
    return {
        "SHARPNESS": math.log2(math.e) / (2 * width**2),
        "BINS": bins,
        "PADDED": max(16, triton.next_power_of_2(bins)),  # the smallest size for tensor cores
        "TYPE": kind,
        "PRECISION": "ieee" if kind == tl.float64 else PRECISION,
        "FAST": kind == tl.float32 and positions.is_cuda,
    }


def block_for(blocks: dict[int, tuple[int, int]], positions: Tensor, bins: int) -> tuple[int, int]:
    """Voxels of a block, half as many in float64, and warps of a program."""
    voxels, warps = next(found for most, found in blocks.items() if bins <= most)
    return voxels // 2 if positions.dtype == torch.float64 else voxels, warps


def shares(rows: int, voxels: int, block: int) -> tuple[int, int]:
    """Number of programs per row, and voxels per program, in whole blocks."""
    chunk = block * triton.cdiv(voxels, block * max(1, PROGRAMS // rows))
    return triton.cdiv(voxels, chunk), chunk
