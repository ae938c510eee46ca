"""Settings of the optimiser that chooses for itself."""

from typing import Literal

from pydantic import Field

from regcore.methods.settings.instance import SMOOTH_FIELD, LevelsSettings
from regcore.settings.base import Positive

#: Smoothing of the field for one contrast, and for two, where the recoloured image is not quite like the other.
SMOOTH_SAME, SMOOTH_DIFFERENT = SMOOTH_FIELD["lncc"], 1.5


class AutoSettings(LevelsSettings):
    """What is known of the pair, and levels."""

    contrasts: Literal["same", "different"] | None = Field(
        None, description="whether both images have one contrast; null: found from the pair"
    )
    smooth_field: Positive | None = Field(
        None,
        description="smallest standard deviation of the Gaussian that smooths the field after each step, in voxels of "
        f"the level; null: {SMOOTH_SAME:g} for one contrast, {SMOOTH_DIFFERENT:g} for two",
    )
