"""Central Jacobian determinants, and the counts of a digital diffeomorphism, in Numba; a work item is a row."""

import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import jit, run

#: From a voxel to its neighbours along z, y, x: 0-5 share a face, behind and ahead; 6-8 a diagonal behind, 9-11 ahead.
NEIGHBOURS = (
    *((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)),
    *((-1, -1, 0), (-1, 0, -1), (0, -1, -1), (1, 1, 0), (1, 0, 1), (0, 1, 1)),
)


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
    # Two loops, because with more than eight input arrays the compiler does not vectorise.
    for x in range(out.size):
        out[x] = a0[x] * (b1[x] * c2[x] - b2[x] * c1[x])
    for x in range(out.size):
        out[x] = sign * (out[x] - a1[x] * (b0[x] * c2[x] - b2[x] * c0[x]) + a2[x] * (b0[x] * c1[x] - b1[x] * c0[x]))


@jit
def simplices_of_row(edges, out):
    """The ten determinants (10, width) at the inner voxels of a row, all positive for the identity."""
    for simplex in range(8):
        z, y, x = simplex // 4, simplex // 2 % 2, simplex % 2  # 1 if the neighbour is ahead
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
        for neighbour in range(12):
            dz, dy, dx = NEIGHBOURS[neighbour]
            edges_of_row(field, z, y, dz, dy, dx, edges[neighbour])
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
        for x in range(inner):
            least[x] = central[x]
        for simplex in range(10):
            found = corners[simplex]
            for x in range(inner):
                least[x] = found[x] if found[x] < least[x] else least[x]
        positive = 0
        for x in range(inner):
            positive += least[x] > 0
        if positive == inner:
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


def determinant(displacement: Tensor) -> Tensor:
    """Central Jacobian determinants of (B, D, *space) → (B, *space)."""
    field = displacement.contiguous()
    if field.ndim == 4:
        field = field.unsqueeze(2)
    out = field.new_empty((field.shape[0], *field.shape[2:]))
    rows = math.prod(out.shape[:3])
    run(determinant_rows, rows, out.numel(), field, out)
    return out.view(displacement.shape[:1] + displacement.shape[2:])


def digital_folds(displacement: Tensor, mask: Tensor) -> Tensor:
    """The five counts, float64 (5,), of one displacement (1, 3, *space) over the inner voxels of ``mask`` (*space)."""
    field = displacement.contiguous()[0]
    depth, height = field.shape[1:3]
    rows = (depth - 2) * (height - 2)
    counts = torch.empty(rows, 5, dtype=torch.float64)
    run(digital_fold_rows, rows, field[0].numel(), field, mask.contiguous().view(torch.uint8), counts)
    return counts.sum(0)
