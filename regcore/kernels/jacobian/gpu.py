"""Central Jacobian determinants, and the counts of a digital diffeomorphism without storing its ten determinants.

The counts depend on signs in float64.  But if all float32 determinants are further above zero than rounding errors,
they are positive in float64 too.  In most blocks of a smooth map there are no others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import arithmetic, volume, where_am_i

#: Rows, and voxels along a row, of a counting program; one voxel per thread.
FOLDS_BLOCK = (2, 32)
#: Float32 determinants of edges up to m voxels long have at most this error, times (m + 1)³.  With u = 2⁻²⁴, an edge
#: has an error of u (2 m + 1), which changes the six products by 18 m² of that; their rounding adds 30 u m³: 66 u in
#: all.
ROUNDING = tl.constexpr(2.0**-17)


@triton.jit
def cross(b, c, first: tl.constexpr, second: tl.constexpr, EXACT: tl.constexpr):
    if EXACT:
        return b[first] * c[second] - b[second] * c[first]
    return tl.fma(b[first], c[second], -b[second] * c[first])


@triton.jit
def triple(a, b, c, EXACT: tl.constexpr):
    """Determinant of the rows a, b, c; ``EXACT``: each product is rounded, so that equal products cancel."""
    x, y, z = cross(b, c, 1, 2, EXACT), cross(b, c, 0, 2, EXACT), cross(b, c, 0, 1, EXACT)
    if EXACT:
        return a[0] * x - a[1] * y + a[2] * z
    return tl.fma(a[2], z, tl.fma(-a[1], y, a[0] * x))


@triton.jit
def slope(field, low, high, scale, TYPE: tl.constexpr):
    """Difference of ``field`` between two places, times ``scale``."""
    return scale * (tl.load(field + high).to(TYPE) - tl.load(field + low).to(TYPE))


@triton.jit
def sides(i, size, stride, TYPE: tl.constexpr):
    """Offsets of both neighbours along an axis (at a border, the voxel itself), and one over their distance."""
    low = tl.where(i > 0, -stride, 0)
    high = tl.where(i < size - 1, stride, 0)
    return low, high, tl.where((i > 0) & (i < size - 1), 0.5, 1.0).to(TYPE)


@triton.jit
def determinant_kernel(
    field, out, depth, height, width,
    AXES: tl.constexpr, TYPE: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` (B, Z, Y, X) = determinant of the slopes of p + ``field`` (B, AXES, Z, Y, X)."""
    b, z, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    y, x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)  # so that no load needs a mask
    voxels = depth * height * width
    place = (z * height + y) * width + x
    z_low, z_high, by_z = sides(z, depth, height * width, TYPE)
    x_low, x_high, by_x = sides(x, width, 1, TYPE)
    first = field + b * AXES * voxels + place
    last = first + (AXES - 1) * voxels
    zz = 1 + slope(first, z_low, z_high, by_z, TYPE)
    zx = slope(first, x_low, x_high, by_x, TYPE)
    xz = slope(last, z_low, z_high, by_z, TYPE)
    xx = 1 + slope(last, x_low, x_high, by_x, TYPE)
    if AXES == 3:
        y_low, y_high, by_y = sides(y, height, width, TYPE)
        middle = first + voxels
        zy = slope(first, y_low, y_high, by_y, TYPE)
        yz = slope(middle, z_low, z_high, by_z, TYPE)
        yy = 1 + slope(middle, y_low, y_high, by_y, TYPE)
        yx = slope(middle, x_low, x_high, by_x, TYPE)
        xy = slope(last, y_low, y_high, by_y, TYPE)
        found = triple((zz, zy, zx), (yz, yy, yx), (xz, xy, xx), False)
    else:
        found = zz * xx - zx * xz
    tl.store(out + b * voxels + place, found, mask)


@triton.jit
def displacement_at(field, voxels, mask, TYPE: tl.constexpr):
    return (
        tl.load(field, mask, 0).to(TYPE),
        tl.load(field + voxels, mask, 0).to(TYPE),
        tl.load(field + 2 * voxels, mask, 0).to(TYPE),
    )


@triton.jit
def edge(here, there, z: tl.constexpr, y: tl.constexpr, x: tl.constexpr):
    """φ(p + offset) - φ(p)."""
    return there[0] - here[0] + z, there[1] - here[1] + y, there[2] - here[2] + x


@triton.jit
def half(ahead, behind, z: tl.constexpr, y: tl.constexpr, x: tl.constexpr):
    """Central differences of φ along one axis, the one that is 1."""
    return 0.5 * (ahead[0] - behind[0]) + z, 0.5 * (ahead[1] - behind[1]) + y, 0.5 * (ahead[2] - behind[2]) + x


@triton.jit
def longest(a, b, c):
    return tl.maximum(tl.maximum(largest(a), largest(b)), largest(c))


@triton.jit
def largest(a):
    return tl.maximum(tl.maximum(tl.abs(a[0]), tl.abs(a[1])), tl.abs(a[2]))


@triton.jit
def eleven(field, deep, width, voxels, mask, TYPE: tl.constexpr, EXACT: tl.constexpr):
    """The central determinant at ``field``, the ten of its simplices, and the largest component of an edge."""
    here = displacement_at(field, voxels, mask, TYPE)
    z_behind = displacement_at(field - deep, voxels, mask, TYPE)
    z_ahead = displacement_at(field + deep, voxels, mask, TYPE)
    y_behind = displacement_at(field - width, voxels, mask, TYPE)
    y_ahead = displacement_at(field + width, voxels, mask, TYPE)
    x_behind = displacement_at(field - 1, voxels, mask, TYPE)
    x_ahead = displacement_at(field + 1, voxels, mask, TYPE)
    along_z, along_y = half(z_ahead, z_behind, 1, 0, 0), half(y_ahead, y_behind, 0, 1, 0)
    central = triple(along_z, along_y, half(x_ahead, x_behind, 0, 0, 1), EXACT)
    z0, z1 = edge(here, z_behind, -1, 0, 0), edge(here, z_ahead, 1, 0, 0)
    y0, y1 = edge(here, y_behind, 0, -1, 0), edge(here, y_ahead, 0, 1, 0)
    x0, x1 = edge(here, x_behind, 0, 0, -1), edge(here, x_ahead, 0, 0, 1)
    # Diagonal neighbours: behind or ahead along two axes.
    a0 = edge(here, displacement_at(field - deep - width, voxels, mask, TYPE), -1, -1, 0)
    b0 = edge(here, displacement_at(field - deep - 1, voxels, mask, TYPE), -1, 0, -1)
    c0 = edge(here, displacement_at(field - width - 1, voxels, mask, TYPE), 0, -1, -1)
    a1 = edge(here, displacement_at(field + deep + width, voxels, mask, TYPE), 1, 1, 0)
    b1 = edge(here, displacement_at(field + deep + 1, voxels, mask, TYPE), 1, 0, 1)
    c1 = edge(here, displacement_at(field + width + 1, voxels, mask, TYPE), 0, 1, 1)
    faces = tl.maximum(longest(z0, y0, x0), longest(z1, y1, x1))
    length = tl.maximum(faces, tl.maximum(longest(a0, b0, c0), longest(a1, b1, c1)))
    # The sign that makes all determinants positive for the identity.
    return (
        central,
        triple(z1, y1, x1, EXACT), -triple(z1, y1, x0, EXACT), -triple(z1, y0, x1, EXACT), triple(z1, y0, x0, EXACT),
        -triple(z0, y1, x1, EXACT), triple(z0, y1, x0, EXACT), triple(z0, y0, x1, EXACT), -triple(z0, y0, x0, EXACT),
        triple(a0, b0, c0, EXACT), -triple(a1, b1, c1, EXACT),
        length,
    )  # fmt: skip


@triton.jit
def all_above_zero(field, deep, width, voxels, mask):
    """Where all determinants are certainly positive: not where float32 cannot tell, or where one is NaN."""
    c, d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, length = eleven(field, deep, width, voxels, mask, tl.float32, False)
    least = (length + 1) * (length + 1) * (length + 1) * ROUNDING
    above = (c > least) & (d0 > least) & (d1 > least) & (d2 > least) & (d3 > least) & (d4 > least)
    return above & (d5 > least) & (d6 > least) & (d7 > least) & (d8 > least) & (d9 > least)


@triton.jit
def folds_kernel(
    field, mask, counts, depth, height, width,
    QUICK: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Store the five counts of each program's voxels: ``counts`` (planes, programs of a plane, 5), zero before."""
    _b, z, y, x, exists = where_am_i(height - 2, width - 2, BLOCK_Y, BLOCK_X)
    deep = height * width
    voxels = depth * deep
    place = (z + 1) * deep + (y + 1) * width + x + 1
    chosen = exists & (tl.load(mask + place, exists, 0) != 0)
    number = tl.sum(chosen.to(tl.int32))
    if number > 0:
        counts += (z * tl.num_programs(0) + tl.program_id(0)) * 5
        tl.store(counts, number.to(tl.float64))
        doubtful = number
        if QUICK:
            doubtful = tl.sum((chosen & (all_above_zero(field + place, deep, width, voxels, chosen) == 0)).to(tl.int32))
        if doubtful > 0:
            c, d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, _length = eleven(
                field + place, deep, width, voxels, chosen, tl.float64, True
            )
            folded = (d0 <= 0).to(tl.int32) + (d1 <= 0).to(tl.int32) + (d2 <= 0).to(tl.int32)
            folded += (d3 <= 0).to(tl.int32) + (d4 <= 0).to(tl.int32) + (d5 <= 0).to(tl.int32)
            folded += (d6 <= 0).to(tl.int32) + (d7 <= 0).to(tl.int32) + (d8 <= 0).to(tl.int32)
            folded += (d9 <= 0).to(tl.int32)
            folded = tl.where(chosen, folded, 0)
            volume = inside_out(d0) + inside_out(d1) + inside_out(d2) + inside_out(d3) + inside_out(d4)
            volume += inside_out(d5) + inside_out(d6) + inside_out(d7) + inside_out(d8) + inside_out(d9)
            tl.store(counts + 1, tl.sum((chosen & (c <= 0)).to(tl.int32)).to(tl.float64))
            tl.store(counts + 2, tl.sum((folded > 0).to(tl.int32)).to(tl.float64))
            tl.store(counts + 3, tl.sum(folded).to(tl.float64))
            tl.store(counts + 4, tl.sum(tl.where(chosen, volume, 0.0)) / 12)


@triton.jit
def inside_out(determinant):
    """Values below zero, or NaN."""
    return tl.where(determinant > 0, 0.0, -determinant)


def determinant(displacement: Tensor) -> Tensor:
    """Central Jacobian determinants of (B, D, *space) → (B, *space)."""
    displacement = displacement.contiguous()
    grid = volume(displacement)
    out = displacement.new_empty(displacement.shape[:1] + displacement.shape[2:])
    determinant_kernel[grid.grid](
        displacement, out, *grid.space, AXES=grid.channels, TYPE=arithmetic(displacement), **grid.block
    )
    return out


def digital_folds(displacement: Tensor, mask: Tensor) -> Tensor:
    """The five counts, float64 (5,), of one displacement (1, 3, *space) over the inner voxels of ``mask`` (*space)."""
    displacement, mask = displacement.contiguous(), mask.contiguous().view(torch.uint8)
    depth, height, width = mask.shape
    rows, columns = FOLDS_BLOCK
    across = triton.cdiv(height - 2, rows) * triton.cdiv(width - 2, columns)
    counts = torch.zeros(depth - 2, across, 5, dtype=torch.float64, device=displacement.device)
    # Products are not fused with sums: equal products must cancel, as in the reference.
    folds_kernel[across, depth - 2, 1](
        displacement, mask, counts, depth, height, width, QUICK=displacement.dtype == torch.float32,
        BLOCK_Y=rows, BLOCK_X=columns, num_warps=rows * columns // 32, enable_fp_fusion=False,
    )  # fmt: skip
    return counts.sum((0, 1))
