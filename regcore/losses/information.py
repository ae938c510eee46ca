"""Mutual information of two images, from their joint histogram.

The histogram uses smooth Parzen windows, so that it has a gradient: :mod:`regcore.kernels.joint_histogram`.
"""

import torch
from torch import Tensor

from regcore.checks import require_finite, require_finite_loss, require_image, require_same_shape
from regcore.kernels.joint_histogram import joint_histogram


def nmi(
    fixed: Tensor,
    warped: Tensor,
    bins: int = 32,
    width: float = 0.5,
    fixed_range: tuple[float, float] | None = None,
    warped_range: tuple[float, float] | None = None,
) -> Tensor:
    """Minus the normalised mutual information of two images.

    NMI(F, M) = (H(F) + H(M)) / H(F, M) [1]_, with
    H(P) = −Σ P log P: 1 for independent intensities, up to 2 if each image determines the other.  The
    joint probability is the Parzen estimate P(a, b) = mean over voxels of w(a; F(p)) w(b; M(p)), where the
    Gaussian window w(k; x) ∝ exp(−(x − k)² / 2 width²), x in bins, sums to one over the bins k, so that
    the marginals of P are the estimates for each image.  Smooth windows blur the histogram, so the NMI of an
    image with itself is less than 2.

    Parameters
    ----------
    fixed, warped : Tensor, shape (B, C, *space)
        Each channel of each batch element has its own histogram, built in float32 or float64, also under
        autocast.
    bins : int
        Per image, at least 2; the centres of the first and the last bin are the ends of the range.
    width : float
        Standard deviation of the window, in bins.
    fixed_range, warped_range : (float, float), optional
        Lowest and highest intensity; values outside are clipped and have no gradient.  By default those of each
        channel of each batch element, treated as constants by the gradient.  For an image that is constant, NMI
        is 1 and its gradient 0.

    Returns
    -------
    Tensor, scalar
        −NMI, averaged over batch and channels.  It can be differentiated once, with respect to both images.

    Raises
    ------
    ValueError
        The shapes differ or are not those of images; ``bins``, ``width`` or a range is invalid; or a value on the
        CPU is NaN or infinite.

    References
    ----------
    .. [1] Studholme, Hill and Hawkes, "An overlap invariant entropy measure of 3D medical image alignment", Pattern
       Recognition 1999.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import nmi
    >>> image = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    >>> inverted, constant = nmi(image, 1 - image), nmi(image, 0 * image)
    >>> round(inverted.item(), 2), round(constant.item(), 2)
    (-1.53, -1.0)
    """
    require_image("fixed", fixed)
    require_same_shape("fixed", fixed, "warped", warped)
    if bins < 2 or not width > 0:
        raise ValueError(f"nmi needs at least 2 bins and a positive width, got bins={bins} and width={width}")
    fixed_positions = _bin_positions("fixed", fixed, bins, fixed_range)
    warped_positions = _bin_positions("warped", warped, bins, warped_range)
    joint = joint_histogram(fixed_positions, warped_positions, bins, width)
    joint_entropy = _entropy(joint.flatten(1))
    mutual_information = _entropy(joint.sum(2)) + _entropy(joint.sum(1)) - joint_entropy
    # Two constant images with narrow windows have entropies 0: they are independent, and NMI is 1.
    loss = -(1 + mutual_information / joint_entropy.clamp_min(torch.finfo(joint.dtype).eps)).mean()
    return require_finite_loss(loss, [("fixed", fixed), ("warped", warped)])


def _bin_positions(name: str, image: Tensor, bins: int, limits: tuple[float, float] | None) -> Tensor:
    """Intensities in bins, 0 to bins − 1: (B, C, *space) to (B · C, voxels)."""
    values = image.to(torch.promote_types(image.dtype, torch.float32)).flatten(2).flatten(0, 1)
    if limits is not None:
        low, high = limits
        if not low < high:
            raise ValueError(f"{name}_range {limits} must be ascending")
        require_finite(name, image)  # the clamp would hide an infinite value
        return (values.clamp(low, high) - low) / (high - low) * (bins - 1)
    least, most = torch.aminmax(values.detach(), dim=1, keepdim=True)
    span, rounding = most - least, torch.finfo(values.dtype)
    # An interpolated constant image is constant only up to rounding, which must not fill the histogram.
    constant = span <= 8 * rounding.eps * torch.maximum(least.abs(), most.abs()) + bins * rounding.tiny
    scale = torch.where(constant, 0, (bins - 1) / torch.where(constant, 1, span))
    return (values - least) * scale


def _entropy(probability: Tensor) -> Tensor:
    """−Σ P log P over the last axis, where 0 log 0 = 0, with a finite slope instead of its infinite one."""
    return -(probability * probability.clamp_min(torch.finfo(probability.dtype).tiny).log()).sum(-1)
