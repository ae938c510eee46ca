"""NiftyReg's free-form deformation, through its programs."""

from pathlib import Path
from typing import ClassVar

from regcore.images.field import DisplacementField
from regcore.images.grid import Grid
from regcore.images.nifti import load_values, open_nifti
from regcore.images.volume import Volume
from regcore.methods import requirements
from regcore.methods.base import Registration
from regcore.methods.classical.external import (
    FIXED,
    FIXED_MASK,
    MOVING,
    External,
    ToolError,
    joined_mask,
    program_version,
    run_program,
    save_images,
    save_mask,
)
from regcore.methods.classical.fields import from_ras
from regcore.methods.settings.classical.niftyreg import NiftyRegSettings

#: File names of the control points of both directions, as reg_f3d names them.
CONTROL, CONTROL_BACKWARD = "cpp.nii.gz", "cpp_backward.nii.gz"


class NiftyReg(External):
    """B-spline free-form deformation (Modat et al., Comput. Methods Programs Biomed. 98:278, 2010).

    See [1]_.  With ``velocity`` the spline is a stationary velocity field and both directions are found together [2]_.
    This gives an inverse and no folds, but takes several times as long.

    References
    ----------
    .. [1] Modat, Ridgway, Taylor, Lehmann, Barnes, Hawkes, Fox and Ourselin, "Fast free-form deformation using graphics
       processing units", Comput. Methods Programs Biomed. 98:278-284, 2010.
    .. [2] Modat, Daga, Cardoso, Ourselin, Ridgway and Ashburner, "Parametric non-rigid registration using a stationary
       velocity field", IEEE Workshop on Mathematical Methods in Biomedical Image Analysis, 2012.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("niftyreg", {"velocity": True, "spacing_mm": 4})
    >>> arguments = method.arguments()
    >>> arguments[arguments.index("-sx") + 1], "-vel" in arguments
    ('4', True)
    """

    settings_type: ClassVar = NiftyRegSettings
    uses_masks: ClassVar = True
    settings: NiftyRegSettings

    def run(
        self,
        fixed: Volume,
        moving: Volume,
        folder: Path,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
    ) -> Registration:
        missing = self.settings.missing()
        if missing:
            raise ToolError(missing)
        save_images(fixed, moving, folder)
        # Not -fmask for the moving mask: without -vel, reg_f3d ignores it.
        mask = save_mask(joined_mask(fixed_mask, moving_mask), "-rmask", FIXED_MASK, folder)
        commands = [self.call("reg_f3d", *self.arguments(), *mask, folder=folder)]
        commands.append(self.call(*_to_displacement(FIXED, CONTROL, "field.nii.gz"), folder=folder))
        inverse = None
        if self.settings.velocity:
            commands.append(self.call(*_to_displacement(MOVING, CONTROL_BACKWARD, "inverse.nii.gz"), folder=folder))
            inverse = read_displacement(folder / "inverse.nii.gz", moving.grid)
        field = read_displacement(folder / "field.nii.gz", fixed.grid)
        return Registration(field, inverse, commands, f"NiftyReg {self.version}")

    @property
    def version(self) -> str:
        """The version that reg_f3d reports."""
        return program_version(self._folder / "reg_f3d")

    @property
    def _folder(self) -> Path:
        """The folder with the programs."""
        found = requirements.niftyreg_folder(self.settings.bin_dir)
        if found is None:
            raise ToolError(str(self.settings.missing()))
        return found

    def arguments(self) -> list[str]:
        """Arguments of reg_f3d besides the threads."""
        settings = self.settings
        similarity = {"nmi": ["--nmi"], "lncc": ["--lncc", f"{settings.lncc_sd:g}"], "ssd": ["--ssd"]}
        return [
            *("-ref", FIXED, "-flo", MOVING, "-cpp", CONTROL, "-res", "warped.nii.gz"),
            *similarity[settings.similarity],
            *("-sx", f"{settings.spacing_mm:g}", "-be", f"{settings.bending_energy:g}"),
            *("-ln", str(settings.levels), "-maxit", str(settings.iterations)),
            *(["-vel"] if settings.velocity else []),
            *("-pad", "0", "-voff"),
        ]

    def call(self, name: str, *arguments: str, folder: Path) -> str:
        """Run one of NiftyReg's programs with the threads of this process; return the command."""
        return run_program([str(self._folder / name), *arguments, "-omp", str(self.threads)], folder, self.threads)


def _to_displacement(image: str, control: str, result: str) -> tuple[str, ...]:
    """The call that computes a dense field on the grid of ``image`` from the control points."""
    return "reg_transform", "-ref", image, "-disp", control, result


def read_displacement(path: Path, grid: Grid) -> DisplacementField:
    """Read the output of ``reg_transform -disp``.

    Parameters
    ----------
    path : Path
        NIfTI, (x, y, z, 1, 3), or (x, y, 1, 1, 2) in 2-D, in RAS millimetres.
    grid : Grid
        The grid of the image.

    Returns
    -------
    DisplacementField

    Raises
    ------
    ToolError
        The shape does not fit the grid.
    InputError
        The file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from regcore.images.volume import Grid
    >>> from regcore.methods.classical.niftyreg import read_displacement
    >>> grid = Grid.centred((4, 4, 4), (2, 2, 2), (0, 0, 0))
    >>> stored = np.zeros((4, 4, 4, 1, 3), dtype=np.float32)
    >>> stored[..., 0] = 3  # mm to the right
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nib.Nifti1Image(stored, grid.affine).to_filename(f"{folder}/field.nii.gz")
    ...     read_displacement(Path(folder, "field.nii.gz"), grid).displacement[0, :, 0, 0, 0].tolist()
    [1.5, 0.0, 0.0]
    """
    stored = load_values(open_nifti(path), path)
    return from_ras(stored.reshape(*stored.shape[: grid.ndim], stored.shape[-1]), grid)
