"""Jacobian determinants of φ(p) = p + u(p): central, one-sided, and what they say of a digital diffeomorphism.

Liu et al. (IJCV 2024, "On finite difference Jacobian computation in deformable image registration") call a
map on a grid a digital diffeomorphism where it is one after linear interpolation on every tetrahedron that
a voxel forms with its neighbours: in 3-D the eight of one-sided differences (a face neighbour along each
axis), and the two of the diagonal neighbours, p - eᵢ - eⱼ and p + eᵢ + eⱼ.  In 2-D these are the four
triangles of one-sided differences.  The volume that is turned inside out is the sum of ½ max(-J, 0) / 6
over the ten (in 2-D of ½ max(-J, 0) / 2 over the four): of the identity the same sum of +J is one voxel.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import has_kernel, jit, on_its_device, run

#: Planes that the reference of the digital folds looks at together.
SLAB = 16


def gradients(displacement: Tensor) -> Tensor:
    """∂φ_a/∂p_b by central differences, one-sided at the border: (B, D, *space) → (B, *space, D, D)."""
    ndim = displacement.shape[1]
    slopes = torch.gradient(displacement, dim=tuple(range(2, 2 + ndim)))
    return torch.stack(slopes, dim=-1).movedim(1, -2) + torch.eye(ndim).to(displacement)


def determinant_reference(displacement: Tensor) -> Tensor:
    """Determinant of :func:`gradients`, (B, *space)."""
    return determinant_of(gradients(displacement))


def determinant_of(matrix: Tensor) -> Tensor:
    """Determinant of (..., D, D) with D 2 or 3, written out: quicker than a factorisation, and exact on integers."""
    rows = matrix.unbind(-2)
    if len(rows) == 2:
        return rows[0][..., 0] * rows[1][..., 1] - rows[0][..., 1] * rows[1][..., 0]
    return (rows[0] * torch.linalg.cross(rows[1], rows[2])).sum(-1)


def determinant(displacement: Tensor) -> Tensor:
    """As :func:`determinant_reference`, by the kernel where it can."""
    fits = min(displacement.shape[2:]) > 1 and (displacement.is_cpu or displacement.numel() < 2**31)
    if fits and has_kernel(displacement, operator="jacobian_determinant"):
        return torch.ops.regcore.jacobian_determinant(displacement)
    return determinant_reference(displacement)


def corner_edges(displacement: Tensor) -> Tensor:
    """Edges from φ(p) to its neighbours, for every simplex at every inner voxel.

    (B, D, *space) → (B, simplices, D, D, *inner): row i of a matrix is one edge.  Its determinant has the
    sign of the simplex, positive for the identity.  The first 2^D simplices are one-sided differences, in
    the order of ``itertools.product((1, -1), repeat=D)`` (the side on each axis); in 3-D two diagonal ones
    follow, whose determinants are 2 for the identity.
    """
    ndim = displacement.shape[1]
    inner = [slice(1, n - 1) for n in displacement.shape[2:]]
    here = displacement[(..., *inner)]

    def edge(offset: tuple[int, ...]) -> Tensor:
        moved = displacement[
            (..., *[slice(1 + o, n - 1 + o) for o, n in zip(offset, displacement.shape[2:], strict=True)])
        ]
        return moved - here + torch.tensor(offset).to(here).view(-1, *[1] * ndim)

    def along(axis: int, side: int) -> tuple[int, ...]:
        return tuple(side if a == axis else 0 for a in range(ndim))

    simplices = [
        torch.stack([side * edge(along(axis, side)) for axis, side in enumerate(sides)], dim=1)
        for sides in itertools.product((1, -1), repeat=ndim)
    ]
    if ndim == 3:
        for side in (-1, 1):
            # In this order the determinant of the identity is +2 on both sides.
            pairs = [(side, side, 0), (side, 0, side), (0, side, side)]
            edges = torch.stack([edge(pair) for pair in pairs], dim=1)
            simplices.append(-side * edges)
    return torch.stack(simplices, dim=1)


def corner_determinants_reference(displacement: Tensor) -> Tensor:
    """Determinants of :func:`corner_edges`, (B, 10 in 3-D or 4 in 2-D, *inner)."""
    edges = corner_edges(displacement)
    return determinant_of(edges.movedim((2, 3), (-2, -1)))


def digital_folds_reference(displacement: Tensor, mask: Tensor) -> Tensor:
    """Counts for one displacement (1, D, *space) over the inner voxels of ``mask`` (*space), in float64.

    Returns
    -------
    Tensor, shape (5,)
        Voxels, voxels whose central determinant is ≤ 0, voxels with any simplex ≤ 0, simplices ≤ 0, and the
        volume turned inside out, in voxels.
    """
    counts = torch.zeros(5, dtype=torch.float64, device=displacement.device)
    # A slab at a time, with a plane more on both sides: all simplices of all voxels would fill the memory.
    for first in range(0, displacement.shape[2] - 2, SLAB):
        slab = displacement[:, :, first : first + SLAB + 2].double()
        counts += _slab_folds(slab, mask[first : first + SLAB + 2])
    return counts


def _slab_folds(displacement: Tensor, mask: Tensor) -> Tensor:
    ndim = displacement.shape[1]
    inner = [slice(1, n - 1) for n in displacement.shape[2:]]
    corners = corner_determinants_reference(displacement)[0]
    central = determinant_reference(displacement)[(0, *inner)]
    folded = corners <= 0
    volume = (-corners).clamp(min=0).sum(0) * 0.5 / math.factorial(ndim)
    parts = [torch.ones_like(volume), central <= 0, folded.any(0), folded.sum(0), volume]
    return torch.stack([part[mask[tuple(inner)]].double().sum() for part in parts])


def digital_folds(displacement: Tensor, mask: Tensor) -> Tensor:
    """As :func:`digital_folds_reference`, by the kernel where it can."""
    fits = displacement.shape[1] == 3 and min(displacement.shape[2:]) >= 3
    fits = fits and (displacement.is_cpu or displacement.numel() < 2**31) and mask.device == displacement.device
    if fits and has_kernel(displacement, operator="digital_folds"):
        return torch.ops.regcore.digital_folds(displacement.detach(), mask)
    return digital_folds_reference(displacement, mask)


@jit
def triple(a0, a1, a2, b0, b1, b2, c0, c1, c2):
    """Determinant of the rows a, b, c."""
    return a0 * (b1 * c2 - b2 * c1) - a1 * (b0 * c2 - b2 * c0) + a2 * (b0 * c1 - b1 * c0)


@jit
def determinant_rows(start, stop, field, out):
    """Central determinants of a field (B, D, Z, Y, X), with Z = 1 for D = 2, row by row."""
    axes, depth, height, width = field.shape[1:]
    for item in range(start, stop):
        b = item // (depth * height)
        z = item // height % depth
        y = item % height
        z0, z1 = max(z - 1, 0), min(z + 1, depth - 1)
        y0, y1 = max(y - 1, 0), min(y + 1, height - 1)
        by_z = 1.0 / max(z1 - z0, 1)
        by_y = 1.0 / (y1 - y0)
        target = out[b, z, y]
        if axes == 2:
            for x in range(width):
                x0, x1 = max(x - 1, 0), min(x + 1, width - 1)
                by_x = 1.0 / (x1 - x0)
                yy = 1 + by_y * (np.float64(field[b, 0, z, y1, x]) - field[b, 0, z, y0, x])
                yx = by_x * (np.float64(field[b, 0, z, y, x1]) - field[b, 0, z, y, x0])
                xy = by_y * (np.float64(field[b, 1, z, y1, x]) - field[b, 1, z, y0, x])
                xx = 1 + by_x * (np.float64(field[b, 1, z, y, x1]) - field[b, 1, z, y, x0])
                target[x] = yy * xx - yx * xy
            continue
        for x in range(width):
            x0, x1 = max(x - 1, 0), min(x + 1, width - 1)
            by_x = 1.0 / (x1 - x0)
            zz = 1 + by_z * (np.float64(field[b, 0, z1, y, x]) - field[b, 0, z0, y, x])
            zy = by_y * (np.float64(field[b, 0, z, y1, x]) - field[b, 0, z, y0, x])
            zx = by_x * (np.float64(field[b, 0, z, y, x1]) - field[b, 0, z, y, x0])
            yz = by_z * (np.float64(field[b, 1, z1, y, x]) - field[b, 1, z0, y, x])
            yy = 1 + by_y * (np.float64(field[b, 1, z, y1, x]) - field[b, 1, z, y0, x])
            yx = by_x * (np.float64(field[b, 1, z, y, x1]) - field[b, 1, z, y, x0])
            xz = by_z * (np.float64(field[b, 2, z1, y, x]) - field[b, 2, z0, y, x])
            xy = by_y * (np.float64(field[b, 2, z, y1, x]) - field[b, 2, z, y0, x])
            xx = 1 + by_x * (np.float64(field[b, 2, z, y, x1]) - field[b, 2, z, y, x0])
            target[x] = triple(zz, zy, zx, yz, yy, yx, xz, xy, xx)


@jit
def edges_of_row(field, z, y, dz, dy, dx, out):
    """``out`` (3, inner width) = φ(p + offset) - φ(p) of the inner voxels of a row, in float64."""
    width = field.shape[3]
    for axis in range(3):
        here, there = field[axis, z, y], field[axis, z + dz, y + dy]
        offset = float(dz if axis == 0 else dy if axis == 1 else dx)
        near, far, target = here[1 : width - 1], there[1 + dx : width - 1 + dx], out[axis]
        for x in range(target.size):
            target[x] = offset + (np.float64(far[x]) - np.float64(near[x]))


@jit
def triples_of_row(a, b, c, sign, out):
    """``sign`` times the determinants of three edges (3, width) each."""
    a0, a1, a2, b0, b1, b2, c0, c1, c2 = a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2]
    # In two loops: with more than eight arrays to read the compiler does one voxel at a time.
    for x in range(out.size):
        out[x] = a0[x] * (b1[x] * c2[x] - b2[x] * c1[x])
    for x in range(out.size):
        out[x] = sign * (out[x] - a1[x] * (b0[x] * c2[x] - b2[x] * c0[x]) + a2[x] * (b0[x] * c1[x] - b1[x] * c0[x]))


@jit
def simplices_of_row(edges, out):
    """The ten determinants (10, width) at the inner voxels of a row, all positive for the identity."""
    for simplex in range(8):
        z, y, x = simplex // 4, simplex // 2 % 2, simplex % 2  # 1 where the neighbour is ahead
        sign = 1.0 if (z + y + x) % 2 else -1.0
        triples_of_row(edges[z], edges[2 + y], edges[4 + x], sign, out[simplex])
    triples_of_row(edges[6], edges[7], edges[8], 1.0, out[8])
    triples_of_row(edges[9], edges[10], edges[11], -1.0, out[9])


@jit
def digital_fold_rows(start, stop, field, mask, counts):
    """The five numbers of :func:`digital_folds_reference` for each inner row of ``field`` (3, Z, Y, X)."""
    height, width = field.shape[2:]
    inner = width - 2
    edges = np.empty((12, 3, inner))
    slopes = np.empty((3, 3, inner))
    central = np.empty(inner)
    corners = np.empty((10, inner))
    least = np.empty(inner)
    for item in range(start, stop):
        z, y = 1 + item // (height - 2), 1 + item % (height - 2)
        chosen = mask[z, y, 1 : width - 1]
        counts[item] = 0
        counts[item, 0] = chosen.sum()
        if counts[item, 0] == 0:
            continue
        # Face neighbours 0-5: behind and ahead along z, y, x; diagonal ones 6-8 behind and 9-11 ahead.
        for side in range(2):
            step = 2 * side - 1
            edges_of_row(field, z, y, step, 0, 0, edges[side])
            edges_of_row(field, z, y, 0, step, 0, edges[2 + side])
            edges_of_row(field, z, y, 0, 0, step, edges[4 + side])
            edges_of_row(field, z, y, step, step, 0, edges[6 + 3 * side])
            edges_of_row(field, z, y, step, 0, step, edges[7 + 3 * side])
            edges_of_row(field, z, y, 0, step, step, edges[8 + 3 * side])
        for axis in range(3):
            for component in range(3):
                behind, ahead, slope = (
                    edges[2 * axis, component],
                    edges[2 * axis + 1, component],
                    slopes[axis, component],
                )
                for x in range(inner):
                    slope[x] = 0.5 * (ahead[x] - behind[x])
        triples_of_row(slopes[0], slopes[1], slopes[2], 1.0, central)
        simplices_of_row(edges, corners)
        least[:] = central
        for simplex in range(10):
            found = corners[simplex]
            for x in range(inner):
                least[x] = found[x] if found[x] < least[x] else least[x]
        if least.min() > 0:
            continue
        for x in range(inner):
            if chosen[x]:
                folded = 0
                for simplex in range(10):
                    folded += corners[simplex, x] <= 0
                    counts[item, 4] += max(-corners[simplex, x], 0.0) / 12
                counts[item, 1] += central[x] <= 0
                counts[item, 2] += folded > 0
                counts[item, 3] += folded


@torch.library.custom_op("regcore::jacobian_determinant", mutates_args=(), device_types="cpu")
def _determinant(displacement: Tensor) -> Tensor:
    field = displacement.contiguous()
    if field.ndim == 4:
        field = field.unsqueeze(2)
    out = field.new_empty((field.shape[0], *field.shape[2:]))
    rows = math.prod(out.shape[:3])
    run(determinant_rows, rows, out.numel(), field, out)
    return out.view(displacement.shape[:1] + displacement.shape[2:])


@_determinant.register_kernel("cuda")
@on_its_device
def _(displacement: Tensor) -> Tensor:
    from regcore.kernels.gpu import jacobian as gpu

    return gpu.determinant(displacement)


@_determinant.register_fake
def _(displacement: Tensor) -> Tensor:
    return displacement.new_empty(displacement.shape[:1] + displacement.shape[2:])


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(ctx, gradient: Tensor) -> Tensor:
    """∂ det/∂ matrix is the cofactor matrix; the rest is the adjoint of taking central differences."""
    matrix = gradients(ctx.saved_tensors[0])
    columns = matrix.unbind(-2)
    if len(columns) == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in columns)
        cofactors = [torch.stack([d, -c], -1), torch.stack([-b, a], -1)]
    else:
        cofactors = [torch.linalg.cross(columns[(row + 1) % 3], columns[(row + 2) % 3]) for row in range(3)]
    weighted = (torch.stack(cofactors, 1) * gradient[:, None, ..., None]).unbind(-1)
    return sum(central_adjoint(part, axis + 2) for axis, part in enumerate(weighted))


def central_adjoint(values: Tensor, axis: int) -> Tensor:
    """Transpose of ``torch.gradient`` along one axis."""
    values = values.movedim(axis, -1)
    scaled = torch.cat([values[..., :1], values[..., 1:-1] / 2, values[..., -1:]], -1)
    zero = torch.zeros_like(scaled[..., :1])
    # Voxel q hands its value to q + 1 and takes it from q - 1; at the ends, to and from itself.
    given = torch.cat([zero, scaled[..., :-1]], -1) - torch.cat([scaled[..., 1:], zero], -1)
    ends = torch.cat([-scaled[..., :1], torch.zeros_like(scaled[..., 1:-1]), scaled[..., -1:]], -1)
    return (given + ends).movedim(-1, axis)


_determinant.register_autograd(_backward, setup_context=_remember)


@torch.library.custom_op("regcore::digital_folds", mutates_args=(), device_types="cpu")
def _digital_folds(displacement: Tensor, mask: Tensor) -> Tensor:
    field = displacement.contiguous()[0]
    depth, height = field.shape[1:3]
    rows = (depth - 2) * (height - 2)
    counts = torch.empty(rows, 5, dtype=torch.float64)
    run(digital_fold_rows, rows, field[0].numel(), field, mask.contiguous().view(torch.uint8), counts)
    return counts.sum(0)


@_digital_folds.register_kernel("cuda")
@on_its_device
def _(displacement: Tensor, mask: Tensor) -> Tensor:
    from regcore.kernels.gpu import jacobian as gpu

    return gpu.digital_folds(displacement, mask)


@_digital_folds.register_fake
def _(displacement: Tensor, mask: Tensor) -> Tensor:
    return displacement.new_empty(5, dtype=torch.float64)
