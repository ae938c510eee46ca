"""The section ``preprocess`` of a study: how scans are brought onto one grid."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from regcore.settings.base import Number, Positive, Section

#: Ways to align a scan to the reference.
Alignment = Literal["auto", "rigid", "similarity", "affine", "translation", "centre", "none", "ants", "nmi", "mind"]
ALIGNMENTS: tuple[str, ...] = get_args(Alignment)
#: Those of regcore's own aligner, by the freedom that they allow.
Own = Literal["auto", "rigid", "similarity", "affine", "translation"]
OWN: tuple[str, ...] = get_args(Own)
#: Those that can ignore what masks exclude, and those that can improve a given start.
HEED_MASKS = (*OWN, "ants")
TAKE_A_START = (*OWN, "ants", "nmi", "mind")
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
        "auto",
        description="first alignment of each scan to the reference: auto (as free as the data allow, at most affine), "
        "rigid, similarity, affine or translation, whatever the contrasts and poses; centre (of the images); none (the "
        "headers are already right); or an affine map by ANTs (ants), or by an optimiser of mutual information (nmi) "
        "or MIND (mind)",
    )
    mask: bool = Field(False, description="set voxels outside the cohort's masks to zero")
    cost_mask: bool = Field(
        False,
        description="ignore voxels outside the cohort's masks, for instance lesions, in the alignment and in methods "
        "that take masks",
    )
    percentiles: Annotated[list[Percentile], Field(min_length=2, max_length=2)] = Field(
        [0.5, 99.5], description="intensities at these percentiles become 0 and 1"
    )
