"""Fields made elsewhere: read and checked, so that any method can enter a report without its code being run."""

from pathlib import Path
from typing import ClassVar

from regcore.errors import InputError, RegistrationFailed
from regcore.images.field import DisplacementField, read_field, read_voxel_field
from regcore.images.volume import Grid, Volume
from regcore.methods.base import Method, Registration


class Imported(Method):
    """Displacement fields of another program, one file for each test pair.

    Fields lead from the native fixed scan to the native moving one, alignment included: what they miss, nobody adds.
    """

    properties: ClassVar[dict] = {
        "folder": {
            "description": "folder with the fields",
            "type": "string",
            "default": "",
        },
        "pairs": {
            "description": "tab-separated table with the columns 'fixed moving field': two scans (as in "
            "results/<study>/pairs.tsv, or subjects) and the field's file, relative to 'folder'; default: "
            "<folder>/pairs.tsv",
            "type": ["string", "null"],
            "default": None,
        },
        "format": {
            "description": "itk (5-D vector NIfTI in LPS mm, as ANTs, SimpleITK and regcore write it) or learn2reg "
            "(4-D NIfTI in voxels)",
            "enum": ["itk", "learn2reg"],
            "default": "itk",
        },
    }

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        raise InputError("'imported' registers nothing: its fields are scored in a study")

    def read(self, path: str | Path | None, fixed: Grid, moving: Grid) -> DisplacementField:
        """Read the field of a pair whose native scans are on these grids.

        Raises
        ------
        RegistrationFailed
            There is none, it cannot be read, or it is on another grid than the fixed scan.
        """
        if path is None:
            raise RegistrationFailed("the list names no field for this pair")
        try:
            if self.settings["format"] == "learn2reg":
                return read_voxel_field(path, fixed, moving)
            field = read_field(path)
        except InputError as error:
            raise RegistrationFailed(str(error)) from error
        if not field.grid.same_as(fixed, tolerance_mm=0.01):
            raise RegistrationFailed(
                f"{path}: the field is on another grid (shape {field.grid.shape}) than the fixed image ({fixed.shape}, "
                "or another position); resample it onto that"
            )
        return field
