"""The section ``preprocess`` of a study: how scans are brought onto one grid."""

from typing import Annotated, Literal

from pydantic import Field

from regcore.settings.base import Number, Positive, Section

#: Ways to align a scan to the reference.
Alignment = Literal["affine", "rigid", "centre", "none", "nmi", "mind"]
Percentile = Annotated[Number, Field(ge=0, le=100)]


class PreprocessSettings(Section):
    """How scans are brought onto one grid."""

    reference: str | None = Field(
        None,
        description="subject of the cohort, or path of an image, that all scans are aligned to; default: the first "
        "atlas or training scan",
    )
    spacing: Positive | list[Positive] | None = Field(
        None, description="voxel size of the common grid in mm; default: the reference's"
    )
    shape: list[Annotated[int, Field(ge=16)]] | None = Field(
        None, description="voxels of the common grid; default: large enough for the reference's content"
    )
    affine: Alignment = Field(
        "affine",
        description="first alignment of each scan to the reference: affine, rigid, centre (of the images) or none (the "
        "headers are already right); nmi or mind: affine by regcore's own optimiser with that measure, for any "
        "contrasts",
    )
    mask: bool = Field(False, description="set voxels outside the cohort's masks to zero")
    percentiles: Annotated[list[Percentile], Field(min_length=2, max_length=2)] = Field(
        [0.5, 99.5], description="intensities at these percentiles become 0 and 1"
    )
