"""Jacobian determinants of φ(p) = p + u(p): central, one-sided, and what they say of a digital diffeomorphism.

Liu et al. (IJCV 2024, "On finite difference Jacobian computation in deformable image registration") call a
map on a grid a digital diffeomorphism where it is one after linear interpolation on every tetrahedron that
a voxel forms with its neighbours: in 3-D the eight of one-sided differences (a face neighbour along each
axis), and the two of the diagonal neighbours, p - eᵢ - eⱼ and p + eᵢ + eⱼ.  In 2-D these are the four
triangles of one-sided differences.  The volume that is turned inside out is the sum of ½ max(-J, 0) / 6
over the ten (in 2-D of ½ max(-J, 0) / 2 over the four): of the identity the same sum of +J is one voxel.
"""

import functools
import itertools
import math
import operator

import torch
from torch import Tensor

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


def determinant_backward(gradient: Tensor, displacement: Tensor) -> Tensor:
    """∂ det/∂ matrix is the cofactor matrix; the rest is the adjoint of taking central differences."""
    matrix = gradients(displacement)
    columns = matrix.unbind(-2)
    if len(columns) == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in columns)
        cofactors = [torch.stack([d, -c], -1), torch.stack([-b, a], -1)]
    else:
        cofactors = [torch.linalg.cross(columns[(row + 1) % 3], columns[(row + 2) % 3]) for row in range(3)]
    weighted = (torch.stack(cofactors, 1) * gradient[:, None, ..., None]).unbind(-1)
    return functools.reduce(operator.add, (central_adjoint(part, axis + 2) for axis, part in enumerate(weighted)))


def central_adjoint(values: Tensor, axis: int) -> Tensor:
    """Transpose of ``torch.gradient`` along one axis."""
    values = values.movedim(axis, -1)
    scaled = torch.cat([values[..., :1], values[..., 1:-1] / 2, values[..., -1:]], -1)
    zero = torch.zeros_like(scaled[..., :1])
    # Voxel q hands its value to q + 1 and takes it from q - 1; at the ends, to and from itself.
    given = torch.cat([zero, scaled[..., :-1]], -1) - torch.cat([scaled[..., 1:], zero], -1)
    ends = torch.cat([-scaled[..., :1], torch.zeros_like(scaled[..., 1:-1]), scaled[..., -1:]], -1)
    return (given + ends).movedim(-1, axis)


def corner_edges(displacement: Tensor) -> Tensor:
    """Edges from φ(p) to its neighbours, for every simplex at every inner voxel.

    (B, D, *space) → (B, simplices, D, D, *inner): row i of a matrix is one edge.  Its determinant has the
    sign of the simplex, positive for the identity.  The first 2^D simplices are one-sided differences, in
    the order of ``itertools.product((1, -1), repeat=D)`` (the side on each axis); in 3-D two diagonal ones
    follow, whose determinants are 2 for the identity.
    """
    ndim = displacement.shape[1]
    inner = [slice(1, n - 1) for n in displacement.shape[2:]]
    here = displacement[:, :, *inner]

    def edge(offset: tuple[int, ...]) -> Tensor:
        moved = [slice(1 + o, n - 1 + o) for o, n in zip(offset, displacement.shape[2:], strict=True)]
        return displacement[:, :, *moved] - here + torch.tensor(offset).to(here).view(-1, *[1] * ndim)

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
    inner = tuple(slice(1, n - 1) for n in displacement.shape[2:])
    corners = corner_determinants_reference(displacement)[0]
    central = determinant_reference(displacement)[0][inner]
    folded = corners <= 0
    volume = (-corners).clamp(min=0).sum(0) * 0.5 / math.factorial(ndim)
    parts = [torch.ones_like(volume), central <= 0, folded.any(0), folded.sum(0), volume]
    return torch.stack([part[mask[inner]].double().sum() for part in parts])
