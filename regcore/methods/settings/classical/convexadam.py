"""Settings of convexAdam."""

from typing import Annotated, Literal

from pydantic import Field

from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Count, Positive


class ConvexAdamSettings(MethodSettings):
    """ConvexAdam; lengths are in voxels."""

    grid_sp: Annotated[int, Field(ge=2)] = Field(
        6, description="spacing of the points at which displacements are searched, in voxels"
    )
    disp_hw: Count = Field(4, description="largest displacement searched, in units of grid_sp")
    lambda_weight: Positive = Field(1.25, description="weight of the smoothness term during Adam")
    selected_niter: Count = Field(80, description="iterations of Adam")
    selected_smooth: Literal[0, 3, 5, 7, 9] = Field(
        0,
        description="edge of the window that smooths the final field, in voxels (an odd number); 0: it is not",
    )
    mind_r: Count = Field(1, description="radius of the patches of the MIND descriptor in voxels")
    mind_d: Count = Field(2, description="distance of the patches compared by the MIND descriptor, in voxels")

    def missing(self) -> str | None:
        return requirements.package("convexAdam", "convexadam")
