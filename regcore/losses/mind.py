"""How alike the local structure of two images is, whatever their contrast: self-similarity descriptors."""

import itertools

import torch
from torch import Tensor

from regcore.checks import describe, require_finite_loss, require_image, require_same_shape


def mind_ssc_descriptor(image: Tensor, radius: int = 2, dilation: int = 2) -> Tensor:
    """Self-similarity context of every voxel (MIND-SSC; Heinrich et al., MICCAI 2013).

    For each pair (a, b) of face neighbours at a right angle to each other, with d the dilation::

        S_ab(p) = mean of (I(q + d a) − I(q + d b))² over the patch of voxels q around p
        V(p)    = mean over pairs of S_ab(p) − min S(p), clamped to 0.001 to 1000 times its mean over p
        MIND(p) = exp(−(S_ab(p) − min S(p)) / V(p))

    Outside the image, I and the squared differences keep the value at the edge, as in the authors' code.
    The mean of V is that of each batch element by itself, so the descriptor depends on how the image was
    cropped but not on what else is in the batch.  The gradient passes through all of it, that mean too.

    Parameters
    ----------
    image : Tensor, shape (B, 1, *space)
        Types narrower than float32 are described in float32.
    radius : int
        The patch has 2 · radius + 1 voxels a side.
    dilation : int
        Distance from p to its neighbours, in voxels.

    Returns
    -------
    Tensor, shape (B, 12, *space) in 3-D, (B, 4, *space) in 2-D
        In [0, 1], unchanged by I → s I + t.  Channels are the pairs in lexical order of the neighbours
        −e₀, +e₀, −e₁, +e₁, −e₂, +e₂: another order than the authors', which changes no distance.
        1 everywhere for a constant image.

    Raises
    ------
    ValueError
        If the shape is not that of an image with one channel, ``radius`` or ``dilation`` is out of range,
        or a value on the CPU is NaN or infinite.
    """
    _require_arguments("image", image, radius, dilation)
    return require_finite_loss(_descriptor(image, radius, dilation), [("image", image)])


def mind_ssc(fixed: Tensor, warped: Tensor, radius: int = 2, dilation: int = 2) -> Tensor:
    """Mean squared difference of two images' :func:`mind_ssc_descriptor`, over batch, channels and voxels.

    Parameters
    ----------
    fixed, warped : Tensor, shape (B, 1, *space)
    radius, dilation : int
        Of the descriptor.

    Returns
    -------
    Tensor, scalar
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the shapes differ, or as for the descriptor.
    """
    _require_arguments("fixed", fixed, radius, dilation)
    require_same_shape("fixed", fixed, "warped", warped)
    loss = (_descriptor(fixed, radius, dilation) - _descriptor(warped, radius, dilation)).square().mean()
    return require_finite_loss(loss, [("fixed", fixed), ("warped", warped)])


def _require_arguments(name: str, image: Tensor, radius: int, dilation: int) -> None:
    require_image(name, image)
    if image.shape[1] != 1:
        raise ValueError(f"{describe(name, image)} must have one channel")
    if radius < 0 or dilation < 1:
        raise ValueError(f"MIND-SSC needs radius >= 0 and dilation >= 1, got radius={radius} and dilation={dilation}")


def _descriptor(image: Tensor, radius: int, dilation: int) -> Tensor:
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    distances = _pair_differences(image, dilation).square()
    for axis in range(2, image.ndim):
        distances = _moving_average(distances, axis, radius)
    distances = distances - distances.amin(1, keepdim=True)
    return torch.exp(-distances / _variance(distances))


def _pair_differences(image: Tensor, dilation: int) -> Tensor:
    """I(p + d a) − I(p + d b) for the pairs (a, b) of neighbours along different axes, as channels."""
    ends = list(itertools.product(range(2, image.ndim), (-dilation, dilation)))
    shifted = {end: _shift(image, *end) for end in ends}
    pairs = [(a, b) for a, b in itertools.combinations(ends, 2) if a[0] != b[0]]
    return torch.cat([shifted[a] - shifted[b] for a, b in pairs], dim=1)


def _variance(distances: Tensor) -> Tensor:
    """V(p), (B, 1, *space); positive also for a constant image, whose distances are all 0."""
    variance = distances.mean(1, keepdim=True)
    mean = variance.mean(tuple(range(1, variance.ndim)), keepdim=True)
    smallest = torch.finfo(variance.dtype).tiny ** 0.5  # the gradient divides by its square, which must not be 0
    return variance.clamp(0.001 * mean, 1000 * mean).clamp_min(smallest)


def _shift(values: Tensor, axis: int, offset: int) -> Tensor:
    """values(p + offset along ``axis``), the edge repeated."""
    return _repeat_edge(values, axis, abs(offset)).narrow(axis, abs(offset) + offset, values.shape[axis])


def _moving_average(values: Tensor, axis: int, radius: int) -> Tensor:
    """Mean over 2 · radius + 1 neighbours along ``axis``, the edge repeated.

    Adding slices keeps nothing for the backward pass, and unlike the pooling layers it is deterministic
    on a GPU; unlike a running sum it does not cancel.
    """
    size = values.shape[axis]
    padded = _repeat_edge(values, axis, radius)
    return sum(padded.narrow(axis, start, size) for start in range(2 * radius + 1)) / (2 * radius + 1)


def _repeat_edge(values: Tensor, axis: int, width: int) -> Tensor:
    """``values`` with its first and last slice along ``axis`` repeated ``width`` times."""
    sizes = [width if i == axis else -1 for i in range(values.ndim)]
    first, last = values.narrow(axis, 0, 1), values.narrow(axis, values.shape[axis] - 1, 1)
    return torch.cat([first.expand(sizes), values, last.expand(sizes)], dim=axis)
