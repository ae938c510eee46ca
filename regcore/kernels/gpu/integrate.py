"""Scaling and squaring, one launch for each squaring and one for each step back.

A step back, from the gradient g of u(p) + u(p + u(p)) to that of u, is g + (∇u)ᵀ g at every voxel, and what the voxel
gave to the interpolation at its eight corners: all of it is added to memory by atomics, so that positions, weights and
g are made once.  On compute capability 9 the three components go in one instruction, and gradients between steps are
then interleaved, (B, Z, Y, X, 4).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.gpu.launch import arithmetic, volume, where_am_i
from regcore.kernels.gpu.warp import add_at, blend, cell_of, corners, fixed_point_scale, from_fixed_point, slopes


@triton.jit
def own_displacement(field, scale, b, z, y, x, mask, depth, height, width, AXES: tl.constexpr, TYPE: tl.constexpr):
    """The displacement ``scale`` · ``field`` at the voxels themselves, along Z, Y (0 in 2-D) and X."""
    voxels = depth * height * width
    here = field + b * AXES * voxels + (z * height + y) * width + x
    uz = scale * tl.load(here, mask, 0).to(TYPE)
    ux = scale * tl.load(here + (AXES - 1) * voxels, mask, 0).to(TYPE)
    uy = tl.zeros_like(uz)
    if AXES == 3:
        uy = scale * tl.load(here + voxels, mask, 0).to(TYPE)
    return uz, uy, ux


@triton.jit
def square_kernel(
    field, out, scale, depth, height, width,
    AXES: tl.constexpr, TYPE: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """``out``(p) = u(p) + u(p + u(p)) for the displacement u = ``scale`` · ``field`` (B, AXES, Z, Y, X)."""
    b, z, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    voxels = depth * height * width
    uz, uy, ux = own_displacement(field, scale, b, z, y, x, mask, depth, height, width, AXES, TYPE)
    cell, z0, z1, y0, y1, x0, x1 = cell_of(z + uz, y + uy, x + ux, depth, height, width, AXES, True)
    values = field + b * AXES * voxels + cell
    target = out + b * AXES * voxels + (z * height + y) * width + x
    for axis in tl.static_range(AXES):
        v0, v1, v2, v3, v4, v5, v6, v7 = corners(values + axis * voxels, width, height * width, AXES, TYPE)
        own = uz if axis == 0 else (ux if axis == AXES - 1 else uy)
        there = blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, y0, y1, x0, x1)
        tl.store(target + axis * voxels, own + scale * there, mask)


@triton.jit
def add_vector(target, a, b, c, mask):
    """Add three numbers to three that lie side by side, in one instruction (compute capability 9)."""
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
def add_components(
    target, weight, gz, gy, gx, step, factor, mask, AXES: tl.constexpr, VECTOR: tl.constexpr, FIXED: tl.constexpr
):
    """Add ``weight`` times a vector to the one at ``target``, whose components are ``step`` apart."""
    if VECTOR:
        add_vector(target, weight * gz, weight * gy, weight * gx, mask)
    else:
        add_at(target, weight * gz, factor, mask, FIXED)
        add_at(target + (AXES - 1) * step, weight * gx, factor, mask, FIXED)
        if AXES == 3:
            add_at(target + step, weight * gy, factor, mask, FIXED)


@triton.jit
def back_kernel(
    gradient, field, fixed_scale, out, scale, share, depth, height, width,
    gradient_element, gradient_step, gradient_voxel, out_element, out_step, out_voxel,
    AXES: tl.constexpr, VECTOR: tl.constexpr, FIXED: tl.constexpr, TYPE: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """Add to ``out`` ``share`` times the gradient with respect to u = ``scale`` · ``field``.

    Elements of the batch, components and voxels of ``gradient`` and ``out`` are as far apart as told.
    """
    b, z, y, x, mask = where_am_i(height, width, BLOCK_Y, BLOCK_X)
    voxels = depth * height * width
    uz, uy, ux = own_displacement(field, scale, b, z, y, x, mask, depth, height, width, AXES, TYPE)
    pz, py, px = z + uz, y + uy, x + ux
    cell, z0, z1, y0, y1, x0, x1 = cell_of(pz, py, px, depth, height, width, AXES, True)
    dz0, dz1 = slopes(pz, depth, True)
    dy0, dy1 = slopes(py, height, True)
    dx0, dx1 = slopes(px, width, True)
    here = (z * height + y) * width + x
    incoming = gradient + b * gradient_element + here * gradient_voxel
    gz = share * tl.load(incoming, mask, 0).to(TYPE)
    gx = share * tl.load(incoming + (AXES - 1) * gradient_step, mask, 0).to(TYPE)
    gy = tl.zeros_like(gz)
    if AXES == 3:
        gy = share * tl.load(incoming + gradient_step, mask, 0).to(TYPE)
    values = field + b * AXES * voxels + cell
    own_z, own_y, own_x = gz, gy, gx
    for axis in tl.static_range(AXES):
        v0, v1, v2, v3, v4, v5, v6, v7 = corners(values + axis * voxels, width, height * width, AXES, TYPE)
        g = scale * (gz if axis == 0 else (gx if axis == AXES - 1 else gy))
        own_z += g * blend(v0, v1, v2, v3, v4, v5, v6, v7, dz0, dz1, y0, y1, x0, x1)
        own_x += g * blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, y0, y1, dx0, dx1)
        if AXES == 3:
            own_y += g * blend(v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, dy0, dy1, x0, x1)
    factor = tl.load(fixed_scale) if FIXED else 1.0
    target = out + b * out_element
    add_components(target + here * out_voxel, 1.0, own_z, own_y, own_x, out_step, factor, mask, AXES, VECTOR, FIXED)
    target += cell * out_voxel
    near, far = z0 * y0, z1 * y0
    deep = height * width * out_voxel
    add_components(target, near * x0, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)
    add_components(target + out_voxel, near * x1, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)
    add_components(target + deep, far * x0, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)
    add_components(target + deep + out_voxel, far * x1, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)
    if AXES == 3:
        near, far = z0 * y1, z1 * y1
        target += width * out_voxel
        add_components(target, near * x0, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)
        add_components(target + out_voxel, near * x1, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)
        add_components(target + deep, far * x0, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)
        add_components(target + deep + out_voxel, far * x1, gz, gy, gx, out_step, factor, mask, AXES, VECTOR, FIXED)


def square(field: Tensor, out: Tensor, scale: float) -> Tensor:
    """``out`` = the displacement ``scale`` · ``field`` composed with itself; both (B, D, *space)."""
    sizes = volume(field)
    square_kernel[sizes.grid](
        field, out, scale, *sizes.space, AXES=field.shape[1], TYPE=arithmetic(field), **sizes.block
    )
    return out


def states(velocity: Tensor, steps: int, stored: torch.dtype) -> list[Tensor]:
    """The displacements before each of ``steps`` squarings; the first is the velocity, still to be scaled."""
    found = [velocity]
    for step in range(steps - 1):
        out = torch.empty_like(velocity, dtype=stored)
        found.append(square(found[-1], out, 0.5**steps if step == 0 else 1.0))
    return found


def integrate(velocity: Tensor, steps: int, stored: torch.dtype) -> Tensor:
    """Displacement of exp(v), for one squaring or more; what lies between the steps is held as ``stored``."""
    field = velocity.contiguous()
    spare = [torch.empty_like(field, dtype=stored) for _ in range(min(2, steps - 1))]
    for step in range(steps):
        out = (
            torch.empty_like(velocity, memory_format=torch.contiguous_format) if step == steps - 1 else spare[step % 2]
        )
        field = square(field, out, 0.5**steps if step == 0 else 1.0)
    return field


def backward(gradient: Tensor, velocity: Tensor, steps: int, stored: torch.dtype) -> Tensor:
    """Gradient with respect to the velocity.

    States are squared anew, and kept until they were used.  The order of float additions is not the same every time;
    where torch is asked for deterministic algorithms sums are in fixed point.
    """
    gradient = gradient.contiguous()
    deterministic = torch.are_deterministic_algorithms_enabled()
    before = states(velocity.contiguous(), steps, stored)
    for step in reversed(range(steps)):
        packed = step > 0 and not deterministic and adds_vectors(velocity)
        gradient = step_back(
            gradient, before.pop(), packed, deterministic, *((0.5**steps,) * 2 if step == 0 else (1.0, 1.0))
        )
    return gradient


def step_back(gradient: Tensor, field: Tensor, packed: bool, deterministic: bool, scale: float, share: float) -> Tensor:
    """Gradient with respect to u = ``scale`` · ``field``, times ``share``; (B, *space, 4) where ``packed``."""
    sizes = volume(field)
    kind = torch.int64 if deterministic else gradient.dtype
    if packed:
        out = torch.zeros(sizes.batch, *field.shape[2:], 4, dtype=kind, device=field.device)
    else:
        out = torch.zeros(field.shape, dtype=kind, device=field.device)
    fixed_scale = fixed_point_scale(gradient) if deterministic else gradient
    back_kernel[sizes.grid](
        gradient, field, fixed_scale, out, scale, share, *sizes.space, *strides(gradient, field), *strides(out, field),
        AXES=sizes.channels, VECTOR=packed, FIXED=deterministic, TYPE=arithmetic(gradient), **sizes.block,
    )  # fmt: skip
    return from_fixed_point(out, fixed_scale).to(gradient.dtype) if deterministic else out


def strides(values: Tensor, field: Tensor) -> tuple[int, int, int]:
    """How far apart elements of the batch, components and voxels of planar or interleaved ``values`` lie."""
    voxels = field[0, 0].numel()
    if values.shape == field.shape:
        return field.shape[1] * voxels, voxels, 1
    return 4 * voxels, 1, 4


def adds_vectors(field: Tensor) -> bool:
    """Whether the device adds four floats to memory in one instruction, and ``field`` has three components of them."""
    if not field.is_cuda or field.shape[1] != 3 or field.dtype != torch.float32:
        return False
    return torch.cuda.get_device_capability(field.device)[0] >= 9
