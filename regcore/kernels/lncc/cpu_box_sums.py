"""Running sums over a box in Numba, for :mod:`regcore.kernels.lncc.cpu`.

A sum over the planes of a box moves on by one plane: it adds the one that enters and subtracts the one that leaves.
From these sums, one over rows moves on by one row, and from those, one along the row by a voxel.
"""

from regcore.kernels.launch import jit

# A loop over a row writes to one array and reads few: with more arrays the compiler can no longer tell them apart and
# does not vectorise.


@jit
def read_row(image, z, y, mean, out):
    """``out`` = row (z, y) of the image minus ``mean``; zero if the plane is outside the image."""
    if 0 <= z < image.shape[0]:
        row = image[z, y]
        for x in range(row.size):
            out[x] = row[x] - mean
    else:
        out[:] = 0


@jit
def add_difference(total, plus, minus):
    for x in range(plus.size):
        total[x] += plus[x] - minus[x]


@jit
def add_products(total, plus_a, plus_b, minus_a, minus_b):
    for x in range(plus_a.size):
        total[x] += plus_a[x] * plus_b[x] - minus_a[x] * minus_b[x]


@jit
def slide_planes(sums, fixed, moving, mean_fixed, mean_moving, top, left, enter, leave, work):
    """Add plane ``enter`` to the sums of I, J, I², J², I J over planes, and subtract plane ``leave``.

    ``sums`` (5, rows, width + window - 1) starts at row ``top`` of the images, ``left`` columns early.
    Planes outside the images are zero.
    """
    plus_i, plus_j, minus_i, minus_j = work[0], work[1], work[2], work[3]
    for row in range(max(0, -top), min(sums.shape[1], fixed.shape[1] - top)):
        read_row(fixed, enter, top + row, mean_fixed, plus_i)
        read_row(moving, enter, top + row, mean_moving, plus_j)
        read_row(fixed, leave, top + row, mean_fixed, minus_i)
        read_row(moving, leave, top + row, mean_moving, minus_j)
        add_difference(sums[0, row, left:], plus_i, minus_i)
        add_difference(sums[1, row, left:], plus_j, minus_j)
        add_products(sums[2, row, left:], plus_i, plus_i, minus_i, minus_i)
        add_products(sums[3, row, left:], plus_j, plus_j, minus_j, minus_j)
        add_products(sums[4, row, left:], plus_i, plus_j, minus_i, minus_j)


@jit
def slide_rows(sums, planes, enter, leave):
    """Add row ``enter`` of the sums over planes to the sums over rows, and subtract row ``leave`` (-1 for none)."""
    for field in range(sums.shape[0]):
        total, plus = sums[field], planes[field, enter]
        if leave < 0:
            for x in range(total.size):
                total[x] += plus[x]
        else:
            minus = planes[field, leave]
            for x in range(total.size):
                total[x] += plus[x] - minus[x]


@jit
def slide_along(rows, field, window, sums):
    """``sums``[x] = Σ of ``rows``[x ... x + window - 1], of three fields at once, to hide the latency of additions."""
    a, b, c = rows[field], rows[field + 1], rows[field + 2]
    out_a, out_b, out_c = sums[field], sums[field + 1], sums[field + 2]
    sum_a, sum_b, sum_c = 0.0, 0.0, 0.0
    for x in range(window):
        sum_a += a[x]
        sum_b += b[x]
        sum_c += c[x]
    out_a[0], out_b[0], out_c[0] = sum_a, sum_b, sum_c
    for x in range(1, sums.shape[1]):
        ahead = x + window - 1
        sum_a += a[ahead] - a[x - 1]
        sum_b += b[ahead] - b[x - 1]
        sum_c += c[ahead] - c[x - 1]
        out_a[x], out_b[x], out_c[x] = sum_a, sum_b, sum_c


@jit
def inside_count(position, size, window):
    """Number of voxels along one axis of the box around ``position`` that are inside the image."""
    return min(size - 1, position + window // 2) - max(0, position - (window - 1) // 2) + 1


@jit
def slide_field_planes(sums, field, top, left, enter, leave):
    """:func:`slide_planes` for one ready field, (Z, Y, X)."""
    depth, height, width = field.shape
    for row in range(max(0, -top), min(sums.shape[0], height - top)):
        target = sums[row, left:]
        if 0 <= enter < depth and 0 <= leave < depth:
            plus, minus = field[enter, top + row], field[leave, top + row]
            for x in range(width):
                target[x] += plus[x]
                target[x] -= minus[x]
        elif 0 <= enter < depth:
            plus = field[enter, top + row]
            for x in range(width):
                target[x] += plus[x]
        elif 0 <= leave < depth:
            minus = field[leave, top + row]
            for x in range(width):
                target[x] -= minus[x]
