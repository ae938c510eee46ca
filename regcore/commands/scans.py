"""Scans as ``regcore register`` and ``regcore tune`` prepare them: masked, aligned, on one grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from regcore.alignment.aligner import Aligned
from regcore.alignment.prepared import Prepared
from regcore.alignment.preprocess import Scan, align, common_grid, placed, prepare, prepare_image
from regcore.alignment.settings import HEED_MASKS, TAKE_A_START, Alignment, PreprocessSettings
from regcore.errors import InputError
from regcore.images.masks import read_mask
from regcore.images.matrices import read_matrix
from regcore.images.volume import Grid, Volume
from regcore.methods import methods_with_masks
from regcore.methods.base import Method
from regcore.models.trained import Model


@dataclass(frozen=True)
class PairOptions:
    """How a user wants two images aligned, and which of their parts count.

    Parameters
    ----------
    affine : str or None
        A kind of alignment; None: as the model was trained, otherwise "auto".
    init : Path or None
        A matrix, fixed → moving, that the alignment improves, or that "none" takes as it is.
    matrix_format : str
        Format of ``init``, as for :func:`regcore.images.matrices.read_matrix`.
    fixed_mask, moving_mask : Path or None
        Zero where the image is to be ignored. On the grid of its image.
    fixed_lesion, moving_lesion : Path or None
        Not zero where the image is to be ignored, with a margin around it.
    lesion_margin : float or None
        That margin, mm; None: two voxels.

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.commands.scans import PairOptions
    >>> from regcore.methods import make_method
    >>> options = PairOptions(init=Path("start.mat"), moving_lesion=Path("lesion.nii.gz"))
    >>> options.files
    [PosixPath('start.mat'), PosixPath('lesion.nii.gz')]
    >>> options.check("affine", make_method("affine", {}), model=None)
    'auto'
    """

    affine: str | None = None
    init: Path | None = None
    matrix_format: str = "auto"
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    fixed_lesion: Path | None = None
    moving_lesion: Path | None = None
    lesion_margin: float | None = None

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        given = (self.init, self.fixed_mask, self.moving_mask, self.fixed_lesion, self.moving_lesion)
        return [path for path in given if path is not None]

    def check(self, name: str, method: Method, model: Model | None) -> Alignment:
        """The kind of alignment to use with the method ``name``.

        Raises
        ------
        InputError
            Options contradict each other, or the method.
        """
        masked = any(path is not None for path in self.files if path is not self.init)
        if masked and not method.uses_masks:
            raise InputError(
                f"--method {name} takes no masks; {', '.join(methods_with_masks())} do. To mask only the alignment: "
                "register with --method affine and the masks, then with --init <its output>/affine.mat --affine none"
            )
        if self.lesion_margin is not None and self.fixed_lesion is None and self.moving_lesion is None:
            raise InputError("--lesion-margin: give --fixed-lesion or --moving-lesion too")
        if not method.aligned:
            if self.affine not in (None, "none") or self.init is not None:
                raise InputError(
                    f"--affine, --init: '{name}' leaves the images where their headers put them; use --method affine"
                )
            return "none"
        trained = model.preprocess.affine if model else "none"
        kind = cast(Alignment, self.affine or ("auto" if trained == "none" else trained))
        if self.init is not None and kind not in (*TAKE_A_START, "none"):
            raise InputError(f"--init: --affine {kind} takes no start; {', '.join(TAKE_A_START)} and none do")
        if masked and kind not in (*HEED_MASKS, "centre", "none"):
            raise InputError(f"--affine {kind} takes no masks; {', '.join(HEED_MASKS)} do")
        return kind

    def scans(self, fixed: Volume, moving: Volume) -> tuple[Scan, Scan]:
        """The images with their masks."""
        masks = (
            read_mask(fixed, self.fixed_mask, self.fixed_lesion, self.lesion_margin),
            read_mask(moving, self.moving_mask, self.moving_lesion, self.lesion_margin),
        )
        return Scan(fixed, masks[0]), Scan(moving, masks[1])

    def start(self, fixed: Grid, moving: Grid) -> np.ndarray | None:
        """The matrix in ``init``, fixed world → moving world."""
        return None if self.init is None else read_matrix(self.init, fixed, moving, self.matrix_format)


def prepare_for(
    model: Model, scan: Scan, seed: int, kind: Alignment | None = None, start: np.ndarray | None = None
) -> Prepared:
    """Resample a scan onto a model's grid and normalise it like the model's training scans.

    Parameters
    ----------
    model : Model
        With a space, that is, with a reference and a grid.
    scan : Scan
        On its own grid, with its own intensities.
    seed : int
        Seed of the sampling in the affine alignment.
    kind : str, optional
        Of the alignment; by default as in training, but "auto" where the training scans were aligned by their headers.
    start : ndarray, shape (D + 1, D + 1), optional
        World of the model's reference → world of the scan, RAS mm.

    Returns
    -------
    Prepared
        On the model's grid.

    Raises
    ------
    InputError
        The model has no reference, or the scan cannot be aligned to it.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Scan
    >>> from regcore.alignment.settings import PreprocessSettings
    >>> from regcore.commands.scans import prepare_for
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> from regcore.models.trained import Model, Space
    >>> shown = np.pad(np.ones((10, 10), np.float32), 6)
    >>> reference = Volume(shown, Grid.centred((22, 22), (1, 1), centre=(0, 0)))
    >>> space = Space(reference, Grid.centred((16, 16), (1.5, 1.5), centre=(0, 0)))
    >>> model = Model(make_method("voxelmorph"), "voxelmorph", 2, PreprocessSettings(affine="centre"), {}, space)
    >>> scan = Scan(Volume(40 * shown, Grid.centred((22, 22), (1, 1), centre=(30, -7))))
    >>> prepared = prepare_for(model, scan, seed=0)
    >>> prepared.image.grid.shape, prepared.image.data.max().item()
    ((16, 16), 1.0)
    >>> prepared.to_native[:2, 2].tolist()  # from the centre of the reference to that of the scan
    [30.0, -7.0]
    """
    if model.space is None:
        raise InputError(f"the model of the method {model.name} has no reference image to bring scans to")
    trained = model.preprocess.affine
    own: Alignment = kind or ("auto" if trained == "none" else trained)
    settings = model.preprocess.model_copy(update={"affine": own})
    return prepare(scan, Scan(model.space.reference), model.space.grid, settings, seed, start)


def prepared_pair(
    fixed: Scan, moving: Scan, model: Model | None, kind: Alignment, start: np.ndarray | None, seed: int
) -> tuple[Prepared, Prepared]:
    """Resample both scans to one grid: the model's, one around the fixed image's content, or the fixed image's.

    Parameters
    ----------
    fixed, moving : Scan
        On their own grids, with their own intensities.
    model : Model or None
        The trained model that registers them. One without a space has a grid around the fixed image's content.
    kind : str
        Of the alignment of the two, or of each to the model's reference.
    start : ndarray, shape (D + 1, D + 1), optional
        Fixed world → moving world, RAS mm.
    seed : int
        Seed of the sampling in the affine alignment.

    Returns
    -------
    Prepared
        The fixed scan.
    Prepared
        The moving scan, aligned.

    Raises
    ------
    InputError
        A scan cannot be aligned.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Scan
    >>> from regcore.commands.scans import prepared_pair
    >>> from regcore.images.volume import Grid, Volume
    >>> shown = np.pad(np.ones((10, 10), np.float32), 6)
    >>> fixed, moving = (Scan(Volume(shown, Grid.centred((22, 22), (1, 1), centre))) for centre in [(0, 0), (5, 3)])
    >>> first, second = prepared_pair(fixed, moving, None, "centre", None, seed=0)
    >>> second.image.grid is fixed.image.grid, second.to_native[:2, 2].tolist()
    (True, [5.0, 3.0])
    >>> bool(abs(second.image.data - first.image.data).max() < 1e-6)
    True
    """
    if model and model.space:
        if kind != "none" and start is None:
            return prepare_for(model, fixed, seed, kind), prepare_for(model, moving, seed, kind)
        first = prepare_for(model, fixed, seed)  # the moving scan follows, or starts from there
        between = align(fixed, moving, "none", seed, start).matrix
        return first, prepare_for(model, moving, seed, kind, between @ first.to_native)
    settings = model.preprocess if model else PreprocessSettings()
    shown = prepare_image(fixed, settings)
    grid = _grid_around(shown, model.voxels) if model else fixed.image.grid
    aligned = align(fixed, moving, kind, seed, start)
    in_place = Aligned(np.eye(grid.ndim + 1), "none")
    first = placed(fixed, in_place, grid, settings) if model else Prepared(shown, in_place.matrix, grid, fixed.mask)
    return first, placed(moving, aligned, grid, settings)


def _grid_around(image: Volume, voxels: int | None) -> Grid:
    """An axis-aligned grid around an image's content, as fine as the image but at most ``voxels`` per axis."""
    grid = common_grid(image, PreprocessSettings())
    longest = max(grid.shape)
    if voxels is None or longest <= voxels:
        return grid
    # Slightly coarser, so that rounding does not add a voxel.
    spacing = float(grid.spacing[0]) * longest / voxels * (1 + 1e-6)
    return common_grid(image, PreprocessSettings(spacing=spacing))
