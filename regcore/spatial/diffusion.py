"""Smoothing that varies in space: heat flow with a weight at each voxel."""

import math

import torch
from torch import Tensor

from regcore.checks import describe, require_field, require_floating, require_image, require_same_space


def squared_gradient(field: Tensor) -> Tensor:
    """|∇u(p)|² by forward differences: the sum over axes e and components of (u(p + e) − u(p))², Eq. 2 of TM-SPR [1]_.

    Parameters
    ----------
    field : Tensor, shape (B, D, *space)
        Displacement or velocity in voxels.

    Returns
    -------
    Tensor, shape (B, 1, *space)
        Without unit. The last voxel along an axis has no difference along it.

    Raises
    ------
    ValueError
        ``field`` does not have the shape of a field.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Eq. 2.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import squared_gradient
    >>> stretch = torch.arange(4.0).expand(1, 2, 1, 4)
    >>> squared_gradient(stretch).flatten().tolist()
    [2.0, 2.0, 2.0, 0.0]
    """
    require_field("field", field)
    total = torch.zeros_like(field[:, :1])
    for axis in range(2, field.ndim):
        ahead = field.diff(dim=axis).square().sum(1, keepdim=True)
        total.narrow(axis, 0, ahead.shape[axis]).add_(ahead)
    return total


def diffuse(values: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """Smooth by heat flow: ∂v/∂t = div(w ∇v) from t = 0 to σ²/2.

    The flow descends the mean of w(p) |∇v(p)|², the smoothness of TM-SPR [1]_ (Eq. 12).  With w = 1 it is a Gaussian of
    standard deviation σ.  Nothing flows over the border, nor where w is 0, so values on the two sides of a surface with
    a small weight stay apart while each side is smoothed.

    Parameters
    ----------
    values : Tensor, shape (B, C, *space)
        Image or field.
    weight : Tensor, shape (B, 1, *space)
        w, from 0 to 1: that of a voxel p counts for the differences between p and the next voxels (Eq. 10).
    sigma : float
        σ in voxels.

    Returns
    -------
    Tensor, shape of ``values``
        Within the range of ``values``, and with the same mean.

    Raises
    ------
    ValueError
        The shapes do not fit, ``values`` has integers, or ``sigma`` is negative.

    Notes
    -----
    Explicit steps of at most 1 / 3D: beyond 1 / 2D values would leave their range, and at 1 / 2D the finest pattern
    would only change its sign.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Eqs. 10 and 12.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import diffuse
    >>> step = torch.tensor([0.0, 1.0, 8.0, 9.0]).view(1, 1, 1, 4)
    >>> weight = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 1, 1, 4)
    >>> [round(value, 3) for value in diffuse(step, weight, sigma=5.0).flatten().tolist()]
    [0.5, 0.5, 8.5, 8.5]
    """
    require_image("values", values)
    require_floating("values", values)
    require_image("weight", weight)
    require_same_space("values", values, "weight", weight)
    if weight.shape[1] != 1:
        raise ValueError(f"{describe('weight', weight)} must have one channel, for {describe('values', values)}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma {sigma} must be 0 or more, and finite")
    axes, time = range(2, values.ndim), sigma**2 / 2
    steps = math.ceil(3 * len(axes) * time)
    for _ in range(steps):
        change = torch.zeros_like(values)
        for axis in axes:
            pairs = values.shape[axis] - 1
            flow = values.diff(dim=axis).mul_(weight.narrow(axis, 0, pairs))
            change.narrow(axis, 0, pairs).add_(flow)
            change.narrow(axis, 1, pairs).sub_(flow)
        values = values.add(change, alpha=time / steps)
    return values
