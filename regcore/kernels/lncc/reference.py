"""Squared local correlation in plain torch, from sums over a box, or a Gaussian window, around every voxel.

With n voxels in the box and sums over them, X = Σ I J − Σ I Σ J / n, V = Σ I² − (Σ I)² / n and W likewise of
J, the squared correlation is cc² = X² / (V W).  As the difference of large sums it goes wrong in ways that
users of other packages know well: values far below −1, NaN on flat background, other results on a GPU that
rounds the products.  Here the global mean is subtracted first, sums are kept in float64, V and W are never
negative, cc² never leaves [0, 1], and a box whose variance is only rounding counts as uncorrelated.

Two variants differ in what lies beyond the border and in a flat box:

``ants``
    n counts the voxels inside the image, and cc² = 0 where V or W is below 1e-10 of the variance of the
    whole image (times n): invariant to a·I + b everywhere.
``voxelmorph``
    n = window^D everywhere, beyond the border the image is 0, and cc² = X² / (V W + 1e-5).
"""

import functools
import operator

import torch
import torch.nn.functional as F
from torch import Tensor


def box_sum(values: Tensor, window: int) -> Tensor:
    """Sum of (B, C, *space) over a box of side ``window`` around each voxel; zero beyond the border.

    A sum over 2k voxels is that over k voxels plus itself k voxels further: 9 = 8 + 1 takes four additions.
    """
    left, right = (window - 1) // 2, window // 2
    for axis in range(2, values.ndim):
        size = values.shape[axis]
        part = F.pad(values.movedim(axis, -1), (left, right))
        pieces, covered, width = [], 0, 1
        while True:
            if window & width:
                pieces.append(part.narrow(-1, covered, size))
                covered += width
            if 2 * width > window:
                break
            length = part.shape[-1] - width
            part = part.narrow(-1, 0, length) + part.narrow(-1, width, length)
            width *= 2
        values = functools.reduce(operator.add, pieces).movedim(-1, axis)
    return values


def gaussian_sum(values: Tensor, window: int) -> Tensor:
    """Sum of (B, C, *space) weighted by a Gaussian of standard deviation ``window`` / 6; zero beyond the border.

    The weights are cut off at the window and add up to the number of voxels of a box.
    """
    left, right = (window - 1) // 2, window // 2
    offsets = torch.arange(-left, right + 1, dtype=values.dtype, device=values.device)
    weights = torch.exp(-0.5 * (offsets * 6 / window) ** 2)
    weights = weights * window / weights.sum()
    for axis in range(2, values.ndim):
        size = values.shape[axis]
        part = F.pad(values.movedim(axis, -1), (left, right))
        values = sum(weight * part.narrow(-1, k, size) for k, weight in enumerate(weights)).movedim(-1, axis)
    return values


VARIANTS = ("ants", "voxelmorph")
#: Added to V W in the ``voxelmorph`` variant.
EPSILON = 1e-5
#: A box of the ``ants`` variant is flat below this part of the variance of the whole image.
FLAT = 1e-10


def lncc_map(fixed: Tensor, moving: Tensor, window: int, variant: str, gaussian: bool) -> Tensor:
    """Squared local correlation (B, C, *space) in float64, for images (B, C, *space) of any type."""
    axes = tuple(range(2, fixed.ndim))
    total = gaussian_sum if gaussian else box_sum
    i, j = fixed.double(), moving.double()
    mean_i, mean_j = (x.detach().mean(axes, keepdim=True) for x in (i, j))
    i, j = i - mean_i, j - mean_j
    inside = total(torch.ones_like(i[:1, :1]), window)
    count = inside if variant == "ants" else torch.full_like(inside, window ** len(axes))
    sum_i, sum_j = total(i, window), total(j, window)
    cross = total(i * j, window) - sum_i * sum_j / count
    variance_i = total(i * i, window) - sum_i * sum_i / count
    variance_j = total(j * j, window) - sum_j * sum_j / count
    if variant == "voxelmorph":  # beyond the border the image is 0, which is -mean after the subtraction
        cut = 1 - inside / count
        cross = cross + cut * (mean_i * sum_j + mean_j * sum_i + mean_i * mean_j * inside)
        variance_i = variance_i + cut * (2 * mean_i * sum_i + mean_i * mean_i * inside)
        variance_j = variance_j + cut * (2 * mean_j * sum_j + mean_j * mean_j * inside)
        # Where a variance is only rounding so is the correlation, and small as EPSILON is, it would make it large.
        cross = torch.where((variance_i > 0) & (variance_j > 0), cross, 0 * cross)
        product = variance_i.clamp(min=0) * variance_j.clamp(min=0) + EPSILON
    else:
        flat_i, flat_j = (FLAT * x.detach().square().mean(axes, keepdim=True) * count for x in (i, j))
        # A comparison with NaN fails, so that NaN goes on to the result.
        flat = (variance_i <= flat_i) | (variance_j <= flat_j)
        product = torch.where(flat, 1, variance_i * variance_j)
        cross = torch.where(flat, 0, cross)
    return (cross * cross / product).clamp(max=1)


def lncc_reference(fixed: Tensor, moving: Tensor, window: int, variant: str, gaussian: bool) -> Tensor:
    """Minus the mean of :func:`lncc_map`, in the type of ``moving``."""
    kind = moving.dtype if moving.dtype == torch.float64 else torch.float32
    return -lncc_map(fixed, moving, window, variant, gaussian).mean().to(kind)
