"""TM-SPR (Chen et al., 2024): how strongly the field is held smooth is itself predicted, voxel by voxel.

A head on the network's features draws the weight volume λ(p), which a prior keeps near its largest or mean value
(Eq. 19: similarity + weighted diffusion - log prior).  The head fits TransMorph and U-Nets alike; it takes no part in
registering.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regcore.errors import InputError
from regcore.losses import beta_log_prior, gaussian_log_prior, weighted_diffusion
from regcore.methods.constants import LABELS_ALONE, PRIORS
from regcore.methods.transmorph import NETWORK, TransMorph, settle_attention
from regcore.methods.voxelmorph import VoxelMorph
from regcore.networks.unet import ARCHITECTURES
from regcore.networks.weight_volume import RESOLUTIONS, WeightedNetwork, beta_weights, gaussian_weights
from regcore.spatial import crop_to, resample

TRANSMORPH, UNET = "transmorph", "unet"
#: Settings of the backbones that the prior's take the place of.
REPLACED = ("lambda", "smoothness", "weighting")


class SPR(VoxelMorph):
    """Spatially varying regularisation under a Beta or a Gaussian prior."""

    properties: ClassVar[dict] = {
        **{name: rule for name, rule in TransMorph.properties.items() if name not in REPLACED},
        "passes": TransMorph.properties["passes"] | {"enum": [1]},
        "preset": {
            "description": "code (the authors': their composition of steps, weights from features at half resolution), "
            "or null: the paper's",
            "enum": ["code", None],
            "default": None,
        },
        "network": {
            "description": "transmorph, or unet (see architecture)",
            "enum": [TRANSMORPH, UNET],
            "default": TRANSMORPH,
        },
        "architecture": {
            "description": "the U-Net, where 'network: unet'; see regcore/networks/unet.py",
            "enum": list(ARCHITECTURES),
            "default": "paper-diff",
        },
        "width": VoxelMorph.properties["width"],
        "prior": {
            "description": "of the weight volume: beta (Eq. 18) or gaussian (Eq. 16)",
            "enum": list(PRIORS),
            "default": "beta",
        },
        "lambda_max": {
            "description": "λ_max: the largest weight of smoothness, with the Beta prior (the best one on IXI)",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 3.354,
        },
        "alpha": {
            "description": "α′ = α - 1 of the Beta prior: larger draws the weights to λ_max (that of IXI)",
            "type": "number",
            "minimum": 0,
            "default": 0.175,
        },
        "lambda_mean": {
            "description": "λ_mean: the mean weight of smoothness, with the Gaussian prior (the best one on IXI)",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 3.796,
        },
        "sigma": {
            "description": "σ′ = 1 / 2σ² of the Gaussian prior: larger draws the weights to λ_mean (that of IXI)",
            "type": "number",
            "minimum": 0,
            "default": 0.525,
        },
        "features": {
            "description": "resolution of the features that weights are drawn from: 4 (a quarter, the paper) or 2 "
            "(half, the authors' code)",
            "enum": list(RESOLUTIONS),
            "default": 4,
        },
    }
    presets: ClassVar[dict[str, dict]] = {"code": {"compose": "code", "features": 2}}

    def _settle_weights(self, given: Mapping, where: str) -> None:
        """Nothing to fill in: every weight has a default."""

    def _check_network(self, where: str) -> None:
        if self.settings["network"] != UNET:
            return
        super()._check_network(where)
        name = self.settings["architecture"]
        if ARCHITECTURES[name].resolution != 2:
            half = ", ".join(other for other, shape in ARCHITECTURES.items() if shape.resolution == 2)
            raise InputError(
                f"{where}: the weight volume needs an architecture that ends at half resolution, not {name!r}: {half}"
            )

    @property
    def unused(self) -> set[str]:
        other = {key for prior, keys in PRIORS.items() if prior != self.settings["prior"] for key in keys}
        return other | (
            {"architecture", "width"} if self.settings["network"] == TRANSMORPH else set(NETWORK) - {"norm"}
        )

    @property
    def stride(self) -> int:
        return super().stride if self.settings["network"] == UNET else TransMorph.stride.fget(self)

    def settle(self, shape: Sequence[int]) -> None:
        if self.settings["network"] == TRANSMORPH:
            settle_attention(self.settings, shape)

    def build(self, ndim: int) -> nn.Module:
        of = VoxelMorph if self.settings["network"] == UNET else TransMorph
        return WeightedNetwork(of.build(self, ndim), ndim, self.settings["features"], self.settings["norm"])

    def displacement(self, flow: Tensor, image: Tensor) -> Tensor:
        return super().displacement(flow[:, : image.ndim - 2], image)

    def weights(self, flow: Tensor, image: Tensor) -> Tensor:
        """w(p), the weight volume relative to λ_max or λ_mean, (B, 1, *space) like ``image``."""
        factor = self.settings["flow_resolution"]
        drawn = resample(flow[:, image.ndim - 2 :], [factor * n for n in flow.shape[2:]])
        made = beta_weights if self.settings["prior"] == "beta" else gaussian_weights
        return made(crop_to(drawn, image.shape[2:]))

    def _losses(self, flow: Tensor, batch: Mapping[str, Any], deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        deformed = {**deformed, "weights": self.weights(flow, batch["fixed"])}
        return super()._losses(flow, batch, deformed)

    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = deformed["weights"]
        return {
            "diffusion": weighted_diffusion(deformed["displacement"], weights),
            "prior": -self._log_prior(weights),
        }

    def _log_prior(self, weights: Tensor) -> Tensor:
        if self.settings["prior"] == "beta":
            return beta_log_prior(weights, 1 + self.settings["alpha"])
        amount = self.settings["sigma"]
        return gaussian_log_prior(weights, (2 * amount) ** -0.5 if amount else float("inf"))

    def _weights(self, with_labels: bool) -> dict[str, float]:
        chosen = self.settings
        scale, _ = PRIORS[chosen["prior"]]
        alone = chosen["gamma"] == LABELS_ALONE
        return {
            chosen["similarity"]: 1,
            "diffusion": chosen[scale],
            "prior": 1,
            "label_dice": 1 if alone else chosen["gamma"],
        }
