"""Settings of fields that were made elsewhere."""

from typing import Literal

from pydantic import Field

from regcore.methods.settings.base import MethodSettings


class ImportedSettings(MethodSettings):
    """Where the fields are, and how they are written."""

    folder: str = Field("", description="folder with the fields")
    pairs: str | None = Field(
        None,
        description="tab-separated table with the columns 'fixed moving field': two scans (as in "
        "results/<study>/pairs.tsv, or subjects) and the field's file, relative to 'folder'; default: "
        "<folder>/pairs.tsv",
    )
    format: Literal["itk", "learn2reg"] = Field(
        "itk",
        description="itk (5-D vector NIfTI in LPS mm, as ANTs, SimpleITK and regcore write it) or learn2reg (4-D NIfTI "
        "in voxels)",
    )
