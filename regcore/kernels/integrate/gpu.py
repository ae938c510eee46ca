"""Scaling and squaring, with one launch per squaring, forward and backward.

Between the steps, a field of three components is interleaved, (B, Z, Y, X, 4): a corner of a cell is one load of 16
bytes (8 if states are stored in 16 bits) instead of three.

A backward step, from the gradient g of u(p) + u(p + u(p)) to that of u, is g + (∇u)ᵀ g at every voxel, plus the
contributions of each voxel to the eight corners of its interpolation.  All of it is added to memory by atomics, so that
positions, weights and g are computed once.  In a smooth field, the cell of the next voxel is nearly always the next
cell.  So a voxel's contributions to corners that both share are passed on: along z from plane to plane, and along x, on
compute capability 9, from thread to thread.  There, the three components are also added in one instruction.  This takes
about three instructions per voxel instead of 27.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.triton_launch import arithmetic, volume, where_am_i
from regcore.kernels.warp.gpu import add_at, cell_of, fixed_point_scale, from_fixed_point, slopes


@triton.jit
def load_vector(place, mask, TYPE: tl.constexpr, MASKED: tl.constexpr):
    """The first three of four adjacent numbers at each of ``place`` (rows, columns)."""
    places = place[:, :, None] + tl.arange(0, 4)[None, None, :]
    numbers = tl.load(places, mask[:, :, None], 0).to(TYPE) if MASKED else tl.load(places).to(TYPE)
    even, odd = tl.split(tl.reshape(numbers, (place.shape[0], place.shape[1], 2, 2)))
    first, third = tl.split(even)
    second, _ = tl.split(odd)
    return first, second, third


@triton.jit
def store_vector(place, first, second, third, mask):
    """Store three numbers and a zero, adjacent, at each of ``place``."""
    numbers = tl.join(tl.join(first, third), tl.join(second, tl.zeros_like(first)))
    places = place[:, :, None] + tl.arange(0, 4)[None, None, :]
    tl.store(places, tl.reshape(numbers, (place.shape[0], place.shape[1], 4)), mask[:, :, None])


@triton.jit
def load_components(
    field, voxel, step, mask, AXES: tl.constexpr, PACKED: tl.constexpr, MASKED: tl.constexpr, TYPE: tl.constexpr
):
    """Components along Z, Y (0 in 2-D) and X of a field, interleaved or with its components ``step`` apart."""
    if PACKED:
        return load_vector(field + 4 * voxel, mask, TYPE, MASKED)
    place = field + voxel
    if MASKED:
        z = tl.load(place, mask, 0).to(TYPE)
        x = tl.load(place + (AXES - 1) * step, mask, 0).to(TYPE)
    else:
        z = tl.load(place).to(TYPE)
        x = tl.load(place + (AXES - 1) * step).to(TYPE)
    y = tl.zeros_like(z)
    if AXES == 3:
        y = tl.load(place + step, mask, 0).to(TYPE) if MASKED else tl.load(place + step).to(TYPE)
    return z, y, x


@triton.jit
def square_kernel(
    field, out, scale, depth, height, width,
    AXES: tl.constexpr, PACKED: tl.constexpr, PACKED_OUT: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out``(p) = u(p) + u(p + u(p)) for the displacement u = ``scale`` · ``field``."""
    b, group, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    voxels = depth * height * width
    field += b * voxels * (4 if PACKED else AXES)
    out += b * voxels * (4 if PACKED_OUT else AXES)
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, depth)):
        here = (z * height + y) * width + x
        uz, uy, ux = load_components(field, here, voxels, mask, AXES, PACKED, True, TYPE)
        uz, uy, ux = scale * uz, scale * uy, scale * ux
        cell, z0, z1, y0, y1, x0, x1 = cell_of(z + uz, y + uy, x + ux, depth, height, width, AXES, True)
        tz, ty, tx = tl.zeros_like(uz), tl.zeros_like(uz), tl.zeros_like(uz)
        for corner in tl.static_range(8):
            if AXES == 3 or corner // 2 % 2 == 0:
                weight = (z1 if corner // 4 else z0) * (y1 if corner // 2 % 2 else y0) * (x1 if corner % 2 else x0)
                there = cell + (corner // 4) * height * width + (corner // 2 % 2) * width + corner % 2
                vz, vy, vx = load_components(field, there, voxels, mask, AXES, PACKED, False, TYPE)
                tz += weight * vz
                ty += weight * vy
                tx += weight * vx
        uz, uy, ux = uz + scale * tz, uy + scale * ty, ux + scale * tx
        if PACKED_OUT:
            store_vector(out + here * 4, uz, uy, ux, mask)
        else:
            tl.store(out + here, uz, mask)
            tl.store(out + here + (AXES - 1) * voxels, ux, mask)
            if AXES == 3:
                tl.store(out + here + voxels, uy, mask)


@triton.jit
def add_vector(target, a, b, c, mask):
    """Add three numbers to three adjacent ones in one instruction (compute capability 9)."""
    tl.inline_asm_elementwise(
        """{
        .reg .pred exists;
        setp.ne.s32 exists, $5, 0;
        @exists red.global.add.v4.f32 [$1], {$2, $3, $4, 0f00000000};
        mov.b32 $0, 0;
        }""",
        "=r,l,f,f,f,r",
        [target.to(tl.int64), a, b, c, mask.to(tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def of_lane_before(value):
    """The value of the thread one lane before in the warp; the first lane gets its own."""
    return tl.inline_asm_elementwise(
        "shfl.sync.up.b32 $0, $1, 1, 0, 0xffffffff;", "=r,r", [value], dtype=value.dtype, is_pure=False, pack=1
    )


@triton.jit
def of_lane_after(value):
    """The value of the thread one lane after in the warp; the last lane gets its own."""
    return tl.inline_asm_elementwise(
        "shfl.sync.down.b32 $0, $1, 1, 31, 0xffffffff;", "=r,r", [value], dtype=value.dtype, is_pure=False, pack=1
    )


@triton.jit
def add_components(
    target, gz, gy, gx, step, factor, mask, AXES: tl.constexpr, VECTOR: tl.constexpr, FIXED: tl.constexpr
):
    """Add a vector to the one at ``target``, with components ``step`` apart."""
    if VECTOR:
        add_vector(target, gz, gy, gx, mask)
    else:
        add_at(target, gz, factor, mask, FIXED)
        add_at(target + (AXES - 1) * step, gx, factor, mask, FIXED)
        if AXES == 3:
            add_at(target + step, gy, factor, mask, FIXED)


@triton.jit
def add_pair(
    target, lz, ly, lx, hz, hy, hx, apart, step, factor, mask, takes, gives,
    AXES: tl.constexpr, VECTOR: tl.constexpr, FIXED: tl.constexpr,
):  # fmt: skip
    """Add two vectors to two neighbouring voxels along a row, ``apart`` from each other in memory.

    A thread that ``takes`` also adds the second vector of the thread before it, because that one's second voxel is
    its first.  A thread that ``gives`` leaves that to the thread after it.
    """
    second = mask
    if VECTOR:
        lz += tl.where(takes, of_lane_before(hz), 0.0)
        ly += tl.where(takes, of_lane_before(hy), 0.0)
        lx += tl.where(takes, of_lane_before(hx), 0.0)
        second = mask & ~gives
    add_components(target, lz, ly, lx, step, factor, mask, AXES, VECTOR, FIXED)
    add_components(target + apart, hz, hy, hx, step, factor, second, AXES, VECTOR, FIXED)


@triton.jit
def and_kept(share, gz, gy, gx, same, kz, ky, kx):
    """``share`` of a vector, plus the stored one if that goes to the ``same`` place."""
    return (
        share * gz + tl.where(same, kz, 0.0),
        share * gy + tl.where(same, ky, 0.0),
        share * gx + tl.where(same, kx, 0.0),
    )


@triton.jit
def neighbours(cell, mask, VECTOR: tl.constexpr):
    """Which threads take from the one before, and which give to the one after; see :func:`add_pair`."""
    if not VECTOR:
        return mask, mask
    known = tl.where(mask, cell, -2)  # a missing cell has no neighbours
    return mask & (of_lane_before(known) == known - 1), mask & (of_lane_after(known) == known + 1)


@triton.jit
def back_kernel(
    gradient, field, fixed_scale, out, scale, share, depth, height, width,
    AXES: tl.constexpr, PACKED_GRADIENT: tl.constexpr, PACKED: tl.constexpr, PACKED_OUT: tl.constexpr,
    VECTOR: tl.constexpr, FIXED: tl.constexpr, TYPE: tl.constexpr,
    PLANES: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Add to ``out`` ``share`` times the gradient with respect to u = ``scale`` · ``field``.

    A voxel's contributions to the far plane of its cell are stored for the program's next plane. There, the voxel in
    the same place mostly has the next cell, and they belong to its near plane.
    """
    b, group, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    voxels, plane = depth * height * width, height * width
    field += b * voxels * (4 if PACKED else AXES)
    gradient += b * voxels * (4 if PACKED_GRADIENT else AXES)
    out += b * voxels * (4 if PACKED_OUT else AXES)
    step, apart = (1, 4) if PACKED_OUT else (voxels, 1)
    factor = tl.load(fixed_scale) if FIXED else 1.0
    zero = tl.full(mask.shape, 0, TYPE)
    # For the previous cell: its place in the next plane, and stored contributions to its corners, by (row, voxel).
    kept = tl.full(mask.shape, -1, tl.int32)
    az, ay, ax, bz, by, bx = zero, zero, zero, zero, zero, zero
    cz, cy, cx, dz, dy, dx = zero, zero, zero, zero, zero, zero
    for z in range(group * PLANES, tl.minimum(group * PLANES + PLANES, depth)):
        here = (z * height + y) * width + x
        uz, uy, ux = load_components(field, here, voxels, mask, AXES, PACKED, True, TYPE)
        gz, gy, gx = load_components(gradient, here, voxels, mask, AXES, PACKED_GRADIENT, True, TYPE)
        gz, gy, gx = share * gz, share * gy, share * gx
        pz, py, px = z + scale * uz, y + scale * uy, x + scale * ux
        cell, z0, z1, y0, y1, x0, x1 = cell_of(pz, py, px, depth, height, width, AXES, True)
        slope_z0, slope_z1 = slopes(pz, depth, True)
        slope_y0, slope_y1 = slopes(py, height, True)
        slope_x0, slope_x1 = slopes(px, width, True)
        own_z, own_y, own_x = gz, gy, gx
        for corner in tl.static_range(8):
            if AXES == 3 or corner // 2 % 2 == 0:
                wz, sz = (z1 if corner // 4 else z0), (slope_z1 if corner // 4 else slope_z0)
                wy, sy = (y1 if corner // 2 % 2 else y0), (slope_y1 if corner // 2 % 2 else slope_y0)
                wx, sx = (x1 if corner % 2 else x0), (slope_x1 if corner % 2 else slope_x0)
                there = cell + (corner // 4) * plane + (corner // 2 % 2) * width + corner % 2
                vz, vy, vx = load_components(field, there, voxels, mask, AXES, PACKED, False, TYPE)
                along = scale * (gz * vz + gy * vy + gx * vx)
                own_z += along * (sz * wy * wx)
                own_x += along * (wz * wy * sx)
                if AXES == 3:
                    own_y += along * (wz * sy * wx)
        add_components(out + here * apart, own_z, own_y, own_x, step, factor, mask, AXES, VECTOR, FIXED)
        # Contributions to another cell than this one go to memory.
        other = mask & (kept >= 0) & (kept != cell)
        target = out + kept * apart
        add_components(target, az, ay, ax, step, factor, other, AXES, VECTOR, FIXED)
        add_components(target + apart, bz, by, bx, step, factor, other, AXES, VECTOR, FIXED)
        if AXES == 3:
            target += width * apart
            add_components(target, cz, cy, cx, step, factor, other, AXES, VECTOR, FIXED)
            add_components(target + apart, dz, dy, dx, step, factor, other, AXES, VECTOR, FIXED)
        same = kept == cell
        takes, gives = neighbours(cell, mask, VECTOR)
        target = out + cell * apart
        lz, ly, lx = and_kept(z0 * y0 * x0, gz, gy, gx, same, az, ay, ax)
        hz, hy, hx = and_kept(z0 * y0 * x1, gz, gy, gx, same, bz, by, bx)
        add_pair(target, lz, ly, lx, hz, hy, hx, apart, step, factor, mask, takes, gives, AXES, VECTOR, FIXED)
        near, far = z1 * y0 * x0, z1 * y0 * x1
        az, ay, ax = near * gz, near * gy, near * gx
        bz, by, bx = far * gz, far * gy, far * gx
        if AXES == 3:
            target += width * apart
            lz, ly, lx = and_kept(z0 * y1 * x0, gz, gy, gx, same, cz, cy, cx)
            hz, hy, hx = and_kept(z0 * y1 * x1, gz, gy, gx, same, dz, dy, dx)
            add_pair(target, lz, ly, lx, hz, hy, hx, apart, step, factor, mask, takes, gives, AXES, VECTOR, FIXED)
            near, far = z1 * y1 * x0, z1 * y1 * x1
            cz, cy, cx = near * gz, near * gy, near * gx
            dz, dy, dx = far * gz, far * gy, far * gx
        kept = cell + plane
    takes, gives = neighbours(kept, mask, VECTOR)
    target = out + kept * apart
    add_pair(target, az, ay, ax, bz, by, bx, apart, step, factor, mask, takes, gives, AXES, VECTOR, FIXED)
    if AXES == 3:
        target += width * apart
        add_pair(target, cz, cy, cx, dz, dy, dx, apart, step, factor, mask, takes, gives, AXES, VECTOR, FIXED)


def square(field: Tensor, out: Tensor, scale: float, sizes) -> Tensor:
    """``out`` = the displacement ``scale`` · ``field`` composed with itself; both planar or interleaved."""
    square_kernel[sizes.gathers](
        field, out, scale, *sizes.space,
        AXES=sizes.channels, PACKED=is_packed(field, sizes), PACKED_OUT=is_packed(out, sizes), TYPE=arithmetic(field),
        **sizes.gather,
    )  # fmt: skip
    return out


def between_steps(velocity: Tensor, stored: torch.dtype) -> Tensor:
    """Memory for a state: interleaved in 3-D."""
    if velocity.shape[1] == 3:
        return velocity.new_empty(velocity.shape[0], *velocity.shape[2:], 4, dtype=stored)
    return torch.empty_like(velocity, dtype=stored)


def is_packed(field: Tensor, sizes) -> bool:
    """Whether a field is interleaved."""
    return sizes.channels == 3 and tuple(field.shape[1:]) == (*sizes.space, 4)


def integrate(velocity: Tensor, steps: int, stored: torch.dtype) -> Tensor:
    """Displacement of exp(v), for at least one squaring; states between steps have the type ``stored``."""
    field = velocity.contiguous()
    sizes = volume(field)
    spare = [between_steps(field, stored) for _ in range(min(2, steps - 1))]
    for step in range(steps):
        out = velocity.new_empty(velocity.shape) if step == steps - 1 else spare[step % 2]
        field = square(field, out, 0.5**steps if step == 0 else 1.0, sizes)
    return field


def backward(gradient: Tensor, velocity: Tensor, steps: int, stored: torch.dtype) -> Tensor:
    """Gradient with respect to the velocity.

    The squarings are repeated, and their states stored until used.  The order of float additions varies; if torch is
    asked for deterministic algorithms, sums are in fixed point.
    """
    gradient, velocity = gradient.contiguous(), velocity.contiguous()
    sizes = volume(velocity)
    before = [velocity]
    for step in range(steps - 1):
        scale = 0.5**steps if step == 0 else 1.0
        before.append(square(before[-1], between_steps(velocity, stored), scale, sizes))
    for step in reversed(range(steps)):
        out = between_steps(velocity, velocity.dtype) if step > 0 else torch.empty_like(velocity)
        scale = 0.5**steps if step == 0 else 1.0
        gradient = step_back(gradient, before.pop(), out, scale, scale, sizes)
    return gradient


def step_back(gradient: Tensor, field: Tensor, out: Tensor, scale: float, share: float, sizes) -> Tensor:
    """``out`` = the gradient with respect to u = ``scale`` · ``field``, times ``share``; planar or interleaved."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    sums = torch.zeros_like(out, dtype=torch.int64) if deterministic else out.zero_()
    fixed_scale = fixed_point_scale(gradient) if deterministic else gradient
    packed = is_packed(out, sizes)
    back_kernel[sizes.gathers](
        gradient, field, fixed_scale, sums, scale, share, *sizes.space,
        AXES=sizes.channels, PACKED_GRADIENT=is_packed(gradient, sizes), PACKED=is_packed(field, sizes),
        PACKED_OUT=packed, VECTOR=packed and not deterministic and adds_vectors(out), FIXED=deterministic,
        TYPE=arithmetic(gradient), **sizes.gather,
    )  # fmt: skip
    return from_fixed_point(sums, fixed_scale).to(out.dtype) if deterministic else out


def adds_vectors(field: Tensor) -> bool:
    """Whether the device adds four floats to memory in one instruction."""
    if not field.is_cuda or field.dtype != torch.float32:
        return False
    return torch.cuda.get_device_capability(field.device)[0] >= 9
