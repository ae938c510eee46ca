"""Smoothness of a displacement or velocity."""

from collections.abc import Sequence

from torch import Tensor

from regcore.checks import (
    describe,
    require_field,
    require_finite,
    require_finite_loss,
    require_image,
    require_not_negative,
    require_same_space,
)
from regcore.kernels import diffusion as kernel
from regcore.kernels import weighted_diffusion as weighted_kernel


def diffusion(field: Tensor) -> Tensor:
    """Mean squared forward difference between neighbouring voxels, Eq. 7 of VoxelMorph [1]_.

    Parameters
    ----------
    field : Tensor, shape (B, D, *space)
        Displacement or velocity in voxels, at least two voxels along every axis.

    Returns
    -------
    Tensor, scalar
        The mean over components and voxels, averaged over the D axes (as the authors' code does; the
        paper's sum differs by a constant factor that λ absorbs).

    Raises
    ------
    ValueError
        The input is not a field, too thin, or not finite.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 7.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import diffusion
    >>> shift, stretch = torch.ones(1, 1, 4, 4), torch.arange(4.0).expand(1, 1, 4, 4)
    >>> diffusion(torch.cat([shift, shift], 1)).item(), diffusion(torch.cat([shift, stretch], 1)).item()
    (0.0, 0.25)
    """
    require_field("field", field)
    _require_size("field", field, 2)
    return require_finite_loss(kernel.diffusion(field), [("field", field)])


def weighted_diffusion(field: Tensor, weight: Tensor) -> Tensor:
    """Squared forward differences, each multiplied by a weight λ: the second term of Eq. 19 of TM-SPR [1]_.

    The mean over axes e, batch, components and voxels p of λ(p + e) |u(p + e) − u(p)|².  The weight is
    that of the voxel in front, p + e, as in the authors' code; their Eq. 10 takes the weight of the voxel where the
    difference starts, p.

    Parameters
    ----------
    field : Tensor, shape (B, D, *space)
        Displacement or velocity in voxels, at least two voxels along every axis.
    weight : Tensor, shape (B, 1, *space)
        λ, not negative.

    Returns
    -------
    Tensor, scalar
        Normalised as :func:`diffusion`; a constant weight gives that weight times the diffusion.

    Raises
    ------
    ValueError
        The shapes do not fit; a weight is negative; or a value on the CPU is NaN or infinite.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Eqs. 10 and 19.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import diffusion, weighted_diffusion
    >>> field = torch.arange(4.0).expand(1, 2, 4, 4)
    >>> weight = torch.full((1, 1, 4, 4), 3.0)
    >>> weighted_diffusion(field, weight).item(), 3 * diffusion(field).item()
    (1.5, 1.5)
    """
    require_field("field", field)
    require_image("weight", weight)
    require_same_space("field", field, "weight", weight)
    if weight.shape[1] != 1:
        raise ValueError(f"{describe('weight', weight)} must have one channel, for {describe('field', field)}")
    _require_size("field", field, 2)
    require_not_negative("weight", weight)
    require_finite("field", field)
    return weighted_kernel.weighted_diffusion(field, weight)


def bending_energy(field: Tensor) -> Tensor:
    """Mean squared second derivatives of a field, the smoothness term of Rueckert et al. [1]_.

    The mean over batch, components and voxels of Σᵢⱼ (∂²u / ∂xᵢ∂xⱼ)², which counts every mixed derivative
    twice, by central differences: u(p + e) − 2 u(p) + u(p − e) along one axis, and along two a quarter of
    u(p + e + f) − u(p + e − f) − u(p − e + f) + u(p − e − f).  Only voxels with all neighbours count.
    Zero for an affine field.

    Parameters
    ----------
    field : Tensor, shape (B, D, *space)
        Displacement or velocity in voxels, at least three voxels along every axis.

    Returns
    -------
    Tensor, scalar
        In voxels⁻²; the sum over components would be D times as large.

    Raises
    ------
    ValueError
        ``field`` does not have the shape of a field or is too small, or a value on the CPU is NaN or infinite.

    References
    ----------
    .. [1] Rueckert, Sonoda, Hayes, Hill, Leach and Hawkes, "Nonrigid registration using free-form deformations:
       application to breast MR images", IEEE TMI 1999.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import bending_energy
    >>> ramp = torch.arange(5.0).expand(1, 2, 5, 5)
    >>> bending_energy(ramp).item(), bending_energy(ramp.square()).item()
    (0.0, 4.0)
    """
    require_field("field", field)
    _require_size("field", field, 3)
    require_finite("field", field)
    axes = range(2, field.ndim)
    total = field.new_zeros(())
    for i in axes:
        total = total + _interior(field.diff(n=2, dim=i), [j for j in axes if j != i]).square().mean()
        for j in range(i + 1, field.ndim):
            mixed = _central_difference(_central_difference(field, i), j)
            total = total + 2 * _interior(mixed, [k for k in axes if k not in (i, j)]).square().mean()
    return total


def _require_size(name: str, field: Tensor, size: int) -> None:
    if min(field.shape[2:]) < size:
        raise ValueError(f"{describe(name, field)} must have at least {size} voxels along every axis")


def _central_difference(values: Tensor, axis: int) -> Tensor:
    """(values(p + e) − values(p − e)) / 2, without the first and last p along ``axis``."""
    size = values.shape[axis] - 2
    return (values.narrow(axis, 2, size) - values.narrow(axis, 0, size)) / 2


def _interior(values: Tensor, axes: Sequence[int]) -> Tensor:
    """``values`` without the first and last voxel along ``axes``."""
    for axis in axes:
        values = values.narrow(axis, 1, values.shape[axis] - 2)
    return values
