"""Squared difference of the MIND-SSC descriptors of two images, and its gradients, in six passes.

Descriptors are never stored.  The first pass and the last two are those of
:mod:`~regcore.kernels.not_validated.mind_ssc_patch_sums`:

1. sums over x and y of the squared differences of each pair of neighbours, for either image;
2. sums over z, and the mean of V over the image;
3. descriptors of both images, the loss, and the gradient of the patch sums without what passes through the mean of V,
   of which the pass adds up how much that is;
4. the rest of that gradient, and the adjoint of the sums over z;
5. the adjoint of the sums over y and x;
6. every voxel collects the gradient from the differences that it has part in.

Pairs are numbered as there.  Where the minimum over the pairs is tied its gradient is shared evenly, as torch does; the
gradient of a clamped V is that of the clamp.  No result depends on the order of programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.not_validated import mind_ssc_patch_sums as patch_sums
from regcore.kernels.not_validated.mind_ssc_patch_sums import appended, clamped, edge_weight, tile_of
from regcore.kernels.triton_launch import Volume, arithmetic, volume


@triton.jit
def patch_distances(
    sums, z, y, x, depth, height, width, CHANNELS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr
):
    """D of every pair, V before it is clamped, from sums over x and y.

    D of the least pair is exactly 0, which tells the ties.  Hence sums are scaled after the least is subtracted: a
    product before would be fused into the subtraction, unrounded, and differ from the rounded least.
    """
    found = ()
    place = y * width + tl.minimum(x, width - 1)
    for _ in tl.static_range(CHANNELS):
        total = tl.zeros((z.shape[0], x.shape[1]), TYPE)
        for offset in tl.static_range(-RADIUS, RADIUS + 1):
            total += tl.load(sums + clamped(z + offset, depth) * (height * width) + place)
        found = appended(found, total)
        sums += depth * height * width
    least = found[0]
    for c in tl.static_range(1, CHANNELS):
        least = tl.where(found[c] < least, found[c], least)
    distances = ()
    variance = tl.zeros_like(least)
    for c in tl.static_range(CHANNELS):
        distance = (found[c] - least) * (1 / (2 * RADIUS + 1) ** 3)
        distances = appended(distances, distance)
        variance += distance
    return distances, variance / CHANNELS


@triton.jit
def variance_kernel(
    sums, out, depth, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` (B, programs): sums of V, before it is clamped, over the voxels of each program."""
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    y, b = tl.program_id(1), tl.program_id(2)
    sums += b * CHANNELS * depth * height * width
    _, variance = patch_distances(sums, z, y, x, depth, height, width, CHANNELS, RADIUS, TYPE)
    part = (b * tl.num_programs(1) + y) * tl.num_programs(0) + tl.program_id(0)
    tl.store(out + part, tl.sum(tl.where(mask, variance, 0.0)))


@triton.jit
def clamp_variance(variance, mean, SMALLEST: tl.constexpr):
    """V; comparisons with NaN fail, so that NaN stays."""
    v = tl.where(variance < 0.001 * mean, 0.001 * mean, variance)
    v = tl.where(v > 1000 * mean, 1000 * mean, v)
    return tl.where(v < SMALLEST, SMALLEST, v)


@triton.jit
def store_gradient(
    target, ties_target, distances, own, other, variance, mean, mask, voxels, CHANNELS: tl.constexpr,
    SMALLEST: tl.constexpr,
):  # fmt: skip
    """Store the gradient of the patch sums of an image, but for what passes through the mean of V; return that.

    ``own`` and ``other`` are the descriptors of this and the other image.
    """
    v = clamp_variance(variance, mean, SMALLEST)
    low, high = 0.001 * mean, 1000 * mean
    inverse = 1.0 / v
    to_variance = tl.zeros_like(v)
    direct = ()
    for c in tl.static_range(CHANNELS):
        slope = (own[c] - other[c]) * own[c] * (2 * inverse)
        direct = appended(direct, slope)
        to_variance += slope * (distances[c] * inverse)
    to_variance = tl.where(tl.minimum(tl.maximum(variance, low), high) >= SMALLEST, to_variance, 0.0)
    through = tl.where((variance >= low) & (variance <= high), to_variance, 0.0) / CHANNELS
    total = tl.zeros_like(v)
    ties = tl.zeros(v.shape, tl.int32)
    for c in tl.static_range(CHANNELS):
        total += through - direct[c]
        ties += tl.where(distances[c] == 0, (1 << CHANNELS) + (1 << c), 0)
    share = total / (ties >> CHANNELS).to(v.dtype)
    for c in tl.static_range(CHANNELS):
        tl.store(target + c * voxels, through - direct[c] - tl.where(distances[c] == 0, share, 0.0), mask)
    tl.store(ties_target, ties.to(tl.int16), mask)
    return tl.where(variance < low, 0.001 * to_variance, tl.where(variance > high, 1000 * to_variance, 0.0))


@triton.jit
def compare_kernel(
    fixed, moving, fixed_mean, moving_mean, to_fixed, to_moving, fixed_ties, moving_ties, parts, depth, height, width,
    FOR_FIXED: tl.constexpr, FOR_MOVING: tl.constexpr, SMALLEST: tl.constexpr,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``parts`` (3, B, programs): sums of the loss, and of the gradients of the means of V of the two images.

    From sums over x and y ``fixed``, ``moving`` (B, CHANNELS, Z, Y, X) and means of V (B,); the gradients of the
    patch sums go to ``to_fixed`` and ``to_moving``, which pairs are the least to ``fixed_ties``, ``moving_ties``
    (B, Z, Y, X): a bit for each pair, and above these how many they are.
    """
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    y, b = tl.program_id(1), tl.program_id(2)
    voxels = depth * height * width
    first = b * CHANNELS * voxels
    mean_f, mean_m = tl.load(fixed_mean + b), tl.load(moving_mean + b)
    d_f, v_f = patch_distances(fixed + first, z, y, x, depth, height, width, CHANNELS, RADIUS, TYPE)
    d_m, v_m = patch_distances(moving + first, z, y, x, depth, height, width, CHANNELS, RADIUS, TYPE)
    by_f = -1.0 / clamp_variance(v_f, mean_f, SMALLEST)
    by_m = -1.0 / clamp_variance(v_m, mean_m, SMALLEST)
    of_f, of_m = (), ()
    loss = tl.zeros_like(v_f)
    for c in tl.static_range(CHANNELS):
        of_f = appended(of_f, tl.exp(d_f[c] * by_f))
        of_m = appended(of_m, tl.exp(d_m[c] * by_m))
        loss += (of_f[c] - of_m[c]) * (of_f[c] - of_m[c])
    programs = tl.num_programs(0) * tl.num_programs(1)
    parts += b * programs + y * tl.num_programs(0) + tl.program_id(0)
    tl.store(parts, tl.sum(tl.where(mask, loss, 0.0)))
    programs *= tl.num_programs(2)
    here = (z * height + y) * width + x
    if FOR_FIXED:
        through = store_gradient(
            to_fixed + first + here, fixed_ties + b * voxels + here, d_f, of_f, of_m, v_f, mean_f, mask, voxels,
            CHANNELS, SMALLEST,
        )  # fmt: skip
        tl.store(parts + programs, tl.sum(tl.where(mask, through, 0.0)))
    if FOR_MOVING:
        through = store_gradient(
            to_moving + first + here, moving_ties + b * voxels + here, d_m, of_m, of_f, v_m, mean_m, mask, voxels,
            CHANNELS, SMALLEST,
        )  # fmt: skip
        tl.store(parts + 2 * programs, tl.sum(tl.where(mask, through, 0.0)))


@triton.jit
def planes_adjoint_kernel(
    gradient, ties, through_mean, out, depth, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out``: the adjoint of the sums over z, of ``gradient`` (B, CHANNELS, Z, Y, X) and of what it lacks.

    ``through_mean`` (B,) is the gradient of V at every voxel that passes through the mean of V.
    """
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    y, b = tl.program_id(1), tl.program_id(2)
    voxels = depth * height * width
    through = tl.load(through_mean + b)
    ties += b * voxels
    gradient += b * CHANNELS * voxels
    out += b * CHANNELS * voxels + (z * height + y) * width + x
    totals = ()
    for _ in tl.static_range(CHANNELS):
        totals = appended(totals, tl.zeros((BLOCK_Z, BLOCK_X), TYPE))
    for offset in tl.static_range(-RADIUS, RADIUS + 1):
        weight = edge_weight(z, offset, depth, RADIUS).to(TYPE)
        place = (clamped(z + offset, depth) * height + y) * width + tl.minimum(x, width - 1)
        tied = tl.load(ties + place).to(tl.int32)
        share = through / ((tied >> CHANNELS) & 15).to(TYPE)
        added = ()
        for c in tl.static_range(CHANNELS):
            value = tl.load(gradient + c * voxels + place) + through / CHANNELS
            value -= tl.where((tied & (1 << c)) != 0, share, 0.0)
            added = appended(added, totals[c] + weight * value)
        totals = added
    for c in tl.static_range(CHANNELS):
        tl.store(out + c * voxels, totals[c], mask)


def loss_and_gradients(
    fixed: Tensor, moving: Tensor, radius: int, dilation: int, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of images (B, 1, *space), and its gradients where wanted."""
    images = fixed.contiguous(), moving.contiguous()
    size = volume(moving)
    groups = 3 if moving.ndim == 5 else 1
    fields = [patch_sums.sums_of(image, size, groups, radius, dilation, moving.dtype) for image in images]
    shared = {"CHANNELS": 4 * groups, "RADIUS": radius, "TYPE": arithmetic(moving), **patch_sums.TILE}
    grid = patch_sums.tiles(size), size.height, size.batch
    voxels = size.depth * size.height * size.width
    means = [mean_variance(field, grid, voxels, size, shared) for field in fields]
    wanted = for_fixed, for_moving
    # What is not wanted is not written; any tensor will do.
    adjoints = [torch.empty_like(field) if want else field for field, want in zip(fields, wanted, strict=True)]
    ties = [
        torch.empty(moving.shape, dtype=torch.int16, device=moving.device) if want else field
        for field, want in zip(fields, wanted, strict=True)
    ]
    parts = moving.new_zeros(3, size.batch, grid[0] * grid[1])
    compare_kernel[grid](
        *fields, *means, *adjoints, *ties, parts, *size.space, FOR_FIXED=for_fixed, FOR_MOVING=for_moving,
        SMALLEST=torch.finfo(moving.dtype).tiny ** 0.5, **shared,
    )  # fmt: skip
    sums = parts.sum(2, dtype=torch.float64)
    entries = 4 * groups * voxels * size.batch
    loss = (sums[0].sum() / entries).to(moving.dtype)
    through_means = (sums[1:] / voxels).to(moving.dtype)
    to_fixed, to_moving = (
        image_gradient(image, field, adjoint, tied, through_mean, entries, dilation, size, groups, grid, shared)
        if want
        else image.new_empty(0)
        for want, image, field, adjoint, tied, through_mean in zip(
            wanted, images, fields, adjoints, ties, through_means, strict=True
        )
    )
    return loss, to_fixed, to_moving


def mean_variance(sums: Tensor, grid: tuple, voxels: int, size: Volume, shared: dict) -> Tensor:
    """Mean over the image of V before it is clamped, (B,)."""
    parts = sums.new_empty(size.batch, grid[0] * grid[1])
    variance_kernel[grid](sums, parts, *size.space, **shared)
    return (parts.sum(1, dtype=torch.float64) / voxels).to(sums.dtype)


def image_gradient(
    image: Tensor, spare: Tensor, adjoints: Tensor, ties: Tensor, through_mean: Tensor, entries: int, dilation: int,
    size: Volume, groups: int, grid: tuple, shared: dict,
) -> Tensor:  # fmt: skip
    """Gradient of ``image`` for the stored gradient of its patch sums; ``spare`` is memory of that size."""
    planes_adjoint_kernel[grid](adjoints, ties, through_mean, spare, *size.space, **shared)
    return patch_sums.adjoint(spare, adjoints, image, entries, dilation, size, groups, shared["RADIUS"])
