"""Squared difference of the self-similarity descriptors of two images in plain torch.

For each pair (a, b) of face neighbours along different axes, with d the dilation along their axis, S_ab(p) is the mean
of (I(q + d a) − I(q + d b))² over the patch of voxels q around p; D = S − min S over the pairs; V is the mean of D over
the pairs, clamped to 0.001 to 1000 times its mean over the image; the descriptor is exp(−D / V).  Outside the image,
I and the squared differences keep the value at the edge.
"""

import functools
import itertools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor


def difference_reference(descriptor: Tensor, image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Mean over batch, pairs and voxels of the squared difference of a :func:`descriptor_reference` and an image's."""
    return (descriptor - descriptor_reference(image, radius, dilation)).square().mean()


def descriptor_reference(image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """exp(−D / V), (B, 1, *space) → (B, pairs, *space), of an image of any type in float32 or float64.

    Radius and dilation are in voxels along each axis.
    """
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    distances = _pair_differences(image, dilation).square()
    for axis, reach in enumerate(radius, start=2):
        distances = _moving_average(distances, axis, reach)
    distances = distances - distances.amin(1, keepdim=True)
    return torch.exp(-distances / _variance(distances))


def _pair_differences(image: Tensor, dilation: Sequence[int]) -> Tensor:
    """I(p + d a) − I(p + d b) for the pairs (a, b) of neighbours along different axes, as channels."""
    ends = [(axis, offset) for axis, step in enumerate(dilation, start=2) for offset in (-step, step)]
    shifted = {end: _shift(image, *end) for end in ends}
    pairs = [(a, b) for a, b in itertools.combinations(ends, 2) if a[0] != b[0]]
    return torch.cat([shifted[a] - shifted[b] for a, b in pairs], dim=1)


def _variance(distances: Tensor) -> Tensor:
    """V(p), (B, 1, *space); positive also for a constant image, whose distances are all 0."""
    variance = distances.mean(1, keepdim=True)
    mean = variance.mean(tuple(range(1, variance.ndim)), keepdim=True)
    smallest = (
        torch.finfo(variance.dtype).tiny ** 0.5
    )  # the gradient divides by its square, which must not underflow to 0
    return variance.clamp(0.001 * mean, 1000 * mean).clamp_min(smallest)


def _shift(values: Tensor, axis: int, offset: int) -> Tensor:
    """values(p + offset along ``axis``), with the edge repeated."""
    return _repeat_edge(values, axis, abs(offset)).narrow(axis, abs(offset) + offset, values.shape[axis])


def _moving_average(values: Tensor, axis: int, radius: int) -> Tensor:
    """Mean over 2 · radius + 1 neighbours along ``axis``, with the edge repeated.

    Adding slices stores nothing for the backward pass and, unlike pooling layers, is deterministic on a GPU; unlike a
    running sum, it does not cancel.
    """
    size = values.shape[axis]
    padded = _repeat_edge(values, axis, radius)
    slices = (padded.narrow(axis, start, size) for start in range(2 * radius + 1))
    return functools.reduce(operator.add, slices) / (2 * radius + 1)


def _repeat_edge(values: Tensor, axis: int, width: int) -> Tensor:
    """``values`` with its first and last slice along ``axis`` repeated ``width`` times."""
    sizes = [width if i == axis else -1 for i in range(values.ndim)]
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, values.shape[axis] - 1, 1)
    return torch.cat([first.expand(sizes), values, last.expand(sizes)], dim=axis)
