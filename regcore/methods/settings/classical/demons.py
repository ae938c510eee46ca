"""Settings of the demons of SimpleITK."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import Counts, Wholes
from regcore.settings.base import Positive


class DemonsSettings(MethodSettings):
    """Demons of SimpleITK."""

    kind: Literal["fast_symmetric", "diffeomorphic"] = Field(
        "fast_symmetric",
        description="fast_symmetric (adds updates) or diffeomorphic (composes their exponentials)",
    )
    shrink: Counts = Field([4, 2, 1], description="shrink factor at each resolution, coarse to fine")
    iterations: Wholes = Field(
        [100, 80, 40], description="iterations at each resolution, one number per number in shrink"
    )
    standard_deviation: Positive = Field(
        1.5, description="Gaussian smoothing of the field after each iteration, in voxels of the resolution"
    )
    match_histograms: bool = Field(
        True,
        description="first match the moving image's histogram to the fixed one's; false only for equal intensities",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if len(self.shrink) != len(self.iterations):
            raise InputError(f"{where}: 'shrink' and 'iterations' must have the same length")

    def missing(self) -> str | None:
        return requirements.package("SimpleITK", "demons")
