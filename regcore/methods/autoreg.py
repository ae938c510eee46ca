"""AutoReg (Fan et al., TIP 2023): cells and an objective that can be searched for each task.

This is the network of given cells, found by a search or chosen by hand, with the objective of Eq. 4 and 5, whose
weights λ are plain numbers here.  :mod:`regcore.autoreg.bilevel` searches for both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from regcore.losses import diffusion, lncc, mind_ssc
from regcore.methods.flow import FlowMethod
from regcore.methods.settings.autoreg import UNET, AutoRegSettings
from regcore.networks.architecture import LAMBDAS
from regcore.networks.cells import STRIDE, CellDesign, CellNetwork
from regcore.networks.design import Design
from regcore.networks.unet import UNetDesign
from regcore.spatial import integrate, pad_to_multiple, resample, resample_displacement, smooth, warp

#: Windows of local correlation: edges in voxels at full, half and quarter resolution, as in the authors' code.
WINDOWS = {"full": 9, "half": 7, "quarter": 5}
FACTORS = {"half": 2, "quarter": 4}
SMOOTHNESS = "diffusion"


class AutoReg(FlowMethod):
    """The two-scale network of cells, or a U-Net, under the unified objective.

    See [1]_.  The cells and the weights λ are settings here; :mod:`regcore.autoreg` searches for them.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023, Eq. 4 and 5.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("autoreg", {"architecture": "manual-small", "lambda2": 2})
    >>> method.weights
    {'lambda1': 0.5, 'lambda2': 2, 'lambda3': 0.32, 'lambda4': 0.08}
    >>> sum(weight.numel() for weight in method.build(ndim=2).parameters())
    16034
    """

    settings_type: ClassVar = AutoRegSettings
    settings: AutoRegSettings

    @property
    def design(self) -> Design:
        if self.settings.network == UNET:
            return UNetDesign(self.settings.unet)
        return self._cells(())

    @property
    def stride(self) -> int:
        """At least the stride of the cells: the coarsest loss needs images at a quarter of the resolution."""
        return max(STRIDE, self.design.stride)

    def super_network(self, ndim: int, mixed: tuple[str, ...]) -> CellNetwork:
        """The network with mixtures of all operations in the kinds of cells in ``mixed``."""
        return self._cells(mixed).build(ndim)

    def _cells(self, mixed: tuple[str, ...]) -> CellDesign:
        chosen = self.settings
        return CellDesign(
            chosen.cells,
            mixed,
            channels=chosen.channels,
            separable=chosen.separable,
            downsampling=chosen.downsampling,
            integration_steps=chosen.integration_steps,
            keeps_checkpoints=chosen.checkpointing,
        )

    @property
    def weights(self) -> dict[str, float]:
        """λ."""
        return {name: self.settings.value(name) for name in LAMBDAS}

    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.weighed_losses(flow, batch, self.weights)

    def weighed_losses(
        self, flow: Tensor, batch: Mapping[str, Any], weights: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """:meth:`losses` with other weights λ, which may be tensors that require gradients.

        Returns
        -------
        dict of str → Tensor
            ``total`` (Eq. 5), ``diffusion``, and each similarity (Eq. 4) that has a weight: ``lncc`` and ``mind``,
            ``lncc_half``, … at coarser resolutions.
        """
        found = {SMOOTHNESS: diffusion(flow[:, : flow.ndim - 2])}
        total = weights["lambda2"] * found[SMOOTHNESS]
        shares = {"full": 1.0, "half": weights["lambda3"], "quarter": weights["lambda4"]}
        for level, weight in shares.items():
            if isinstance(weight, float | int) and weight == 0:
                continue
            unlike = self._unlikeness(level, *self._warped_pair(level, flow, batch), weights["lambda1"])
            found |= {name if level == "full" else f"{name}_{level}": value for name, value in unlike.items()}
            share = {"lncc": weights["lambda1"], "mind": 1 - weights["lambda1"]}
            total = total + weight * sum(share[name] * value for name, value in unlike.items())
        return {"total": total, **found}

    def _warped_pair(self, level: str, flow: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The fixed and the warped moving image at one resolution."""
        fixed, moving = batch["fixed"], batch["moving"]
        if level == "full":
            return fixed, warp(moving, self.displacement(flow, fixed))
        ndim, factor = fixed.ndim - 2, FACTORS[level]
        space = [2 * n // factor for n in flow.shape[2:]]
        if level == "half":
            velocity = flow[:, :ndim]
        elif flow.shape[1] == 2 * ndim:  # the network's quarter-resolution flow has each voxel twice along each axis
            velocity = flow[(slice(None), slice(ndim, None), *[slice(None, None, 2)] * ndim)]
        else:
            velocity = resample_displacement(flow, space)
        displacement = integrate(velocity, self.settings.integration_steps)
        fixed, moving = (_coarser(pad_to_multiple(image, self.stride), space, factor) for image in (fixed, moving))
        return fixed, warp(moving, displacement)

    def _unlikeness(self, level: str, fixed: Tensor, warped: Tensor, share: Tensor | float) -> dict[str, Tensor]:
        found = {}
        if isinstance(share, Tensor) or share > 0:
            found["lncc"] = lncc(fixed, warped, WINDOWS[level], "voxelmorph")
        if isinstance(share, Tensor) or share < 1:
            found["mind"] = mind_ssc(fixed, warped)
        return found

    def refinable(self, flow: Tensor) -> Tensor:
        """The velocity used to register. The coarser one comes from it, so that the last term of Eq. 5 acts on it."""
        return flow[:, : flow.ndim - 2]

    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        return super().displacement(flow[:, : image.ndim - 2], image)


def _coarser(image: Tensor, space: Sequence[int], factor: int) -> Tensor:
    """``image``, smoothed, on a grid ``factor`` times as coarse."""
    return resample(smooth(image, factor / 2), space)
