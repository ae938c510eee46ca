"""Overlap of labels under linear interpolation in plain torch.

A moving label map, taken as K indicator images and warped, gives p_k(x) = Σ_i w_i(x) [M_i(x) = k] with the
eight corners i of the cell that x is drawn from.  All that Dice needs are K sums of each of

    A_k = Σ_x p_k(x) [F(x) = k],    P_k = Σ_x p_k(x),    F_k = Σ_x [F(x) = k].

Their derivatives, a_k = ∂L/∂A_k and b_k = ∂L/∂P_k, turn the gradient with respect to the displacement into
that of warping one image, whose value at corner i is b[M_i] + [M_i = F(x)] a[F(x)].

Label maps hold indices here: 0 ... K - 1, and K for every other label.
"""

import functools
import itertools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.kernels.warp.reference import identity


def place_reference(labels: Tensor, codes: Sequence[int]) -> Tensor:
    """Index map of a label map of any shape: the place of each code in the ascending ``codes``, else their number."""
    known = torch.as_tensor(codes, dtype=torch.int64, device=labels.device)
    labels = labels.long()
    place = torch.searchsorted(known, labels).clamp(max=len(codes) - 1)
    return torch.where(known[place] == labels, place, len(codes)).to(place_type(codes))


def place_type(codes: Sequence[int]) -> torch.dtype:
    """The smallest type that holds the indices, so that as many as possible lie close together."""
    return torch.uint8 if len(codes) < 256 else torch.int32


def overlaps_reference(
    fixed: Tensor, moving: Tensor, displacement: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums A, P and F, each (B, K), for index maps (B, 1, *space) and a displacement (B, D, *space)."""
    points = identity(displacement.shape[2:], displacement) + displacement
    sizes = moving.shape[2:]
    flat_moving = moving.flatten(1).long()
    flat_fixed = fixed.flatten(1).long()
    both = displacement.new_zeros(len(fixed), count + 1)
    warped = torch.zeros_like(both)
    lower, weights = [], []
    for axis, size in enumerate(sizes):
        along = points[:, axis]
        lower.append(along.detach().nan_to_num().floor().clamp(-1, size - 1))
        above = (along - lower[-1]).clamp(0, 1)
        weights.append((1 - above, above))
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight = functools.reduce(operator.mul, [weights[axis][side] for axis, side in enumerate(corner)])
        index = torch.zeros_like(weight, dtype=torch.int64)
        inside = torch.ones_like(weight, dtype=torch.bool)
        for axis, (side, size) in enumerate(zip(corner, sizes, strict=True)):
            voxel = lower[axis] + side
            inside = inside & (voxel >= 0) & (voxel < size)
            index = index * size + voxel.clamp(0, size - 1).long()
        # A NaN in the displacement is in the weight, and stays.
        weight = torch.where(inside | weight.isnan(), weight, 0).flatten(1)
        labels = flat_moving.gather(1, index.flatten(1))
        warped = warped.scatter_add(1, labels, weight)
        both = both.scatter_add(1, flat_fixed, torch.where(labels == flat_fixed, weight, 0))
    fixed_sums = torch.zeros_like(both).scatter_add(1, flat_fixed, torch.ones_like(flat_fixed, dtype=both.dtype))
    return both[:, :count], warped[:, :count], fixed_sums[:, :count]
