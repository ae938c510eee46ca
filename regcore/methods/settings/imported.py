"""Settings of imported fields."""

from typing import Literal

from pydantic import Field

from regcore.methods.settings.base import MethodSettings


class ImportedSettings(MethodSettings):
    """Location and format of the fields."""

    folder: str = Field("", description="folder with the fields")
    pairs: str | None = Field(
        None,
        description="tab-separated table with the columns 'fixed moving field': two scans (as in "
        "results/<study>/pairs.tsv) or subjects, and the field's file, relative to 'folder'; default: "
        "<folder>/pairs.tsv",
    )
    format: Literal["itk", "learn2reg"] = Field(
        "itk",
        description="itk (5-D vector NIfTI in LPS mm, as of ANTs, SimpleITK and regcore) or learn2reg (4-D NIfTI "
        "in voxels)",
    )
