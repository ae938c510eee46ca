"""Priors of the weight map λ of :func:`~regcore.losses.smoothness.weighted_diffusion`.

Hyperpriors of "Unsupervised learning of spatially varying regularization for diffeomorphic image
registration" (TM-SPR).  Its loss, Eq. 19, subtracts these: a larger log-prior is better.
"""

import math

import torch
from torch import Tensor

from regcore.checks import describe, require_finite_loss, require_image, require_not_negative

# Tolerance above 1: interpolating a map of ones may round upwards.
_ROUNDING = 1e-5


def beta_log_prior(weight: Tensor, alpha: float) -> Tensor:
    """Logarithm of the Beta(α, 1) prior of a weight map, Eq. 18 of TM-SPR [1]_: (α − 1) · mean of log w(p).

    Parameters
    ----------
    weight : Tensor, shape (B, 1, *space)
        w = λ / λ_max, in (0, 1].
    alpha : float
        Shape α ≥ 1; 1 is the uniform prior, larger values pull w towards 1.  The paper tunes α′ = α − 1.

    Returns
    -------
    Tensor, scalar
        At most 0.  Averaged over batch and voxels, where the paper sums over voxels, and without the
        constant log α − log λ_max.  The authors' code has minus this, with w clamped to [1e-6, 1]; here the
        caller clamps w.

    Raises
    ------
    ValueError
        ``weight`` does not have the shape of an image; ``alpha`` is below 1; or a weight on the CPU is NaN or
        outside (0, 1].

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Eq. 18.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import beta_log_prior
    >>> weight = torch.full((1, 1, 4, 4), 0.5)
    >>> round(beta_log_prior(weight, alpha=3).item(), 4), beta_log_prior(0 * weight + 1, alpha=3).item()
    (-1.3863, 0.0)
    """
    require_image("weight", weight)
    if not 1 <= alpha < math.inf:
        raise ValueError(f"alpha {alpha} must be at least 1, and finite")
    _require_proportion(weight)
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return require_finite_loss((alpha - 1) * weight.log().mean(), [("weight", weight)])


def beta_weight(squared_gradient: Tensor, alpha: float) -> Tensor:
    """The most probable weight of smoothness for a given field, under the Beta prior: w(p) = min(1, α / |∇u(p)|²).

    TM-SPR [1]_ minimises over u and λ together (Eq. 19, with Eq. 18 as prior)::

        similarity(u) + Σ_p λ(p) |∇u(p)|² − α′ Σ_p log(λ(p) / λ_max),    0 ≤ λ(p) ≤ λ_max.

    For a given u, each voxel is a problem of its own, and with w = λ / λ_max and g = |∇u(p)|² it is to minimise
    λ_max w g − α′ log w over 0 < w ≤ 1.  This is convex in w; its derivative λ_max g − α′ / w is zero at
    w = α′ / (λ_max g), and negative up to w = 1 if that lies beyond.  So

        w = min(1, α / g),    α = α′ / λ_max,

    which is what the network of TM-SPR learns to predict, without the network.  α is the squared gradient up to which
    the field is smoothed in full.  With this w, the smoothness of a voxel is λ_max g up to α and α′ (1 + log(g / α))
    beyond: a jump of the field costs little more than a steep slope, so organs may slide.  (The means of
    :func:`regcore.losses.weighted_diffusion` divide the paper's sums by D²: with them, α is α′ D² / λ_max.)

    Parameters
    ----------
    squared_gradient : Tensor, shape (B, 1, *space)
        g, not negative, as from :func:`regcore.spatial.squared_gradient`.
    alpha : float
        α > 0.

    Returns
    -------
    Tensor, shape of ``squared_gradient``
        In (0, 1].

    Raises
    ------
    ValueError
        ``squared_gradient`` does not have the shape of an image, or ``alpha`` is not positive.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Eqs. 18 and 19.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import beta_weight
    >>> beta_weight(torch.tensor([0.0, 0.5, 2.0]).view(1, 1, 1, 3), alpha=0.5).flatten().tolist()
    [1.0, 1.0, 0.25]
    """
    require_image("squared_gradient", squared_gradient)
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha {alpha} must be above 0, and finite")
    return alpha / squared_gradient.clamp_min(alpha)


def gaussian_log_prior(weight: Tensor, sigma: float) -> Tensor:
    """Logarithm of the Gaussian prior of a weight map, Eq. 16 of TM-SPR [1]_: −mean of (w(p) − 1)² / 2σ².

    Parameters
    ----------
    weight : Tensor, shape (B, 1, *space)
        w = λ / λ_mean, not negative.
    sigma : float
        Standard deviation σ of w; infinity is the uniform prior.  The authors' code tunes the factor
        σ′ = 1 / 2σ² instead, so σ = (2σ′)^(−1/2).

    Returns
    -------
    Tensor, scalar
        At most 0.  Averaged over batch and voxels, where the paper sums over voxels, and without the
        constant −log σ√2π − log λ_mean.  The authors' code has minus this, with w clamped to [1e-6, 5]; here the
        caller clamps w.

    Raises
    ------
    ValueError
        ``weight`` does not have the shape of an image; ``sigma`` is not positive; or a weight on the CPU is
        negative, NaN or infinite.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Eq. 16.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import gaussian_log_prior
    >>> weight = torch.full((1, 1, 4, 4), 0.5)
    >>> gaussian_log_prior(weight, sigma=0.5).item(), gaussian_log_prior(weight, sigma=1).item()
    (-0.5, -0.125)
    """
    require_image("weight", weight)
    if not sigma > 0:
        raise ValueError(f"sigma {sigma} must be positive")
    require_not_negative("weight", weight)
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return require_finite_loss(-(weight - 1).square().mean() / (2 * sigma**2), [("weight", weight)])


def _require_proportion(weight: Tensor) -> None:
    """Refuse values outside (0, 1] where the check is cheap, as for values that are not finite."""
    if torch.compiler.is_compiling() or not weight.is_cpu:
        return
    lowest, highest = torch.aminmax(weight.detach())
    if lowest <= 0 or highest > 1 + _ROUNDING:
        raise ValueError(f"{describe('weight', weight)} must be in (0, 1], found {lowest:.6g} to {highest:.6g}")
