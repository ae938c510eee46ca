"""Settings of deeds."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.classical.types import Counts
from regcore.settings.base import Positive


class DeedsSettings(MethodSettings):
    """deedsBCV; everything is in voxels."""

    presets: ClassVar = {
        "published": {},
        "brain": {"grid": [6, 5, 4, 3, 2], "search": [6, 5, 4, 3, 2], "quantisation": [3, 2, 2, 1, 1]},
    }

    preset: Literal["published", "brain"] = Field(
        "published",
        description="published (the program's defaults, for abdominal CT) or brain (finer grids, better for brains at "
        "2 mm voxels)",
    )
    alpha: Positive = Field(1.6, description="weight of the smoothness term")
    grid: Counts = Field(
        [8, 7, 6, 5, 4], description="spacing of the control points at each level in voxels, coarse to fine"
    )
    search: Counts = Field(
        [8, 7, 6, 5, 4],
        description="largest displacement searched at each level, in units of its quantisation",
    )
    quantisation: Counts = Field([5, 4, 3, 2, 1], description="step size of the search at each level in voxels")
    executable: str | None = Field(None, description="path of the program deedsBCV, or its name if it is on the PATH")

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if not len(self.grid) == len(self.search) == len(self.quantisation):
            raise InputError(f"{where}: 'grid', 'search' and 'quantisation' must have the same length")

    def missing(self) -> str | None:
        return requirements.deeds(self.executable)
