"""Gaussian smoothing in plain torch.

Along each axis out(p) = Σₖ wₖ I(p + k), with wₖ ∝ exp(−k² / 2 σ²) for |k| ≤ ⌈3 σ⌉ and Σₖ wₖ = 1.  Beyond the border I
keeps the value at the edge.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Truncation of the Gaussian, in standard deviations.
TRUNCATE = 3.0


def radius_of(sigma: float) -> int:
    """Radius of the truncated Gaussian in voxels."""
    return math.ceil(TRUNCATE * sigma)


def taps(sigma: float) -> list[float]:
    """Half of the sampled Gaussian, centre first, normalised so that the whole sums to one."""
    radius = radius_of(sigma)
    values = [math.exp(-0.5 * (k / sigma) * (k / sigma)) if k else 1.0 for k in range(radius + 1)]
    total = 2 * math.fsum(values) - 1
    return [value / total for value in values]


def gaussian_reference(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    """(B, C, *space) smoothed along each axis of ``space`` with its own standard deviation, in voxels."""
    for axis, sigma in enumerate(sigmas, start=2):
        weights, length = taps(sigma), values.shape[axis]
        positions = torch.arange(length, device=values.device)
        smoothed = weights[0] * values
        for k, weight in enumerate(weights[1:], start=1):
            before = values.index_select(axis, (positions - k).clamp_min(0))
            after = values.index_select(axis, (positions + k).clamp_max(length - 1))
            smoothed = smoothed + weight * (before + after)
        values = smoothed
    return values
