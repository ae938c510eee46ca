"""Linear interpolation at displaced voxels, and its two gradients.

Whether a corner is within the image is part of its weight along each axis, and its index is clamped.  So no corner
needs a mask, which halves the instructions per voxel; these limit the speed as much as memory does.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import arithmetic, volume, where_am_i

#: Bits of the fixed-point sums, in the deterministic mode below, for the largest value that is pushed; the other 24 of
#: the 63 bits are for the sum.
FIXED_POINT_BITS = 38


@triton.jit
def locate(p, size, EDGE: tl.constexpr):
    """The cell of positions ``p`` along an axis, and the weights of its two voxels."""
    margin = 0 if EDGE else 1
    # Comparisons with NaN are false, so NaN gets a cell and is kept in the weights.
    p = tl.where(p < -margin, -margin, p)
    p = tl.where(p > size - 1 + margin, size - 1 + margin, p)
    cell = tl.floor(p)
    cell = tl.where(cell > 0, cell, 0.0)
    cell = tl.where(cell < size - 2, cell, size - 2)
    low = 1 - tl.abs(p - cell)
    high = 1 - tl.abs(p - cell - 1)
    return cell.to(tl.int32), tl.where(low < 0, 0.0, low), tl.where(high < 0, 0.0, high)


@triton.jit
def slopes(p, size, EDGE: tl.constexpr):
    """Derivatives of the two weights of :func:`locate` with respect to the position."""
    margin = 0 if EDGE else 1
    inside = ((p >= -margin) & (p <= size - 1 + margin)).to(p.dtype)
    if EDGE:
        return -inside, inside
    rising = (p < 0).to(p.dtype)  # towards the first voxel, from outside
    falling = (p >= size - 1).to(p.dtype)  # away from the last voxel
    between = 1 - rising - falling
    return inside * (rising - between), inside * (between - falling)


@triton.jit
def positions(shift, b, z, y, x, mask, rows, columns, length, AXES: tl.constexpr, TYPE: tl.constexpr):
    """Positions p + u(p) along Z, Y and X, for ``shift`` (B, AXES, rows, columns, length); Y is 0 in 2-D."""
    voxels = rows * columns * length
    here = shift + b * AXES * voxels + (z * columns + y) * length + x
    pz = z + tl.load(here, mask, 0).to(TYPE)
    px = x + tl.load(here + (AXES - 1) * voxels, mask, 0).to(TYPE)
    py = tl.zeros_like(pz)
    if AXES == 3:
        py = y + tl.load(here + voxels, mask, 0).to(TYPE)
    return pz, py, px


@triton.jit
def cell_of(pz, py, px, depth, height, width, AXES: tl.constexpr, EDGE: tl.constexpr):
    """Index of the cell's first voxel, and the weights (low z, high z, low y, high y, low x, high x)."""
    cz, z0, z1 = locate(pz, depth, EDGE)
    cx, x0, x1 = locate(px, width, EDGE)
    if AXES == 3:
        cy, y0, y1 = locate(py, height, EDGE)
        return (cz * height + cy) * width + cx, z0, z1, y0, y1, x0, x1
    return cz * width + cx, z0, z1, tl.full(z0.shape, 1, z0.dtype), tl.zeros_like(z0), x0, x1


@triton.jit
def corners(values, width, deep, AXES: tl.constexpr, TYPE: tl.constexpr):
    """Values at the eight corners of cells, in the order of their offsets; in 2-D both rows along Y are the same."""
    a = tl.load(values).to(TYPE)
    b = tl.load(values + 1).to(TYPE)
    e = tl.load(values + deep).to(TYPE)
    f = tl.load(values + deep + 1).to(TYPE)
    if AXES == 3:
        c = tl.load(values + width).to(TYPE)
        d = tl.load(values + width + 1).to(TYPE)
        g = tl.load(values + deep + width).to(TYPE)
        h = tl.load(values + deep + width + 1).to(TYPE)
        return a, b, c, d, e, f, g, h
    return a, b, a, b, e, f, e, f


@triton.jit
def blend(a, b, c, d, e, f, g, h, z0, z1, y0, y1, x0, x1):
    near = y0 * (x0 * a + x1 * b) + y1 * (x0 * c + x1 * d)
    far = y0 * (x0 * e + x1 * f) + y1 * (x0 * g + x1 * h)
    return z0 * near + z1 * far


@triton.jit
def forward_kernel(
    image, shift, out, channels, depth, height, width, rows, columns, length,
    AXES: tl.constexpr, EDGE: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` (B, C, rows, columns, length) = ``image`` (B, C, Z, Y, X) at p + ``shift``(p)."""
    b, group, y, x, mask = where_am_i(columns, length, BLOCK_Y, BLOCK_X)
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, rows)):
        pz, py, px = positions(shift, b, z, y, x, mask, rows, columns, length, AXES, TYPE)
        cell, z0, z1, y0, y1, x0, x1 = cell_of(pz, py, px, depth, height, width, AXES, EDGE)
        target = out + b * channels * rows * columns * length + (z * columns + y) * length + x
        values = image + b * channels * depth * height * width + cell
        for _ in range(channels):
            v0, v1, v2, v3, v4, v5, v6, v7 = corners(values, width, height * width, AXES, TYPE)
            tl.store(target, blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, y0, y1, x0, x1), mask)
            values += depth * height * width
            target += rows * columns * length


@triton.jit
def pull_kernel(
    gradient, image, shift, out, channels, depth, height, width, rows, columns, length,
    AXES: tl.constexpr, EDGE: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out`` (B, AXES, rows, columns, length) = Σ_c gradient_c · ∇image_c(p + u): that of the displacement."""
    b, group, y, x, mask = where_am_i(columns, length, BLOCK_Y, BLOCK_X)
    voxels = rows * columns * length
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, rows)):
        pz, py, px = positions(shift, b, z, y, x, mask, rows, columns, length, AXES, TYPE)
        cell, z0, z1, y0, y1, x0, x1 = cell_of(pz, py, px, depth, height, width, AXES, EDGE)
        dz0, dz1 = slopes(pz, depth, EDGE)
        dy0, dy1 = slopes(py, height, EDGE)
        dx0, dx1 = slopes(px, width, EDGE)
        incoming = gradient + b * channels * voxels + (z * columns + y) * length + x
        values = image + b * channels * depth * height * width + cell
        to_z, to_y, to_x = tl.zeros_like(pz), tl.zeros_like(pz), tl.zeros_like(pz)
        for _ in range(channels):
            g = tl.load(incoming, mask, 0).to(TYPE)
            v0, v1, v2, v3, v4, v5, v6, v7 = corners(values, width, height * width, AXES, TYPE)
            to_z += g * blend(v0, v1, v2, v3, v4, v5, v6, v7, dz0, dz1, y0, y1, x0, x1)
            to_x += g * blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, y0, y1, dx0, dx1)
            if AXES == 3:
                to_y += g * blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, dy0, dy1, x0, x1)
            values += depth * height * width
            incoming += voxels
        target = out + b * AXES * voxels + (z * columns + y) * length + x
        tl.store(target, to_z, mask)
        tl.store(target + (AXES - 1) * voxels, to_x, mask)
        if AXES == 3:
            tl.store(target + voxels, to_y, mask)


@triton.jit
def add_at(target, value, scale, mask, FIXED: tl.constexpr):
    """Add atomically to memory, in fixed point if the order of additions must not matter."""
    if FIXED:
        value = (value * scale).to(tl.float64)
        # Rounds half up, because Triton has no rounding to the nearest integer.
        tl.atomic_add(target, tl.floor(value + 0.5).to(tl.int64), mask, sem="relaxed")
    else:
        tl.atomic_add(target, value, mask, sem="relaxed")


@triton.jit
def push_kernel(
    gradient, shift, scale, out, channels, depth, height, width, rows, columns, length,
    AXES: tl.constexpr, EDGE: tl.constexpr, FIXED: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Add to ``out`` (B, C, Z, Y, X) the gradient of the image: what the voxels contribute to the interpolation.

    ``scale`` points to the scale of fixed-point sums, which are multiples of 1 / scale.
    """
    b, group, y, x, mask = where_am_i(columns, length, BLOCK_Y, BLOCK_X)
    factor = tl.load(scale) if FIXED else 1.0
    deep = height * width
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, rows)):
        pz, py, px = positions(shift, b, z, y, x, mask, rows, columns, length, AXES, TYPE)
        cell, z0, z1, y0, y1, x0, x1 = cell_of(pz, py, px, depth, height, width, AXES, EDGE)
        incoming = gradient + b * channels * rows * columns * length + (z * columns + y) * length + x
        target = out + b * channels * depth * height * width + cell
        for _ in range(channels):
            g = tl.load(incoming, mask, 0).to(TYPE)
            near, far = g * z0, g * z1
            add_at(target, near * y0 * x0, factor, mask, FIXED)
            add_at(target + 1, near * y0 * x1, factor, mask, FIXED)
            add_at(target + deep, far * y0 * x0, factor, mask, FIXED)
            add_at(target + deep + 1, far * y0 * x1, factor, mask, FIXED)
            if AXES == 3:
                add_at(target + width, near * y1 * x0, factor, mask, FIXED)
                add_at(target + width + 1, near * y1 * x1, factor, mask, FIXED)
                add_at(target + deep + width, far * y1 * x0, factor, mask, FIXED)
                add_at(target + deep + width + 1, far * y1 * x1, factor, mask, FIXED)
            target += depth * height * width
            incoming += rows * columns * length


def forward(image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """``image`` (B, C, *moving) at p + u(p) → (B, C, *fixed), in the image's type."""
    image, displacement = image.contiguous(), displacement.contiguous()
    out = image.new_empty(image.shape[:2] + displacement.shape[2:])
    fixed = volume(out)
    forward_kernel[fixed.gathers](
        image, displacement, out, fixed.channels, *volume(image).space, *fixed.space,
        **constants(displacement, edge), **fixed.gather,
    )  # fmt: skip
    return out


def pull(gradient: Tensor, image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """Gradient with respect to the displacement, in its shape and type."""
    gradient, image, displacement = gradient.contiguous(), image.contiguous(), displacement.contiguous()
    out = torch.empty_like(displacement)
    fixed = volume(gradient)
    pull_kernel[fixed.gathers](
        gradient, image, displacement, out, fixed.channels, *volume(image).space, *fixed.space,
        **constants(displacement, edge), **fixed.gather,
    )  # fmt: skip
    return out


def push(gradient: Tensor, image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """Gradient with respect to ``image``, in its shape and type.

    Sums are float atomics, in no fixed order. If torch is asked for deterministic algorithms, they are in fixed point:
    the same bits every time, to about 2⁻³⁸ of the largest value.
    """
    gradient, displacement = gradient.contiguous(), displacement.contiguous()
    fixed = volume(gradient)
    deterministic = torch.are_deterministic_algorithms_enabled()
    summed = displacement.dtype
    out = torch.zeros(image.shape, dtype=torch.int64 if deterministic else summed, device=image.device)
    scale = fixed_point_scale(gradient) if deterministic else displacement
    push_kernel[fixed.gathers](
        gradient, displacement, scale, out, fixed.channels, *volume(image).space, *fixed.space,
        **constants(displacement, edge), FIXED=deterministic, **fixed.gather,
    )  # fmt: skip
    return from_fixed_point(out, scale).to(image.dtype) if deterministic else out.to(image.dtype)


def constants(displacement: Tensor, edge: bool) -> dict:
    return {"AXES": displacement.shape[1], "EDGE": edge, "TYPE": arithmetic(displacement)}


def fixed_point_scale(values: Tensor) -> Tensor:
    """The power of two that brings the largest of ``values`` to :data:`FIXED_POINT_BITS` bits, on their device."""
    largest = values.abs().amax().double().clamp(min=torch.finfo(torch.float32).tiny)
    return torch.exp2(FIXED_POINT_BITS - largest.log2().ceil())


def from_fixed_point(sums: Tensor, scale: Tensor) -> Tensor:
    return sums.double() / scale
