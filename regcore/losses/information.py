"""How much the intensities of one image say about those of another, through their joint histogram.

The histogram is smooth (Parzen windows), so that it has a gradient: :mod:`regcore.kernels.joint_histogram`.
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

    NMI(F, M) = (H(F) + H(M)) / H(F, M) (Studholme, Hill and Hawkes, Pattern Recognition 1999), with
    H(P) = −Σ P log P: 1 for independent intensities, up to 2 where each image determines the other.  The
    joint probability is the Parzen estimate P(a, b) = mean over voxels of w(a; F(p)) w(b; M(p)), where the
    Gaussian window w(k; x) ∝ exp(−(x − k)² / 2 width²), x in bins, sums to one over the bins k, so that
    the sums of P are the estimates of the two images alone.  Smooth windows blur the histogram: an image
    has less than 2 with itself.

    Parameters
    ----------
    fixed, warped : Tensor, shape (B, C, *space)
        Each channel of each batch element has its own histogram, built in float32 or float64, also under
        autocast.
    bins : int
        Per image, at least 2; the centres of the first and the last lie on the ends of the range.
    width : float
        Standard deviation of the window, in bins.
    fixed_range, warped_range : (float, float), optional
        Lowest and highest intensity; values beyond count as the ends and have no gradient.  By default
        those that each channel of each batch element has, as constants that no gradient passes through.
        An image that is constant there has no information: NMI is 1 and its gradient 0.

    Returns
    -------
    Tensor, scalar
        −NMI, averaged over batch and channels.  It can be differentiated once, by both images.

    Raises
    ------
    ValueError
        If the shapes differ or are not those of images, ``bins``, ``width`` or a range makes no histogram,
        or a value on the CPU is NaN or infinite.
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
    # Two constant images seen through narrow windows have entropies 0: they are independent, and NMI is 1.
    loss = -(1 + mutual_information / joint_entropy.clamp_min(torch.finfo(joint.dtype).eps)).mean()
    return require_finite_loss(loss, [("fixed", fixed), ("warped", warped)])


def _bin_positions(name: str, image: Tensor, bins: int, limits: tuple[float, float] | None) -> Tensor:
    """Intensities in bins, 0 to bins − 1: (B, C, *space) to (B · C, voxels)."""
    values = image.to(torch.promote_types(image.dtype, torch.float32)).flatten(2).flatten(0, 1)
    if limits is not None:
        low, high = limits
        if not low < high:
            raise ValueError(f"{name}_range {limits} must rise")
        require_finite(name, image)  # the clamp would hide an infinite value
        return (values.clamp(low, high) - low) / (high - low) * (bins - 1)
    low, high = torch.aminmax(values.detach(), dim=1, keepdim=True)
    span, rounding = high - low, torch.finfo(values.dtype)
    # Interpolation leaves a constant image constant up to rounding, which must not fill the histogram.
    constant = span <= 8 * rounding.eps * torch.maximum(low.abs(), high.abs()) + bins * rounding.tiny
    scale = torch.where(constant, 0, (bins - 1) / torch.where(constant, 1, span))
    return (values - low) * scale


def _entropy(probability: Tensor) -> Tensor:
    """−Σ P log P over the last axis, where 0 log 0 = 0 and its slope, infinite in truth, is finite."""
    return -(probability * probability.clamp_min(torch.finfo(probability.dtype).tiny).log()).sum(-1)
