"""Sums over a box window, along x and y of a plane and along z from plane to plane, by marching.

Along x, the voxels of a thread share the common part of their windows.  Along y and z, a program marches (van Herk; Gil
and Werman).  Take the rows in blocks of the window's length w.  The sum over a window is that of the last rows of one
block, summed backwards after the block was read, plus that of the first rows of the next block, accumulated while it is
read.  This takes three additions per row for any window, every row is read once, and a sum has only numbers of its own
window: nothing is subtracted again.  So there is no drift, a bright or undefined voxel has no effect on boxes without
it, and sums of squares have only positive terms.  Float32 is enough, with an error of a few units of rounding of the
box's own Σ I².
"""

# ruff: noqa: RUF005 - Triton does not support `*` within a tuple

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

#: Registers per thread for the sums over the rows of a window, if a thread has several (1, 2 or 4) neighbours along x,
#: whose windows share a common part.
REGISTERS = 90
#: Threads of a program that sums over x and y, and voxels along x; the other threads are for other planes.
THREADS, TILE = 64, 32
#: Voxels of a plane of a program that sums over z.
COLUMNS = 128
#: Maximum of rows and planes per program; it reads one window more.
ROWS_OF_PROGRAM, PLANES_OF_PROGRAM = 36, 54
#: Fewer if there would be fewer programs than this.
PROGRAMS = 528
#: Rows and planes that are loaded ahead.
ROWS_AHEAD, PLANES_AHEAD = 1, 1
#: Maximum of rows or planes in a step of the loop: more saves register moves but takes longer to compile.
MOST_UNROLLED = 5
#: Longest window for which sums along x are unrolled.
UNROLLED = 16


class Shape(NamedTuple):
    """Sizes of (images, Z, Y, X) and of the window along Y: 1 in two dimensions, where Y has one row."""

    images: int
    depth: int
    height: int
    width: int
    tall: int

    @property
    def voxels(self) -> int:
        return self.images * self.depth * self.height * self.width


@triton.jit
def plus(a, b, FIELDS: tl.constexpr):
    """Sums of two tuples, entry by entry."""
    total = ()
    for f in tl.static_range(FIELDS):
        total = total + (a[f] + b[f],)
    return total


@triton.jit
def backwards(rows, WINDOW: tl.constexpr, FIELDS: tl.constexpr):
    """Sums of the last rows of a block: all of them, all but the first, and so on."""
    total = (rows[WINDOW - 1],)
    for k in tl.static_range(1, WINDOW):
        total = (plus(rows[WINDOW - 1 - k], total[0], FIELDS),) + total
    return total


@triton.jit
def without_first(values, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """A tuple of COUNT without its FIRST entries."""
    rest = ()
    for k in tl.static_range(FIRST, COUNT):
        rest = rest + (values[k],)
    return rest


@triton.jit
def zeros(like, FIELDS: tl.constexpr):
    """Empty sums: zeros."""
    none = ()
    for _ in tl.static_range(FIELDS):
        none = none + (like,)
    return none


@triton.jit
def apart(values, PER: tl.constexpr):
    """The PER voxels of each thread in (planes, lanes, PER)."""
    if PER == 1:
        return (values,)
    elif PER == 2:
        a, b = tl.split(values)
        return (a, b)
    else:
        even, odd = tl.split(tl.reshape(values, (values.shape[0], values.shape[1], 2, 2)))
        a, c = tl.split(even)
        b, d = tl.split(odd)
        return (a, b, c, d)


@triton.jit
def together(values, PER: tl.constexpr):
    """The inverse of :func:`apart`."""
    if PER == 1:
        return values[0]
    elif PER == 2:
        return tl.join(values[0], values[1])
    else:
        four = tl.join(tl.join(values[0], values[2]), tl.join(values[1], values[3]))
        return tl.reshape(four, (four.shape[0], four.shape[1], 4))


@triton.jit
def sums_along(values, FIRST: tl.constexpr, WINDOW: tl.constexpr, PER: tl.constexpr):
    """Sums over ``values``[FIRST + v ... FIRST + v + WINDOW - 1] for the voxels v of a thread.

    The common part of all windows, if any, is summed once.
    """
    sums = ()
    if WINDOW < PER:
        for v in tl.static_range(PER):
            total = values[FIRST + v]
            for k in tl.static_range(1, WINDOW):
                total += values[FIRST + v + k]
            sums = sums + (total,)
    else:
        common = values[FIRST + PER - 1]
        for k in tl.static_range(PER, WINDOW):
            common += values[FIRST + k]
        for v in tl.static_range(PER):
            total = common
            for k in tl.static_range(v, PER - 1):
                total += values[FIRST + k]
            for k in tl.static_range(v):
                total += values[FIRST + WINDOW + k]
            sums = sums + (total,)
    return together(sums, PER)


@triton.jit
def products(a, b, COUNT: tl.constexpr):
    total = ()
    for k in tl.static_range(COUNT):
        total = total + (a[k] * b[k],)
    return total


@triton.jit
def centred(raw, mean, COUNT: tl.constexpr, PER: tl.constexpr, TYPE: tl.constexpr):
    """Values of a window minus the mean, voxel by voxel."""
    values = ()
    for k in tl.static_range(COUNT):
        values = values + apart(raw[k].to(TYPE) - mean, PER)
    return values


@triton.jit
def vectors_of(row, lane, vectors, other, FROM: tl.constexpr, TO: tl.constexpr, PER: tl.constexpr):
    """Vectors ``lane`` + FROM to ``lane`` + TO of PER voxels, of a row of ``vectors`` of them; others are ``other``."""
    found = ()
    for k in tl.static_range(FROM, TO + 1):
        # As unsigned numbers, those before the row are larger than its length.
        inside = (lane + k).to(tl.uint32, bitcast=True) < vectors
        found = found + (tl.load(row + k * PER, inside, other=other),)
    return found


@triton.jit
def read_row(
    sources, others, here, y, lane, height, vectors,
    IMAGES: tl.constexpr, FROM: tl.constexpr, TO: tl.constexpr, PER: tl.constexpr,
):  # fmt: skip
    """The vectors for the windows in row ``y``, of two images or one field."""
    existing = tl.where((y >= 0) & (y < height), vectors, 0).to(tl.uint32)
    row = here + y * (vectors * PER)
    if IMAGES:
        return (
            vectors_of(sources[0] + row, lane, existing, others[0], FROM, TO, PER),
            vectors_of(sources[1] + row, lane, existing, others[1], FROM, TO, PER),
        )
    else:
        return (vectors_of(sources[0] + row, lane, existing, 0.0, FROM, TO, PER),)


@triton.jit
def sum_row(
    raw, means, IMAGES: tl.constexpr, FROM: tl.constexpr, TO: tl.constexpr, LEFT: tl.constexpr, WINDOW: tl.constexpr,
    PER: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Sums along x of the five moments of two images, or of one field."""
    vectors: tl.constexpr = TO - FROM + 1
    length: tl.constexpr = vectors * PER
    first: tl.constexpr = -FROM * PER - LEFT
    if IMAGES:
        i = centred(raw[0], means[0], vectors, PER, TYPE)
        j = centred(raw[1], means[1], vectors, PER, TYPE)
        return (
            sums_along(i, first, WINDOW, PER),
            sums_along(j, first, WINDOW, PER),
            sums_along(products(i, i, length), first, WINDOW, PER),
            sums_along(products(j, j, length), first, WINDOW, PER),
            sums_along(products(i, j, length), first, WINDOW, PER),
        )
    else:
        values = ()
        for k in tl.static_range(vectors):
            values = values + apart(raw[0][k], PER)
        return (sums_along(values, first, WINDOW, PER),)


@triton.jit
def sum_long_row(
    sources, means, here, y, lane, height, width,
    IMAGES: tl.constexpr, LEFT: tl.constexpr, WINDOW: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """:func:`sum_row` as a loop, for windows too long to unroll."""
    existing = tl.where((y >= 0) & (y < height), width, 0)
    none = tl.zeros(here.shape, TYPE)
    row = here + y * width
    a, b, c, d, e = none, none, none, none, none
    for k in range(-LEFT, WINDOW - LEFT):
        inside = (lane + k >= 0) & (lane + k < existing)
        if IMAGES:
            i = tl.where(inside, tl.load(sources[0] + (row + k), inside, 0).to(TYPE) - means[0], 0)
            j = tl.where(inside, tl.load(sources[1] + (row + k), inside, 0).to(TYPE) - means[1], 0)
            a += i
            b += j
            c += i * i
            d += j * j
            e += i * j
        else:
            a += tl.load(sources[0] + (row + k), inside, 0)
    if IMAGES:
        return (a, b, c, d, e)
    else:
        return (a,)


@triton.jit(do_not_specialize=["blocks"])
def plane_sums_kernel(
    first, second, statistics, sums, planes, depth, height, vectors, blocks,
    IMAGES: tl.constexpr, LEFT: tl.constexpr, UP: tl.constexpr, WINDOW: tl.constexpr,
    TALL: tl.constexpr, STEP: tl.constexpr, PER: tl.constexpr, AHEAD: tl.constexpr, LONG: tl.constexpr,
    TYPE: tl.constexpr, PLANES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Sums over WINDOW voxels along x, LEFT of them before the voxel, and TALL rows, UP of them above it.

    With IMAGES, the five moments of ``first`` and ``second`` (planes, Y, X) minus their means. Otherwise one of the
    fields ``first`` (fields, planes, Y, X), each by its own programs.  A row has ``vectors`` of PER voxels.  A program
    processes ``blocks`` times TALL rows.
    """
    FIELDS: tl.constexpr = 5 if IMAGES else 1
    FROM: tl.constexpr = -((LEFT + PER - 1) // PER)
    TO: tl.constexpr = (WINDOW - 1 - LEFT + PER - 1) // PER
    across = tl.cdiv(vectors, LANES)
    # The last planes and vectors are repeated rather than masked.
    plane = tl.minimum((tl.program_id(0) // across) * PLANES + tl.arange(0, PLANES), planes - 1)[:, None]
    lane = (tl.program_id(0) % across) * LANES + tl.arange(0, LANES)[None, :]
    width = vectors * PER
    here = plane * (height * width) + lane * PER
    image = statistics + (plane // depth) * 4
    exists = lane < vectors
    if PER > 1:
        image, exists, lane = image[:, :, None], exists[:, :, None], lane[:, :, None]
        here = here[:, :, None] + tl.arange(0, PER)[None, None, :]
    field = planes * (height * width)
    if IMAGES:
        means = (tl.load(image).to(TYPE), tl.load(image + 1).to(TYPE))
        others = (means[0].to(first.dtype.element_ty), means[1].to(second.dtype.element_ty))
        sources = (first, second)
    else:
        means, others = (), ()
        # The product may exceed 32 bits.
        skipped = tl.program_id(2).to(tl.int64) * field
        sources = (first + skipped,)
        sums += skipped
    top = tl.program_id(1) * blocks * TALL
    y, done = top - UP, top - TALL

    queue = ()
    if not LONG:
        for k in tl.static_range(AHEAD):
            queue = queue + (read_row(sources, others, here, y + k, lane, height, vectors, IMAGES, FROM, TO, PER),)
    none = zeros(tl.zeros(here.shape, TYPE), FIELDS)
    behind = zeros(none, TALL)
    for _block in range(1 + tl.minimum(blocks, tl.cdiv(height - top, TALL))):  # the first block has no sums yet
        ahead = none
        for _step in range(TALL // STEP):
            for k in tl.static_range(STEP):
                if not LONG:
                    ready = read_row(sources, others, here, y + AHEAD, lane, height, vectors, IMAGES, FROM, TO, PER)
                    queue = queue + (ready,)
                target = sums + (here + done * width)
                complete = exists & (done >= top) & (done < height)
                for f in tl.static_range(FIELDS):
                    tl.store(target, behind[k][f] + ahead[f], complete)
                    target += field
                if LONG:
                    row = sum_long_row(sources, means, here, y, lane, height, width, IMAGES, LEFT, WINDOW, TYPE)
                else:
                    row = sum_row(queue[0], means, IMAGES, FROM, TO, LEFT, WINDOW, PER, TYPE)
                    queue = without_first(queue, 1, AHEAD + 1)
                behind = behind + (row,)
                ahead = plus(ahead, row, FIELDS)
                y += 1
                done += 1
            behind = without_first(behind, STEP, TALL + STEP)
        behind = backwards(behind, TALL, FIELDS)


@triton.jit
def read_plane(sums, here, z, depth, area, voxels, FIELDS: tl.constexpr):
    """Plane ``z`` of each field; zero where there is none."""
    exists = (z >= 0) & (z < depth)
    found = ()
    for _ in tl.static_range(FIELDS):
        found = found + (tl.load(sums + (here + z * area), exists, 0),)
        sums += voxels
    return found


@triton.jit
def first_window(
    sums, here, z, depth, area, voxels, none,
    WINDOW: tl.constexpr, STEP: tl.constexpr, AHEAD: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """Sums over the last planes of the first block, from plane ``z`` on, and the planes that are already loaded."""
    queue = ()
    for k in tl.static_range(AHEAD):
        queue = queue + (read_plane(sums, here, z + k, depth, area, voxels, FIELDS),)
    behind = zeros(none, WINDOW)
    for _step in range(WINDOW // STEP):
        for _ in tl.static_range(STEP):
            queue = queue + (read_plane(sums, here, z + AHEAD, depth, area, voxels, FIELDS),)
            behind = behind + (queue[0],)
            queue = without_first(queue, 1, AHEAD + 1)
            z += 1
        behind = without_first(behind, STEP, WINDOW + STEP)
    return backwards(behind, WINDOW, FIELDS), queue


# ---- host


def blocks_of_program(size: int, window: int, most: int, programs: int) -> int:
    """Blocks of ``window`` rows per program, for ``size`` rows in all, shared by at least ``programs``."""
    blocks = triton.cdiv(size, window)
    chunks = max(triton.cdiv(size, max(most, window)), min(blocks, triton.cdiv(PROGRAMS, programs)))
    return triton.cdiv(blocks, chunks)


def unrolled(window: int) -> int:
    """Rows or planes per step of the loop over a window: a divisor of the window."""
    return max(step for step in range(1, MOST_UNROLLED + 1) if window % step == 0)


def voxels_of_thread(width: int, tall: int, fields: int, kind: tl.dtype) -> int:
    """Neighbours along x read and written as one vector; one voxel if rows are not a multiple."""
    registers = tall * fields * (2 if kind == tl.float64 else 1)
    return next(voxels for voxels in (4, 2, 1) if voxels == 1 or fits(width, voxels, registers))


def fits(width: int, voxels: int, registers: int) -> bool:
    return width % voxels == 0 and voxels * registers <= REGISTERS


def plane_sums(
    first: Tensor, second: Tensor, statistics: Tensor, sums: Tensor, shape: Shape, window: int, kind: tl.dtype,
    images: bool, mirrored: bool,
) -> None:  # fmt: skip
    """Sums over the window along x and y of two images' moments, or of the fields ``first``; ``mirrored`` or not."""
    long = window > UNROLLED
    per = 1 if long else voxels_of_thread(shape.width, shape.tall, 5 if images else 1, kind)
    vectors, planes = shape.width // per, shape.images * shape.depth
    block = {"PLANES": THREADS * per // TILE, "LANES": TILE // per}
    programs = triton.cdiv(vectors, block["LANES"]) * triton.cdiv(planes, block["PLANES"])
    fields = 1 if images else first.shape[0]
    blocks = blocks_of_program(shape.height, shape.tall, ROWS_OF_PROGRAM, programs * fields)
    left, up = ((length if mirrored else length - 1) // 2 for length in (window, shape.tall))
    plane_sums_kernel[programs, triton.cdiv(shape.height, blocks * shape.tall), fields](
        first, second, statistics, sums, planes, shape.depth, shape.height, vectors, blocks,
        IMAGES=images, LEFT=left, UP=up, WINDOW=window, TALL=shape.tall, STEP=unrolled(shape.tall), PER=per,
        AHEAD=ROWS_AHEAD, LONG=long, TYPE=kind, **block, num_warps=THREADS // 32,
    )  # fmt: skip


def columns_grid(shape: Shape, window: int) -> tuple[tuple[int, int, int], int]:
    """Programs that sum over z: columns, parts of the planes, images; and the blocks of planes of each."""
    columns = triton.cdiv(shape.height * shape.width, COLUMNS)
    blocks = blocks_of_program(shape.depth, window, PLANES_OF_PROGRAM, columns * shape.images)
    return (columns, triton.cdiv(shape.depth, blocks * window), shape.images), blocks
