"""Sampling of images at points, warping, and resampling of images and displacements.

All coordinates are voxel indices with integer voxel centres.  Interpolation is an explicit weighted mean of the
corners of the cell, so that a zero displacement returns its input bit for bit.  The normalised coordinates of
``grid_sample`` cannot do that.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.checks import describe, require_field, require_finite, require_floating, require_image
from regcore.kernels import smoothing
from regcore.kernels import warp as kernel
from regcore.kernels.warp.reference import identity, sample_reference

__all__ = [
    "crop_to",
    "identity",
    "pad_to_multiple",
    "resample",
    "resample_displacement",
    "sample",
    "smooth",
    "warp",
]


def sample(image: Tensor, points: Tensor, mode: str = "linear", border: str = "zero") -> Tensor:
    """Interpolate ``image`` at ``points``.

    Parameters
    ----------
    image : Tensor, shape (B, C, *space)
        Any real type; ``mode="linear"`` needs a floating one.
    points : Tensor, shape (B or 1, D, *out)
        Voxel coordinates in ``image``, component order = array axis order.
    mode : {"linear", "nearest"}
        ``linear`` is Eq. 3 of VoxelMorph [1]_.  ``nearest`` rounds halves to even and has no gradient.
    border : {"zero", "edge"}
        Value outside the image: 0, or the value of the nearest voxel.

    Returns
    -------
    Tensor, shape (B, C, *out)

    Raises
    ------
    ValueError
        The mode or border is unknown; the shapes do not fit; the type cannot be interpolated; or the image or the
        points contain NaN or infinite values.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 3.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import sample
    >>> image = torch.tensor([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> points = torch.tensor([[[0.5], [0.5]]])
    >>> sample(image, points).item()
    15.0
    """
    require_image("image", image)
    _require_sampling(image, "points", points, mode, border)
    require_finite("image", image)
    require_finite("points", points)
    return sample_reference(image, points, mode, border)


def warp(image: Tensor, displacement: Tensor, mode: str = "linear", border: str = "zero") -> Tensor:
    """Pull ``image`` back through φ(p) = p + u(p): ``warped(p) = image(p + u(p))``, Eq. 3 of VoxelMorph [1]_.

    Parameters
    ----------
    image : Tensor, shape (B, C, *moving)
        Any real type; ``mode="linear"`` needs a floating one.
    displacement : Tensor, shape (B or 1, D, *fixed)
        In voxels, component order = array axis order.
    mode : {"linear", "nearest"}
        As for :func:`sample`.
    border : {"zero", "edge"}
        As for :func:`sample`.

    Returns
    -------
    Tensor, shape (B, C, *fixed)
        With the type of ``image``.  A zero displacement gives the image, bit for bit.

    Raises
    ------
    ValueError
        As for :func:`sample`, or if the displacement is not a field.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 3.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import warp
    >>> image = torch.arange(4.0).view(1, 1, 1, 4)
    >>> ahead = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    >>> warp(image, ahead).flatten().tolist()
    [1.0, 2.0, 3.0, 0.0]
    """
    require_image("image", image)
    require_field("displacement", displacement)
    _require_sampling(image, "displacement", displacement, mode, border)
    require_finite("image", image)
    require_finite("displacement", displacement)
    if mode == "nearest":
        points = identity(displacement.shape[2:], displacement) + displacement
        return sample_reference(image, points, mode, border)
    return kernel.warp(image, displacement, border == "edge")


def _require_sampling(image: Tensor, name: str, where: Tensor, mode: str, border: str) -> None:
    if mode not in ("linear", "nearest"):
        raise ValueError(f"mode must be 'linear' or 'nearest', not {mode!r}")
    if border not in ("zero", "edge"):
        raise ValueError(f"border must be 'zero' or 'edge', not {border!r}")
    if mode == "linear" and not image.is_floating_point():
        raise ValueError(f"{describe('image', image)} of {image.dtype} can only be sampled with mode='nearest'")
    fits = where.ndim >= 2 and where.shape[0] in (1, len(image)) and where.shape[1] == image.ndim - 2 and where.numel()
    if not fits or not where.is_floating_point():
        raise ValueError(
            f"{describe(name, where)} of {where.dtype} must be floating-point coordinates (batch, "
            f"{image.ndim - 2}, ...), and not empty, for {describe('image', image)}"
        )


def resample(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample ``values`` linearly to ``shape``, corner voxels onto corner voxels.

    Parameters
    ----------
    values : Tensor, shape (B, C, *space)
        Floating-point.
    shape : sequence of int, length D
        Voxels of the result along each array axis.

    Returns
    -------
    Tensor, shape (B, C, *shape)

    Raises
    ------
    ValueError
        ``values`` is not an image or has integers (labels cannot be interpolated), or ``shape`` has another number
        of axes or a size below 1.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import resample
    >>> row = torch.tensor([0.0, 2.0, 4.0]).view(1, 1, 1, 3)
    >>> resample(row, (1, 5)).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    require_image("values", values)
    require_floating("values", values)
    if len(shape) != values.ndim - 2 or any(n < 1 for n in shape):
        raise ValueError(
            f"shape {tuple(shape)} must have one size, 1 or more, for each axis of {describe('values', values)}"
        )
    if tuple(values.shape[2:]) == tuple(shape):
        return values
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    return F.interpolate(values, size=tuple(shape), mode=mode, align_corners=True)


def resample_displacement(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample a displacement or velocity to ``shape`` and express it in the new grid's voxels.

    Corner voxels map onto corner voxels, so a voxel of the old grid is ``(new - 1) / (old - 1)`` voxels of the new one,
    which is close to the ratio of the sizes but not equal to it.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *space)
        In voxels of its grid, two or more along each axis.
    shape : sequence of int, length D
        Voxels of the new grid along each array axis.

    Returns
    -------
    Tensor, shape (B, D, *shape)

    Raises
    ------
    ValueError
        The displacement is not a field, or is one voxel thick; or ``shape`` has other axes or a size below 1.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import resample_displacement
    >>> coarse = torch.ones(1, 2, 5, 5)
    >>> resample_displacement(coarse, (9, 9))[0, :, 0, 0].tolist()
    [2.0, 2.0]
    """
    require_field("displacement", displacement)
    if len(shape) != displacement.ndim - 2 or min(shape) < 1:
        raise ValueError(
            f"shape {tuple(shape)} must have one size, 1 or more, for each axis of "
            f"{describe('displacement', displacement)}"
        )
    if min(displacement.shape[2:]) < 2:
        raise ValueError(f"{describe('displacement', displacement)} must have 2 voxels or more along each axis")
    old = displacement.shape[2:]
    scale = [(b - 1) / (a - 1) for a, b in zip(old, shape, strict=True)]
    # Filled on the device: a copy from the CPU could not be recorded in a CUDA graph.
    factors = torch.cat([displacement.new_full((1, 1, *[1] * len(old)), factor) for factor in scale], dim=1)
    return resample(displacement, shape) * factors


def smooth(values: Tensor, sigma: float | Sequence[float]) -> Tensor:
    """Smooth an image or field with a Gaussian, truncated at three standard deviations.

    Values outside are those of the nearest edge voxel, so that a constant stays constant.

    Parameters
    ----------
    values : Tensor, shape (B, C, *space)
    sigma : float, or one for each axis of space
        Standard deviation in voxels; 0 does not smooth that axis.

    Returns
    -------
    Tensor, shape of ``values``

    Raises
    ------
    ValueError
        ``values`` is not an image or has integers, or ``sigma`` is negative or does not fit.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import smooth
    >>> point = torch.zeros(1, 1, 1, 5)
    >>> point[..., 2] = 1
    >>> [round(value, 3) for value in smooth(point, (0, 1)).flatten().tolist()]
    [0.054, 0.242, 0.399, 0.242, 0.054]
    """
    require_image("values", values)
    require_floating("values", values)
    sigmas = [float(sigma)] * (values.ndim - 2) if isinstance(sigma, int | float) else [float(s) for s in sigma]
    if len(sigmas) != values.ndim - 2 or not all(0 <= s < float("inf") for s in sigmas):
        raise ValueError(
            f"sigma must be 0 or more, one number or one for each axis of {describe('values', values)}, not {sigma}"
        )
    return smoothing.gaussian(values, sigmas) if any(sigmas) else values


def pad_to_multiple(values: Tensor, multiple: int) -> Tensor:
    """Append zeros to the end of each spatial axis up to a multiple of ``multiple``.

    Parameters
    ----------
    values : Tensor, shape (B, C, *space)
        An image or a field.
    multiple : int
        At least 1.

    Returns
    -------
    Tensor, shape (B, C, *padded)

    Raises
    ------
    ValueError
        ``values`` is not an image, or ``multiple`` is below 1.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import pad_to_multiple
    >>> tuple(pad_to_multiple(torch.ones(1, 1, 5, 8), 4).shape)
    (1, 1, 8, 8)
    """
    require_image("values", values)
    if multiple < 1:
        raise ValueError(f"multiple must be 1 or more, not {multiple}")
    padding = [(-n) % multiple for n in values.shape[2:]]
    return F.pad(values, [p for size in reversed(padding) for p in (0, size)])


def crop_to(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pad_to_multiple`: keep the first ``shape`` voxels.

    Parameters
    ----------
    values : Tensor, shape (B, C, *space)
        An image or a field.
    shape : sequence of int, length D
        Voxels to keep along each array axis.

    Returns
    -------
    Tensor, shape (B, C, *shape)

    Raises
    ------
    ValueError
        ``values`` is not an image, or ``shape`` does not lie within it.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import crop_to, pad_to_multiple
    >>> padded = pad_to_multiple(torch.ones(1, 1, 5, 7), 4)
    >>> tuple(crop_to(padded, (5, 7)).shape)
    (1, 1, 5, 7)
    """
    require_image("values", values)
    if len(shape) != values.ndim - 2 or any(not 0 < n <= old for n, old in zip(shape, values.shape[2:], strict=True)):
        raise ValueError(f"shape {tuple(shape)} must lie within {describe('values', values)}")
    kept: tuple[Any, ...] = (..., *[slice(n) for n in shape])
    return values[kept]
