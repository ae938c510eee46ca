"""Squared local correlation of two images, and its gradient, from sums over a box around every voxel.

With n voxels in the box and sums over them, X = Σ I J − Σ I Σ J / n, V = Σ I² − (Σ I)² / n and W likewise of
J, the squared correlation is cc² = X² / (V W).  As the difference of large sums it goes wrong in ways that
users of other packages know well: values far below −1, NaN on flat background, other results on a GPU that
rounds the products.  Here the global mean is subtracted first, sums are kept in float64, V and W are never
negative, cc² never leaves [0, 1], and a box whose variance is only rounding counts as uncorrelated.

Two variants differ in what lies beyond the border and in a flat box:

``ants``
    n counts the voxels inside the image, and cc² = 0 where V or W is below 1e-10 of the variance of the
    whole image (times n): invariant to a·I + b everywhere.
``voxelmorph``
    n = window^D everywhere, beyond the border the image is 0, and cc² = X² / (V W + 1e-5).
"""

import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.box_sums import (
    box_sum,
    gaussian_sum,
    inside_count,
    slide_along,
    slide_field_planes,
    slide_planes,
    slide_rows,
)
from regcore.kernels.launch import has_kernel, jit, on_its_device, run
from regcore.kernels.precomputed_gradients import returns_its_gradients
from regcore.kernels.warp import as_planes

VARIANTS = ("ants", "voxelmorph")
#: Added to V W in the ``voxelmorph`` variant.
EPSILON = 1e-5
#: A box of the ``ants`` variant is flat below this part of the variance of the whole image.
FLAT = 1e-10
#: Planes of a work item; a constant, so that results do not depend on the number of threads.
PLANES = 80
#: Bytes of running sums that a work item keeps, to stay in a core's second-level cache.
CACHE = 600_000


def lncc_map(fixed: Tensor, moving: Tensor, window: int, variant: str, gaussian: bool) -> Tensor:
    """Squared local correlation (B, C, *space) in float64, for images (B, C, *space) of any type."""
    axes = tuple(range(2, fixed.ndim))
    total = gaussian_sum if gaussian else box_sum
    i, j = fixed.double(), moving.double()
    mean_i, mean_j = (x.detach().mean(axes, keepdim=True) for x in (i, j))
    i, j = i - mean_i, j - mean_j
    inside = total(torch.ones_like(i[:1, :1]), window)
    count = inside if variant == "ants" else torch.full_like(inside, window ** len(axes))
    sum_i, sum_j = total(i, window), total(j, window)
    cross = total(i * j, window) - sum_i * sum_j / count
    variance_i = total(i * i, window) - sum_i * sum_i / count
    variance_j = total(j * j, window) - sum_j * sum_j / count
    if variant == "voxelmorph":  # beyond the border the image is 0, which is -mean after the subtraction
        cut = 1 - inside / count
        cross = cross + cut * (mean_i * sum_j + mean_j * sum_i + mean_i * mean_j * inside)
        variance_i = variance_i + cut * (2 * mean_i * sum_i + mean_i * mean_i * inside)
        variance_j = variance_j + cut * (2 * mean_j * sum_j + mean_j * mean_j * inside)
        # Where a variance is only rounding so is the correlation, and small as EPSILON is, it would make it large.
        cross = torch.where((variance_i > 0) & (variance_j > 0), cross, 0 * cross)
        product = variance_i.clamp(min=0) * variance_j.clamp(min=0) + EPSILON
    else:
        flat_i, flat_j = (FLAT * x.detach().square().mean(axes, keepdim=True) * count for x in (i, j))
        # A comparison with NaN fails, so that NaN goes on to the result.
        flat = (variance_i <= flat_i) | (variance_j <= flat_j)
        product = torch.where(flat, 1, variance_i * variance_j)
        cross = torch.where(flat, 0, cross)
    return (cross * cross / product).clamp(max=1)


def lncc_reference(fixed: Tensor, moving: Tensor, window: int, variant: str, gaussian: bool) -> Tensor:
    """Minus the mean of :func:`lncc_map`, in the type of ``moving``."""
    kind = moving.dtype if moving.dtype == torch.float64 else torch.float32
    return -lncc_map(fixed, moving, window, variant, gaussian).mean().to(kind)


def lncc(fixed: Tensor, moving: Tensor, window: int, variant: str, gaussian: bool) -> Tensor:
    """As :func:`lncc_reference`, by the kernel where it can."""
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16)[: 2 if moving.is_cpu else 4]
    # Loops over an image in steps of many voxels end before 32 bits do.  No GPU has yet tried the kernel in 2-D, or
    # with the gradient of the fixed image.
    tried = moving.is_cpu or (moving.ndim == 5 and not fixed.requires_grad)
    fits = tried and fixed.dtype == moving.dtype and moving.numel() < 2**31 - 2**21
    if gaussian or not (fits and has_kernel(fixed, moving, kinds=kinds, operator="lncc")):
        return lncc_reference(fixed, moving, window, variant, gaussian)
    tracked = torch.is_grad_enabled()
    return torch.ops.regcore.lncc(
        fixed, moving, window, variant, tracked and fixed.requires_grad, tracked and moving.requires_grad
    )[0]


# The kernels slide: a sum over the planes of the box moves on by one plane, adding the one that enters and
# taking away the one that leaves; from these sums one over its rows moves on by one row, and from those one
# along the row by a voxel.  A work item is a part of the planes and a part of the rows of one image.


@jit
def plane_moments(start, stop, images, moments):
    """Sums of I and I², less the image's first voxel, over each plane of ``images`` (N, Z, Y, X)."""
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
    """What the value 0 instead of the mean, in the part of a box beyond the border, adds to :func:`centred`."""
    for x in range(out.size):
        cut = 1 - inside[x] * reciprocal[x]
        out[x] += cut * (mean_s * t[x] + mean_t * s[x] + mean_s * mean_t * inside[x])


@jit
def cut_off(inside, whole):
    """The two ends of a row where boxes of ``whole`` voxels reach beyond the border; all of it is one of them
    where they do along another axis."""
    first, last = 0, inside.size
    while first < last and inside[first] < whole - 0.5:
        first += 1
    while last > first and inside[last - 1] < whole - 0.5:
        last -= 1
    return (0, first), (last, inside.size)


@jit
def correlate(sums, inside, reciprocal, means, flat, voxelmorph, work, adjoints, where, total):
    """Add the squared correlations of one row to ``total``, and set the adjoints of its sums.

    ``adjoints`` (fields, N, Z, Y, X), with 0, 3 or 5 fields, and ``where`` the row is in them: what a voxel of
    the box multiplies the other image by, J by, and adds, in the gradient with respect to J; then the last
    two for I; see :func:`combine_items`.
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
        # Where a variance is only rounding so is the correlation, and small as 1e-5 is, it would make it large.
        for x in range(total.size):
            cross[x] = cross[x] if (v[x] > 0) & (w[x] > 0) else 0 * cross[x]
        for x in range(total.size):
            product = (v[x] if v[x] > 0 else 0 * v[x]) * (w[x] if w[x] > 0 else 0 * w[x])
            scale[x] = 1 / (product + EPSILON)
    else:
        for x in range(total.size):
            # A comparison with NaN fails, so that NaN goes on to the result.
            level_v, level_w = v[x] * reciprocal[x], w[x] * reciprocal[x]
            scale[x] = 0.0 if (level_v <= flat[0]) | (level_w <= flat[1]) else 1 / (v[x] * w[x])
    for x in range(total.size):
        cc = cross[x] * cross[x] * scale[x]
        total[x] += 1.0 if cc > 1 else cc
    fields = adjoints.shape[0]
    if fields == 0:
        return
    # Means in the box less the global means, times n.
    if voxelmorph:
        middle_i[: s.size] = s
        middle_j[: t.size] = t
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
    # From the numbers as they are stored, so that their rounding cancels in the gradient.
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
                slide_rows(rows, used, y, -1)
            for y in range(top, bottom):
                slide_rows(rows, used, y - top + window - 1, y - top - 1 if y > top else -1)
                slide_along(rows, 0, window, sums)
                slide_along(rows, 2, window, sums)
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
    """Gradients: J gets I Σa + J Σb − Σc over all boxes that hold the voxel, I gets J Σa + I Σd − Σe.

    ``to_fixed`` or ``to_moving`` is empty where it is not wanted.
    """
    depth, height, width = fixed.shape[1:]
    parts, strips = tiles
    # The boxes that hold a voxel are centred in the mirrored box around it.
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
                slide_rows(rows, used, y, -1)
            for y in range(top, bottom):
                slide_rows(rows, used, y - top + window - 1, y - top - 1 if y > top else -1)
                slide_along(rows, 0, window, sums)
                if fields == 5:
                    slide_along(rows, 2, window, sums)
                i, j = fixed[image, z, y], moving[image, z, y]
                if to_moving.shape[0] > 0:
                    target = to_moving[image, z, y]
                    for x in range(width):
                        target[x] = scale * (sums[0, x] * (i[x] - mean_i) + sums[1, x] * (j[x] - mean_j) - sums[2, x])
                if for_fixed:
                    target = to_fixed[image, z, y]
                    for x in range(width):
                        target[x] = scale * (sums[0, x] * (j[x] - mean_j) + sums[3, x] * (i[x] - mean_i) - sums[4, x])


@torch.library.custom_op("regcore::lncc", mutates_args=(), device_types="cpu")
def _lncc(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
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
    # With a gradient of the moving image alone, three adjoint fields do.
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


@_lncc.register_kernel("cuda")
@on_its_device
def _(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from regcore.kernels.gpu import lncc as gpu

    return gpu.lncc(fixed, moving, window, variant, for_fixed, for_moving)


@_lncc.register_fake
def _(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # In float32 for images of 16 bits, as the gradient of a mean over many voxels is too small for float16; autograd
    # casts it to their type when it has been multiplied by what comes in.
    kind = moving.dtype if moving.dtype == torch.float64 else torch.float32
    return (
        fixed.new_empty((), dtype=kind),
        fixed.new_empty(fixed.shape if for_fixed else 0, dtype=kind),
        moving.new_empty(moving.shape if for_moving else 0, dtype=kind),
    )


returns_its_gradients(_lncc)
