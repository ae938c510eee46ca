"""How regular a field is: folds and the spread of local volume change."""

import numpy as np
import torch
from torch import Tensor

from regcore.spatial.flow import jacobian_determinant


def folds_percent(displacement: Tensor, mask: np.ndarray | None = None) -> float:
    """Percentage of voxels where det ∇φ ≤ 0 (central differences), over ``mask`` or everywhere.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels.
    mask : ndarray of bool, shape space, optional
    """
    return float((_determinants(displacement, mask) <= 0).double().mean() * 100)


def sd_log_jacobian(displacement: Tensor, mask: np.ndarray | None = None) -> float:
    """Standard deviation of log det ∇φ, determinants below 1e-9 counted as 1e-9."""
    return float(_determinants(displacement, mask).clamp(min=1e-9).log().std())


def _determinants(displacement: Tensor, mask: np.ndarray | None) -> Tensor:
    determinant = jacobian_determinant(displacement.double())[0]
    return determinant.flatten() if mask is None else determinant[torch.from_numpy(mask)]
