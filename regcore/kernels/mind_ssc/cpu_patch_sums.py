"""Sums over a patch of squared differences between shifted images, and their adjoint, in Numba.

Images are (B, Z, Y, X), fields (B, Z, Y, C · X): the rows of all pairs of neighbours, one after the other.  Patches are
summed one axis at a time, each sum from its own terms and not by a running sum: what cancels in a running sum at a
bright edge remains in the dark next to it, and patches that are alike would not have equal sums.  Terms are added from
the middle outwards, so that a mirrored patch has the same sum.
"""

import numpy as np

from regcore.kernels.launch import jit


@jit
def shift_row(row, offset, out):
    """``out``[x] = row[x + offset], the end repeated."""
    width = row.size
    inside = max(width - abs(offset), 0)
    if offset < 0:
        for x in range(width - inside):
            out[x] = row[0]
        target = out[width - inside :]
        for x in range(inside):
            target[x] = row[x]
    else:
        source = row[width - inside :]
        for x in range(inside):
            out[x] = source[x]
        for x in range(inside, width):
            out[x] = row[width - 1]


@jit
def unshift_row(row, offset, out):
    """Add the adjoint of :func:`shift_row` to ``out``."""
    width = row.size
    inside = max(width - abs(offset), 0)
    if offset < 0:
        for x in range(width - inside):
            out[0] += row[x]
        source = row[width - inside :]
        for x in range(inside):
            out[x] += source[x]
    else:
        target = out[width - inside :]
        for x in range(inside):
            target[x] += row[x]
        for x in range(inside, width):
            out[width - 1] += row[x]


@jit
def read_neighbours(image, z, y, dilation, out):
    """``out`` (6, X): row (z, y) seen from −z, +z, −y, +y, −x, +x, the edge of the image repeated."""
    depth, height = image.shape[:2]
    low_z, high_z = image[max(z - dilation[0], 0), y], image[min(z + dilation[0], depth - 1), y]
    low_y, high_y = image[z, max(y - dilation[1], 0)], image[z, min(y + dilation[1], height - 1)]
    shift_row(low_z, np.int64(0), out[0])
    shift_row(high_z, np.int64(0), out[1])
    shift_row(low_y, np.int64(0), out[2])
    shift_row(high_y, np.int64(0), out[3])
    shift_row(image[z, y], -dilation[2], out[4])
    shift_row(image[z, y], dilation[2], out[5])


@jit
def add_pair(total, first, second):
    for x in range(total.size):
        total[x] += first[x] + second[x]


@jit
def add_row(total, row):
    for x in range(total.size):
        total[x] += row[x]


@jit
def copy_row(row, out):
    for x in range(out.size):
        out[x] = row[x]


@jit
def box_along(padded, radius, out):
    """``out``[x] = Σ of ``padded``[x ... x + 2 radius]."""
    copy_row(padded[radius:], out)
    for step in range(1, radius + 1):
        add_pair(out, padded[radius - step :], padded[radius + step :])


@jit
def box_along_adjoint(padded, radius, out):
    """The adjoint of :func:`box_along` with repeated ends, of a row padded by zeros."""
    box_along(padded, radius, out)
    row = padded[radius:]
    for x in range(min(radius, out.size)):
        out[0] += (radius - x) * row[x]
        out[out.size - 1] += (radius - x) * row[out.size - 1 - x]


@jit
def box_across(ring, at, radius, size, out):
    """``out`` = Σ of the rows ``at`` - radius ... ``at`` + radius of ``size``, the first and last repeated.

    Row i is ``ring``[i % (2 radius + 1)].
    """
    taps = 2 * radius + 1
    copy_row(ring[at % taps], out)
    for step in range(1, radius + 1):
        add_pair(out, ring[max(at - step, 0) % taps], ring[min(at + step, size - 1) % taps])


@jit
def add_multiple(total, factor, row):
    for x in range(total.size):
        total[x] += factor * row[x]


@jit
def box_across_adjoint(ring, at, radius, size, out):
    """The adjoint of :func:`box_across`."""
    taps = 2 * radius + 1
    copy_row(ring[at % taps], out)
    for step in range(1, radius + 1):
        if at - step >= 0 and at + step < size:
            add_pair(out, ring[(at - step) % taps], ring[(at + step) % taps])
        elif at - step >= 0:
            add_row(out, ring[(at - step) % taps])
        elif at + step < size:
            add_row(out, ring[(at + step) % taps])
    for i in range(min(radius, size)):
        more = out.dtype.type(radius - i)
        if at == 0:
            add_multiple(out, more, ring[i % taps])
        if at == size - 1:
            add_multiple(out, more, ring[(size - 1 - i) % taps])


@jit
def square_differences(first, second, radius, padded):
    """(first − second)², with ``radius`` copies of each end on its side."""
    width = first.size
    inner = padded[radius:]
    for x in range(width):
        inner[x] = (first[x] - second[x]) * (first[x] - second[x])
    for x in range(radius):
        padded[x] = inner[0]
        inner[width + x] = inner[width - 1]


@jit
def sum_planes(start, stop, image, pairs, radius, dilation, sums):
    """``sums``: squared differences of ``pairs`` (C, 2) of neighbours, summed over y and x."""
    depth, height, width = image.shape[1:]
    channels, taps = pairs.shape[0], 2 * radius[1] + 1
    neighbours = np.empty((6, width), image.dtype)
    padded = np.empty(width + 2 * radius[2], image.dtype)
    ring = np.empty((taps, channels * width), image.dtype)
    for item in range(start, stop):
        b, z, ready = item // depth, item % depth, 0
        for y in range(height):
            while ready < min(y + radius[1] + 1, height):
                read_neighbours(image[b], z, ready, dilation, neighbours)
                for c in range(channels):
                    square_differences(neighbours[pairs[c, 0]], neighbours[pairs[c, 1]], radius[2], padded)
                    box_along(padded, radius[2], ring[ready % taps, c * width : (c + 1) * width])
                ready += 1
            box_across(ring, y, radius[1], height, sums[b, z, y])


@jit
def add_product(total, values, first, second):
    for x in range(total.size):
        total[x] += values[x] * (first[x] - second[x])


@jit
def collect_planes(start, stop, adjoints, image, pairs, radius, dilation, gradient):
    """The adjoint of :func:`sum_planes`, without the factor 2: ``gradient`` of all terms but those of neighbours
    along z, which replace the first two channels of ``adjoints``."""
    depth, height, width = image.shape[1:]
    channels, taps = pairs.shape[0], 2 * radius[1] + 1
    neighbours = np.empty((6, width), image.dtype)
    pulls = np.empty((6, width), image.dtype)
    padded = np.zeros(width + 2 * radius[2], image.dtype)
    ring = np.empty((taps, channels * width), image.dtype)
    row = np.empty(channels * width, image.dtype)
    for item in range(start, stop):
        b, z, ready = item // depth, item % depth, 0
        gradient[b, z, :, :] = 0
        for y in range(height):
            while ready < min(y + radius[1] + 1, height):
                for c in range(channels):
                    copy_row(adjoints[b, z, ready, c * width : (c + 1) * width], padded[radius[2] : radius[2] + width])
                    box_along_adjoint(padded, radius[2], ring[ready % taps, c * width : (c + 1) * width])
                ready += 1
            box_across_adjoint(ring, y, radius[1], height, row)
            read_neighbours(image[b], z, y, dilation, neighbours)
            pulls[:] = 0
            for c in range(channels):
                values = row[c * width : (c + 1) * width]
                first, second = neighbours[pairs[c, 0]], neighbours[pairs[c, 1]]
                add_product(pulls[pairs[c, 0]], values, first, second)
                add_product(pulls[pairs[c, 1]], values, second, first)
            copy_row(pulls[0], adjoints[b, z, y, :width])
            copy_row(pulls[1], adjoints[b, z, y, width : 2 * width])
            add_row(gradient[b, z, max(y - dilation[1], 0)], pulls[2])
            add_row(gradient[b, z, min(y + dilation[1], height - 1)], pulls[3])
            unshift_row(pulls[4], -dilation[2], gradient[b, z, y])
            unshift_row(pulls[5], dilation[2], gradient[b, z, y])


@jit
def collect_columns(start, stop, adjoints, dilation, scale, gradient):
    """Add the terms of neighbours along z to the ``gradient``, and multiply it by ``scale``."""
    depth, height, width = gradient.shape[1:]
    for item in range(start, stop):
        b, y = item // height, item % height
        for z in range(depth):
            row = adjoints[b, z, y]
            add_row(gradient[b, max(z - dilation[0], 0), y], row[:width])
            add_row(gradient[b, min(z + dilation[0], depth - 1), y], row[width:])
        for z in range(depth):
            target = gradient[b, z, y]
            for x in range(width):
                target[x] *= gradient.dtype.type(scale)
