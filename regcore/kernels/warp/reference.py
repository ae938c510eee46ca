"""Linear interpolation in plain torch: W(p) = I(p + u(p)).

Along each axis the cell of a position p holds the voxels ``base`` and ``base + 1``, and their weights are
the hat function max(0, 1 - |p - voxel|).  Outside the image the weights fall to zero within one voxel
(border "zero"), or the position is clamped (border "edge").  At whole numbers the weights are exactly 1
and 0, so that a zero displacement returns its input.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def identity(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return the voxel coordinates of a grid.

    Parameters
    ----------
    shape : sequence of int
        Voxels along each array axis.
    like : Tensor
        Whose type and device are taken.

    Returns
    -------
    Tensor, shape (1, D, *shape)
        Component order = array axis order.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import identity
    >>> identity((2, 3), torch.zeros(1))[0, :, 1, 2].tolist()
    [1.0, 2.0]
    """
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample_reference(image: Tensor, points: Tensor, mode: str = "linear", border: str = "zero") -> Tensor:
    """Interpolate ``image`` (B, C, *space) at voxel coordinates ``points`` (B or 1, D, *out) → (B, C, *out)."""
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

    base, weights = torch.zeros_like(points[:, 0], dtype=torch.int64), []
    for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        along = points[:, axis]
        whole = along.detach().nan_to_num()  # a diverged displacement gives NaN, not an index out of bounds
        if mode == "nearest":
            base = base + (whole.round().clamp(-margin, size - 1 - margin).long() + margin) * stride
            continue
        lower = whole.floor().clamp(-margin, max(size - 2 - margin, -margin))
        base = base + (lower.long() + margin) * stride
        weights.append((along - lower).clamp(0, 1).unsqueeze(1).to(image.dtype))
    if mode == "nearest":
        return values_at(base)
    # On an axis of one voxel the upper corner is the lower one.
    steps = [stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True)]
    corners = [values_at(base + sum(offset)) for offset in itertools.product(*[(0, step) for step in steps])]
    for weight in reversed(weights):
        corners = [torch.lerp(low, high, weight) for low, high in zip(corners[::2], corners[1::2], strict=True)]
    return corners[0]


def warp_reference(image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """``image`` (B, C, *moving) at p + u(p) for ``displacement`` u (B, D, *fixed) → (B, C, *fixed)."""
    points = identity(displacement.shape[2:], displacement) + displacement
    return sample_reference(image, points, border="edge" if edge else "zero")
