"""MIND-SSC descriptors, their squared difference and its gradients in Numba.

Memory is one field (B, Z, Y, C · X), which every pass overwrites, besides the descriptors that are given or returned;
each of these is 48 bytes a voxel in 3-D and float32.  The passes:

1. :func:`~regcore.kernels.mind_ssc.cpu_patch_sums.sum_planes`: squared differences, summed over y and x;
2. :func:`subtract_minimum`: summed over z, D, and the mean of V over the image;
3. :func:`describe`: descriptors, or :func:`compare`: the loss and the gradient of the patch sums, except the part
   through the mean of V, which it adds up;
4. :func:`collect_sums`: the rest of that gradient, and the adjoint of the sums over z;
5. :func:`~regcore.kernels.mind_ssc.cpu_patch_sums.collect_planes` and ``collect_columns``: every voxel collects the
   gradient of the differences it is part of.

If the minimum over the pairs is tied, its gradient is shared evenly, and the gradient of a clamped V is that of the
clamp, both as in torch.  A work item is a plane, or the rows of all planes at one y.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import as_planes, jit, run
from regcore.kernels.mind_ssc.cpu_patch_sums import (
    add_row,
    box_across,
    box_across_adjoint,
    collect_columns,
    collect_planes,
    copy_row,
    sum_planes,
)

#: Neighbours −z, +z, −y, +y, −x, +x are numbered from 0; pairs in lexical order.  An image in 2-D has no y.
PAIRS = {
    2: np.array([(0, 4), (0, 5), (1, 4), (1, 5)]),
    3: np.array([(0, 2), (0, 3), (0, 4), (0, 5), (1, 2), (1, 3), (1, 4), (1, 5), (2, 4), (2, 5), (3, 4), (3, 5)]),
}


@jit
def lower_to(least, row):
    for x in range(least.size):
        least[x] = row[x] if row[x] < least[x] else least[x]


@jit
def scale_excess(row, least, scale):
    for x in range(row.size):
        row[x] = (row[x] - least[x]) * scale


@jit
def subtract_minimum(start, stop, field, channels, radius, totals):
    """Sums over y and x → D, in place, and ``totals`` (items) of Σ D over the pairs.

    D of the smallest pair is exactly 0, which identifies ties.  So sums are scaled after the minimum is subtracted: a
    product before would be fused into the subtraction, unrounded, and differ from the rounded minimum.
    """
    depth, height = field.shape[1:3]
    width, taps = field.shape[3] // channels, 2 * radius[0] + 1
    ring = np.empty((taps, channels * width), field.dtype)
    least, sums = np.empty(width, field.dtype), np.empty(width, field.dtype)
    total = np.empty(width)
    scale = field.dtype.type(1 / ((2 * radius[0] + 1) * (2 * radius[1] + 1) * (2 * radius[2] + 1)))
    for item in range(start, stop):
        b, y, ready = item // height, item % height, 0
        total[:] = 0
        for z in range(depth):
            while ready < min(z + radius[0] + 1, depth):
                copy_row(field[b, ready, y], ring[ready % taps])
                ready += 1
            row = field[b, z, y]
            box_across(ring, z, radius[0], depth, row)
            copy_row(row[:width], least)
            for c in range(1, channels):
                lower_to(least, row[c * width : (c + 1) * width])
            sums[:] = 0
            for c in range(channels):
                scale_excess(row[c * width : (c + 1) * width], least, scale)
                add_row(sums, row[c * width : (c + 1) * width])
            add_row(total, sums)
        totals[item] = total.sum()


@jit
def mean_over_pairs(row, channels, variance):
    """V before it is clamped."""
    width = variance.size
    variance[:] = 0
    for c in range(channels):
        add_row(variance, row[c * width : (c + 1) * width])
    for x in range(width):
        variance[x] /= variance.dtype.type(channels)


@jit
def invert_clamped(variance, mean, smallest, out):
    """1 / V; comparisons with NaN are false, so NaN is kept."""
    kind = out.dtype.type
    low, high, least = kind(0.001) * mean, kind(1000) * mean, kind(smallest)
    for x in range(out.size):
        v = low if variance[x] < low else variance[x]
        v = high if v > high else v
        out[x] = kind(1) / (least if v < least else v)


@jit
def respond(distances, inverse, whole, out):
    """exp(−D / V), in float32 as 2^−k e^r with |r| ≤ log 2 / 2 and e^r by its series.

    Unlike calls of the C library, this is done for many voxels at once.  ``whole`` is memory of 32-bit integers.
    """
    if out.itemsize == 8:
        for x in range(out.size):
            out[x] = np.exp(-distances[x] * inverse[x])
        return
    kind = out.dtype.type
    for x in range(out.size):
        t = distances[x] * inverse[x]
        whole[x] = np.int32(t * kind(1.4426950408889634) + kind(0.5)) if t <= kind(87) else np.int32(0)
    for x in range(out.size):
        t = distances[x] * inverse[x]
        k = kind(whole[x])
        # log 2 in two parts, of which the first has few digits, so that the product is exact.
        r = (k * kind(0.693359375) - t) + k * kind(-2.1219444005469059e-4)
        p = kind(1 / 5040) * r + kind(1 / 720)
        p = p * r + kind(1 / 120)
        p = p * r + kind(1 / 24)
        p = p * r + kind(1 / 6)
        p = p * r + kind(0.5)
        p = p * r + kind(1)
        p = p * r + kind(1)
        # Comparisons with NaN are false, so NaN is kept.
        out[x] = kind(0) if t > kind(87) else p
    for x in range(out.size):
        whole[x] = (np.int32(127) - whole[x]) << np.int32(23)
    power = whole.view(np.float32)
    for x in range(out.size):
        out[x] *= power[x]


@jit
def describe(start, stop, field, means, smallest, descriptors):
    """``descriptors`` (B, C, Z, Y, X) of D and the means of V (B,)."""
    channels, depth, height, width = descriptors.shape[1:]
    variance, inverse = np.empty(width, field.dtype), np.empty(width, field.dtype)
    whole = np.empty(width, np.int32)
    for item in range(start, stop):
        b, z = item // depth, item % depth
        for y in range(height):
            row = field[b, z, y]
            mean_over_pairs(row, channels, variance)
            invert_clamped(variance, means[b], smallest, inverse)
            for c in range(channels):
                respond(row[c * width : (c + 1) * width], inverse, whole, descriptors[b, c, z, y])


@jit
def subtract(first, second, out):
    for x in range(out.size):
        out[x] = first[x] - second[x]


@jit
def add_squares(total, row):
    for x in range(total.size):
        total[x] += row[x] * row[x]


@jit
def scale_row(row, scale, out):
    factor = out.dtype.type(scale)
    for x in range(out.size):
        out[x] = factor * row[x]


@jit
def slope_of_distance(slope, own, inverse):
    """Minus the gradient of D, with V kept, in the place of that of the descriptor."""
    for x in range(slope.size):
        slope[x] *= own[x] * inverse[x]


@jit
def add_slope_of_variance(total, slope, distances, inverse):
    for x in range(total.size):
        total[x] += slope[x] * (distances[x] * inverse[x])


@jit
def through_clamp(variance, mean, smallest, to_variance, to_mean):
    """The part of the gradient of V that passes its clamp, in place, and Σ of the part that reaches the mean."""
    kind = variance.dtype.type
    low, high, least = kind(0.001) * mean, kind(1000) * mean, kind(smallest)
    for x in range(variance.size):
        v = low if variance[x] < low else variance[x]
        v = high if v > high else v
        to_variance[x] = kind(0) if v < least else to_variance[x]
    for x in range(variance.size):
        part = kind(0.001) if variance[x] < low else kind(0)
        part = kind(1000) if variance[x] > high else part
        to_mean[x] += part * to_variance[x]
    for x in range(variance.size):
        to_variance[x] = kind(0) if (variance[x] < low) | (variance[x] > high) else to_variance[x]


@jit
def find_ties(row, channels, ties):
    """One bit for each pair with D = 0."""
    width = ties.size
    ties[:] = 0
    for c in range(channels):
        distances = row[c * width : (c + 1) * width]
        bit, none = ties.dtype.type(1 << c), ties.dtype.type(0)
        for x in range(width):
            ties[x] |= bit if distances[x] == 0 else none


@jit
def divide_by_ties(total, channels, ties, count):
    """``total`` / number of ties; ``count`` is memory."""
    count[:] = 0
    for c in range(channels):
        bit, one, none = ties.dtype.type(1 << c), count.dtype.type(1), count.dtype.type(0)
        for x in range(count.size):
            count[x] += one if ties[x] & bit else none
    for x in range(count.size):
        total[x] /= count[x]


@jit
def subtract_shares(row, channels, ties, share):
    """Subtract the gradient of the minimum, ``share``, from that of the pairs that are tied for it."""
    width = share.size
    for c in range(channels):
        gradient = row[c * width : (c + 1) * width]
        bit, none = ties.dtype.type(1 << c), share.dtype.type(0)
        for x in range(width):
            gradient[x] -= share[x] if ties[x] & bit else none


@jit
def pull_back(row, slopes, to_variance, ties, total, count):
    """D → the gradient of the patch sums of one row, in place, from what :func:`compare` found."""
    channels, width = slopes.shape
    kind = row.dtype.type
    find_ties(row, channels, ties)
    for x in range(width):
        to_variance[x] /= kind(channels)
    total[:] = 0
    for c in range(channels):
        gradient = row[c * width : (c + 1) * width]
        subtract(to_variance, slopes[c], gradient)
        add_row(total, gradient)
    divide_by_ties(total, channels, ties, count)
    subtract_shares(row, channels, ties, total)


@jit
def compare(start, stop, field, means, smallest, others, squared, scale, to_others, ties, totals):
    """D → the gradient of the patch sums, in place, except the part through the mean of V.

    ``others`` (B, C, Z, Y, X) are the descriptors to compare with if ``squared``; else the gradient of the descriptors.
    ``totals`` (items, 2): Σ of squared differences, and the gradient of the mean of V.  All gradients are to be
    multiplied by ``scale``, except ``to_others``, that of the other descriptors, empty if not needed.  ``ties``
    (B, Z, Y, X) tells the pairs with the minimum, and is empty if only other results are needed.
    """
    channels, depth, height, width = others.shape[1:]
    variance, inverse, own = np.empty(width, field.dtype), np.empty(width, field.dtype), np.empty(width, field.dtype)
    to_variance, slopes = np.empty(width, field.dtype), np.empty((channels, width), field.dtype)
    loss, to_mean, whole = np.empty(width), np.empty(width), np.empty(width, np.int32)
    for item in range(start, stop):
        b, z = item // depth, item % depth
        loss[:] = 0
        to_mean[:] = 0
        for y in range(height):
            row = field[b, z, y]
            mean_over_pairs(row, channels, variance)
            invert_clamped(variance, means[b], smallest, inverse)
            to_variance[:] = 0
            for c in range(channels):
                distances, slope = row[c * width : (c + 1) * width], slopes[c]
                respond(distances, inverse, whole, own)
                if squared:
                    subtract(own, others[b, c, z, y], slope)
                    add_squares(loss, slope)
                else:
                    copy_row(others[b, c, z, y], slope)
                if to_others.shape[0] > 0:
                    scale_row(slope, -scale, to_others[b, c, z, y])
                if ties.shape[0] > 0:
                    slope_of_distance(slope, own, inverse)
                    add_slope_of_variance(to_variance, slope, distances, inverse)
            if ties.shape[0] > 0:
                through_clamp(variance, means[b], smallest, to_variance, to_mean)
                pull_back(row, slopes, to_variance, ties[b, z, y], inverse, own)
        totals[item, 0] = loss.sum()
        totals[item, 1] = to_mean.sum()


@jit
def collect_sums(start, stop, field, channels, radius, ties, through_mean):
    """Add the part through the mean, ``through_mean`` (B,) for every V; then the adjoint of the sums over z."""
    depth, height = field.shape[1:3]
    width, taps = field.shape[3] // channels, 2 * radius[0] + 1
    ring = np.empty((taps, channels * width), field.dtype)
    share, count = np.empty(width, field.dtype), np.empty(width, field.dtype)
    for item in range(start, stop):
        b, y, ready = item // height, item % height, 0
        each = through_mean[b] / field.dtype.type(channels)
        for z in range(depth):
            while ready < min(z + radius[0] + 1, depth):
                row, source = ring[ready % taps], field[b, ready, y]
                for x in range(row.size):
                    row[x] = source[x] + each
                share[:] = through_mean[b]
                divide_by_ties(share, channels, ties[b, ready, y], count)
                subtract_shares(row, channels, ties[b, ready, y], share)
                ready += 1
            box_across_adjoint(ring, z, radius[0], depth, field[b, z, y])


def descriptors(image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """(B, 1, *space) → (B, C, *space)."""
    planes, radius, dilation = _as_volume(image, radius, dilation)
    batch, depth, height, width = planes.shape
    pairs = PAIRS[image.ndim - 2]
    field, means = _distances(planes, pairs, radius, dilation)
    out = planes.new_empty(batch, len(pairs), depth, height, width)
    run(describe, batch * depth, field.numel(), field, means, _smallest(field), out)
    return out.view(batch, len(pairs), *image.shape[2:])


def descriptors_backward(gradient: Tensor, image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """The gradient of the image for that of its descriptors."""
    return _compare(gradient, image, radius, dilation, squared=False, for_others=False, for_image=True)[2]


def difference(
    descriptor: Tensor,
    image: Tensor,
    radius: Sequence[int],
    dilation: Sequence[int],
    for_descriptor: bool,
    for_image: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean squared difference of a descriptor and that of an image, and its gradients if needed (else empty)."""
    return _compare(descriptor, image, radius, dilation, True, for_descriptor, for_image)


def _compare(
    others: Tensor,
    image: Tensor,
    radius: Sequence[int],
    dilation: Sequence[int],
    squared: bool,
    for_others: bool,
    for_image: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`compare`: the loss (nothing if not ``squared``), and the gradients of ``others`` and ``image``."""
    planes, radius, dilation = _as_volume(image, radius, dilation)
    rows = as_planes(others)
    batch, depth, height, width = planes.shape
    pairs = PAIRS[image.ndim - 2]
    channels, voxels = len(pairs), depth * height * width
    field, means = _distances(planes, pairs, radius, dilation)
    entries = field.numel()
    scale = 2 / entries if squared else 1.0
    to_others = planes.new_empty(rows.shape if for_others else [0] * 5)
    to_image = planes.new_empty(planes.shape if for_image else 0)
    ties = torch.empty(planes.shape if for_image else [0] * 4, dtype=torch.int16)
    totals = torch.empty(batch, depth, 2, dtype=torch.float64)
    results = (to_others, ties, totals.view(-1, 2))
    run(compare, batch * depth, entries, field, means, _smallest(field), rows, squared, scale, *results)
    loss, to_mean = totals.sum(1).unbind(1)
    if for_image:
        through_mean = (to_mean / voxels).to(field.dtype)
        run(collect_sums, batch * height, entries, field, channels, radius, ties, through_mean)
        run(collect_planes, batch * depth, entries, field, planes, pairs, radius, dilation, to_image)
        scale *= 2 / math.prod(2 * r + 1 for r in radius)
        run(collect_columns, batch * height, entries, field, dilation, scale, to_image)
    return (
        (loss.sum() / entries).to(field.dtype),
        to_others.view(others.shape if for_others else 0),
        to_image.view(image.shape if for_image else 0),
    )


def _as_volume(
    image: Tensor, radius: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """An image as (B, Z, Y, X), where one in 2-D has one row, and radius and dilation along z, y, x."""
    planes = as_planes(image).flatten(0, 1)
    if image.ndim == 4:
        radius, dilation = (radius[0], 0, radius[1]), (dilation[0], 0, dilation[1])
    return planes, tuple(radius), tuple(dilation)


def _distances(
    planes: Tensor, pairs: np.ndarray, radius: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The field of D, and the mean of V over each image."""
    batch, depth, height, width = planes.shape
    field = planes.new_empty(batch, depth, height, len(pairs) * width)
    totals = torch.empty(batch, height, dtype=torch.float64)
    run(sum_planes, batch * depth, field.numel(), planes, pairs, radius, dilation, field)
    run(subtract_minimum, batch * height, field.numel(), field, len(pairs), radius, totals.view(-1))
    return field, (totals.sum(1) / field[0].numel()).to(field.dtype)


def _smallest(field: Tensor) -> float:
    """Of V: its square, which the gradient divides by, must not underflow to 0."""
    return torch.finfo(field.dtype).tiny ** 0.5
