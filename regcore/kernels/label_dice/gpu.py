"""Look-up of label codes, and the overlap of labels under linear interpolation with its gradient.

Most voxels are drawn from a cell whose corners share one label, wholly inside the image: they weigh exactly 1, and a
program counts them together.  The others, on the borders of labels, add their weights to the sums one by one, in fixed
point, so that the sums are the same bits whatever the order.  Programs add to one of several copies of the sums, or
all would wait for the same few addresses.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import Volume, arithmetic, volume, where_am_i
from regcore.kernels.warp.gpu import blend, corners, slopes

#: Rows and voxels along a row of a program's block, by the number of axes: a single warp, which waits for no other
#: and skips what is the same all around it.
BLOCK = {3: (2, 32), 2: (1, 64)}
#: The same with as many labels as would not fit in the registers of one warp.
MANY_LABELS = 128
WIDE_BLOCK = {3: (8, 32), 2: (1, 256)}
#: Planes that a program goes through, one after the other.
PLANES = 4
#: Labels that a program of :func:`look_up_kernel` does.
LOOK_UP = 1024
#: Copies of the sums; a power of two.
REPLICAS = 64
#: Bits of the sums below one: fewer than 2³¹ voxels leave them 31 bits above, and a sign.
FRACTION = tl.constexpr(32)
ONE = tl.constexpr(2.0**32)
#: Labels whose sums a program of :func:`finish_kernel` adds up.
COLUMNS = 32


@triton.jit
def look_up_kernel(labels, table, out, count, last, BLOCK: tl.constexpr):
    """``out`` = ``table`` at each label; its entry at ``last`` stands for every label that is not in 0 ... last - 1."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    label = tl.load(labels + i, mask, 0)
    known = (label >= 0) & (label < last)
    tl.store(out + i, tl.load(table + tl.where(known, label.to(tl.int32), last)), mask)


@triton.jit
def load_shift(shift, place, voxels, mask, AXES: tl.constexpr, TYPE: tl.constexpr):
    """Displacements at ``place`` along Z, Y and X; 0 along Y in 2-D."""
    uz = tl.load(shift + place, mask, 0).to(TYPE)
    uy = tl.load(shift + place + voxels, mask, 0).to(TYPE) if AXES == 3 else tl.zeros_like(uz)
    return uz, uy, tl.load(shift + place + (AXES - 1) * voxels, mask, 0).to(TYPE)


@triton.jit
def cell_along(p, size):
    """The cell of positions along an axis, as the first of its two voxels, and whether a position is truly in it."""
    below = tl.floor(p)
    cell = tl.where(below > 0, below, 0.0)  # of NaN too, which is nowhere inside
    cell = tl.where(cell < size - 2, cell, size - 2)
    return cell, below == cell


@triton.jit
def cell_of(pz, py, px, depth, height, width, AXES: tl.constexpr):
    """Index of the cell's first voxel, that voxel along each axis, and whether the position is inside the image."""
    cz, inside = cell_along(pz, depth)
    cx, inside_x = cell_along(px, width)
    if AXES == 3:
        cy, inside_y = cell_along(py, height)
        index = (cz.to(tl.int32) * height + cy.to(tl.int32)) * width + cx.to(tl.int32)
        return index, cz, cy, cx, inside & inside_y & inside_x
    return cz.to(tl.int32) * width + cx.to(tl.int32), cz, tl.zeros_like(cz), cx, inside & inside_x


@triton.jit
def weights(p, cell):
    """Weights of the two voxels of a cell along an axis: they fall to zero outside, and NaN stays."""
    low = 1 - tl.abs(p - cell)
    high = 1 - tl.abs(p - cell - 1)
    return tl.where(low < 0, 0.0, low), tl.where(high < 0, 0.0, high)


@triton.jit
def share_one(a, b, c, d, e, f, g, h):
    """Whether the eight corners of a cell share a label."""
    return (a == b) & (a == c) & (a == d) & (a == e) & (a == f) & (a == g) & (a == h)


@triton.jit
def add_share(sums, label, weight, count):
    """Add ``weight`` to the sum of ``label``: nothing where it is 0, or where the label is none of those counted."""
    # The way from float to integer cuts off, and no weight is negative: this rounds.
    share = (weight * ONE + 0.5).to(tl.int64)
    tl.atomic_add(sums + label, share, (weight > 0) & (label < count), sem="relaxed")


@triton.jit
def add_counts(sums, label, voxels, mask):
    """Add numbers of ``voxels``, which weigh 1 each."""
    tl.atomic_add(sums + label, voxels.to(tl.int64) << FRACTION, mask & (voxels > 0), sem="relaxed")


@triton.jit
def sum_of(wanted, l0, l1, l2, l3, l4, l5, l6, l7, w0, w1, w2, w3, w4, w5, w6, w7):
    """Weights of the corners whose label is ``wanted``."""
    total = tl.where(l0 == wanted, w0, 0.0) + tl.where(l1 == wanted, w1, 0.0)
    total += tl.where(l2 == wanted, w2, 0.0)
    total += tl.where(l3 == wanted, w3, 0.0)
    total += tl.where(l4 == wanted, w4, 0.0)
    total += tl.where(l5 == wanted, w5, 0.0)
    total += tl.where(l6 == wanted, w6, 0.0)
    return total + tl.where(l7 == wanted, w7, 0.0)


@triton.jit
def overlaps_kernel(
    fixed, moving, shift, sums, count, depth, height, width, rows, columns, length,
    AXES: tl.constexpr, BINS: tl.constexpr, REPLICAS: tl.constexpr, TYPE: tl.constexpr, PLANES: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Add A, P and F to one of ``sums`` (replicas, B, 3, count + 1), as multiples of 2⁻³².

    The last entry of F is the number of voxels whose displacement is not a number.
    """
    b, slab, y, x, mask = where_am_i(columns, length, BLOCK_Y, BLOCK_X)
    replica = (slab * tl.num_programs(0) + tl.program_id(0)) % REPLICAS
    both = sums + (replica * tl.num_programs(2) + b) * 3 * (count + 1)
    warped = both + count + 1
    sizes = warped + count + 1
    # Voxels by their label in the fixed image; and those inside one label of the moving image by that label, where
    # the upper half is of those that have it in the fixed image too.  What is not to be counted is at ``count``.
    of_fixed = tl.zeros([BINS], tl.int32)
    of_moving = tl.zeros([2 * BINS], tl.int32)
    voxels = rows * columns * length
    shift += b * AXES * voxels
    place = (slab * PLANES * columns + y) * length + x
    uz, uy, ux = load_shift(shift, place, voxels, mask, AXES, TYPE)
    for z in range(slab * PLANES, tl.minimum(slab * PLANES + PLANES, rows)):
        pz, py, px = z + uz, y + uy, x + ux
        # Asked for a plane ahead: there are not enough programs at a time to wait for memory.
        ahead = place + columns * length
        uz, uy, ux = load_shift(shift, ahead, voxels, mask & (z + 1 < rows), AXES, TYPE)
        cell, cz, cy, cx, inside = cell_of(pz, py, px, depth, height, width, AXES)
        here = tl.load(fixed + b * voxels + place, mask, 0).to(tl.int32)
        here = tl.where(mask, here, count)
        labels = moving + b * depth * height * width + cell
        l0, l1, l2, l3, l4, l5, l6, l7 = corners(labels, width, height * width, AXES, tl.int32)
        whole = inside & share_one(l0, l1, l2, l3, l4, l5, l6, l7)
        edge = mask & (whole == 0)
        whole = mask & whole & (l0 < count)
        # Outside the head there is nothing to count.
        if tl.max((edge | whole | (here < count)).to(tl.int32)) > 0:
            of_fixed += tl.histogram(tl.ravel(here, can_reorder=True), BINS)
            bin = tl.where(whole, tl.where(l0 == here, l0 + BINS, l0), count)
            of_moving += tl.histogram(tl.ravel(bin, can_reorder=True), 2 * BINS)
            z0, z1 = weights(pz, cz)
            y0, y1 = weights(py, cy)
            x0, x1 = weights(px, cx)
            z0, z1 = tl.where(edge, z0, 0.0), tl.where(edge, z1, 0.0)
            broken = z0 + y0 + x0 != z0 + y0 + x0
            one = tl.full(here.shape, 1, tl.int64)
            tl.atomic_add(sizes + count + tl.zeros_like(here), one, edge & broken, sem="relaxed")
            w0, w1, w2, w3 = z0 * y0 * x0, z0 * y0 * x1, z0 * y1 * x0, z0 * y1 * x1
            w4, w5, w6, w7 = z1 * y0 * x0, z1 * y0 * x1, z1 * y1 * x0, z1 * y1 * x1
            to_both = sum_of(here, l0, l1, l2, l3, l4, l5, l6, l7, w0, w1, w2, w3, w4, w5, w6, w7)
            add_share(both, here, to_both, count)
            # Most borders are between two labels: what a voxel gives to either is added up first.
            to_first = sum_of(l0, l0, l1, l2, l3, l4, l5, l6, l7, w0, w1, w2, w3, w4, w5, w6, w7)
            add_share(warped, l0, to_first, count)
            second = tl.where(l6 == l0, l7, l6)
            second = tl.where(l5 == l0, second, l5)
            second = tl.where(l4 == l0, second, l4)
            second = tl.where(l3 == l0, second, l3)
            second = tl.where(l2 == l0, second, l2)
            second = tl.where(l1 == l0, second, l1)
            to_second = sum_of(second, l0, l1, l2, l3, l4, l5, l6, l7, w0, w1, w2, w3, w4, w5, w6, w7)
            add_share(warped, tl.where(second == l0, count, second), to_second, count)
            add_share(warped, tl.where((l2 == l0) | (l2 == second), count, l2), w2, count)
            add_share(warped, tl.where((l3 == l0) | (l3 == second), count, l3), w3, count)
            add_share(warped, tl.where((l4 == l0) | (l4 == second), count, l4), w4, count)
            add_share(warped, tl.where((l5 == l0) | (l5 == second), count, l5), w5, count)
            add_share(warped, tl.where((l6 == l0) | (l6 == second), count, l6), w6, count)
            add_share(warped, tl.where((l7 == l0) | (l7 == second), count, l7), w7, count)
        place = ahead
    bins = tl.arange(0, BINS)
    add_counts(sizes, bins, of_fixed, bins < count)
    bins = tl.arange(0, 2 * BINS)
    add_counts(warped, bins % BINS, of_moving, bins % BINS < count)
    add_counts(both, bins - BINS, of_moving, (bins >= BINS) & (bins - BINS < count))


@triton.jit
def finish_kernel(sums, both, warped, sizes, count, REPLICAS: tl.constexpr, COLUMNS: tl.constexpr):
    """Add up the replicas of ``sums``, and store A, P and F, each (B, count)."""
    kind, b = tl.program_id(1), tl.program_id(2)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    replica = tl.arange(0, REPLICAS)
    start = sums + (replica * tl.num_programs(2) + b) * 3 * (count + 1)
    mask = column < count
    row = start[:, None] + kind * (count + 1) + column[None, :]
    total = tl.sum(tl.load(row, mask[None, :], 0), 0).to(tl.float64) * (1 / ONE)
    broken = tl.sum(tl.load(start + 2 * (count + 1) + count), 0) > 0
    total = tl.where(broken & (kind < 2), float("nan"), total)
    target = b * count + column
    if kind == 0:
        tl.store(both + target, total, mask)
    elif kind == 1:
        tl.store(warped + target, total, mask)
    else:
        tl.store(sizes + target, total, mask)


@triton.jit
def worth(label, here, own, by_warped, count):
    """∂L/∂p of a corner's ``label``, where ``own`` is what the label of the fixed image adds."""
    value = tl.load(by_warped + label, label < count, 0.0)
    return value + tl.where(label == here, own, 0.0)


@triton.jit
def gradient_kernel(
    by_both, by_warped, fixed, moving, shift, out, count, depth, height, width, rows, columns, length,
    AXES: tl.constexpr, TYPE: tl.constexpr, PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` (B, AXES, rows, columns, length): gradient with respect to the displacement, of tables (B, count)."""
    b, slab, y, x, mask = where_am_i(columns, length, BLOCK_Y, BLOCK_X)
    voxels = rows * columns * length
    shift += b * AXES * voxels
    out += b * AXES * voxels
    place = (slab * PLANES * columns + y) * length + x
    uz, uy, ux = load_shift(shift, place, voxels, mask, AXES, TYPE)
    for z in range(slab * PLANES, tl.minimum(slab * PLANES + PLANES, rows)):
        pz, py, px = z + uz, y + uy, x + ux
        ahead = place + columns * length
        uz, uy, ux = load_shift(shift, ahead, voxels, mask & (z + 1 < rows), AXES, TYPE)
        cell, cz, cy, cx, inside = cell_of(pz, py, px, depth, height, width, AXES)
        labels = moving + b * depth * height * width + cell
        l0, l1, l2, l3, l4, l5, l6, l7 = corners(labels, width, height * width, AXES, tl.int32)
        # Inside one label the gradient is zero, but for the rim beyond the border where weights fall off.
        flat = inside & share_one(l0, l1, l2, l3, l4, l5, l6, l7)
        edge = mask & (flat == 0)
        to_z, to_y, to_x = tl.zeros_like(pz), tl.zeros_like(pz), tl.zeros_like(pz)
        if tl.max(edge.to(tl.int32)) > 0:
            here = tl.load(fixed + b * voxels + place, mask, 0).to(tl.int32)
            own = tl.load(by_both + b * count + here, mask & (here < count), 0.0)
            table = by_warped + b * count
            v0, v1 = worth(l0, here, own, table, count), worth(l1, here, own, table, count)
            v2, v3 = worth(l2, here, own, table, count), worth(l3, here, own, table, count)
            v4, v5 = worth(l4, here, own, table, count), worth(l5, here, own, table, count)
            v6, v7 = worth(l6, here, own, table, count), worth(l7, here, own, table, count)
            z0, z1 = weights(pz, cz)
            y0, y1 = weights(py, cy)
            x0, x1 = weights(px, cx)
            dz0, dz1 = slopes(pz, depth, False)
            dx0, dx1 = slopes(px, width, False)
            to_z = blend(v0, v1, v2, v3, v4, v5, v6, v7, dz0, dz1, y0, y1, x0, x1)
            to_x = blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, y0, y1, dx0, dx1)
            if AXES == 3:
                dy0, dy1 = slopes(py, height, False)
                to_y = blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, dy0, dy1, x0, x1)
            # Weights that do not quite add up to 1 leave a trace of a gradient where there is none.
            to_z, to_y, to_x = tl.where(edge, to_z, 0.0), tl.where(edge, to_y, 0.0), tl.where(edge, to_x, 0.0)
        tl.store(out + place, to_z, mask)
        tl.store(out + place + (AXES - 1) * voxels, to_x, mask)
        if AXES == 3:
            tl.store(out + place + voxels, to_y, mask)
        place = ahead


@functools.lru_cache(maxsize=64)
def table_of(codes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Place of each label up to the largest of ``codes``, and at the end of any other; copied to a device once."""
    table = torch.full((codes[-1] + 2,), len(codes), dtype=dtype)
    table[list(codes)] = torch.arange(len(codes), dtype=dtype)
    return table.to(device)


def places(labels: Tensor, codes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The place of each label in the ascending ``codes``, else their number."""
    labels = labels.contiguous()
    table = table_of(codes, dtype, labels.device)
    out = torch.empty(labels.shape, dtype=dtype, device=labels.device)
    programs = triton.cdiv(labels.numel(), LOOK_UP)
    look_up_kernel[(programs,)](labels, table, out, labels.numel(), len(table) - 1, BLOCK=LOOK_UP)
    return out


def blocks(grid: Volume, bins: int = 0) -> tuple[tuple[int, int, int], dict]:
    """Programs for the voxels of ``grid``, and what they are compiled for."""
    rows, voxels = (WIDE_BLOCK if bins > MANY_LABELS else BLOCK)[grid.channels]
    constants = {"AXES": grid.channels, "PLANES": PLANES, "BLOCK_Y": rows, "BLOCK_X": voxels}
    across = triton.cdiv(grid.height, rows) * triton.cdiv(grid.width, voxels)
    return (across, triton.cdiv(grid.depth, PLANES), grid.batch), {**constants, "num_warps": rows * voxels // 64}


def overlaps(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums A, P and F, each (B, K), in the type of the displacement."""
    fixed, moving, displacement = fixed.contiguous(), moving.contiguous(), displacement.contiguous()
    grid = volume(displacement)
    sums = torch.zeros(REPLICAS, grid.batch, 3, count + 1, dtype=torch.int64, device=displacement.device)
    bins = max(32, triton.next_power_of_2(count + 1))
    programs, constants = blocks(grid, bins)
    overlaps_kernel[programs](
        fixed, moving, displacement, sums, count, *volume(moving).space, *grid.space,
        BINS=bins, REPLICAS=REPLICAS, TYPE=arithmetic(displacement), **constants,
    )  # fmt: skip
    both, warped, sizes = (displacement.new_empty(grid.batch, count) for _ in range(3))
    finish_kernel[triton.cdiv(count, COLUMNS), 3, grid.batch](
        sums, both, warped, sizes, count, REPLICAS=REPLICAS, COLUMNS=COLUMNS
    )
    return both, warped, sizes


def overlaps_backward(
    by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor
) -> Tensor:
    """Gradient with respect to the displacement, of the gradients (B, K) of A and P."""
    by_both, by_warped = by_both.contiguous(), by_warped.contiguous()
    fixed, moving, displacement = fixed.contiguous(), moving.contiguous(), displacement.contiguous()
    out = torch.empty_like(displacement)
    grid = volume(displacement)
    programs, constants = blocks(grid)
    gradient_kernel[programs](
        by_both, by_warped, fixed, moving, displacement, out, by_both.shape[1],
        *volume(moving).space, *grid.space,
        TYPE=arithmetic(displacement), **constants,
    )  # fmt: skip
    return out
