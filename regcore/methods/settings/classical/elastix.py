"""Settings of elastix."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import Bins
from regcore.settings.base import Count, NonNegative, Positive, Seed


class ElastixSettings(MethodSettings):
    """elastix' B-splines."""

    presets: ClassVar = {
        "recommended": {},
        "ncc": {"similarity": "ncc", "bending_energy": 0.05, "iterations": 500},
    }

    preset: Literal["recommended", "ncc"] = Field(
        "recommended",
        description="recommended (mutual information, as in elastix' default parameter map) or ncc (normalised "
        "correlation with weaker smoothing, for images of the same kind)",
    )
    similarity: Literal["mattes", "ncc"] = Field(
        "mattes", description="mattes (mutual information) or ncc (normalised correlation of the whole images)"
    )
    bins: Bins = Field(32, description="histogram bins of mattes")
    bending_energy: NonNegative = Field(1.0, description="weight of the bending energy; that of the similarity is 1")
    spacing_mm: Positive = Field(10.0, description="spacing of the control points at full resolution in mm")
    levels: Count = Field(
        4,
        description="number of resolutions; smoothing and the spacing of the control points double at each coarser one",
    )
    iterations: Count = Field(256, description="iterations at each resolution")
    samples: Annotated[int, Field(ge=100)] = Field(
        2048, description="random points at which the similarity is computed in each iteration"
    )
    seed: Seed = Field(1, description="seed of the random points")
    executable: str | None = Field(
        None,
        description="path of the program elastix, with transformix beside it; null: the one on the PATH",
    )

    def missing(self) -> str | None:
        return requirements.elastix(self.executable)
