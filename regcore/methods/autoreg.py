"""AutoReg (Fan et al., TIP 2023): cells and an objective that can be searched for the task at hand.

This is the network that a search has found, or one by hand, and the objective of Eq. 4 and 5, whose weights λ are
numbers here; :mod:`regcore.autoreg.bilevel` searches for both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regcore.losses import diffusion, lncc, mind_ssc
from regcore.methods.base import TRAINING
from regcore.methods.flow import FLOW, IMAGES, FlowMethod
from regcore.networks.architecture import LAMBDAS, MANUAL, Architecture
from regcore.networks.cells import DOWNSAMPLING, SEPARABLE, STRIDE, CellNetwork
from regcore.networks.unet import ARCHITECTURES, FlowNetwork
from regcore.spatial import integrate, pad_to_multiple, resample, resample_displacement, smooth, warp

CELLS, UNET = "cells", "unet"
#: Sides of the windows of local correlation, in voxels, at full, half and quarter resolution, as in the authors' code.
WINDOWS = {"full": 9, "half": 7, "quarter": 5}
FACTORS = {"half": 2, "quarter": 4}
SMOOTHNESS = "diffusion"


class AutoReg(FlowMethod):
    """The two-scale network of cells, or a U-Net, under the unified objective."""

    properties: ClassVar[dict] = {
        "preset": {
            "description": "code (the authors' separable convolutions) or null: the paper's",
            "enum": ["code", None],
            "default": None,
        },
        "network": {
            "description": "cells (the paper's two scales), or unet (see unet): only the objective is AutoReg's then",
            "enum": [CELLS, UNET],
            "default": CELLS,
        },
        "architecture": {
            "description": "the cells: a network by hand (manual-small, -medium or -large: 1-, 3- or 7-convolutions "
            "everywhere), the path of an architecture file, or what such a file holds",
            "type": ["string", "object"],
            "default": "manual-medium",
        },
        "channels": {
            "description": "features of an image at half resolution; the other sizes follow from it",
            "type": "integer",
            "minimum": 1,
            "default": 16,
        },
        "separable": {
            "description": "true (one kernel to a feature, then a mixing of features) or code (what the authors' code "
            "has under that name: a full convolution before them)",
            "enum": list(SEPARABLE),
            "default": "true",
        },
        "downsampling": {
            "description": "convolution of a feature cell that takes steps of two: first (the authors' code; what fits "
            "the paper's memory) or last (the paper's text)",
            "enum": list(DOWNSAMPLING),
            "default": "first",
        },
        "checkpointing": {
            "description": "in a search, compute candidates again in the backward pass: less memory, longer steps",
            "type": "boolean",
            "default": False,
        },
        "unet": {
            "description": "the U-Net, where 'network: unet'; see regcore/networks/unet.py",
            "enum": list(ARCHITECTURES),
            "default": "paper",
        },
        "lambda1": {
            "description": "λ1, share of local correlation in the similarity; the rest is MIND (Eq. 4)",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.5,
        },
        "lambda2": {
            "description": "λ2, weight of the diffusion of the velocity (Eq. 5; defaults of the four: where the "
            "authors' code begins)",
            "type": "number",
            "minimum": 0,
            "default": 1.5,
        },
        "lambda3": {
            "description": "λ3, weight of the similarity at half resolution (Eq. 5)",
            "type": "number",
            "minimum": 0,
            "default": 0.32,
        },
        "lambda4": {
            "description": "λ4, weight of the similarity at a quarter of the resolution (Eq. 5)",
            "type": "number",
            "minimum": 0,
            "default": 0.08,
        },
        "input": FLOW["input"] | {"enum": [IMAGES]},
        "passes": FLOW["passes"] | {"enum": [1]},
        "flow": FLOW["flow"] | {"enum": ["velocity"]},
        "flow_resolution": FLOW["flow_resolution"] | {"enum": [2]},
        "integration_steps": FLOW["integration_steps"],
        **TRAINING,
    }
    presets: ClassVar[dict[str, dict]] = {"code": {"separable": "code"}}

    def _check_network(self, where: str) -> None:
        self.settings["architecture"] = architecture_of(
            self.settings["architecture"], f"{where}.architecture"
        ).as_json()

    @property
    def unused(self) -> set[str]:
        if self.settings["network"] == CELLS:
            return {"unet"}
        return {"architecture", "channels", "separable", "downsampling", "checkpointing"}

    @property
    def stride(self) -> int:
        return STRIDE if self.settings["network"] == CELLS else max(STRIDE, ARCHITECTURES[self.settings["unet"]].stride)

    def build(self, ndim: int) -> nn.Module:
        if self.settings["network"] == UNET:
            return FlowNetwork(ndim, self.settings["unet"])
        return self.super_network(ndim, ())

    def super_network(self, ndim: int, mixed: tuple[str, ...]) -> CellNetwork:
        """The network with mixtures of all candidates in the cells of the kinds ``mixed``."""
        names = ("channels", "separable", "downsampling", "integration_steps", "checkpointing")
        architecture = Architecture.parsed(self.settings["architecture"], "architecture")
        return CellNetwork(ndim, architecture, mixed, **{name: self.settings[name] for name in names})

    @property
    def weights(self) -> dict[str, float]:
        """λ."""
        return {name: self.settings[name] for name in LAMBDAS}

    def losses(self, flow: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.weighed_losses(flow, batch, self.weights)

    def weighed_losses(
        self, flow: Tensor, batch: Mapping[str, Any], weights: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """:meth:`losses` under other weights λ, which may be tensors that the loss is differentiable with respect to.

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
        """The fixed image, and the moving one warped by the field, at one resolution."""
        fixed, moving = batch["fixed"], batch["moving"]
        if level == "full":
            return fixed, warp(moving, self.displacement(flow, fixed))
        ndim, factor = fixed.ndim - 2, FACTORS[level]
        space = [2 * n // factor for n in flow.shape[2:]]
        if level == "half":
            velocity = flow[:, :ndim]
        elif flow.shape[1] == 2 * ndim:  # each voxel of what the network finds at a quarter is there twice an axis
            velocity = flow[(slice(None), slice(ndim, None), *[slice(None, None, 2)] * ndim)]
        else:
            velocity = resample_displacement(flow, space)
        displacement = integrate(velocity, self.settings["integration_steps"])
        fixed, moving = (coarser(pad_to_multiple(image, self.stride), space, factor) for image in (fixed, moving))
        return fixed, warp(moving, displacement)

    def _unlikeness(self, level: str, fixed: Tensor, warped: Tensor, share: Tensor | float) -> dict[str, Tensor]:
        found = {}
        if isinstance(share, Tensor) or share > 0:
            found["lncc"] = lncc(fixed, warped, WINDOWS[level], "voxelmorph")
        if isinstance(share, Tensor) or share < 1:
            found["mind"] = mind_ssc(fixed, warped)
        return found

    def refinable(self, flow: Tensor) -> Tensor:
        """The velocity that registers; the coarser one is made of it, or the last term of Eq. 5 would not hold it."""
        return flow[:, : flow.ndim - 2]

    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        return super().displacement(flow[:, : image.ndim - 2], image)


def architecture_of(value: str | Mapping, where: str) -> Architecture:
    """An architecture by hand, of a file, or as it stands.

    Raises
    ------
    InputError
        As for :meth:`Architecture.read`.
    """
    if isinstance(value, Mapping):
        return Architecture.parsed(value, where)
    return Architecture.uniform(MANUAL[value]) if value in MANUAL else Architecture.read(value)


def coarser(image: Tensor, space: Sequence[int], factor: int) -> Tensor:
    """``image`` on a grid ``factor`` times as coarse, smoothed before."""
    return resample(smooth(image, factor / 2), space)
