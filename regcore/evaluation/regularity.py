"""Regularity of a field: folds, non-diffeomorphic volume, and the spread of local volume change."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regcore.checks import describe, require_field, require_finite
from regcore.kernels import jacobian
from regcore.spatial import jacobian_determinant


@dataclass(frozen=True)
class DigitalFolds:
    """Violations of a digital diffeomorphism [1]_ among the inner voxels of a mask.

    Parameters
    ----------
    voxels : int
        Number of voxels considered: in the mask, and not on the border of the grid.
    central : int
        Voxels whose determinant by central differences is ≤ 0, the paper's non-diffeomorphic points.
    corners : int
        Voxels with any of the determinants of their simplices ≤ 0.
    simplices : float
        Simplices with a determinant ≤ 0, in units of voxels: a voxel has ten simplices in 3-D and four in 2-D.
    volume : float
        Non-diffeomorphic volume (area in 2-D): that of the simplices turned inside out, in voxels.

    References
    ----------
    .. [1] Liu, Chen, Wei, Carass and Prince, "On finite difference Jacobian computation in deformable image
       registration", IJCV 2024, Section 4.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation import digital_folds
    >>> digital_folds(torch.zeros(1, 2, 5, 5))
    DigitalFolds(voxels=9, central=0, corners=0, simplices=0.0, volume=0.0)
    """

    voxels: int
    central: int
    corners: int
    simplices: float
    volume: float


def digital_folds(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> DigitalFolds:
    """Count folds of φ(p) = p + u(p) by all the determinants of Liu et al. [1]_, Section 4.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels, three or more along each axis.
    mask : array of bool, shape space, optional
        Voxels to consider; default: all.

    Returns
    -------
    DigitalFolds
        Voxels and simplices that are folded, and the volume that is turned inside out.

    Raises
    ------
    ValueError
        The displacement is not a single field, not finite or too thin, or the mask has another shape.

    References
    ----------
    .. [1] Liu, Chen, Wei, Carass and Prince, "On finite difference Jacobian computation in deformable image
       registration", IJCV 2024, Section 4.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation import digital_folds
    >>> from regcore.spatial import identity
    >>> mirror = -2 * identity((5, 5), torch.zeros(1))[:, :1]
    >>> found = digital_folds(torch.cat([mirror, torch.zeros_like(mirror)], dim=1))
    >>> found.voxels, found.central, found.volume
    (9, 9, 9.0)
    """
    chosen = _mask(displacement, mask)
    if min(displacement.shape[2:]) < 3:
        raise ValueError(f"{describe('displacement', displacement)} must have 3 voxels or more along each axis")
    voxels, central, corners, simplices, volume = jacobian.digital_folds(displacement, chosen).tolist()
    per_voxel = 10 if displacement.shape[1] == 3 else 4
    return DigitalFolds(int(voxels), int(central), int(corners), simplices / per_voxel, volume)


def non_diffeomorphic_volume(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """NDV of Liu et al. [1]_ in percent of the inner voxels of ``mask``; the NDA in 2-D.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels, three or more along each axis.
    mask : array of bool, shape space, optional
        Voxels to consider; default: all.

    Returns
    -------
    float
        Percent; NaN if there is no inner voxel.

    Raises
    ------
    ValueError
        As for :func:`digital_folds`.

    References
    ----------
    .. [1] Liu, Chen, Wei, Carass and Prince, "On finite difference Jacobian computation in deformable image
       registration", IJCV 2024, Section 4.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation import non_diffeomorphic_volume
    >>> from regcore.spatial import identity
    >>> mirror = -2 * identity((5, 5), torch.zeros(1))[:, :1]
    >>> folded = torch.cat([mirror, torch.zeros_like(mirror)], dim=1)
    >>> non_diffeomorphic_volume(folded), non_diffeomorphic_volume(0 * folded)
    (100.0, 0.0)
    """
    found = digital_folds(displacement, mask)
    return 100 * found.volume / found.voxels if found.voxels else float("nan")


def non_diffeomorphic_points(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Percent of the inner voxels of ``mask`` whose central determinant is ≤ 0 (NDP [1]_); see :func:`digital_folds`.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels, three or more along each axis.
    mask : array of bool, shape space, optional
        Voxels to consider; default: all.

    Returns
    -------
    float
        Percent; NaN if there is no inner voxel.

    Raises
    ------
    ValueError
        As for :func:`digital_folds`.

    References
    ----------
    .. [1] Liu, Chen, Wei, Carass and Prince, "On finite difference Jacobian computation in deformable image
       registration", IJCV 2024, Section 4.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation import non_diffeomorphic_points
    >>> from regcore.spatial import identity
    >>> mirror = -2 * identity((5, 5), torch.zeros(1))[:, :1]
    >>> folded = torch.cat([mirror, torch.zeros_like(mirror)], dim=1)
    >>> non_diffeomorphic_points(folded), non_diffeomorphic_points(0 * folded)
    (100.0, 0.0)
    """
    found = digital_folds(displacement, mask)
    return 100 * found.central / found.voxels if found.voxels else float("nan")


def folds(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Percentage of voxels where det ∇φ ≤ 0 by central differences (one-sided at the border of the grid).

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels.
    mask : array of bool, shape space, optional
        Voxels to consider; default: all.

    Returns
    -------
    float
        Between 0 and 100; NaN for an empty mask.

    Raises
    ------
    ValueError
        The displacement is not a single field or not finite, or the mask has another shape.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation import folds
    >>> from regcore.spatial import identity
    >>> mirror = -2 * identity((5, 5), torch.zeros(1))[:, :1]
    >>> folded = torch.cat([mirror, torch.zeros_like(mirror)], dim=1)
    >>> folds(folded), folds(0 * folded)
    (100.0, 0.0)
    """
    return float((_determinants(displacement, mask) <= 0).double().mean() * 100)


def sd_log_jacobian(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Standard deviation of log det ∇φ, with determinants below 1e-9 set to 1e-9; see :func:`folds`.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels.
    mask : array of bool, shape space, optional
        Voxels to consider; default: all.

    Returns
    -------
    float
        0 for an affine map; NaN for an empty mask.

    Raises
    ------
    ValueError
        As for :func:`folds`.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation import sd_log_jacobian
    >>> from regcore.spatial import identity
    >>> stretch = 0.5 * identity((5, 5), torch.zeros(1))
    >>> round(sd_log_jacobian(stretch), 3), round(sd_log_jacobian(stretch.square() / 10), 3)
    (0.0, 0.075)
    """
    return float(_determinants(displacement, mask).clamp(min=1e-9).log().std())


def mean_jacobian(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Mean of det ∇φ, 1 if the total volume is preserved; see :func:`folds`.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels.
    mask : array of bool, shape space, optional
        Voxels to consider; default: all.

    Returns
    -------
    float
        NaN for an empty mask.

    Raises
    ------
    ValueError
        As for :func:`folds`.

    Examples
    --------
    >>> import torch
    >>> from regcore.evaluation import mean_jacobian
    >>> from regcore.spatial import identity
    >>> stretch = 0.5 * identity((5, 5), torch.zeros(1))
    >>> mean_jacobian(stretch), mean_jacobian(0 * stretch)
    (2.25, 1.0)
    """
    return float(_determinants(displacement, mask).mean())


def _determinants(displacement: Tensor, mask: np.ndarray | Tensor | None) -> Tensor:
    chosen = _mask(displacement, mask)
    return jacobian_determinant(displacement.double())[0][chosen]


def _mask(displacement: Tensor, mask: np.ndarray | Tensor | None) -> Tensor:
    require_field("displacement", displacement)
    require_finite("displacement", displacement)
    if len(displacement) != 1:
        raise ValueError(f"{describe('displacement', displacement)} must be one field, with a batch of 1")
    if mask is None:
        return torch.ones(displacement.shape[2:], dtype=torch.bool, device=displacement.device)
    mask = torch.as_tensor(mask, device=displacement.device)
    if mask.shape != displacement.shape[2:] or mask.dtype != torch.bool:
        raise ValueError(
            f"{describe('mask', mask)} of {mask.dtype} must be true or false for each voxel of "
            f"{describe('displacement', displacement)}"
        )
    return mask
