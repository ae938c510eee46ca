"""Types that the settings of several tools share."""

from typing import Annotated

from pydantic import Field

from regcore.settings.base import Count, Number, Whole

Counts = Annotated[list[Count], Field(min_length=1)]
Wholes = Annotated[list[Whole], Field(min_length=1)]
Bins = Annotated[int, Field(ge=4)]
#: A weight below 1, which leaves a rest for another term.
PartOfOne = Annotated[Number, Field(ge=0, lt=1)]
