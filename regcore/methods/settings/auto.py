"""Settings of the optimiser that chooses for itself."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Number, Positive, Whole


class AutoSettings(MethodSettings):
    """What is known of the pair, and levels."""

    contrasts: Literal["same", "different"] | None = Field(
        None, description="whether both images have one contrast; null: found from the pair"
    )
    smooth_field: Positive | None = Field(
        None,
        description="smallest standard deviation of the Gaussian that smooths the field after each step, in voxels of "
        "the level; null: 0.7 for one contrast, 1.5 for two",
    )
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
