"""Squared local correlation and its gradient from box sums, in four passes over the volume.

The sums Σ I, Σ J, Σ I², Σ J², Σ I J over a box are taken over x and y in one pass, which stores five fields, and over z
in a second, which turns them into the squared correlation and, where a gradient is wanted, its three or five adjoint
fields; two more passes take the sums of those and make the gradients.  With three adjoints that is 28 + 32 + 24 + 24
bytes of float32 for each voxel.

Sums are right to a few units of rounding of the box's own Σ I² (:mod:`~regcore.kernels.lncc.gpu_box_sums`).  That
error is what a flat box has for a variance: at most 1.5e-6 of the box's mean square, for 200 000 random values in
boxes of 2 to 16 voxels' side.  So a box also counts as flat where its variance is below :data:`ROUNDING` of its mean
square: for float32 one whose standard deviation is less than 1.4e-3 of its root mean square, once the mean of the image
is taken off.  The reference, in float64, has only the comparison with the variance of the whole image, of variant
``ants``.

Formulas are for the box's sums times the number of its voxels n: n V = n Σ I² − (Σ I)², which needs no division.
"""

# ruff: noqa: RUF005 - a Triton function has no `*` within a tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.lncc import gpu_box_sums as box_sums
from regcore.kernels.lncc.gpu_box_sums import (
    Shape,
    backwards,
    columns_grid,
    first_window,
    plane_sums,
    plus,
    read_plane,
    unrolled,
    without_first,
    zeros,
)
from regcore.kernels.lncc.reference import EPSILON, FLAT
from regcore.kernels.triton_launch import arithmetic

#: Programs that sum an image up, and voxels that each reads at a time.
PARTS, PART = 1024, 1024
#: A box is flat below this part of its mean square, by the type of arithmetic (more for windows above 16) ...
ROUNDING = {tl.float32: 2e-6, tl.float64: 4e-15}
#: ... and below a variance whose inverse is not a number of that type.
TINY = {tl.float32: 1e-37, tl.float64: 1e-300}


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
    depth, height, width = space
    return Shape(batch * channels, depth, height, width, window)


def statistics_of(fixed: Tensor, moving: Tensor, shape: Shape, kind: tl.dtype) -> Tensor:
    """(images, 4) in float64, see :func:`statistics_kernel`."""
    size = shape.depth * shape.height * shape.width
    parts = min(PARTS, triton.next_power_of_2(triton.cdiv(size, PART)))
    sums = fixed.new_empty((shape.images, 4, parts), dtype=torch.float64)
    statistics = fixed.new_empty((shape.images, 4), dtype=torch.float64)
    partial_sums_kernel[parts, shape.images](fixed, moving, sums, size, PARTS=parts, PART=PART, TYPE=kind)
    statistics_kernel[shape.images,](fixed, moving, sums, statistics, size, PARTS=parts, FLAT=FLAT)
    return statistics


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
        STEP=unrolled(window), AHEAD=box_sums.PLANES_AHEAD, TYPE=kind,
        COLUMNS=box_sums.COLUMNS, num_warps=box_sums.COLUMNS // 32,
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
        STEP=unrolled(window), AHEAD=box_sums.PLANES_AHEAD, TYPE=kind,
        COLUMNS=box_sums.COLUMNS, num_warps=box_sums.COLUMNS // 32,
    )  # fmt: skip
