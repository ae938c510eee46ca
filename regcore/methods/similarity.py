"""Image similarity as a loss, shared by learned methods and optimisers."""

from collections.abc import Callable

from torch import Tensor

from regcore.losses import lncc, mind_ssc, mse, nmi
from regcore.methods.settings.instance import InstanceSettings
from regcore.methods.settings.objective import ObjectiveSettings


def similarity(
    settings: ObjectiveSettings | InstanceSettings, lncc_variant: str = "ants", sigma: float = 1
) -> Callable[[Tensor, Tensor], Tensor]:
    """The function that compares two images, for a method's settings.

    Parameters
    ----------
    settings : ObjectiveSettings or InstanceSettings
        ``similarity`` and what it needs: ``window`` or ``bins``.
    lncc_variant : {"ants", "voxelmorph"}
        See :func:`regcore.losses.lncc`.
    sigma : float
        Standard deviation of the images' noise, for the mean squared difference.

    Returns
    -------
    callable
        (fixed, warped), both (B, 1, *space) with values from 0 to 1 → a scalar; lower means more similar.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods import read_settings
    >>> from regcore.methods.similarity import similarity
    >>> fixed = torch.rand(1, 1, 16, 16)
    >>> unlike = similarity(read_settings("instance", {"similarity": "mind"}))
    >>> unlike(fixed, fixed).item(), bool(unlike(fixed, 1 - fixed) < unlike(fixed, fixed.mT))  # another contrast
    (0.0, True)
    """
    if settings.similarity == "mse":
        return lambda fixed, warped: mse(fixed, warped, sigma)
    if settings.similarity == "lncc":
        return lambda fixed, warped: lncc(fixed, warped, settings.window, lncc_variant)
    if settings.similarity == "nmi":
        return lambda fixed, warped: nmi(fixed, warped, settings.bins, fixed_range=(0, 1), warped_range=(0, 1))
    return mind_ssc
