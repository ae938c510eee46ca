"""Pairs of images from label maps, with random contrasts: SynthMorph (Hoffmann et al., TMI 2022), Section II-C.

Where the paper leaves the order of the steps open, it is that of the authors' code: labels are deformed (nearest
neighbour, zeros beyond the border), every label gets its intensities, then blur, bias field, clipping, normalisation
to 0 ... 1 and a power.  Thick slices and a smaller field of view are from the authors' later generator and are off by
default.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from regcore.kernels import philox, shading
from regcore.kernels.shading.reference import extremes
from regcore.spatial import integrate, resample, resample_displacement, smooth, warp
from regcore.synthesis.noise import Draws, coarse_shape, normal, normal_number, number, random_velocity, uniform

#: Types of label maps.
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
#: Intensities are clipped to this range before they are normalised.
BRIGHTEST = 255


@dataclass(frozen=True)
class ImageRanges:
    """Ranges that images are drawn from, with the paper's symbols (Table I [1]_).

    Parameters
    ----------
    a_mu, b_mu : float
        Mean intensity of a label.
    a_sigma, b_sigma : float
        Standard deviation of its intensities.
    b_K : float
        Largest standard deviation of the blur, voxels, drawn for each axis.
    r_B, b_B : float
        Bias field: relative resolution 1:r_B, and the largest standard deviation of its logarithm.
    sigma_gamma : float
        Standard deviation of γ; intensities are raised to exp(γ).
    empty_background : float
        Probability that label 0 is black (the code; the paper does not say).
    thickest : float
        Largest thickness of slices along one axis, voxels; 1 changes nothing (later generator: 8).
    largest_crop : float
        Largest share of each axis outside the field of view, where images are 0 (later generator: 0.2).

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Table I.

    Examples
    --------
    >>> from regcore.synthesis.intensities import ImageRanges
    >>> ranges = ImageRanges(b_K=2)
    >>> ranges.a_mu, ranges.b_mu, ranges.b_K
    (25, 225, 2)
    """

    a_mu: float = 25
    b_mu: float = 225
    a_sigma: float = 5
    b_sigma: float = 25
    b_K: float = 1
    r_B: float = 40
    b_B: float = 0.3
    sigma_gamma: float = 0.25
    empty_background: float = 0.2
    thickest: float = 1
    largest_crop: float = 0


@dataclass(frozen=True)
class WarpRanges:
    """Ranges that deformations of label maps are drawn from (Table I [1]_).

    Parameters
    ----------
    r_v : sequence of float
        Relative resolutions 1:r_v of the velocities that are added.
    b_v : float
        Largest standard deviation of each, voxels of the half-resolution grid on which velocities are integrated.
    steps : int
        Squarings of the integration.
    flips : bool
        Whether axes are flipped at random, in both maps of a pair.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Table I.

    Examples
    --------
    >>> from regcore.synthesis.intensities import WarpRanges
    >>> WarpRanges(r_v=(8, 16), flips=False)
    WarpRanges(r_v=(8, 16), b_v=3, steps=5, flips=False)
    """

    r_v: Sequence[float] = (16,)
    b_v: float = 3
    steps: int = 5
    flips: bool = True


@dataclass(frozen=True, eq=False)
class Pair:
    """A training pair.

    Attributes
    ----------
    moving, fixed : Tensor, shape (1, 1, *space)
        Images, 0 to 1, float32.
    moving_labels, fixed_labels : Tensor, shape (1, 1, *space)
        The deformed label maps.
    velocities : tuple of Tensor, shape (1, D, *half)
        Of the moving and the fixed map, in voxels of the half-resolution grid.

    Examples
    --------
    >>> from regcore.synthesis.intensities import ImageRanges, WarpRanges, draw_pair
    >>> from regcore.synthesis.noise import Draws
    >>> from regcore.synthesis.shapes import random_shapes
    >>> labels = random_shapes((16, 16), Draws(seed=7), labels=4, resolution=4)
    >>> pair = draw_pair(labels, labels, ImageRanges(), WarpRanges(), Draws(seed=7))
    >>> tuple(pair.moving.shape), tuple(pair.velocities[0].shape)
    ((1, 1, 16, 16), (1, 2, 8, 8))
    """

    moving: Tensor
    fixed: Tensor
    moving_labels: Tensor
    fixed_labels: Tensor
    velocities: tuple[Tensor, Tensor] = field(repr=False)


def draw_pair(moving: Tensor, fixed: Tensor, images: ImageRanges, warps: WarpRanges, draws: Draws) -> Pair:
    """Deform two label maps, or the same one twice, and make an image of each (Section II-C [1]_).

    Parameters
    ----------
    moving, fixed : Tensor of int, shape (1, 1, *space)
        Label maps on one grid, on the device of the draws.
    images : ImageRanges
        What images are drawn from.
    warps : WarpRanges
        What deformations are drawn from.
    draws : Draws
        Where the numbers come from.

    Returns
    -------
    Pair

    Raises
    ------
    ValueError
        A map is not of integers or, on a CPU, has a negative code, or the two have different shapes.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Section II-C.

    Examples
    --------
    >>> from regcore.synthesis.intensities import ImageRanges, WarpRanges, draw_pair
    >>> from regcore.synthesis.noise import Draws
    >>> from regcore.synthesis.shapes import random_shapes
    >>> labels = random_shapes((16, 16), Draws(seed=7), labels=4, resolution=4)
    >>> pair = draw_pair(labels, labels, ImageRanges(), WarpRanges(), Draws(seed=7))
    >>> pair.fixed.min().item(), pair.fixed.max().item()
    (0.0, 1.0)
    """
    for name, labels in (("moving", moving), ("fixed", fixed)):
        _require_labels(name, labels)
    if moving.shape != fixed.shape:
        raise ValueError(f"label maps of shape {tuple(moving.shape)} and {tuple(fixed.shape)} do not make a pair")
    space = tuple(moving.shape[2:])
    flipped = [axis + 2 for axis in range(len(space)) if warps.flips and number(0, 1, draws) < 0.5]
    deformed, velocities = [], []
    for labels in (moving, fixed):
        velocity = random_velocity(space, warps.r_v, warps.b_v, draws)
        displacement = resample_displacement(integrate(velocity, warps.steps), space)
        deformed.append(warp(labels.flip(flipped), displacement, mode="nearest"))
        velocities.append(velocity)
    drawn = [draw_image(labels, images, draws) for labels in deformed]
    return Pair(drawn[0], drawn[1], deformed[0], deformed[1], (velocities[0], velocities[1]))


def draw_image(labels: Tensor, ranges: ImageRanges, draws: Draws) -> Tensor:
    """An image of a label map (Section II-C.2 [1]_).

    Parameters
    ----------
    labels : Tensor of int, shape (1, 1, *space)
        A label map, on the device of the draws.
    ranges : ImageRanges
        What the image is drawn from.
    draws : Draws
        Where the numbers come from.

    Returns
    -------
    Tensor of float32, shape (1, 1, *space)
        Smallest value 0 and largest 1.

    Raises
    ------
    ValueError
        The map is not of integers or, on a CPU, has a negative code.

    References
    ----------
    .. [1] Hoffmann, Billot, Greve, Iglesias, Fischl and Dalca, "SynthMorph: Learning contrast-invariant registration
       without acquired images", IEEE TMI 2022, Section II-C.

    Examples
    --------
    >>> from regcore.synthesis.intensities import ImageRanges, draw_image
    >>> from regcore.synthesis.noise import Draws
    >>> from regcore.synthesis.shapes import random_shapes
    >>> labels = random_shapes((16, 16), Draws(seed=7), labels=4, resolution=4)
    >>> image = draw_image(labels, ImageRanges(), Draws(seed=7))
    >>> tuple(image.shape), image.min().item(), image.max().item()
    ((1, 1, 16, 16), 0.0, 1.0)
    """
    _require_labels("labels", labels)
    image = label_intensities(labels, ranges, draws)
    image = smooth(image, [number(0, ranges.b_K, draws) for _ in labels.shape[2:]])
    image = _in_thick_slices(image, ranges.thickest, draws)
    image, ends = shading.shade(image, log_bias_field(labels.shape[2:], ranges, draws), BRIGHTEST)
    if ranges.largest_crop > 0:
        image = _cropped(image, ranges.largest_crop, draws)
        ends = extremes(image)
    return shading.stretch(image, ends, math.exp(ranges.sigma_gamma * normal_number(draws)))


def label_intensities(labels: Tensor, ranges: ImageRanges, draws: Draws) -> Tensor:
    """Independent normal intensities, with a separate mean and standard deviation for each label.

    Parameters
    ----------
    labels : Tensor of int, shape (1, 1, *space)
        A label map, on the device of the draws.
    ranges : ImageRanges
        What means and standard deviations are drawn from.
    draws : Draws
        Where the numbers come from.

    Returns
    -------
    Tensor of float32, shape (1, 1, *space)

    Examples
    --------
    >>> import torch
    >>> from regcore.synthesis.intensities import ImageRanges, label_intensities
    >>> from regcore.synthesis.noise import Draws
    >>> labels = torch.ones(1, 1, 16, 16, dtype=torch.int32)
    >>> quiet = ImageRanges(a_mu=100, b_mu=100, a_sigma=0, b_sigma=0)
    >>> label_intensities(labels, quiet, Draws(seed=7)).unique().tolist()
    [100.0]
    """
    codes = _codes(labels)
    means = uniform(ranges.a_mu, ranges.b_mu, draws, (codes,))
    spreads = uniform(ranges.a_sigma, ranges.b_sigma, draws, (codes,))
    if number(0, 1, draws) < ranges.empty_background:
        for table in (means, spreads):
            table[0].zero_()
    return philox.label_image(labels, means, spreads, *draws.next())


def _codes(labels: Tensor) -> int:
    """Size of a table for the map: its largest code plus one; on a GPU, for small types, the type's largest plus one.

    This avoids waiting for the GPU; the entries of the codes are the same.
    """
    largest = torch.iinfo(labels.dtype).max
    if labels.is_cpu or largest >= 2**15:
        return 1 + max(0, int(labels.max()))
    return 1 + largest


def log_bias_field(space: Sequence[int], ranges: ImageRanges, draws: Draws) -> Tensor:
    """Logarithm of a positive factor, given at coarse voxels and linear between them.

    Noise at relative resolution 1:r_B, of standard deviation up to b_B.

    Parameters
    ----------
    space : sequence of int
        Size of the image.
    ranges : ImageRanges
        ``r_B`` and ``b_B``.
    draws : Draws
        Where the numbers come from.

    Returns
    -------
    Tensor of float32, shape (1, 1, *coarse)
        ``coarse`` as in :func:`~regcore.synthesis.noise.coarse_shape`.

    Examples
    --------
    >>> from regcore.synthesis.intensities import ImageRanges, log_bias_field
    >>> from regcore.synthesis.noise import Draws
    >>> tuple(log_bias_field((160, 192), ImageRanges(), Draws(seed=7)).shape)
    (1, 1, 4, 5)
    """
    return number(0, ranges.b_B, draws) * normal((1, 1, *coarse_shape(space, ranges.r_B)), draws)


def _in_thick_slices(image: Tensor, thickest: float, draws: Draws) -> Tensor:
    """The image sampled in thick slices along one axis, and resampled to its grid."""
    if thickest <= 1:
        return image
    axis = int(number(0, image.ndim - 2, draws))
    thickness = number(1, thickest, draws)
    space = list(image.shape[2:])
    sigma, coarse = [0.0] * len(space), list(space)
    # Slices are averages over their thickness: a box of width t has the standard deviation t / sqrt(12).
    sigma[axis] = thickness / 12**0.5
    coarse[axis] = max(2, round(space[axis] / thickness))
    return resample(resample(smooth(image, sigma), coarse), space)


def _cropped(image: Tensor, largest: float, draws: Draws) -> Tensor:
    """The image with zeros outside a smaller field of view."""
    inside = torch.zeros_like(image, dtype=torch.bool)
    box: list[Any] = [slice(None), slice(None)]
    for size in image.shape[2:]:
        kept = size - int(size * number(0, largest, draws))
        start = int((size - kept + 1) * number(0, 1, draws))
        box.append(slice(start, start + kept))
    inside[tuple(box)] = True
    return image.mul_(inside)


def _require_labels(name: str, labels: Tensor) -> None:
    if labels.dtype not in WHOLE or labels.ndim not in (4, 5) or labels.shape[:2] != (1, 1):
        raise ValueError(
            f"{name} of shape {tuple(labels.shape)} and type {labels.dtype} must be a map (1, 1, *space) of integers"
        )
    # On a GPU codes are not checked, because that would wait for it; negative ones are then treated as 0.
    if labels.numel() == 0 or (labels.is_cpu and labels.min() < 0):
        raise ValueError(f"{name} must have voxels, and codes of 0 or more")
