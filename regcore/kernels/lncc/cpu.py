"""Squared local correlation and its gradients in Numba.

The kernels slide.  A sum over the planes of the box moves on by one plane: it adds the one that enters and subtracts
the one that leaves.  From these sums, one over rows moves on by one row, and from those, one along the row by a voxel.
A work item is a part of the planes and a part of the rows of one image.
"""

import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import as_planes, jit, run
from regcore.kernels.lncc.cpu_box_sums import inside_count, slide_along, slide_field_planes, slide_planes, slide_rows
from regcore.kernels.lncc.reference import EPSILON, FLAT

#: Planes per work item; constant, so that results do not depend on the number of threads.
PLANES = 80
#: Bytes of running sums per work item, to stay in a core's second-level cache.
CACHE = 600_000


@jit
def plane_moments(start, stop, images, moments):
    """Sums of I and I², minus the image's first voxel, over each plane of ``images`` (N, Z, Y, X)."""
    depth, height, width = images.shape[1:]
    sums = np.empty((2, width))
    for item in range(start, stop):
        image, z = item // depth, item % depth
        first = np.float64(images[image, 0, 0, 0])
        sums[:] = 0
        for y in range(height):
            row, plain, squared = images[image, z, y], sums[0], sums[1]
            for x in range(width):
                plain[x] += row[x] - first
            for x in range(width):
                squared[x] += (row[x] - first) * (row[x] - first)
        moments[item // depth, z, 0] = sums[0].sum()
        moments[item // depth, z, 1] = sums[1].sum()


@jit
def centred(products, s, t, reciprocal, out):
    """Σ I J − Σ I Σ J / n."""
    for x in range(out.size):
        out[x] = products[x] - s[x] * t[x] * reciprocal[x]


@jit
def beyond_border(inside, reciprocal, mean_s, s, mean_t, t, out):
    """The correction to :func:`centred` for the value 0 instead of the mean in the part of a box beyond the border."""
    for x in range(out.size):
        cut = 1 - inside[x] * reciprocal[x]
        out[x] += cut * (mean_s * t[x] + mean_t * s[x] + mean_s * mean_t * inside[x])


@jit
def cut_off(inside, whole):
    """The two ends of a row where boxes of ``whole`` voxels reach beyond the border. The whole row counts as one of
    them if boxes do so along another axis."""
    first, last = 0, inside.size
    while first < last and inside[first] < whole - 0.5:
        first += 1
    while last > first and inside[last - 1] < whole - 0.5:
        last -= 1
    return (0, first), (last, inside.size)


@jit
def correlate(sums, inside, reciprocal, means, flat, voxelmorph, work, adjoints, where, total):
    """Add the squared correlations of one row to ``total``, and set the adjoints of its sums.

    ``adjoints`` (fields, N, Z, Y, X) has 0, 3 or 5 fields, and ``where`` is the row in them.  In the gradient with
    respect to J, the fields are the factor of the other image, the factor of J, and the offset, for each voxel of the
    box; then the last two for I.  See :func:`combine_items`.
    """
    s, t = sums[0], sums[1]
    image, z, y = where
    cross, v, w, scale, middle_i, middle_j = work[0], work[1], work[2], work[3], work[4], work[5]
    centred(sums[4], s, t, reciprocal, cross)
    centred(sums[2], s, s, reciprocal, v)
    centred(sums[3], t, t, reciprocal, w)
    cut = cut_off(inside, 1 / reciprocal[0]) if voxelmorph else ((0, 0), (0, 0))
    if voxelmorph:
        for i, j in cut:
            n, r = inside[i:j], reciprocal[i:j]
            beyond_border(n, r, means[0], s[i:j], means[1], t[i:j], cross[i:j])
            beyond_border(n, r, means[0], s[i:j], means[0], s[i:j], v[i:j])
            beyond_border(n, r, means[1], t[i:j], means[1], t[i:j], w[i:j])
        # If a variance is only rounding, so is the correlation, and the small 1e-5 would make it large.
        for x in range(total.size):
            cross[x] = cross[x] if (v[x] > 0) & (w[x] > 0) else 0 * cross[x]
        for x in range(total.size):
            product = (v[x] if v[x] > 0 else 0 * v[x]) * (w[x] if w[x] > 0 else 0 * w[x])
            scale[x] = 1 / (product + EPSILON)
    else:
        for x in range(total.size):
            # Comparisons with NaN are false, so NaN is kept in the result.
            level_v, level_w = v[x] * reciprocal[x], w[x] * reciprocal[x]
            scale[x] = 0.0 if (level_v <= flat[0]) | (level_w <= flat[1]) else 1 / (v[x] * w[x])
    for x in range(total.size):
        cc = cross[x] * cross[x] * scale[x]
        total[x] += 1.0 if cc > 1 else cc
    fields = adjoints.shape[0]
    if fields == 0:
        return
    # Means in the box minus the global means, times n.
    if voxelmorph:
        for x in range(s.size):
            middle_i[x] = s[x]
            middle_j[x] = t[x]
        for i, j in cut:
            for x in range(i, j):
                middle_i[x] -= (1 / reciprocal[x] - inside[x]) * means[0]
                middle_j[x] -= (1 / reciprocal[x] - inside[x]) * means[1]
    else:
        middle_i, middle_j = s, t
    by_cross, by_w, added = adjoints[0, image, z, y], adjoints[1, image, z, y], adjoints[2, image, z, y]
    for x in range(total.size):
        by_cross[x] = 2 * cross[x] * scale[x]
    for x in range(total.size):
        by_w[x] = -2 * (cross[x] * scale[x]) * (cross[x] * scale[x]) * v[x]
    # From the stored numbers, so that their rounding cancels in the gradient.
    for x in range(total.size):
        added[x] = (by_cross[x] * middle_i[x] + by_w[x] * middle_j[x]) * reciprocal[x]
    if fields == 5:
        by_v, added = adjoints[3, image, z, y], adjoints[4, image, z, y]
        for x in range(total.size):
            by_v[x] = -2 * (cross[x] * scale[x]) * (cross[x] * scale[x]) * w[x]
        for x in range(total.size):
            added[x] = (by_cross[x] * middle_j[x] + by_v[x] * middle_i[x]) * reciprocal[x]


@jit
def correlate_items(start, stop, fixed, moving, statistics, window, ndim, voxelmorph, tiles, adjoints, totals):
    """Squared correlations summed for every item, and their adjoints (fields, N, Z, Y, X)."""
    depth, height, width = fixed.shape[1:]
    parts, strips = tiles
    left, right = (window - 1) // 2, window // 2
    tall = (height + strips - 1) // strips + window - 1
    planes = np.empty((5, tall, width + window - 1))
    rows = np.empty((5, width + window - 1))
    work = np.empty((6, width))
    sums = np.empty((5, width))
    total = np.empty(width)
    inside_x, inside, reciprocal = np.empty(width), np.empty(width), np.empty(width)
    for x in range(width):
        inside_x[x] = inside_count(x, width, window)
    whole = float(window**ndim)
    for item in range(start, stop):
        image = item // (parts * strips)
        first = depth * (item // strips % parts) // parts
        end = depth * (item // strips % parts + 1) // parts
        top = height * (item % strips) // strips
        bottom = height * (item % strips + 1) // strips
        i, j = fixed[image], moving[image]
        means = (statistics[image, 0], statistics[image, 1])
        flat = (statistics[image, 2], statistics[image, 3])
        used = planes[:, : bottom - top + window - 1]
        used[:] = 0
        total[:] = 0
        for z in range(first - left, end + right):
            leave = z - window if z - window >= first - left else -1
            slide_planes(used, i, j, means[0], means[1], top - left, left, z, leave, work)
            here = z - right
            if here < first:
                continue
            rows[:] = 0
            for y in range(window - 1):
                slide_rows(rows, used, y, np.int64(-1))
            for y in range(top, bottom):
                slide_rows(rows, used, y - top + window - 1, y - top - 1 if y > top else -1)
                slide_along(rows, np.int64(0), window, sums)
                slide_along(rows, np.int64(2), window, sums)
                box = inside_count(here, depth, window) * inside_count(y, height, window)
                for x in range(width):
                    inside[x] = box * inside_x[x]
                if voxelmorph:
                    reciprocal[:] = 1 / whole
                else:
                    for x in range(width):
                        reciprocal[x] = 1 / inside[x]
                where = (image, here, y)
                correlate(sums, inside, reciprocal, means, flat, voxelmorph, work, adjoints, where, total)
        totals[item] = total.sum()


@jit
def combine_items(
    start, stop, fixed, moving, statistics, window, tiles, scale, adjoints, for_fixed, to_fixed, to_moving
):
    """Gradients: J gets I Σa + J Σb − Σc over all boxes that contain the voxel, I gets J Σa + I Σd − Σe.

    ``to_fixed`` or ``to_moving`` is empty if not needed.
    """
    depth, height, width = fixed.shape[1:]
    parts, strips = tiles
    # The boxes that contain a voxel are centred in the mirrored box around it.
    left, right = window // 2, (window - 1) // 2
    tall = (height + strips - 1) // strips + window - 1
    fields = adjoints.shape[0]
    planes = np.empty((fields, tall, width + window - 1))
    rows = np.empty((fields, width + window - 1))
    sums = np.empty((fields, width))
    for item in range(start, stop):
        image = item // (parts * strips)
        first = depth * (item // strips % parts) // parts
        end = depth * (item // strips % parts + 1) // parts
        top = height * (item % strips) // strips
        bottom = height * (item % strips + 1) // strips
        mean_i, mean_j = statistics[image, 0], statistics[image, 1]
        used = planes[:, : bottom - top + window - 1]
        used[:] = 0
        for entering in range(first - left, end + right):
            leave = entering - window if entering - window >= first - left else -1
            for field in range(fields):
                slide_field_planes(used[field], adjoints[field, image], top - left, left, entering, leave)
            z = entering - right
            if z < first:
                continue
            rows[:] = 0
            for y in range(window - 1):
                slide_rows(rows, used, y, np.int64(-1))
            for y in range(top, bottom):
                slide_rows(rows, used, y - top + window - 1, y - top - 1 if y > top else -1)
                slide_along(rows, np.int64(0), window, sums)
                if fields == 5:
                    slide_along(rows, np.int64(2), window, sums)
                i, j = fixed[image, z, y], moving[image, z, y]
                if to_moving.shape[0] > 0:
                    target = to_moving[image, z, y]
                    for x in range(width):
                        target[x] = scale * (sums[0, x] * (i[x] - mean_i) + sums[1, x] * (j[x] - mean_j) - sums[2, x])
                if for_fixed:
                    target = to_fixed[image, z, y]
                    for x in range(width):
                        target[x] = scale * (sums[0, x] * (j[x] - mean_j) + sums[3, x] * (i[x] - mean_i) - sums[4, x])


def lncc(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Minus the mean of cc², and its gradients if needed (else empty)."""
    shape, ndim = moving.shape, moving.ndim - 2
    fixed, moving = (as_planes(image).flatten(0, 1) for image in (fixed, moving))
    images, depth, height, width = fixed.shape
    statistics = torch.empty(images, 4, dtype=torch.float64)
    for column, image in enumerate((fixed, moving)):
        moments = torch.empty(images, depth, 2, dtype=torch.float64)
        run(plane_moments, images * depth, image.numel(), image, moments)
        mean, square = (moments.sum(1) / (depth * height * width)).unbind(1)
        statistics[:, column] = mean + image[:, 0, 0, 0]
        statistics[:, column + 2] = FLAT * (square - mean * mean)
    strip = max(16, CACHE // (5 * 8 * (width + window)) - window)
    tiles = (math.ceil(depth / PLANES), math.ceil(height / strip))
    items = images * tiles[0] * tiles[1]
    voxels = fixed.numel()
    # For the gradient of only the moving image, three adjoint fields are enough.
    fields = 5 if for_fixed else 3 if for_moving else 0
    adjoints = fixed.new_empty(fields, images, depth, height, width)
    totals = torch.empty(items, dtype=torch.float64)
    arrays = (fixed, moving, statistics)
    run(correlate_items, items, voxels, *arrays, window, ndim, variant == "voxelmorph", tiles, adjoints, totals)
    loss = (-totals.sum() / voxels).to(fixed.dtype)
    to_fixed = fixed.new_empty(fixed.shape if for_fixed else (0, 0, 0, 0))
    to_moving = fixed.new_empty(fixed.shape if for_moving else (0, 0, 0, 0))
    if fields:
        results = (adjoints, for_fixed, to_fixed, to_moving)
        run(combine_items, items, voxels, *arrays, window, tiles, -1 / voxels, *results)
    return loss, to_fixed.view(shape if for_fixed else 0), to_moving.view(shape if for_moving else 0)
