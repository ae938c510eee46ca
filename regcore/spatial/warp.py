"""Sampling an image at points, warping it by a displacement, and resizing displacements.

All coordinates are voxel indices with integer voxel centres.  Interpolation is written as an explicit
blend of the corners of the cell, so that a zero displacement returns its input bit for bit, which the
normalised coordinates of ``grid_sample`` cannot do.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def identity(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return the voxel coordinates of a grid, shape ``(1, D, *shape)``, in ``like``'s type and device."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample(image: Tensor, points: Tensor, mode: str = "linear", border: str = "zero") -> Tensor:
    """Interpolate ``image`` at ``points``.

    Parameters
    ----------
    image : Tensor, shape (B, C, *space)
        Any real type; ``mode="linear"`` needs a floating one.
    points : Tensor, shape (B or 1, D, *out)
        Voxel coordinates in ``image``, component order = array axis order.
    mode : {"linear", "nearest"}
        ``linear`` is Eq. 3 of VoxelMorph.  ``nearest`` rounds halves to even and has no gradient.
    border : {"zero", "edge"}
        Value outside the image: 0, or that of the nearest voxel.

    Returns
    -------
    Tensor, shape (B, C, *out)
    """
    if mode not in ("linear", "nearest") or border not in ("zero", "edge"):
        raise ValueError(f"unknown mode {mode!r} or border {border!r}")
    batch, channels = image.shape[:2]
    points = points.expand(batch, *points.shape[1:])
    margin = 0
    if border == "zero":  # one voxel of zeros around the image, and everything beyond is that voxel
        image = F.pad(image, [1, 1] * (image.ndim - 2))
        margin = 1
    shape = image.shape[2:]
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    flat_image = image.reshape(batch, channels, -1)

    def values_at(index: Tensor) -> Tensor:
        flat_index = index.reshape(batch, 1, -1).expand(-1, channels, -1)
        return flat_image.gather(2, flat_index).view(batch, channels, *index.shape[1:])

    base, weights = 0, []
    for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        along = points[:, axis]
        whole = along.detach().nan_to_num()  # a diverged displacement gives NaN, not an index out of bounds
        if mode == "nearest":
            base = base + (whole.round().clamp(-margin, size - 1 - margin).long() + margin) * stride
            continue
        lower = whole.floor().clamp(-margin, size - 2 - margin)
        base = base + (lower.long() + margin) * stride
        weights.append((along - lower).clamp(0, 1).unsqueeze(1).to(image.dtype))
    if mode == "nearest":
        return values_at(base)
    corners = [values_at(base + sum(offset)) for offset in itertools.product(*[(0, stride) for stride in strides])]
    for weight in reversed(weights):
        corners = [torch.lerp(low, high, weight) for low, high in zip(corners[::2], corners[1::2], strict=True)]
    return corners[0]


def warp(image: Tensor, displacement: Tensor, mode: str = "linear", border: str = "zero") -> Tensor:
    """Pull ``image`` back through φ(p) = p + u(p): ``warped(p) = image(p + u(p))``.

    Parameters
    ----------
    image : Tensor, shape (B, C, *moving)
    displacement : Tensor, shape (B, D, *fixed)
        In voxels.

    Returns
    -------
    Tensor, shape (B, C, *fixed)
    """
    points = identity(displacement.shape[2:], displacement) + displacement
    return sample(image, points, mode, border)


def resize(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample ``values`` (B, C, *space) linearly to ``shape``, corner voxels onto corner voxels."""
    if tuple(values.shape[2:]) == tuple(shape):
        return values
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    return F.interpolate(values, size=tuple(shape), mode=mode, align_corners=True)


def resize_displacement(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample a displacement or velocity to ``shape`` and express it in the new grid's voxels.

    With corners on corners, a voxel of the old grid is ``(new - 1) / (old - 1)`` voxels of the new one:
    close to, but not, the ratio of the sizes.
    """
    old = displacement.shape[2:]
    scale = [(b - 1) / (a - 1) for a, b in zip(old, shape, strict=True)]
    factors = torch.tensor(scale, dtype=displacement.dtype, device=displacement.device)
    return resize(displacement, shape) * factors.view(1, -1, *[1] * len(old))


def pad_to_multiple(values: Tensor, multiple: int) -> Tensor:
    """Append zeros to the end of each spatial axis of (B, C, *space) up to a multiple of ``multiple``."""
    padding = [(-n) % multiple for n in values.shape[2:]]
    return F.pad(values, [p for size in reversed(padding) for p in (0, size)])


def crop_to(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`pad_to_multiple`: keep the first ``shape`` voxels of (B, C, *space)."""
    return values[(..., *[slice(n) for n in shape])]
