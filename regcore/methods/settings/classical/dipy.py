"""Settings of DIPY."""

from pydantic import Field

from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import Wholes
from regcore.settings.base import Count, Positive


class DipySettings(MethodSettings):
    """DIPY's symmetric normalisation."""

    radius: Count = Field(2, description="radius of the window of the local cross-correlation in voxels")
    iterations: Wholes = Field([100, 50, 25], description="iterations at each resolution, coarse to fine")
    sigma_diff: Positive = Field(2.0, description="Gaussian smoothing of each update, standard deviation in voxels")
    step: Positive = Field(0.25, description="longest vector of an update in voxels")

    def missing(self) -> str | None:
        return requirements.package("dipy", "dipy")
