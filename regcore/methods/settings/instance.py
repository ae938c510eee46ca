"""Settings of the optimiser that registers one pair."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.objective import SIMILARITY, WINDOW, Several, SimilaritySettings
from regcore.settings.base import NonNegative, Number, Positive, Whole


class InstanceSettings(SimilaritySettings):
    """Similarity, levels, and steps."""

    similarity: Literal["mse", "lncc", "nmi", "mind"] = Field("lncc", description=SIMILARITY)
    window: Several = Field(5, description=WINDOW)
    transformation: Literal["displacement", "velocity"] = Field(
        "displacement",
        description="displacement (steps are composed; fast and accurate) or velocity (integrated, at half "
        "resolution; its inverse is exact)",
    )
    shrink: Annotated[list[Annotated[Number, Field(ge=1)]], Field(min_length=1)] = Field(
        [8, 4, 2, 1],
        description="voxel size of each level relative to the images' finest spacing, coarse to fine",
    )
    iterations: Annotated[list[Whole], Field(min_length=1)] = Field(
        [50, 50, 50, 25], description="maximum of iterations at each level"
    )
    step: Annotated[Number, Field(gt=0, le=1)] = Field(0.5, description="length of a step in voxels of the level")
    momentum: Annotated[Number, Field(ge=0, lt=1)] = Field(0.9, description="weight of earlier steps in each step")
    smooth_gradient: NonNegative = Field(
        1.0,
        description="standard deviation of the Gaussian that smooths each gradient, in voxels of the level",
    )
    smooth_field: NonNegative = Field(
        0.7,
        description="standard deviation of the Gaussian that smooths the field after each step, in voxels of the level",
    )
    prior: Literal["beta"] | None = Field(
        None,
        description="beta: at each voxel, the field is smoothed with the weight that the Beta prior of TM-SPR gives "
        "for its gradient, less where it is steep, so that organs may slide; use with smooth_field 1.4; null: "
        "everywhere alike",
    )
    alpha: Positive = Field(
        0.3,
        description="with prior, α' / λ_max: the squared gradient of the field (voxels per voxel, squared) up to which "
        "it is smoothed in full",
    )
    tolerance: NonNegative = Field(
        1e-3, description="a level ends when ten iterations lower the loss by less than this fraction"
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if len(self.shrink) != len(self.iterations):
            raise InputError(f"{where}: 'shrink' has {len(self.shrink)} levels and 'iterations' {len(self.iterations)}")

    @property
    def unused(self) -> set[str]:
        return {"alpha"} if self.prior is None else set()
