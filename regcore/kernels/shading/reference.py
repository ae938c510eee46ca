"""A bias field, clipping, normalisation and a power in plain torch.

``shade``: S = min(max(I exp(b), 0), brightest), with the bias field b linear between its coarse voxels.
``stretch``: ((S − min S) / (max S − min S))^γ.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = {4: "bilinear", 5: "trilinear"}


def shade_reference(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    """``image`` · exp(``field``), clipped to 0 … ``brightest``, and its extremes.

    Parameters
    ----------
    image : Tensor, shape (1, 1, *space)
    field : Tensor, shape (1, 1, *coarse)
        Linear between its voxels, corners on corners.

    Returns
    -------
    tuple of Tensor
        The image; and minus its smallest value, with the largest.
    """
    if field.shape != image.shape:
        field = F.interpolate(field, size=image.shape[2:], mode=MODES[image.ndim], align_corners=True)
    shaded = (image * field.exp()).clamp_(0, brightest)
    return shaded, extremes(shaded)


def extremes(image: Tensor) -> Tensor:
    """Minus the smallest value, and the largest."""
    low, high = image.aminmax()
    return torch.stack([-low, high])


def stretch_reference(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    """``image``, from its ``ends`` as in :func:`extremes` to 0 and 1, to the power of ``exponent`` > 0."""
    minus_low, high = ends
    extent = (high + minus_low).clamp(min=torch.finfo(image.dtype).tiny)
    return (image + minus_low).div_(extent).pow_(exponent)
