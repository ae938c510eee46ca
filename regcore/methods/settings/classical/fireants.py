"""Settings of FireANTs."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import Counts
from regcore.settings.base import Positive


class FireANTsSettings(MethodSettings):
    """FireANTs."""

    kind: Literal["greedy", "syn"] = Field(
        "greedy", description="greedy (moving to fixed) or syn (both to a common midpoint)"
    )
    scales: Counts = Field([4, 2, 1], description="shrink factor at each resolution, coarse to fine")
    iterations: Counts = Field(
        [200, 100, 50], description="iterations at each resolution, one number per number in scales"
    )
    cc_kernel_size: Literal[3, 5, 7, 9, 11] = Field(
        7, description="edge of the window of the local cross-correlation in voxels, an odd number"
    )
    optimizer_lr: Positive = Field(0.5, description="learning rate of Adam in voxels")
    smooth_grad_sigma: Positive = Field(
        1.0, description="Gaussian smoothing of each update, standard deviation in voxels"
    )
    smooth_warp_sigma: Positive = Field(
        0.5, description="Gaussian smoothing of the field after each update, standard deviation in voxels"
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if len(self.scales) != len(self.iterations):
            raise InputError(f"{where}: 'scales' and 'iterations' must have the same length")

    def missing(self) -> str | None:
        return requirements.fireants()
