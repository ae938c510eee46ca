"""Scaling and squaring and its gradient in Numba.

A field is interleaved, (B, Z, Y, X, 3): the three components of a voxel are adjacent and share a cache line.  In 2-D,
Z = 1 and the first component is zero.  The backward pass needs the displacement before every squaring.  It repeats the
squarings from the velocity, from one state stored half-way.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import jit, run
from regcore.kernels.warp.cpu import cell_of, locate, slopes


@jit
def locate_row(field, b, z, y, shift, base, w):
    """Displacement by component, cell and weights of one row along x of an interleaved field."""
    depth, height, width = field.shape[1:4]
    kind = w.dtype.type
    for x in range(width):
        for c in range(3):
            shift[c, x] = field[b, z, y, x, c]
    base[:] = 0
    if depth > 1:
        locate(shift[0], kind(z), kind(0), depth, np.bool_(True), height * width, base, w[0], w[1])
    else:
        w[0, :] = 1
        w[1, :] = 0
    locate(shift[1], kind(y), kind(0), height, np.bool_(True), width, base, w[2], w[3])
    locate(shift[2], kind(0), kind(1), width, np.bool_(True), np.int64(1), base, w[4], w[5])


@jit
def square_rows(start, stop, field, out):
    """``out``(p) = u(p) + u(p + u(p))."""
    depth, height, width = field.shape[1:4]
    base = np.empty(width, np.int32)
    w = np.empty((6, width), field.dtype)
    shift = np.empty((3, width), field.dtype)
    deep = np.int64(3 * height * width) if depth > 1 else np.int64(0)
    for item in range(start, stop):
        b = item // (depth * height)
        z = item // height % depth
        y = item % height
        locate_row(field, b, z, y, shift, base, w)
        values = field[b].reshape(depth * height * width * 3)
        row = out[b, z, y].reshape(width * 3)
        for x in range(width):
            corner = np.int64(base[x]) * 3
            i = np.uint64(corner)
            j = np.uint64(corner + 3 * width)
            k = np.uint64(corner + deep)
            m = np.uint64(corner + deep + 3 * width)
            near_low, near_high = w[0, x] * w[2, x], w[0, x] * w[3, x]
            far_low, far_high = w[1, x] * w[2, x], w[1, x] * w[3, x]
            for c in range(3):
                here, next_ = np.uint64(c), np.uint64(c + 3)
                row[3 * x + c] = shift[c, x] + (
                    near_low * (w[4, x] * values[i + here] + w[5, x] * values[i + next_])
                    + near_high * (w[4, x] * values[j + here] + w[5, x] * values[j + next_])
                    + far_low * (w[4, x] * values[k + here] + w[5, x] * values[k + next_])
                    + far_high * (w[4, x] * values[m + here] + w[5, x] * values[m + next_])
                )


@jit
def pull_rows(start, stop, gradient, field, reach, out):
    """``out`` = gradient + Σ_c gradient_c ∇u_c(p + u(p)), and the planes from which each row was read."""
    depth, height, width = field.shape[1:4]
    kind = field.dtype.type
    base = np.empty(width, np.int32)
    w = np.empty((6, width), field.dtype)
    s = np.zeros((6, width), field.dtype)
    shift = np.empty((3, width), field.dtype)
    deep = np.int64(3 * height * width) if depth > 1 else np.int64(0)
    for item in range(start, stop):
        b = item // (depth * height)
        z = item // height % depth
        y = item % height
        locate_row(field, b, z, y, shift, base, w)
        if depth > 1:
            slopes(shift[0], kind(z), kind(0), depth, np.bool_(True), s[0], s[1])
        slopes(shift[1], kind(y), kind(0), height, np.bool_(True), s[2], s[3])
        slopes(shift[2], kind(0), kind(1), width, np.bool_(True), s[4], s[5])
        along = 0 if depth > 1 else 1
        nearest = shift[along, 0]
        farthest = shift[along, 0]
        for x in range(width):
            nearest = shift[along, x] if shift[along, x] < nearest else nearest
            farthest = shift[along, x] if shift[along, x] > farthest else farthest
        reach[item, 0] = cell_of((z if depth > 1 else y) + nearest, depth if depth > 1 else height)
        reach[item, 1] = cell_of((z if depth > 1 else y) + farthest, depth if depth > 1 else height) + 1
        values = field[b].reshape(depth * height * width * 3)
        g = gradient[b, z, y].reshape(width * 3)
        row = out[b, z, y].reshape(width * 3)
        for x in range(width):
            corner = np.int64(base[x]) * 3
            i = np.uint64(corner)
            j = np.uint64(corner + 3 * width)
            k = np.uint64(corner + deep)
            m = np.uint64(corner + deep + 3 * width)
            # With border "edge", the slopes are -1 and 1, or both 0, so one number is enough.
            to_z, to_y, to_x = kind(0), kind(0), kind(0)
            for c in range(3):
                here, next_ = np.uint64(c), np.uint64(c + 3)
                i0, i1, j0, j1 = values[i + here], values[i + next_], values[j + here], values[j + next_]
                k0, k1, m0, m1 = values[k + here], values[k + next_], values[m + here], values[m + next_]
                row_i, row_j = w[4, x] * i0 + w[5, x] * i1, w[4, x] * j0 + w[5, x] * j1
                row_k, row_m = w[4, x] * k0 + w[5, x] * k1, w[4, x] * m0 + w[5, x] * m1
                weight = g[3 * x + c]
                to_z += weight * (w[2, x] * (row_k - row_i) + w[3, x] * (row_m - row_j))
                to_y += weight * (w[0, x] * (row_j - row_i) + w[1, x] * (row_m - row_k))
                to_x += weight * (
                    w[0, x] * (w[2, x] * (i1 - i0) + w[3, x] * (j1 - j0))
                    + w[1, x] * (w[2, x] * (k1 - k0) + w[3, x] * (m1 - m0))
                )
            row[3 * x] = g[3 * x] + s[1, x] * to_z
            row[3 * x + 1] = g[3 * x + 1] + s[3, x] * to_y
            row[3 * x + 2] = g[3 * x + 2] + s[5, x] * to_x


@jit
def push_slabs(start, stop, slabs, gradient, field, reach, out):
    """Add to ``out`` the gradient through the interpolation; a work item is a slab of ``out``."""
    batch, depth, height, width = field.shape[:4]
    base = np.empty(width, np.int32)
    w = np.empty((6, width), field.dtype)
    shift = np.empty((3, width), field.dtype)
    deep = np.int64(height * width) if depth > 1 else np.int64(0)
    # Slabs consist of planes; in 2-D, with one plane, of its rows.
    size, unit = (depth, np.int64(height * width)) if depth > 1 else (height, np.int64(width))
    first, end = size * start // slabs, size * stop // slabs
    least, most = first * unit, end * unit
    for item in range(batch * depth * height):
        if reach[item, 1] < first or reach[item, 0] >= end:
            continue
        b = item // (depth * height)
        z = item // height % depth
        y = item % height
        locate_row(field, b, z, y, shift, base, w)
        values = out[b].reshape(depth * height * width * 3)
        g = gradient[b, z, y].reshape(width * 3)
        for x in range(width):
            g0, g1, g2 = g[3 * x], g[3 * x + 1], g[3 * x + 2]
            for side in range(4):
                corner = np.int64(base[x])
                weight = w[side // 2, x] * w[2 + side % 2, x]
                if side % 2:
                    corner += width
                if side // 2:
                    corner += deep
                if least <= corner < most:
                    low, high = weight * w[4, x], weight * w[5, x]
                    i = np.uint64(3 * corner)
                    values[i] += low * g0
                    values[i + np.uint64(1)] += low * g1
                    values[i + np.uint64(2)] += low * g2
                    values[i + np.uint64(3)] += high * g0
                    values[i + np.uint64(4)] += high * g1
                    values[i + np.uint64(5)] += high * g2


def interleaved(field: Tensor, out: Tensor | None = None) -> Tensor:
    """Copy (B, D, *space) to (B, Z, Y, X, 3), into ``out`` if given."""
    axes = field.shape[1]
    if out is None:
        space = field.shape[2:] if axes == 3 else (1, *field.shape[2:])
        out = field.new_zeros(field.shape[0], *space, 3)
    (out if axes == 3 else out[:, 0])[..., -axes:].copy_(field.movedim(1, -1))
    return out


def planar(field: Tensor, ndim: int) -> Tensor:
    """Undo :func:`interleaved`."""
    field = field.movedim(-1, 1)
    if ndim == 2:
        field = field[:, 1:, 0]
    return field.contiguous()


def square(field: Tensor, times: int, spare: Sequence[Tensor]) -> Tensor:
    """Square an interleaved field; the result is ``field`` itself or one of the two ``spare`` ones."""
    rows = field.shape[0] * field.shape[1] * field.shape[2]
    for step in range(times):
        out = spare[step % 2]
        run(square_rows, rows, rows * field.shape[3], field, out)
        field = out
    return field


def integrate(velocity: Tensor, steps: int, half: bool) -> Tensor:
    """Displacement of exp(v), for at least one squaring."""
    field = interleaved(velocity).div_(2**steps)
    return planar(square(field, steps, (torch.empty_like(field), field)), velocity.shape[1])


def backward(gradient: Tensor, velocity: Tensor, steps: int, half: bool) -> Tensor:
    """Gradient with respect to the velocity; see the module's docstring."""
    gradient = interleaved(gradient)
    known = interleaved(velocity).div_(2**steps)
    other, *spare = (torch.empty_like(gradient) for _ in range(3))
    rows = gradient.shape[0] * gradient.shape[1] * gradient.shape[2]
    voxels = rows * gradient.shape[3]
    reach = torch.empty(rows, 2, dtype=torch.int32)
    size = gradient.shape[1] if gradient.shape[1] > 1 else gradient.shape[2]
    slabs = min(size, 4 * torch.get_num_threads())
    middle = steps // 2
    known.copy_(square(known, middle, spare))
    for step in reversed(range(steps)):
        if step == middle - 1:
            middle = 0
            interleaved(velocity, out=known).div_(2**steps)
        state = square(known, step - middle, spare)
        run(pull_rows, rows, voxels, gradient, state, reach, other)
        run(push_slabs, slabs, voxels, slabs, gradient, state, reach, other)
        gradient, other = other, gradient
    del known, other, spare, state  # memory use peaks here
    return planar(gradient.div_(2**steps), velocity.shape[1])
