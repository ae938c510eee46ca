"""Settings of TM-SPR, and of TM-SPR with a hypernetwork."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.constants import PRIORS
from regcore.methods.settings.flow import UNetName, UNetSettings
from regcore.methods.settings.hypernetwork import AFTER_ENCODER, RANGES, FromFeaturesSettings, Ranges
from regcore.methods.settings.objective import ObjectiveSettings
from regcore.methods.settings.transmorph import TransMorphNetworkSettings, TransMorphPredictionSettings
from regcore.networks.unet_architecture import ARCHITECTURES
from regcore.settings.base import NonNegative, Number, Positive

TRANSMORPH, UNET = "transmorph", "unet"
#: The ranges for brain MRI in Table 1, but from 0, as in Section 6.2.1.
TABLE_1: dict[str, list[Number]] = {
    "lambda_max": [0, 5],
    "alpha": [0, 0.2],
    "lambda_mean": [0, 5],
    "sigma": [0, 4],
}
CHOSEN = "the value to register with; null: the best on the validation pairs; a constant if 'ranges' does not name it"


class WeightVolumeSettings(UNetSettings, TransMorphPredictionSettings, ObjectiveSettings):
    """The network and prior of the weight volume."""

    presets: ClassVar = {"code": {"compose": "code", "features": 2}}

    preset: Literal["code"] | None = Field(
        None,
        description="code (the authors': their composition of steps; weights from features at half resolution) or null "
        "(the paper's)",
    )
    passes: Literal[1] = Field(1, description="runs of the network per pair: one")
    network: Literal["transmorph", "unet"] = Field("transmorph", description="transmorph, or unet (see architecture)")
    architecture: UNetName = Field(
        "paper-diff", description="the U-Net, with 'network: unet'; see regcore/networks/unet_architecture.py"
    )
    prior: Literal["beta", "gaussian"] = Field(
        "beta", description="prior of the weight volume: beta (Eq. 18) or gaussian (Eq. 16)"
    )
    features: Literal[4, 2] = Field(
        4,
        description="resolution of the features behind the weights: 4 (a quarter, the paper) or 2 (half, the "
        "authors' code)",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.network != UNET:
            return
        self.check_unet(self.flow_resolution, where)
        if ARCHITECTURES[self.architecture].resolution != 2:
            half = ", ".join(other for other, shape in ARCHITECTURES.items() if shape.resolution == 2)
            raise InputError(
                f"{where}: the weight volume needs an architecture that ends at half resolution, not "
                f"{self.architecture!r}: {half}"
            )

    @property
    def unused(self) -> set[str]:
        other = {key for prior, keys in PRIORS.items() if prior != self.prior for key in keys}
        if self.network == TRANSMORPH:
            return other | set(UNetSettings.attributes())
        return other | set(TransMorphNetworkSettings.attributes()) - {"norm"}


class SPRSettings(WeightVolumeSettings):
    """The weight volume, its prior, and VoxelMorph's objective without λ."""

    lambda_max: Positive = Field(
        3.354,
        description="λ_max: the largest weight of smoothness, with the Beta prior (default: best on IXI)",
    )
    alpha: NonNegative = Field(
        0.175, description="α′ = α - 1 of the Beta prior: pulls the weights towards λ_max (default: best on IXI)"
    )
    lambda_mean: Positive = Field(
        3.796,
        description="λ_mean: the mean weight of smoothness, with the Gaussian prior (default: best on IXI)",
    )
    sigma: NonNegative = Field(
        0.525,
        description="σ′ = 1 / 2σ² of the Gaussian prior: pulls the weights towards λ_mean (default: best on IXI)",
    )


class HyperSPRSettings(FromFeaturesSettings, WeightVolumeSettings):
    """Settings of TM-SPR, and of a hypernetwork over the hyperparameters of the prior."""

    ranges_key: ClassVar = "ranges"

    lambda_max: NonNegative | None = Field(None, description=f"λ_max: {CHOSEN}")
    alpha: NonNegative | None = Field(None, description=f"α′ = α - 1 of the Beta prior: {CHOSEN}")
    lambda_mean: NonNegative | None = Field(None, description=f"λ_mean: {CHOSEN}")
    sigma: NonNegative | None = Field(None, description=f"σ′ = 1 / 2σ² of the Gaussian prior: {CHOSEN}")
    ranges: Ranges | None = Field(
        None,
        description=f"{RANGES}; null: those without a value: λ up to 5, α′ up to 0.2 (Beta), σ′ up to 4 (Gaussian), "
        "as for brain MRI in Table 1",
    )

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        return dict.fromkeys(PRIORS[self.prior], (0, math.inf))

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.ranges is None:
            self.ranges = {name: TABLE_1[name] for name in PRIORS[self.prior] if given.get(name) is None}
            if not self.ranges:
                raise InputError(
                    f"{where}: both hyperparameters are set; give 'ranges' of those that the hypernetwork takes"
                )
        if self.generated is None and self.network != UNET:
            self.generated = [*(f"network.{part}" for part in AFTER_ENCODER), "head"]
        self.settle_hyperparameters(given, where)
