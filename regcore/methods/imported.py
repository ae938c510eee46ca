"""Imported fields: read and checked, so that any method can be compared without running its code."""

from pathlib import Path
from typing import ClassVar

from regcore.errors import InputError, RegistrationFailed
from regcore.images.field import DisplacementField, read_field, read_voxel_field
from regcore.images.volume import Grid, Volume
from regcore.methods.base import Method, Registration
from regcore.methods.settings.imported import ImportedSettings


class Imported(Method):
    """Displacement fields of another program, one file per test pair.

    Fields map the native fixed scan to the native moving one, including any alignment; nothing is added to them.

    Examples
    --------
    >>> import tempfile
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid
    >>> from regcore.methods import make_method
    >>> grid = Grid.centred((8, 8), (2, 2), (0, 0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     DisplacementField.identity(grid).save(f"{folder}/a-b.nii.gz")
    ...     field = make_method("imported").read(f"{folder}/a-b.nii.gz", fixed=grid, moving=grid)
    >>> field.grid.shape, field.displacement.abs().max().item() < 1e-6
    ((8, 8), True)
    """

    settings_type: ClassVar = ImportedSettings
    imported: ClassVar = True
    settings: ImportedSettings

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        raise InputError("'imported' cannot register: its fields are only scored in a study")

    def read(self, path: str | Path | None, fixed: Grid, moving: Grid) -> DisplacementField:
        """Read the field of a pair whose native scans are on these grids.

        Raises
        ------
        RegistrationFailed
            There is no field, it cannot be read, or it is not on the grid of the fixed scan.
        """
        if path is None:
            raise RegistrationFailed("the list names no field for this pair")
        try:
            if self.settings.format == "learn2reg":
                return read_voxel_field(path, fixed, moving)
            field = read_field(path)
        except InputError as error:
            raise RegistrationFailed(str(error)) from error
        if not field.grid.same_as(fixed, voxels=0.01):
            raise RegistrationFailed(
                f"{path}: the field is not on the grid of the fixed image (shape {field.grid.shape} and {fixed.shape}, "
                "or another position); resample it onto that grid"
            )
        return field
