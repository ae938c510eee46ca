"""Settings of VoxelMorph."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.flow import UNetSettings
from regcore.methods.settings.objective import ObjectiveSettings, WeightingSettings

#: λ of the paper for mean squares (Section V-G) and of its repository for local correlation.
PUBLISHED_LAMBDA = {"mse": 0.02, "lncc": 1.0}


class VoxelMorphObjectiveSettings(WeightingSettings, ObjectiveSettings):
    """The objective of VoxelMorph, for any network."""

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        self.settle_weights(given, where)

    def settle_weights(self, given: Mapping[str, Any], where: str) -> None:
        """Fill in the published λ if none is given, and check that the weights fit the weighting."""
        if self.lambda_ is None:
            if self.weighting == "convex" or self.similarity not in PUBLISHED_LAMBDA:
                raise InputError(f"{where}: no λ is published for {self.similarity} with this weighting; set 'lambda'")
            self.lambda_ = PUBLISHED_LAMBDA[self.similarity]
        if self.weighting == "convex":
            for name, value in (("lambda", self.lambda_), ("gamma", self.gamma)):
                if not 0 <= float(value) <= 1:
                    raise InputError(f"{where}: '{name}: {value}' must lie in [0, 1] with 'weighting: convex'")


class VoxelMorphSettings(UNetSettings, VoxelMorphObjectiveSettings):
    """Objective, U-Net and training of VoxelMorph."""

    presets: ClassVar = {
        "paper": {"flow": "displacement", "flow_resolution": 1, "similarity": "lncc"},
        # λ is 0.01 there, times the factor 2 for half resolution (loss_mult).
        "code": {"architecture": "code", "similarity": "mse", "lambda": 0.02},
    }

    preset: Literal["paper", "code"] | None = Field(
        None,
        description="source of the defaults: paper (displacement at full resolution, lncc), code (the authors' current "
        "repository: max pooling, velocity at half resolution, mse) or null (regcore's own)",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        self.check_unet(self.flow_resolution, where)
