"""HyperMorph (Hoopes et al., IPMI 2021): one network for all values of the loss's hyperparameters.

A hypernetwork generates the weights of VoxelMorph's network from the hyperparameters Λ.  In every training step, each
pair has its own Λ, in the network and in the loss (Eq. 1 to 3).  Afterwards a value is chosen without training:
:mod:`regcore.tuning.amortised`.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from regcore.losses import lncc
from regcore.methods.hypernetworked import Hypernetworked
from regcore.methods.settings.hypermorph import HyperMorphSettings
from regcore.methods.voxelmorph import VoxelMorph


class HyperMorph(Hypernetworked[VoxelMorph]):
    """VoxelMorph with a hypernetwork over λ, and optionally the window of lncc or γ.

    See [1]_.  The settings with these names are the values to register with; null if not chosen yet.

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("hypermorph", {"prior": {"lambda": [0, 1], "gamma": [0, 0.5]}})
    >>> method.values, method.inputs({"lambda": 0.3, "gamma": 0.25}).tolist()
    ({'lambda': None, 'gamma': None}, [[0.30000001192092896, 0.5]])
    >>> method.at({"lambda": 0.3, "gamma": 0.25}).values
    {'lambda': 0.3, 'gamma': 0.25}
    """

    settings_type: ClassVar = HyperMorphSettings
    settings: HyperMorphSettings

    @property
    def inner_type(self) -> type[VoxelMorph]:
        return _AnyWindow if "window" in self.hyperparameters else VoxelMorph

    @property
    def observed(self) -> Any:
        return self.settings.observed if "gamma" in self.hyperparameters else super().observed


class _AnyWindow(VoxelMorph):
    """VoxelMorph with windows of any size."""

    def _similarity(self) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda fixed, warped: interpolated_lncc(fixed, warped, self.settings.window)


def interpolated_lncc(fixed: Tensor, warped: Tensor, window: float) -> Tensor:
    """LNCC for any window size from 3 on, interpolated linearly between the neighbouring odd sizes.

    Parameters
    ----------
    fixed, warped : Tensor, shape (B, 1, *space)
        Two images.
    window : float
        Side of the window in voxels.

    Returns
    -------
    Tensor, scalar
        As :func:`regcore.losses.lncc`; lower means more similar.

    Examples
    --------
    >>> import torch
    >>> from regcore.losses import lncc
    >>> from regcore.methods.hypermorph import interpolated_lncc
    >>> fixed, warped = torch.arange(512.0).sin().view(2, 1, 1, 16, 16)
    >>> between = 0.5 * (lncc(fixed, warped, 5, "voxelmorph") + lncc(fixed, warped, 7, "voxelmorph"))
    >>> torch.allclose(interpolated_lncc(fixed, warped, 6), between)
    True
    """
    below = 2 * int((window - 1) // 2) + 1
    share = (window - below) / 2
    loss = lncc(fixed, warped, below, "voxelmorph")
    return loss if share == 0 else (1 - share) * loss + share * lncc(fixed, warped, below + 2, "voxelmorph")
