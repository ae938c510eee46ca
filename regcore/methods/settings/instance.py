"""Settings of the optimiser that registers one pair."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.objective import SIMILARITY, WINDOW, Several, SimilaritySettings
from regcore.settings.base import NonNegative, Number, Positive, Whole

#: Smoothing of the field by similarity, chosen on training pairs of all cohorts: the less that a similarity tells of a
#: place, the more of its surroundings has to decide.
SMOOTH_FIELD = {"mse": 0.5, "lncc": 0.7, "nmi": 1.5, "mind": 1.5}
#: The same in voxels of a velocity, relative to those of the images.
HALF_RESOLUTION = 0.7


class LevelsSettings(MethodSettings):
    """Resolutions of the descent."""

    shrink: Annotated[list[Annotated[Number, Field(ge=1)]], Field(min_length=1)] = Field(
        [8, 4, 2, 1],
        description="voxel size of each level relative to the images' finest spacing, coarse to fine",
    )
    iterations: Annotated[list[Whole], Field(min_length=1)] = Field(
        [50, 50, 50, 25], description="maximum of iterations at each level"
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if len(self.shrink) != len(self.iterations):
            raise InputError(f"{where}: 'shrink' has {len(self.shrink)} levels and 'iterations' {len(self.iterations)}")


class InstanceSettings(LevelsSettings, SimilaritySettings):
    """Similarity, levels, and steps."""

    similarity: Literal["mse", "lncc", "nmi", "mind"] = Field("lncc", description=SIMILARITY)
    window: Several = Field(5, description=WINDOW)
    transformation: Literal["displacement", "velocity"] = Field(
        "displacement",
        description="displacement (steps are composed; fast and accurate) or velocity (integrated, at half "
        "resolution; its inverse is exact)",
    )
    step: Annotated[Number, Field(gt=0, le=1)] = Field(0.5, description="length of a step in voxels of the level")
    momentum: Annotated[Number, Field(ge=0, lt=1)] = Field(0.9, description="weight of earlier steps in each step")
    smooth_gradient: NonNegative = Field(
        1.0,
        description="standard deviation of the Gaussian that smooths each gradient, in voxels of the level",
    )
    smooth_field: NonNegative | None = Field(
        None,
        description="standard deviation of the Gaussian that smooths the field after each step, in voxels of the "
        "level; null: "
        + ", ".join(f"{width:g} for {name}" for name, width in SMOOTH_FIELD.items())
        + f"; {HALF_RESOLUTION:g} times that for a velocity, whose voxels are larger",
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
        if self.smooth_field is None:
            share = HALF_RESOLUTION if self.transformation == "velocity" else 1
            self.smooth_field = round(share * SMOOTH_FIELD[self.similarity], 3)

    @property
    def field_width(self) -> Number:
        """``smooth_field``, which is known once the settings are read."""
        assert self.smooth_field is not None
        return self.smooth_field

    @property
    def unused(self) -> set[str]:
        return {"alpha"} if self.prior is None else set()
