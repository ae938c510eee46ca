"""Voxelwise similarity of two images, or of two fields."""

import torch
from torch import Tensor

from regcore.checks import require_field, require_finite_loss, require_image, require_same_shape
from regcore.kernels import lncc as kernel
from regcore.kernels.lncc.reference import VARIANTS


def mse(fixed: Tensor, warped: Tensor, sigma: float = 1.0) -> Tensor:
    """Mean squared intensity difference, divided by the variance of the noise.

    The mean of (f(p) − m∘φ(p))² / σ² over batch, channels and voxels p: Eq. 5 of VoxelMorph [1]_, divided by
    the noise variance as HyperMorph scales it [2]_.

    Parameters
    ----------
    fixed, warped : Tensor, shape (B, C, *space)
        Types narrower than float32 are converted to float32.
    sigma : float
        Standard deviation σ of the noise, in the images' units; 1 gives the plain mean square.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    ValueError
        The shapes differ or are not those of images; ``sigma`` is not positive; or a value on the CPU is NaN or
        infinite.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 5.
    .. [2] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import mse
    >>> fixed, warped = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
    >>> mse(fixed, warped).item(), mse(fixed, warped, sigma=0.5).item()
    (0.25, 1.0)
    """
    require_image("fixed", fixed)
    require_same_shape("fixed", fixed, "warped", warped)
    if not sigma > 0:
        raise ValueError(f"sigma {sigma} must be positive")
    difference = _at_least_float32(fixed) - _at_least_float32(warped)
    loss = difference.square().mean() / sigma**2
    return require_finite_loss(loss, [("fixed", fixed), ("warped", warped)])


def lncc(fixed: Tensor, moving: Tensor, window: int = 9, variant: str = "ants", shape: str = "box") -> Tensor:
    """Minus the mean squared local normalised cross-correlation, Eq. 6 of VoxelMorph [1]_.

    With sums over the window around every voxel,

        cc² = (Σ (f - f̄)(m - m̄))² / (Σ (f - f̄)² Σ (m - m̄)²)

    which lies in [0, 1] here for any images: the global means are subtracted and the sums are computed in float64,
    unaffected by autocast or TF32.

    Parameters
    ----------
    fixed, moving : Tensor, shape (B, C, *space)
        ``moving`` is the warped image; the loss is differentiable with respect to both.
    window : int
        Side of the window in voxels.
    variant : {"ants", "voxelmorph"}
        ``ants`` counts the voxels of a window that lie inside the image, as the CC metric of ANTs does [2]_,
        so that the loss is invariant to a·I + b; a window that is flat in either image counts
        as 0.  ``voxelmorph`` is the authors' form: window^D voxels everywhere, zeros beyond the border, and
        1e-5 added to the denominator.
    shape : {"box", "gaussian"}
        Weights of the window: equal, or a Gaussian of standard deviation ``window`` / 6.

    Returns
    -------
    Tensor, scalar
        Between -1 (identical up to a linear change of intensity in every window) and 0.

    Raises
    ------
    ValueError
        The shapes differ; ``window`` is below 2; ``variant`` or ``shape`` is unknown; or a value on the CPU is NaN or
        infinite.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 6.
    .. [2] Avants, Epstein, Grossman and Gee, "Symmetric diffeomorphic image registration with cross-correlation",
       Medical Image Analysis 2008.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import lncc
    >>> image = torch.arange(25.0).view(1, 1, 5, 5).sin()
    >>> round(lncc(image, 3 * image + 2, window=3).item(), 4)
    -1.0
    """
    require_image("fixed", fixed)
    require_same_shape("fixed", fixed, "moving", moving)
    if window < 2:
        raise ValueError(f"window must be 2 voxels or more, not {window}")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, not {variant!r}")
    if shape not in ("box", "gaussian"):
        raise ValueError(f"shape must be 'box' or 'gaussian', not {shape!r}")
    loss = kernel.lncc(fixed, moving, window, variant, shape == "gaussian")
    return require_finite_loss(loss, [("fixed", fixed), ("moving", moving)])


def field_mse(field: Tensor, reference: Tensor) -> Tensor:
    """Mean squared length of the difference of two fields: the mean of |u(p) − v(p)|² over voxels p.

    Parameters
    ----------
    field, reference : Tensor, shape (B, D, *space)
        Displacements or velocities in voxels, components in the order of the axes.

    Returns
    -------
    Tensor, scalar
        In voxels²: the sum over components, averaged over batch and voxels; D times the mean over all
        entries.

    Raises
    ------
    ValueError
        The shapes differ or are not those of fields, or a value on the CPU is NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import field_mse
    >>> round(field_mse(torch.full((1, 3, 4, 4, 4), 0.1), torch.zeros(1, 3, 4, 4, 4)).item(), 4)
    0.03
    """
    require_field("field", field)
    require_same_shape("field", field, "reference", reference)
    difference = _at_least_float32(field) - _at_least_float32(reference)
    loss = difference.square().mean() * field.shape[1]
    return require_finite_loss(loss, [("field", field), ("reference", reference)])


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
