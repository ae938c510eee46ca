"""deedsBCV, through a program that the user builds."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.ndimage import map_coordinates

from regcore.images.volume import Volume
from regcore.methods import requirements
from regcore.methods.base import Registration
from regcore.methods.classical.external import FIXED, MOVING, External, ToolError, run_program, save_images
from regcore.methods.classical.fields import from_voxels
from regcore.methods.settings.classical.deeds import DeedsSettings

#: deedsBCV adds 1024 to every intensity, for CT scans, in float32.  That would leave intensities of 0 to 1 only
#: 13 bits, too few for their differences.  The program was written for a range such as 0 to 1000.
INTENSITY_SCALE = 1000

#: Suffix that deedsBCV appends to the name of its result.
STEM, DISPLACEMENTS = "pair", "pair_displacements.dat"


class Deeds(External):
    """deeds with self-similarity context (Heinrich et al., IEEE Trans. Med. Imaging 32:1239, 2013, and MICCAI 2013).

    See [1]_ and [2]_.  It ignores the geometry of the images: everything is in voxels, so voxels should be isotropic.

    References
    ----------
    .. [1] Heinrich, Jenkinson, Brady and Schnabel, "MRF-based deformable registration and ventilation estimation of
       lung CT", IEEE Trans. Med. Imaging 32:1239-1248, 2013.
    .. [2] Heinrich, Jenkinson, Papież, Brady and Schnabel, "Towards realtime multimodal fusion for image-guided
       interventions using self-similarities", MICCAI 2013.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("deeds")
    >>> print(method.settings.missing().partition(" (")[0])
    'executable' is not set. deedsBCV comes as source
    """

    settings_type: ClassVar = DeedsSettings
    dimensions: ClassVar = (3,)
    settings: DeedsSettings

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        missing = self.settings.missing()
        if missing:
            raise ToolError(missing)
        scaled = [volume.with_data(INTENSITY_SCALE * volume.data) for volume in (fixed, moving)]
        save_images(scaled[0], scaled[1], folder)
        program = requirements.program(self.settings.executable)
        typed = run_program([str(program), *self.arguments()], folder, self.threads)
        coarse = read_displacements(folder / DISPLACEMENTS, fixed.grid.shape, self.settings.grid[-1])
        return Registration(
            from_voxels(upsampled(coarse, fixed.grid.shape), fixed.grid),
            None,
            [f"OMP_NUM_THREADS={self.threads} {typed}"],
            "deedsBCV (has no version)",
        )

    def arguments(self) -> list[str]:
        """Arguments of deedsBCV."""
        settings = self.settings
        levels = {"-G": settings.grid, "-L": settings.search, "-Q": settings.quantisation}
        lists = [text for flag, numbers in levels.items() for text in (flag, "x".join(map(str, numbers)))]
        return ["-F", FIXED, "-M", MOVING, "-O", STEM, "-a", f"{settings.alpha:g}", *lists]


def read_displacements(path: Path, shape: tuple[int, ...], spacing: int) -> np.ndarray:
    """Read the displacements of the finest control points.

    The file is float32 without a header: a block for j, one for i and one for k; in each block i varies fastest.

    Parameters
    ----------
    path : Path
        The file that deedsBCV wrote.
    shape : tuple of int
        Shape of the images.
    spacing : int
        Spacing of the finest control points in voxels.

    Returns
    -------
    ndarray of float32, shape (*points, 3)
        In voxels, components i, j, k.

    Raises
    ------
    ToolError
        The file is missing or has the wrong size.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.methods.classical.deeds import read_displacements
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pair_displacements.dat")
    ...     np.repeat(np.float32([1, 2, 3]), 8).tofile(path)  # 2 × 2 × 2 control points
    ...     read_displacements(path, shape=(4, 4, 4), spacing=2)[0, 0, 0].tolist()
    [2.0, 1.0, 3.0]
    """
    points = tuple(length // spacing for length in shape)
    if not path.is_file():
        raise ToolError("deedsBCV ended without writing its displacements")
    stored = np.fromfile(path, dtype="<f4")
    if stored.size != 3 * np.prod(points):
        raise ToolError(f"deedsBCV wrote {stored.size} numbers, not 3 for each of {points} control points")
    along_j, along_i, along_k = (block.reshape(points, order="F") for block in np.split(stored, 3))
    return np.stack([along_i, along_j, along_k], axis=-1)


def upsampled(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Displacements at every voxel, interpolated linearly as in deedsBCV.

    The first control point is at the first voxel. Beyond the last one, its displacement is repeated.

    Parameters
    ----------
    coarse : ndarray, shape (*points, D)
        Displacements of the control points.
    shape : tuple of int
        Shape of the image.

    Returns
    -------
    ndarray, shape (*shape, D)
        In the units of ``coarse``.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.methods.classical.deeds import upsampled
    >>> upsampled(np.array([[0.0], [2.0]]), shape=(4,))[:, 0].tolist()
    [0.0, 1.0, 2.0, 2.0]
    """
    positions = [np.arange(n) * (m / n) for n, m in zip(shape, coarse.shape[:-1], strict=True)]
    where = np.stack(np.meshgrid(*positions, indexing="ij"))
    components = [map_coordinates(coarse[..., c], where, order=1, mode="nearest") for c in range(coarse.shape[-1])]
    return np.stack(components, axis=-1)
