"""Settings of greedy."""

from typing import Annotated, Literal

from pydantic import Field

from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import Wholes
from regcore.settings.base import LARGEST_SEED, Count, NonNegative


class GreedySettings(MethodSettings):
    """greedy."""

    metric: Literal["NCC", "NMI", "SSD"] = Field(
        "NCC",
        description="NCC (local cross-correlation), NMI (normalised mutual information of the whole images, for "
        "different contrasts) or SSD (squared differences, for equal intensities)",
    )
    radius: Count = Field(2, description="radius of the NCC window in voxels")
    iterations: Wholes = Field([100, 50, 25], description="iterations at each resolution, coarse to fine")
    sigmas: Annotated[list[NonNegative], Field(min_length=2, max_length=2)] = Field(
        [2.0, 0.5],
        description="Gaussian smoothing of each update and of the whole field, standard deviations in voxels",
    )
    velocity: bool = Field(
        False, description="optimise a stationary velocity field: a smoother map with a better inverse"
    )
    seed: Annotated[int, Field(ge=1, le=LARGEST_SEED)] = Field(
        1,
        description="seed of the noise that the NCC metric adds to the images; without a seed, runs differ",
    )

    def missing(self) -> str | None:
        return requirements.package("picsl_greedy", "greedy")
