"""Squared local correlation and its gradient from box sums, in four passes over the volume.

The sums Σ I, Σ J, Σ I², Σ J², Σ I J over a box are taken over x and y in one pass, which stores five fields, and over z
in a second, which turns them into the squared correlation and, where a gradient is wanted, its three or five adjoint
fields; two more passes take the sums of those and make the gradients.  With three adjoints that is 28 + 32 + 24 + 24
bytes of float32 for each voxel.

Along x the voxels of a thread share what their windows have in common.  Along y, and along z, a program marches: with
the window's w rows in blocks of w, the sum over a window is that of the last rows of one block, which are summed up
backwards when the block has been read, and that of the first rows of the next, which grows while it is read
(van Herk; Gil and Werman).  Three additions a row whatever the window, every row read once, and no number enters a sum
that is not in its window: nothing has to be taken away again.  So there is no drift, a bright or undefined voxel leaves
no trace in boxes without it, and sums of squares have only positive terms: float32 does, with an error that is a few
units of rounding of the box's own Σ I².

That error is what a flat box has for a variance: at most 1.5e-6 of the box's mean square, for 200 000 random values in
boxes of 2 to 16 voxels' side.  So a box also counts as flat where its variance is below :data:`ROUNDING` of its mean
square: for float32 one whose standard deviation is less than 1.4e-3 of its root mean square, once the mean of the image
is taken off.  The reference, in float64, has only the comparison with the variance of the whole image, of variant
``ants``.

Formulas are for the box's sums times the number of its voxels n: n V = n Σ I² − (Σ I)², which needs no division.
"""

# ruff: noqa: RUF005 - a Triton function has no `*` within a tuple

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.gpu.launch import arithmetic
from regcore.kernels.lncc import EPSILON, FLAT

#: Registers of a thread for the sums over the rows of a window, where several (1, 2 or 4) of its neighbours along x
#: are a thread's too, so that they share what their windows have in common.
REGISTERS = 90
#: Threads of a program that sums over x and y, and voxels along x; the rest of the threads are for other planes.
THREADS, TILE = 64, 32
#: Voxels of a plane of a program that sums over z.
COLUMNS = 128
#: Most rows, and planes, of a program: it reads a window more.
ROWS_OF_PROGRAM, PLANES_OF_PROGRAM = 36, 54
#: Fewer of them where there would not be as many programs as this.
PROGRAMS = 528
#: Rows, and planes, that are read before their turn.
ROWS_AHEAD, PLANES_AHEAD = 1, 1
#: Rows, or planes, of a program's loop at most: more save moves between registers, and take longer to compile.
MOST_UNROLLED = 5
#: Longest window whose sums along x are unrolled.
UNROLLED = 16
#: Programs that sum an image up, and voxels that each reads at a time.
PARTS, PART = 1024, 1024
#: A box is flat below this part of its mean square, by the type of arithmetic (more for windows above 16) ...
ROUNDING = {tl.float32: 2e-6, tl.float64: 4e-15}
#: ... and below a variance whose inverse is not a number of that type.
TINY = {tl.float32: 1e-37, tl.float64: 1e-300}


class Shape(NamedTuple):
    """Sizes of (images, Z, Y, X) and the window's along Y: 1 in two dimensions, where Y is one row."""

    images: int
    depth: int
    height: int
    width: int
    tall: int

    @property
    def voxels(self) -> int:
        return self.images * self.depth * self.height * self.width


# ---- mean and variance of whole images


@triton.jit
def partial_sums_kernel(fixed, moving, sums, size, PARTS: tl.constexpr, PART: tl.constexpr, TYPE: tl.constexpr):
    """``sums`` (images, 4, PARTS) of I, J, I² and J², less the first voxel, for images (images, ``size``)."""
    image, part = tl.program_id(1), tl.program_id(0)
    fixed += image * size
    moving += image * size
    first_i, first_j = tl.load(fixed).to(TYPE), tl.load(moving).to(TYPE)
    sum_i, sum_j = tl.zeros((PART,), TYPE), tl.zeros((PART,), TYPE)
    square_i, square_j = tl.zeros((PART,), TYPE), tl.zeros((PART,), TYPE)
    for start in range(part * PART, size, PARTS * PART):
        voxel = start + tl.arange(0, PART)
        i = tl.where(voxel < size, tl.load(fixed + voxel, voxel < size, 0).to(TYPE) - first_i, 0)
        j = tl.where(voxel < size, tl.load(moving + voxel, voxel < size, 0).to(TYPE) - first_j, 0)
        sum_i += i
        sum_j += j
        square_i += i * i
        square_j += j * j
    target = sums + image * 4 * PARTS + part
    tl.store(target, tl.sum(sum_i.to(tl.float64)))
    tl.store(target + PARTS, tl.sum(sum_j.to(tl.float64)))
    tl.store(target + 2 * PARTS, tl.sum(square_i.to(tl.float64)))
    tl.store(target + 3 * PARTS, tl.sum(square_j.to(tl.float64)))


@triton.jit
def statistics_kernel(fixed, moving, sums, statistics, size, PARTS: tl.constexpr, FLAT: tl.constexpr):
    """``statistics`` (images, 4): means of I and J, and the variances below which a box of theirs is flat.

    Any number near the mean does for what is taken off everywhere; this one is of the type that images are stored in.
    """
    image = tl.program_id(0)
    part = sums + image * 4 * PARTS + tl.arange(0, PARTS)
    mean_i, mean_j = tl.sum(tl.load(part)) / size, tl.sum(tl.load(part + PARTS)) / size
    square_i, square_j = tl.sum(tl.load(part + 2 * PARTS)) / size, tl.sum(tl.load(part + 3 * PARTS)) / size
    first_i, first_j = tl.load(fixed + image * size), tl.load(moving + image * size)
    centre_i = (first_i.to(tl.float64) + mean_i).to(fixed.dtype.element_ty)
    centre_j = (first_j.to(tl.float64) + mean_j).to(moving.dtype.element_ty)
    target = statistics + image * 4
    tl.store(target, centre_i.to(tl.float64))
    tl.store(target + 1, centre_j.to(tl.float64))
    tl.store(target + 2, FLAT * (square_i - mean_i * mean_i))
    tl.store(target + 3, FLAT * (square_j - mean_j * mean_j))


# ---- sums over a window


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
    """Sums of nothing."""
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
    """What :func:`apart` took apart."""
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

    What all of them hold is summed once, if they have anything in common.
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
    """Values of a window less the mean, voxel by voxel."""
    values = ()
    for k in tl.static_range(COUNT):
        values = values + apart(raw[k].to(TYPE) - mean, PER)
    return values


@triton.jit
def vectors_of(row, lane, vectors, other, FROM: tl.constexpr, TO: tl.constexpr, PER: tl.constexpr):
    """Vectors ``lane`` + FROM to ``lane`` + TO of PER voxels, of a row of ``vectors`` of them; others are ``other``."""
    found = ()
    for k in tl.static_range(FROM, TO + 1):
        # As unsigned numbers, those before the row are behind it.
        inside = (lane + k).to(tl.uint32, bitcast=True) < vectors
        found = found + (tl.load(row + k * PER, inside, other=other),)
    return found


@triton.jit
def read_row(
    sources, others, here, y, lane, height, vectors,
    IMAGES: tl.constexpr, FROM: tl.constexpr, TO: tl.constexpr, PER: tl.constexpr,
):  # fmt: skip
    """For two images, or one field, the vectors that the windows in row ``y`` need."""
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
    """:func:`sum_row` in a loop, for windows so long that nobody would wait for the program that they unroll to."""
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

    With IMAGES the five moments of ``first`` and ``second`` (planes, Y, X) less their means; without, one of the
    fields ``first`` (fields, planes, Y, X), each by programs of its own.  A row has ``vectors`` of PER voxels.  A
    program does ``blocks`` times TALL rows.
    """
    FIELDS: tl.constexpr = 5 if IMAGES else 1
    FROM: tl.constexpr = -((LEFT + PER - 1) // PER)
    TO: tl.constexpr = (WINDOW - 1 - LEFT + PER - 1) // PER
    across = tl.cdiv(vectors, LANES)
    # The last planes and vectors are done twice rather than masked.
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
        # The product may be beyond 32 bits.
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
    for _block in range(1 + tl.minimum(blocks, tl.cdiv(height - top, TALL))):  # the first has no sums yet
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
    """Sums over the last planes of the first block, from plane ``z`` on, and the planes that are read already."""
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


# ---- correlation and gradient


@triton.jit
def inside_count(position, size, WINDOW: tl.constexpr):
    """Voxels of the window around ``position`` that lie inside the image."""
    return tl.minimum(size - 1, position + WINDOW // 2) - tl.maximum(0, position - (WINDOW - 1) // 2) + 1


@triton.jit
def correlation(
    sums, inside, whole, reciprocal, mean_i, mean_j, flat_i, flat_j,
    FIELDS: tl.constexpr, VOXELMORPH: tl.constexpr, EPSILON: tl.constexpr, ROUNDING: tl.constexpr,
    TINY: tl.constexpr,
):  # fmt: skip
    """cc² and its adjoints: what a voxel of the box multiplies the other image by, J by, and adds, in the gradient
    with respect to J; then the last two for I.

    ``sums`` are those of I, J, I², J² and I J in boxes of ``whole`` voxels, ``inside`` of them inside the image;
    ``reciprocal`` is that of the number of voxels that count.
    """
    s, t = sums[0], sums[1]
    if VOXELMORPH:
        # Beyond the border the image is 0, which is -mean after the subtraction.
        count = tl.zeros_like(inside) + whole
        outside = count - inside
        edge_i, edge_j = outside * mean_i, outside * mean_j
        cross = (count * sums[4] - s * t) + (edge_i * t + edge_j * s + edge_i * mean_j * inside)
        v = (count * sums[2] - s * s) + edge_i * (2 * s + mean_i * inside)
        w = (count * sums[3] - t * t) + edge_j * (2 * t + mean_j * inside)
        lowest_v = ROUNDING * (count * sums[2] + edge_i * mean_i * inside)
        lowest_w = ROUNDING * (count * sums[3] + edge_j * mean_j * inside)
        middle_i, middle_j = s - edge_i, t - edge_j
    else:
        count = inside
        cross = count * sums[4] - s * t
        v = count * sums[2] - s * s
        w = count * sums[3] - t * t
        lowest_v = tl.maximum(ROUNDING * count * sums[2], flat_i * count * count)
        lowest_w = tl.maximum(ROUNDING * count * sums[3], flat_j * count * count)
        middle_i, middle_j = s, t
    # A comparison with NaN fails, so that NaN goes on to the result.
    flat = (v <= tl.maximum(lowest_v, TINY)) | (w <= tl.maximum(lowest_w, TINY))
    cross = tl.where(flat, 0 * cross, cross)
    v, w = tl.where(flat, 1.0, v), tl.where(flat, 1.0, w)
    # V W need not be a number of the type where V and W are; V W + ε is V times the inverse of this.
    inverse_v = 1 / v
    inverse_w = 1 / (w + EPSILON * count * count * inverse_v) if VOXELMORPH else 1 / w
    slope = cross * inverse_v
    squared = slope * (cross * inverse_w)
    if FIELDS == 0:
        return tl.where(squared > 1, 1.0, squared), (squared,)  # no adjoints, and nothing looks at them
    else:
        # Where rounding takes it beyond 1 it is cut off, and does not change with the images.
        slope, part = tl.where(squared > 1, 0.0, slope), tl.where(squared > 1, 0.0, squared)
        by_cross = 2 * count * slope * inverse_w
        by_w = -2 * count * part * inverse_w
        # From the numbers as they are stored, so that their rounding cancels in the gradient.
        added = (by_cross * middle_i + by_w * middle_j) * reciprocal
        squared = tl.where(squared > 1, 1.0, squared)
        if FIELDS == 3:
            return squared, (by_cross, by_w, added)
        else:
            by_v = -2 * count * part * inverse_v * (w * inverse_w)
            return squared, (by_cross, by_w, added, by_v, (by_cross * middle_j + by_v * middle_i) * reciprocal)


@triton.jit(do_not_specialize=["blocks"])
def correlation_kernel(
    sums, statistics, adjoints, totals, depth, height, width, voxels, blocks, whole,
    FIELDS: tl.constexpr, WINDOW: tl.constexpr, TALL: tl.constexpr, VOXELMORPH: tl.constexpr, EPSILON: tl.constexpr,
    ROUNDING: tl.constexpr, TINY: tl.constexpr, STEP: tl.constexpr, AHEAD: tl.constexpr, TYPE: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """``adjoints`` (FIELDS, images, Z, Y, X), and in ``totals`` each program's sum of cc², from the ``sums``
    (5, images, Z, Y, X) over x and y.  A program does ``blocks`` times WINDOW planes."""
    image, area = tl.program_id(2), height * width
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    own = column < area
    column = tl.minimum(column, area - 1)  # the last is done again rather than masked
    here = image * depth * area + column
    inside_plane = inside_count(column % width, width, WINDOW) * inside_count(column // width, height, TALL)
    inverse_plane = 1 / (tl.zeros((COLUMNS,), TYPE) + whole) if VOXELMORPH else 1 / inside_plane.to(TYPE)
    mean_i, mean_j = tl.load(statistics + image * 4).to(TYPE), tl.load(statistics + image * 4 + 1).to(TYPE)
    flat_i, flat_j = tl.load(statistics + image * 4 + 2).to(TYPE), tl.load(statistics + image * 4 + 3).to(TYPE)
    first = tl.program_id(1) * blocks * WINDOW
    z, done = first - (WINDOW - 1) // 2, first
    none = zeros(tl.zeros((COLUMNS,), TYPE), 5)
    behind, queue = first_window(sums, here, z, depth, area, voxels, none, WINDOW, STEP, AHEAD, 5)
    z += WINDOW
    total = tl.zeros((COLUMNS,), tl.float64)
    for _block in range(tl.minimum(blocks, tl.cdiv(depth - first, WINDOW))):
        ahead, part = none, none[0]
        for _step in range(WINDOW // STEP):
            for k in tl.static_range(STEP):
                row = read_plane(sums, here, z + AHEAD, depth, area, voxels, 5)
                queue = queue + (row,)
                inside_along = tl.maximum(inside_count(done, depth, WINDOW), 1)  # beyond the border there are none
                inside = (inside_plane * inside_along).to(TYPE)
                reciprocal = inverse_plane if VOXELMORPH else inverse_plane * (1 / inside_along.to(TYPE))
                squared, found = correlation(
                    plus(behind[k], ahead, 5), inside, whole, reciprocal, mean_i, mean_j, flat_i, flat_j,
                    FIELDS, VOXELMORPH, EPSILON, ROUNDING, TINY,
                )  # fmt: skip
                complete = done < depth
                part += tl.where(complete, squared, 0.0)
                target = adjoints + (here + done * area)
                for f in tl.static_range(FIELDS):
                    tl.store(target, found[f], complete)
                    target += voxels
                behind = behind + (queue[0],)
                ahead = plus(ahead, queue[0], 5)
                queue = without_first(queue, 1, AHEAD + 1)
                z += 1
                done += 1
            behind = without_first(behind, STEP, WINDOW + STEP)
        total += part.to(tl.float64)
        behind = backwards(behind, WINDOW, 5)
    program = (image * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(totals + program, tl.sum(tl.where(own, total, 0.0)))


@triton.jit(do_not_specialize=["blocks"])
def gradient_kernel(
    sums, fixed, moving, statistics, to_fixed, to_moving, depth, area, voxels, blocks,
    FIELDS: tl.constexpr, FOR_MOVING: tl.constexpr, WINDOW: tl.constexpr, STEP: tl.constexpr, AHEAD: tl.constexpr,
    TYPE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of minus the mean of cc² over ``voxels``: J gets I Σa + J Σb − Σc over all boxes that hold the voxel,
    and with five fields I gets J Σa + I Σd − Σe.  ``sums`` (FIELDS, images, Z, Y · X) are those over x and y."""
    image = tl.program_id(2)
    column = tl.minimum(tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), area - 1)
    here = image * depth * area + column
    mean_i, mean_j = tl.load(statistics + image * 4).to(TYPE), tl.load(statistics + image * 4 + 1).to(TYPE)
    scale = tl.full((COLUMNS,), -1, TYPE) / voxels
    first = tl.program_id(1) * blocks * WINDOW
    z, done = first - WINDOW // 2, first  # boxes that hold a voxel are centred in the mirrored box around it
    none = zeros(tl.zeros((COLUMNS,), TYPE), FIELDS)
    behind, queue = first_window(sums, here, z, depth, area, voxels, none, WINDOW, STEP, AHEAD, FIELDS)
    z += WINDOW
    for _block in range(tl.minimum(blocks, tl.cdiv(depth - first, WINDOW))):
        ahead = none
        for _step in range(WINDOW // STEP):
            for k in tl.static_range(STEP):
                row = read_plane(sums, here, z + AHEAD, depth, area, voxels, FIELDS)
                queue = queue + (row,)
                complete = done < depth
                place = here + done * area
                i = tl.load(fixed + place, complete, 0).to(TYPE) - mean_i
                j = tl.load(moving + place, complete, 0).to(TYPE) - mean_j
                total = plus(behind[k], ahead, FIELDS)
                if FOR_MOVING:
                    tl.store(to_moving + place, scale * (total[0] * i + total[1] * j - total[2]), complete)
                if FIELDS == 5:
                    tl.store(to_fixed + place, scale * (total[0] * j + total[3] * i - total[4]), complete)
                behind = behind + (queue[0],)
                ahead = plus(ahead, queue[0], FIELDS)
                queue = without_first(queue, 1, AHEAD + 1)
                z += 1
                done += 1
            behind = without_first(behind, STEP, WINDOW + STEP)
        behind = backwards(behind, WINDOW, FIELDS)


# ---- host


def lncc(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Minus the mean of cc², and its gradients where they are wanted (else empty), in float32 for 16-bit images."""
    fixed, moving = fixed.contiguous(), moving.contiguous()
    shape = shape_of(fixed, window)
    kind = arithmetic(fixed)
    stored = torch.float64 if kind == tl.float64 else torch.float32
    statistics = statistics_of(fixed, moving, shape, kind)
    # With a gradient of the moving image alone, three adjoint fields do.
    fields = 5 if for_fixed else 3 if for_moving else 0
    sums = fixed.new_empty((5, shape.voxels), dtype=stored)
    plane_sums(fixed, moving, statistics, sums, shape, window, kind, images=True, mirrored=False)
    adjoints = fixed.new_empty((fields, shape.voxels), dtype=stored)
    loss = correlate(sums, statistics, adjoints, shape, window, variant, kind).to(stored)
    to_fixed = fixed.new_empty(fixed.shape if for_fixed else 0, dtype=stored)
    to_moving = moving.new_empty(moving.shape if for_moving else 0, dtype=stored)
    if fields:
        plane_sums(adjoints, adjoints, statistics, sums, shape, window, kind, images=False, mirrored=True)
        combine(sums, fixed, moving, statistics, to_fixed, to_moving, shape, window, fields, kind)
    return loss, to_fixed, to_moving


def shape_of(image: Tensor, window: int) -> Shape:
    batch, channels, *space = image.shape
    if len(space) == 2:
        return Shape(batch * channels, space[0], 1, space[1], 1)
    return Shape(batch * channels, *space, window)


def statistics_of(fixed: Tensor, moving: Tensor, shape: Shape, kind: tl.dtype) -> Tensor:
    """(images, 4) in float64, see :func:`statistics_kernel`."""
    size = shape.depth * shape.height * shape.width
    parts = min(PARTS, triton.next_power_of_2(triton.cdiv(size, PART)))
    sums = fixed.new_empty((shape.images, 4, parts), dtype=torch.float64)
    statistics = fixed.new_empty((shape.images, 4), dtype=torch.float64)
    partial_sums_kernel[parts, shape.images](fixed, moving, sums, size, PARTS=parts, PART=PART, TYPE=kind)
    statistics_kernel[shape.images,](fixed, moving, sums, statistics, size, PARTS=parts, FLAT=FLAT)
    return statistics


def blocks_of_program(size: int, window: int, most: int, programs: int) -> int:
    """Blocks of ``window`` rows, of ``size`` rows in all, that a program does, if ``programs`` share them so far."""
    blocks = triton.cdiv(size, window)
    chunks = max(triton.cdiv(size, max(most, window)), min(blocks, triton.cdiv(PROGRAMS, programs)))
    return triton.cdiv(blocks, chunks)


def unrolled(window: int) -> int:
    """Rows, or planes, that a step of the loop over a window does: a part of it without rest."""
    return max(step for step in range(1, MOST_UNROLLED + 1) if window % step == 0)


def voxels_of_thread(width: int, tall: int, fields: int, kind: tl.dtype) -> int:
    """Neighbours along x that are read and written as one vector; one voxel where rows have no whole number of them."""
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


def correlate(
    sums: Tensor, statistics: Tensor, adjoints: Tensor, shape: Shape, window: int, variant: str, kind: tl.dtype
) -> Tensor:
    """Minus the mean of cc², in float64; and ``adjoints``."""
    grid, blocks = columns_grid(shape, window)
    totals = sums.new_empty(grid[0] * grid[1] * grid[2], dtype=torch.float64)
    whole = window * window * (window if shape.tall > 1 else 1)
    correlation_kernel[grid](
        sums, statistics, adjoints, totals, shape.depth, shape.height, shape.width, shape.voxels, blocks, whole,
        FIELDS=adjoints.shape[0], WINDOW=window, TALL=shape.tall, VOXELMORPH=variant == "voxelmorph",
        EPSILON=EPSILON, ROUNDING=ROUNDING[kind] * max(1, window / 16), TINY=TINY[kind],
        STEP=unrolled(window), AHEAD=PLANES_AHEAD, TYPE=kind, COLUMNS=COLUMNS, num_warps=COLUMNS // 32,
    )  # fmt: skip
    return totals.sum() / -shape.voxels


def combine(
    sums: Tensor, fixed: Tensor, moving: Tensor, statistics: Tensor, to_fixed: Tensor, to_moving: Tensor,
    shape: Shape, window: int, fields: int, kind: tl.dtype,
) -> None:  # fmt: skip
    """Gradients from the adjoints' sums over x and y."""
    grid, blocks = columns_grid(shape, window)
    gradient_kernel[grid](
        sums, fixed, moving, statistics, to_fixed, to_moving, shape.depth, shape.height * shape.width, shape.voxels,
        blocks, FIELDS=fields, FOR_MOVING=to_moving.numel() > 0, WINDOW=window,
        STEP=unrolled(window), AHEAD=PLANES_AHEAD, TYPE=kind, COLUMNS=COLUMNS, num_warps=COLUMNS // 32,
    )  # fmt: skip


def columns_grid(shape: Shape, window: int) -> tuple[tuple[int, int, int], int]:
    """Programs that sum over z: columns, parts of the planes, images; and the blocks of planes of each."""
    columns = triton.cdiv(shape.height * shape.width, COLUMNS)
    blocks = blocks_of_program(shape.depth, window, PLANES_OF_PROGRAM, columns * shape.images)
    return (columns, triton.cdiv(shape.depth, blocks * window), shape.images), blocks
