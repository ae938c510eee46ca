"""The section ``cohort.embedded`` of a study: how to make the embedded cohort."""

from typing import Annotated, Literal

from pydantic import Field

from regcore.settings.base import Count, NonNegative, Number, Section
from regcore.settings.fields import Distinct, left_out

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
Contrast = Annotated[str, Field(pattern=r"^(T1w|T2w|PDw|FLASH-[1-9]\d*|MPRAGE-[1-9]\d*)$")]
#: One number for each scale of the random diffeomorphisms.
Scales = Annotated[list[NonNegative], Field(min_length=3, max_length=3)]
Subjects = Annotated[int, Field(ge=2)]

DEFORMATION_MM = "root-mean-square displacement (mm) at each scale of the random diffeomorphisms, coarse to fine"
BIAS = "strength of the multiplicative bias field (SD of its logarithm)"
NOISE = "SD of the noise relative to the brightest tissue"


class DatasetSettings(Section):
    """What is different in one of several datasets."""

    deformation_mm: Scales | None = left_out(DEFORMATION_MM)
    bias: NonNegative | None = left_out(BIAS)
    noise: NonNegative | None = left_out(NOISE)


class EmbeddedSettings(Section):
    """How to make the embedded cohort."""

    ndim: Literal[2, 3] = Field(2, description="2 for one coronal slice, 3 for whole brains")
    coronal_mm: Annotated[Number, Field(ge=-90, le=60)] = Field(-14, description="MNI y coordinate of the slice in 2-D")
    spacing: Annotated[Number, Field(ge=1)] = Field(1, description="voxel size in mm")
    train: Subjects = Field(100, description="number of training subjects")
    validation: Subjects = Field(8, description="number of validation subjects")
    test: Subjects = Field(12, description="number of test subjects")
    contrasts: Annotated[list[Contrast], Field(min_length=1), Distinct()] = Field(
        ["T1w"],
        description="contrasts of each subject's images: T1w, T2w, PDw, FLASH-2 to FLASH-40 (flip angle, degrees), "
        "MPRAGE-300 to MPRAGE-1000 (inversion time, ms)",
    )
    deformation_mm: Scales = Field([5.2, 4.2, 0.8], description=DEFORMATION_MM)
    bias: NonNegative = Field(0.02, description=BIAS)
    noise: NonNegative = Field(0.04, description=NOISE)
    # These have no default here: filled in, it would change the settings by which Snakemake knows what is made.
    sessions: Count | None = left_out(
        "scans per subject; the later ones show its anatomy slightly deformed, with noise, bias and gain of their own "
        "(default: 1)"
    )
    session_deformation_mm: NonNegative | None = left_out(
        "root-mean-square displacement (mm) over the image between a later scan of a subject and its first; inside the "
        "brain it is about 0.6 of that (default: 1)"
    )
    ventricles_mm: NonNegative | None = left_out(
        "maximum widening of a subject's ventricles (mm), drawn uniformly from 0: a deformation that fades within a "
        "centimetre of their walls (default: none)"
    )
    datasets: Annotated[dict[Name, DatasetSettings | None], Field(min_length=1)] | None = left_out(
        "data sets to simulate: name → its own noise, bias or deformation_mm; each split's subjects are assigned to "
        "them in turn (default: one, 'embedded')"
    )

    def subjects(self, split: str) -> int:
        """How many subjects a split has."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    def in_dataset(self, name: str) -> "EmbeddedSettings":
        """The settings of the subjects of a dataset."""
        own = (self.datasets or {}).get(name)
        return self.with_values(own.as_dict()) if own else self
