"""Settings of ANTs SyN."""

from typing import ClassVar, Literal

from pydantic import Field

from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import Bins, Wholes
from regcore.settings.base import Count, NonNegative, Positive


class SyNSettings(MethodSettings):
    """Symmetric normalisation of ANTs."""

    presets: ClassVar = {
        "recommended": {},
        "voxelmorph-paper": {
            "radius": 4,
            "step": 0.25,
            "flow_variance": 9,
            "total_variance": 0.2,
            "iterations": [201, 201, 201],
        },
        "quick": {"metric": "mattes", "step": 0.1, "iterations": [100, 70, 50, 0]},
        "cross-contrast": {"metric": "mattes"},
    }

    preset: Literal["recommended", "voxelmorph-paper", "quick", "cross-contrast"] = Field(
        "recommended",
        description="recommended (local cross-correlation, as in the ANTs scripts); voxelmorph-paper (the baseline of "
        "VoxelMorph, hours for a whole brain); quick (mutual information, stops before full resolution); "
        "cross-contrast (mutual information)",
    )
    metric: Literal["CC", "mattes", "meansquares"] = Field(
        "CC", description="CC (local cross-correlation), mattes (mutual information) or meansquares"
    )
    radius: Count = Field(2, description="radius of the CC window in voxels")
    bins: Bins = Field(32, description="histogram bins of mattes")
    step: Positive = Field(0.25, description="gradient step")
    flow_variance: NonNegative = Field(3, description="Gaussian smoothing of each update, variance in voxels²")
    total_variance: NonNegative = Field(0, description="Gaussian smoothing of the whole field, variance in voxels²")
    iterations: Wholes = Field([100, 70, 50, 20], description="iterations at each resolution, coarse to fine")
