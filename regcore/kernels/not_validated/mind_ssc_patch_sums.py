"""Sums over x and y of squared differences between shifted images, for each pair of shifts, and their adjoint.

Pairs are in groups of four, of the axes (z, y), (z, x) and (y, x); in 2-D, where there is no y, only (z, x).  Number
4 group + 2 (sign of the first neighbour) + (sign of the second), a sign counting as 0 or 1.  Outside the image both it
and the squared differences keep the value at the edge.

Sums are computed one axis at a time, each value from its own taps and not by a running sum, whose rounding at a bright
edge would remain in the dark next to it.  Loops march along y; a program has a tile of planes and columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import Volume, arithmetic

#: Planes and columns of a tile.
TILE = {"BLOCK_Z": 8, "BLOCK_X": 32}
#: Rows per program; 2 · radius more are read before the first.
ROWS = 32


@triton.jit
def tile_of(block, depth, width, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr):
    """Planes (BLOCK_Z, 1), columns (1, BLOCK_X) of a tile, and which voxels exist."""
    across = tl.cdiv(width, BLOCK_X)
    z = (block // across) * BLOCK_Z + tl.arange(0, BLOCK_Z)[:, None]
    x = (block % across) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    return z, x, (z < depth) & (x < width)


@triton.jit
def clamped(index, size):
    return tl.minimum(tl.maximum(index, 0), size - 1)


@triton.jit
def appended(values, value):
    """The tuple ``values`` with one more entry."""
    last = (value,)
    return values + last


@triton.jit
def edge_weight(index, offset, size, RADIUS: tl.constexpr):
    """How often the sum that edges repeat, at ``index + offset``, takes the value at ``index``."""
    there = index + offset
    more = tl.where(index == 0, RADIUS - offset, 0) + tl.where(index == size - 1, RADIUS + offset, 0)
    return tl.where((there >= 0) & (there < size), 1 + more, 0)


@triton.jit
def squared_differences(
    image, z, y, x, group, dilation, depth, height, width, RADIUS: tl.constexpr, TYPE: tl.constexpr
):
    """Sums over x of the squared differences of the four pairs of a group, at planes ``z`` of row ``y``."""
    y = clamped(y, height)
    first_z = tl.where(group < 2, dilation, 0)
    first_y = dilation - first_z
    second_y = tl.where(group == 0, dilation, 0)
    second_x = dilation - second_y
    a0 = image + (clamped(z - first_z, depth) * height + clamped(y - first_y, height)) * width
    a1 = image + (clamped(z + first_z, depth) * height + clamped(y + first_y, height)) * width
    b0 = image + (z * height + clamped(y - second_y, height)) * width
    b1 = image + (z * height + clamped(y + second_y, height)) * width
    s00 = tl.zeros((z.shape[0], x.shape[1]), TYPE)
    s01, s10, s11 = s00, s00, s00
    for offset in tl.static_range(-RADIUS, RADIUS + 1):
        q = clamped(x + offset, width)
        low, high = tl.load(a0 + q).to(TYPE), tl.load(a1 + q).to(TYPE)
        left = tl.load(b0 + clamped(q - second_x, width)).to(TYPE)
        right = tl.load(b1 + clamped(q + second_x, width)).to(TYPE)
        s00 += (low - left) * (low - left)
        s01 += (low - right) * (low - right)
        s10 += (high - left) * (high - left)
        s11 += (high - right) * (high - right)
    return s00, s01, s10, s11


@triton.jit
def difference_sums_kernel(
    image, out, dilation, depth, height, width,
    GROUPS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` (B, 4 · GROUPS, Z, Y, X): sums over x and y of the squared differences of ``image`` (B, 1, Z, Y, X)."""
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    b, group = tl.program_id(2) // GROUPS, tl.program_id(2) % GROUPS
    voxels = depth * height * width
    image += b * voxels
    out += (b * GROUPS + group) * 4 * voxels
    group += 0 if GROUPS == 3 else 1
    plane = clamped(z, depth)
    start = tl.program_id(1) * ROWS
    place = (z * height + start) * width + x
    ring = ()
    for offset in tl.static_range(-RADIUS, RADIUS):
        ring = ring + squared_differences(
            image, plane, start + offset, x, group, dilation, depth, height, width, RADIUS, TYPE
        )
    for y in range(start, tl.minimum(start + ROWS, height)):
        ring = ring + squared_differences(
            image, plane, y + RADIUS, x, group, dilation, depth, height, width, RADIUS, TYPE
        )
        for pair in tl.static_range(4):
            total = ring[pair]
            for row in tl.static_range(1, 2 * RADIUS + 1):
                total += ring[4 * row + pair]
            tl.store(out + pair * voxels + place, total, mask)
        ring = ring[4:]
        place += width


@triton.jit
def row_adjoint(values, place, y, x, height, width, RADIUS: tl.constexpr, TYPE: tl.constexpr):
    """The adjoint of the sums over x at row ``y``, zero where there is none."""
    place += clamped(y, height) * width
    total = tl.zeros((place.shape[0], x.shape[1]), TYPE)
    for offset in tl.static_range(-RADIUS, RADIUS + 1):
        weight = edge_weight(x, offset, width, RADIUS).to(TYPE)
        total += weight * tl.load(values + place + clamped(x + offset, width))
    return tl.where((y >= 0) & (y < height), total, 0.0)


@triton.jit
def rows_adjoint_kernel(
    values, out, depth, height, width,
    RADIUS: tl.constexpr, TYPE: tl.constexpr, ROWS: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out``: the adjoint of the sums over y and x, of ``values`` (B · channels, Z, Y, X)."""
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    values += tl.program_id(2) * depth * height * width
    out += tl.program_id(2) * depth * height * width
    place = clamped(z, depth) * height * width
    start = tl.program_id(1) * ROWS
    target = (z * height + start) * width + x
    ring = ()
    for offset in tl.static_range(-RADIUS, RADIUS):
        ring = appended(ring, row_adjoint(values, place, start + offset, x, height, width, RADIUS, TYPE))
    for y in range(start, tl.minimum(start + ROWS, height)):
        ring = appended(ring, row_adjoint(values, place, y + RADIUS, x, height, width, RADIUS, TYPE))
        total = tl.zeros((BLOCK_Z, BLOCK_X), TYPE)
        for row in tl.static_range(2 * RADIUS + 1):
            # Rows that do not exist are zero.
            more = tl.where(y == 0, 2 * RADIUS - row, 0) + tl.where(y == height - 1, row, 0)
            total += (1 + more).to(TYPE) * ring[row]
        tl.store(out + target, total, mask)
        ring = ring[1:]
        target += width


@triton.jit
def from_pair(adjoints, image, centre, valid, low_channel, high_channel, place, low, high, voxels, TYPE: tl.constexpr):
    """The terms of two pairs at ``place`` that share one neighbour and have the others at ``low`` and ``high``."""
    low_value, high_value = tl.load(image + low).to(TYPE), tl.load(image + high).to(TYPE)
    found = tl.load(adjoints + low_channel * voxels + place, valid, 0) * (centre - low_value)
    return found + tl.load(adjoints + high_channel * voxels + place, valid, 0) * (centre - high_value)


@triton.jit
def from_direction(
    adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, steps,
    AXIS: tl.constexpr, SIGN: tl.constexpr, GROUPS: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The gradient from all differences in which this voxel is the neighbour on side ``SIGN`` (0 or 1) along ``AXIS``.

    A voxel at the edge is that neighbour to ``dilation`` more voxels, which takes ``steps`` additional steps.
    """
    voxels = depth * height * width
    total = tl.zeros_like(centre)
    towards = 1 - 2 * SIGN  # from the neighbour back to the middle
    # Of the two pairs with neighbours along z, y or x, the number of the first, and how far on the second is.
    OF_Z: tl.constexpr = (4 if AXIS == 2 and GROUPS == 3 else 0) + SIGN
    OF_Y: tl.constexpr = 2 * SIGN if AXIS == 0 else 8 + SIGN
    ALONG: tl.constexpr = 1 if AXIS == 0 else 2
    OF_X: tl.constexpr = (0 if GROUPS == 1 else 4 if AXIS == 0 else 8) + 2 * SIGN
    for step in range(steps):
        qz, qy, qx = z, y, x
        shift = towards * (dilation - step)
        if AXIS == 0:
            qz = z + shift
            valid = (qz >= 0) & (qz < depth) & ((step == 0) | (z == SIGN * (depth - 1)))
        elif AXIS == 1:
            qy = y + shift
            valid = (qy >= 0) & (qy < height) & ((step == 0) | (y == SIGN * (height - 1)))
        else:
            qx = x + shift
            valid = (qx >= 0) & (qx < width) & ((step == 0) | (x == SIGN * (width - 1)))
        valid = mask & valid
        qz, qy, qx = clamped(qz, depth), clamped(qy, height), clamped(qx, width)
        place = (qz * height + qy) * width + qx
        if AXIS != 0:
            low = (clamped(qz - dilation, depth) * height + qy) * width + qx
            high = (clamped(qz + dilation, depth) * height + qy) * width + qx
            total += from_pair(adjoints, image, centre, valid, OF_Z, OF_Z + 2, place, low, high, voxels, TYPE)
        if AXIS != 1 and GROUPS == 3:
            low = (qz * height + clamped(qy - dilation, height)) * width + qx
            high = (qz * height + clamped(qy + dilation, height)) * width + qx
            total += from_pair(adjoints, image, centre, valid, OF_Y, OF_Y + ALONG, place, low, high, voxels, TYPE)
        if AXIS != 2:
            row = (qz * height + qy) * width
            low, high = row + clamped(qx - dilation, width), row + clamped(qx + dilation, width)
            total += from_pair(adjoints, image, centre, valid, OF_X, OF_X + 1, place, low, high, voxels, TYPE)
    return total


@triton.jit
def collect_kernel(
    adjoints, image, out, entries, dilation, depth, height, width,
    GROUPS: tl.constexpr, RADIUS: tl.constexpr, TYPE: tl.constexpr, BLOCK_Z: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out``: gradient of ``image`` (B, 1, Z, Y, X), for that of the ``entries`` squared differences, unscaled."""
    z, x, mask = tile_of(tl.program_id(0), depth, width, BLOCK_Z, BLOCK_X)
    y, b = tl.program_id(1), tl.program_id(2)
    voxels = depth * height * width
    image += b * voxels
    adjoints += b * 4 * GROUPS * voxels
    here = (z * height + y) * width + x
    centre = tl.load(image + here, mask, 0).to(TYPE)
    total = tl.zeros_like(centre)
    for SIGN in tl.static_range(2):
        edge_z, edge_y, edge_x = SIGN * (depth - 1), SIGN * (height - 1), SIGN * (width - 1)
        more_z = 1 + tl.where(tl.sum((z == edge_z).to(tl.int32)) > 0, dilation, 0)
        more_x = 1 + tl.where(tl.sum((x == edge_x).to(tl.int32)) > 0, dilation, 0)
        more_y = 1 + tl.where(y == edge_y, dilation, 0)
        total += from_direction(
            adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, more_z, 0, SIGN, GROUPS, TYPE
        )
        if GROUPS == 3:
            total += from_direction(
                adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, more_y, 1, SIGN, GROUPS, TYPE
            )
        total += from_direction(
            adjoints, image, centre, z, y, x, mask, dilation, depth, height, width, more_x, 2, SIGN, GROUPS, TYPE
        )
    scale = 2.0 / (entries.to(TYPE) * (2 * RADIUS + 1) ** 3)
    tl.store(out + b * voxels + here, total * scale, mask)


def sums_of(image: Tensor, size: Volume, groups: int, radius: int, dilation: int, kind: torch.dtype) -> Tensor:
    """Sums over x and y of the squared differences, (B, 4 · groups, Z, Y, X)."""
    out = torch.empty(size.batch, 4 * groups, *size.space, dtype=kind, device=image.device)
    difference_sums_kernel[tiles(size), triton.cdiv(size.height, ROWS), size.batch * groups](
        image, out, dilation, *size.space, GROUPS=groups, RADIUS=radius, TYPE=arithmetic(out), ROWS=ROWS, **TILE
    )
    return out


def adjoint(
    sums: Tensor, spare: Tensor, image: Tensor, entries: int, dilation: int, size: Volume, groups: int, radius: int
) -> Tensor:
    """Gradient of ``image`` for that of its ``sums``, of ``entries`` in all; ``spare`` is memory of their size."""
    constants = {"RADIUS": radius, "TYPE": arithmetic(sums), **TILE}
    rows_adjoint_kernel[tiles(size), triton.cdiv(size.height, ROWS), size.batch * 4 * groups](
        sums, spare, *size.space, ROWS=ROWS, **constants
    )
    out = torch.empty_like(image)
    collect_kernel[tiles(size), size.height, size.batch](
        spare, image, out, entries, dilation, *size.space, GROUPS=groups, **constants
    )
    return out


def tiles(size: Volume) -> int:
    return triton.cdiv(size.depth, TILE["BLOCK_Z"]) * triton.cdiv(size.width, TILE["BLOCK_X"])
