"""Squared difference of the MIND-SSC descriptors of two images, and its gradients, in six passes.

Sums over patches are taken an axis at a time, each value from its own taps and not by a running sum, which would
leave what rounding a bright edge costs in the dark beside it.  Descriptors are never stored:

1. sums over x and y of the squared differences of each pair of neighbours, for either image;
2. sums over z, and the mean of V over the image;
3. descriptors of both images, the loss, and the gradient of the patch sums without what passes through the mean of V,
   of which the pass adds up how much that is;
4. the rest of that gradient, and the adjoint of the sums over z;
5. the adjoint of the sums over y and x;
6. every voxel collects the gradient from the differences that it has part in.

Pairs are in groups of four, of the axes (z, y), (z, x) and (y, x); in 2-D, where there is no y, only (z, x).  Number
4 group + 2 (sign of the first neighbour) + (sign of the second), a sign counting as 0 or 1.  Where the minimum over
the pairs is tied its gradient is shared evenly, as torch does; the gradient of a clamped V is that of the clamp.

Loops march along y, a program holding a tile of planes and columns.  No result depends on the order of programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.gpu.launch import Volume, arithmetic, volume

#: Planes and columns of a tile.
TILE = {"BLOCK_Z": 8, "BLOCK_X": 32}
#: Rows that a program marches along; 2 · radius more are read before the first.
ROWS = 32


@triton.jit
def tile_of(block, depth, width, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr):
    """Planes (BLOCK_Z, 1), columns (1, BLOCK_X) of a tile, and which of its voxels exist."""
    across = tl.cdiv(width, BLOCK_X)
    z = (block // across) * BLOCK_Z + tl.arange(0, BLOCK_Z)[:, None]
    x = (block % across) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    return z, x, (z < depth) & (x < width)


@triton.jit
def clamped(index, size):
    return tl.minimum(tl.maximum(index, 0), size - 1)


@triton.jit
def appended(values, value):
    """The tuple ``values`` and one more."""
    last = (value,)
    return values + last


@triton.jit
def edge_weight(index, offset, size, RADIUS: tl.constexpr):
    """How often the sum that edges repeat, at ``index + offset``, takes the value at ``index``."""
    there = index + offset
    more = tl.where(index == 0, RADIUS - offset, 0) + tl.where(index == size - 1, RADIUS + offset, 0)
    return tl.where((there >= 0) & (there < size), 1 + more, 0)


@triton.jit
def squared_differences(
    image, z, y, x, group, dilation, depth, height, width, RADIUS: tl.constexpr, TYPE: tl.constexpr
):
    """Sums over x of the squared differences of the four pairs of a group, at planes ``z`` of row ``y``."""
    y = clamped(y, height)
    first_z = tl.where(group < 2, dilation, 0)
    first_y = dilation - first_z
    second_y = tl.where(group == 0, dilation, 0)
    second_x = dilation - second_y
    a0 = image + (clamped(z - first_z, depth) * height + clamped(y - first_y, height)) * width
    a1 = image + (clamped(z + first_z, depth) * height + clamped(y + first_y, height)) * width
    b0 = image + (z * height + clamped(y - second_y, height)) * width
    b1 = image + (z * height + clamped(y + second_y, height)) * width
    s00 = tl.zeros((z.shape[0], x.shape[1]), TYPE)
    s01, s10, s11 = s00, s00, s00
    for offset in tl.static_range(-RADIUS, RADIUS + 1):
        q = clamped(x + offset, width)
        low, high = tl.load(a0 + q).to(TYPE), tl.load(a1 + q).to(TYPE)
        left = tl.load(b0 + clamped(q - second_x, width)).to(TYPE)
        right = tl.load(b1 + clamped(q + second_x, width)).to(TYPE)
        s00 += (low - left) * (low - left)
        s01 += (low - right) * (low - right)
        s10 += (high - left) * (high - left)
        s11 += (high - right) * (high - right)
    return s00, s01, s10, s11


@triton.jit
def difference_sums_kernel(
    image, out, dilation, depth, height, width,
    GROUPS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` (B, 4 · GROUPS, Z, Y, X): sums over x and y of the squared differences of ``image`` (B, 1, Z, Y, X)."""
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    b, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    voxels = depth * height * width
    image += b * voxels
    out += (b * GROUPS + group) * 4 * voxels
    group += 0 if GROUPS == 3 else 1
    plane = clamped(z, depth)
    start = tl.program_id(1) * ROWS
    place = (z * height + start) * width + x
    ring = ()
    for offset in tl.static_range(-RADIUS, RADIUS):
        ring = ring + squared_differences(
            image, plane, start + offset, x, group, dilation, depth, height, width, RADIUS, TYPE
        )
    for y in range(start, tl.minimum(start + ROWS, height)):
        ring = ring + squared_differences(
            image, plane, y + RADIUS, x, group, dilation, depth, height, width, RADIUS, TYPE
        )
        for pair in tl.static_range(4):
            total = ring[pair]
            for row in tl.static_range(1, 2 * RADIUS + 1):
                total += ring[4 * row + pair]
            tl.store(out + pair * voxels + place, total, mask)
        ring = ring[4:]
        place += width


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


@triton.jit
def row_adjoint(values, place, y, x, height, width, RADIUS: tl.constexpr, TYPE: tl.constexpr):
    """The adjoint of the sums over x at row ``y``, zero where there is none."""
    place += clamped(y, height) * width
    total = tl.zeros((place.shape[0], x.shape[1]), TYPE)
    for offset in tl.static_range(-RADIUS, RADIUS + 1):
        weight = edge_weight(x, offset, width, RADIUS).to(TYPE)
        total += weight * tl.load(values + place + clamped(x + offset, width))
    return tl.where((y >= 0) & (y < height), total, 0.0)


@triton.jit
def rows_adjoint_kernel(
    values, out, depth, height, width,
    RADIUS: tl.constexpr, TYPE: tl.constexpr, ROWS: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out``: the adjoint of the sums over y and x, of ``values`` (B · channels, Z, Y, X)."""
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    values += tl.program_id(2) * depth * height * width
    out += tl.program_id(2) * depth * height * width
    place = clamped(z, depth) * height * width
    start = tl.program_id(1) * ROWS
    target = (z * height + start) * width + x
    ring = ()
    for offset in tl.static_range(-RADIUS, RADIUS):
        ring = appended(ring, row_adjoint(values, place, start + offset, x, height, width, RADIUS, TYPE))
    for y in range(start, tl.minimum(start + ROWS, height)):
        ring = appended(ring, row_adjoint(values, place, y + RADIUS, x, height, width, RADIUS, TYPE))
        total = tl.zeros((BLOCK_Z, BLOCK_X), TYPE)
        for row in tl.static_range(2 * RADIUS + 1):
            # Rows that do not exist are zero.
            more = tl.where(y == 0, 2 * RADIUS - row, 0) + tl.where(y == height - 1, row, 0)
            total += (1 + more).to(TYPE) * ring[row]
        tl.store(out + target, total, mask)
        ring = ring[1:]
        target += width


@triton.jit
def from_pair(adjoints, image, centre, valid, low_channel, high_channel, place, low, high, voxels, TYPE: tl.constexpr):
    """What two pairs at ``place`` add, which share one neighbour and have the others at ``low`` and ``high``."""
    low_value, high_value = tl.load(image + low).to(TYPE), tl.load(image + high).to(TYPE)
    found = tl.load(adjoints + low_channel * voxels + place, valid, 0) * (centre - low_value)
    return found + tl.load(adjoints + high_channel * voxels + place, valid, 0) * (centre - high_value)


@triton.jit
def from_direction(
    adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, steps,
    AXIS: tl.constexpr, SIGN: tl.constexpr, GROUPS: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The gradient from all differences in which this voxel is the neighbour on side ``SIGN`` (0 or 1) along ``AXIS``.

    A voxel at the edge is that neighbour to ``dilation`` more voxels, which takes ``steps`` more than one.
    """
    voxels = depth * height * width
    total = tl.zeros_like(centre)
    towards = 1 - 2 * SIGN  # from the neighbour back to the middle
    # Of the two pairs with neighbours along z, y or x, the number of the first, and how far on the second is.
    OF_Z: tl.constexpr = (4 if AXIS == 2 and GROUPS == 3 else 0) + SIGN
    OF_Y: tl.constexpr = 2 * SIGN if AXIS == 0 else 8 + SIGN
    ALONG: tl.constexpr = 1 if AXIS == 0 else 2
    OF_X: tl.constexpr = (0 if GROUPS == 1 else 4 if AXIS == 0 else 8) + 2 * SIGN
    for step in range(steps):
        qz, qy, qx = z, y, x
        shift = towards * (dilation - step)
        if AXIS == 0:
            qz = z + shift
            valid = (qz >= 0) & (qz < depth) & ((step == 0) | (z == SIGN * (depth - 1)))
        elif AXIS == 1:
            qy = y + shift
            valid = (qy >= 0) & (qy < height) & ((step == 0) | (y == SIGN * (height - 1)))
        else:
            qx = x + shift
            valid = (qx >= 0) & (qx < width) & ((step == 0) | (x == SIGN * (width - 1)))
        valid = mask & valid
        qz, qy, qx = clamped(qz, depth), clamped(qy, height), clamped(qx, width)
        place = (qz * height + qy) * width + qx
        if AXIS != 0:
            low = (clamped(qz - dilation, depth) * height + qy) * width + qx
            high = (clamped(qz + dilation, depth) * height + qy) * width + qx
            total += from_pair(adjoints, image, centre, valid, OF_Z, OF_Z + 2, place, low, high, voxels, TYPE)
        if AXIS != 1 and GROUPS == 3:
            low = (qz * height + clamped(qy - dilation, height)) * width + qx
            high = (qz * height + clamped(qy + dilation, height)) * width + qx
            total += from_pair(adjoints, image, centre, valid, OF_Y, OF_Y + ALONG, place, low, high, voxels, TYPE)
        if AXIS != 2:
            row = (qz * height + qy) * width
            low, high = row + clamped(qx - dilation, width), row + clamped(qx + dilation, width)
            total += from_pair(adjoints, image, centre, valid, OF_X, OF_X + 1, place, low, high, voxels, TYPE)
    return total


@triton.jit
def collect_kernel(
    adjoints, image, out, entries, dilation, depth, height, width,
    GROUPS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out``: gradient of ``image`` (B, 1, Z, Y, X), for that of the ``entries`` squared differences, unscaled."""
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    y, b = tl.program_id(1), tl.program_id(2)
    voxels = depth * height * width
    image += b * voxels
    adjoints += b * 4 * GROUPS * voxels
    here = (z * height + y) * width + x
    centre = tl.load(image + here, mask, 0).to(TYPE)
    total = tl.zeros_like(centre)
    for SIGN in tl.static_range(2):
        edge_z, edge_y, edge_x = SIGN * (depth - 1), SIGN * (height - 1), SIGN * (width - 1)
        more_z = 1 + tl.where(tl.sum((z == edge_z).to(tl.int32)) > 0, dilation, 0)
        more_x = 1 + tl.where(tl.sum((x == edge_x).to(tl.int32)) > 0, dilation, 0)
        more_y = 1 + tl.where(y == edge_y, dilation, 0)
        total += from_direction(
            adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, more_z, 0, SIGN, GROUPS, TYPE
        )
        if GROUPS == 3:
            total += from_direction(
                adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, more_y, 1, SIGN, GROUPS, TYPE
            )
        total += from_direction(
            adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, more_x, 2, SIGN, GROUPS, TYPE
        )
    scale = 2.0 / (entries.to(TYPE) * (2 * RADIUS + 1) ** 3)
    tl.store(out + b * voxels + here, total * scale, mask)


def loss_and_gradients(
    fixed: Tensor, moving: Tensor, radius: int, dilation: int, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of images (B, 1, *space), and its gradients where wanted."""
    images = fixed.contiguous(), moving.contiguous()
    size = volume(moving)
    groups = 3 if moving.ndim == 5 else 1
    fields = [patch_sums(image, size, groups, radius, dilation, moving.dtype) for image in images]
    shared = {"CHANNELS": 4 * groups, "RADIUS": radius, "TYPE": arithmetic(moving), **TILE}
    grid = tiles(size), size.height, size.batch
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
    gradients = [
        image_gradient(*tensors, entries, dilation, size, groups, grid, shared) if want else image.new_empty(0)
        for want, image, *tensors in zip(
            wanted, (fixed, moving), images, fields, adjoints, ties, through_means, strict=True
        )
    ]
    return loss, *gradients


def patch_sums(image: Tensor, size: Volume, groups: int, radius: int, dilation: int, kind: torch.dtype) -> Tensor:
    """Sums over x and y of the squared differences, (B, 4 · groups, Z, Y, X)."""
    out = torch.empty(size.batch, 4 * groups, *size.space, dtype=kind, device=image.device)
    difference_sums_kernel[tiles(size), triton.cdiv(size.height, ROWS), size.batch * groups](
        image, out, dilation, *size.space, GROUPS=groups, RADIUS=radius, TYPE=arithmetic(out), ROWS=ROWS, **TILE
    )
    return out


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
    marched = {name: shared[name] for name in ("RADIUS", "TYPE", *TILE)}
    rows_adjoint_kernel[grid[0], triton.cdiv(size.height, ROWS), size.batch * 4 * groups](
        spare, adjoints, *size.space, ROWS=ROWS, **marched
    )
    out = torch.empty_like(image)
    collect_kernel[grid](adjoints, image, out, entries, dilation, *size.space, GROUPS=groups, **marched)
    return out


def tiles(size: Volume) -> int:
    return triton.cdiv(size.depth, TILE["BLOCK_Z"]) * triton.cdiv(size.width, TILE["BLOCK_X"])
