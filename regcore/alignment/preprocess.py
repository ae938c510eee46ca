"""Preparation of scans on one grid: alignment to a reference, resampling, intensity normalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regcore.alignment.aligner import Aligned, align_images
from regcore.alignment.intensities import normalise
from regcore.alignment.optimisation import optimise_affine
from regcore.alignment.prepared import Prepared
from regcore.alignment.resampling import resample
from regcore.alignment.settings import HEED_MASKS, Alignment, PreprocessSettings
from regcore.alignment.with_ants import align_with_ants
from regcore.errors import InputError
from regcore.images.volume import Grid, Volume, read_labels, read_volume

#: Margin (mm) around the reference's content if a study gives no shape.
MARGIN_MM = 8.0


@dataclass(frozen=True, eq=False)
class Scan:
    """An image as it was scanned.

    Parameters
    ----------
    image : Volume
        With its own intensities.
    mask : Volume or None
        On the image's grid; zero where the image is ignored, in the alignment and by methods that take masks.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Scan
    >>> from regcore.images.volume import Grid, Volume
    >>> Scan(Volume(np.eye(4), Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0)))).mask is None
    True
    """

    image: Volume
    mask: Volume | None = None


def prepare_image(scan: Scan, settings: PreprocessSettings) -> Volume:
    """Normalise a scan's image on its own grid, by the intensities within its mask, if any."""
    return _normalised(scan, settings.percentiles)


def _normalised(scan: Scan, percentiles: Sequence[float] = (0.5, 99.5)) -> Volume:
    mask = None if scan.mask is None else scan.mask.data
    return scan.image.with_data(normalise(scan.image.data, percentiles, mask))


def as_scan(image: Volume, mask: Volume | None, settings: PreprocessSettings) -> Scan:
    """An image and its mask, if any, used as the settings say.

    Parameters
    ----------
    image : Volume
        With its own intensities.
    mask : Volume or None
        On the image's grid.
    settings : PreprocessSettings
        ``mask``: the image gets its lowest value outside the mask.  ``cost_mask``: the mask stays with the image.

    Returns
    -------
    Scan

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import as_scan
    >>> from regcore.alignment.settings import PreprocessSettings
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((2, 2), spacing=(2, 2), centre=(0, 0))
    >>> image, mask = Volume(np.array([[1, 2], [3, 4]]), grid), Volume(np.array([[1, 1], [0, 1]]), grid)
    >>> scan = as_scan(image, mask, PreprocessSettings(mask=True))
    >>> scan.image.data.tolist(), scan.mask
    ([[1, 2], [1, 4]], None)
    """
    if mask is not None and settings.mask:
        image = image.with_data(np.where(mask.data > 0, image.data, image.data.min()))
    return Scan(image, mask if settings.cost_mask else None)


def read_scan(files: Mapping[str, str], settings: PreprocessSettings) -> Scan:
    """Read an image and, if the study asks for it, its mask.

    Parameters
    ----------
    files : mapping
        The scan's ``image`` and, optionally, ``mask``.
    settings : PreprocessSettings
        Its ``mask`` and ``cost_mask`` count.

    Returns
    -------
    Scan
        With the image's own intensities.

    Raises
    ------
    InputError
        As for :func:`regcore.images.volume.read_volume`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import read_scan
    >>> from regcore.alignment.settings import PreprocessSettings
    >>> from regcore.images.volume import Grid, Volume
    >>> scan = Volume(np.array([[0.0, 0.0], [5.0, 10.0]]), Grid.centred((2, 2), spacing=(2, 2), centre=(0, 0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scan.save(Path(folder, "a.nii"))
    ...     read_scan({"image": str(Path(folder, "a.nii"))}, PreprocessSettings()).image.data.tolist()
    [[0.0, 0.0], [5.0, 10.0]]
    """
    wanted = (settings.mask or settings.cost_mask) and "mask" in files
    return as_scan(read_volume(files["image"]), read_labels(files["mask"]) if wanted else None, settings)


def common_grid(reference: Volume, settings: PreprocessSettings) -> Grid:
    """The axis-aligned grid around the reference's content that a study registers on.

    Parameters
    ----------
    reference : Volume
        Its content decides what the grid covers.
    settings : PreprocessSettings
        Its ``spacing`` and ``shape`` count.

    Returns
    -------
    Grid
        Spacing in mm.

    Raises
    ------
    InputError
        ``shape`` has another number of axes than the reference.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import common_grid
    >>> from regcore.alignment.settings import PreprocessSettings
    >>> from regcore.images.volume import Grid, Volume
    >>> reference = Volume(np.pad(np.ones((20, 30)), 5), Grid.centred((30, 40), spacing=(1, 1), centre=(0, 0)))
    >>> grid = common_grid(reference, PreprocessSettings(spacing=2))
    >>> grid.shape, grid.spacing.tolist()
    ((18, 23), [2.0, 2.0])
    """
    ndim = reference.grid.ndim
    content = np.argwhere(reference.data > reference.data.min() + 0.05 * np.ptp(reference.data))
    corners = np.array(np.meshgrid(*zip(content.min(0), content.max(0), strict=True), indexing="ij"))
    world = reference.grid.to_world(corners.reshape(ndim, -1).T)
    low, high = world.min(0), world.max(0)
    given = settings.spacing
    if given is None:
        given = float(np.round(reference.grid.spacing.min(), 4))
    spacing = np.broadcast_to(np.asarray(given, dtype=float), ndim)
    shape: Sequence[int] | np.ndarray | None = settings.shape
    if shape is None:
        shape = np.maximum(np.ceil((high - low + 2 * MARGIN_MM) / spacing), 16).astype(int)
    if len(shape) != ndim:
        raise InputError(f"preprocess: 'shape' has {len(shape)} numbers, but the images are {ndim}-D")
    return Grid.centred(shape, spacing, (low + high) / 2)


def align(reference: Scan, scan: Scan, kind: Alignment, seed: int = 0, start: np.ndarray | None = None) -> Aligned:
    """Estimate the matrix from the reference's world to the scan's.

    Parameters
    ----------
    reference, scan : Scan
        What their masks exclude does not count, except for "nmi" and "mind".
    kind : str
        "auto", "rigid", "similarity", "affine" and "translation" are those of
        :func:`regcore.alignment.aligner.align_images`.  "centre" joins the centres of both grids; "none" is the start.
        "ants", "nmi" and "mind" are affine, the last two by :func:`regcore.alignment.optimisation.optimise_affine`.
    seed : int
        Of ANTs' random samples; the others draw none.
    start : ndarray, shape (D + 1, D + 1), optional
        A map that the alignment improves, in RAS mm; by default the headers' for "none", otherwise the alignment's own.

    Returns
    -------
    Aligned

    Raises
    ------
    InputError
        The two images do not overlap in space under "none"; masks or a start are given to a kind that has no use for
        them; or there is no plausible alignment.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Scan, align
    >>> from regcore.images.volume import Grid, Volume
    >>> reference = Volume(np.ones((4, 4)), Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0)))
    >>> scan = Volume(np.ones((4, 4)), Grid.centred((4, 4), spacing=(2, 2), centre=(5, -1)))
    >>> align(Scan(reference), Scan(scan), "centre").matrix.tolist()
    [[1.0, 0.0, 5.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]]
    """
    fixed, moving = reference.image, scan.image
    if kind == "none":
        return Aligned(_overlapping(fixed, moving, start), "none")
    if kind == "centre":
        if start is not None:
            raise InputError("'centre' takes no start: it joins the centres of the images; use 'none' or 'auto'")
        matrix = np.eye(fixed.grid.ndim + 1)
        matrix[:-1, -1] = moving.grid.centre - fixed.grid.centre
        return Aligned(matrix, "centre")
    masks = {"fixed_mask": reference.mask, "moving_mask": scan.mask}
    if kind == "ants":
        return Aligned(align_with_ants(_normalised(reference), _normalised(scan), seed, **masks, start=start), "affine")
    if kind == "nmi" or kind == "mind":
        if any(mask is not None for mask in masks.values()):
            raise InputError(f"'{kind}' takes no masks; {', '.join(HEED_MASKS)} do")
        return Aligned(optimise_affine(_normalised(reference), _normalised(scan), kind, start), "affine")
    return align_images(fixed, moving, kind, **masks, start=start)


def _overlapping(fixed: Volume, moving: Volume, start: np.ndarray | None) -> np.ndarray:
    """The start, or the identity; raises InputError if it leaves the images apart."""
    matrix = np.eye(fixed.grid.ndim + 1) if start is None else start
    placed = Grid(moving.grid.shape, np.linalg.inv(matrix) @ moving.grid.affine)
    if not fixed.grid.overlaps(placed):
        by = "by their headers" if start is None else "by the given matrix"
        raise InputError(
            f"{moving.path}: does not overlap {fixed.path} in space ({by}); align with 'auto' or 'centre' instead of "
            "'none', or correct the headers or the matrix"
        )
    return matrix


def prepare(
    scan: Scan,
    reference: Scan,
    grid: Grid,
    settings: PreprocessSettings,
    seed: int = 0,
    start: np.ndarray | None = None,
) -> Prepared:
    """Align a scan to the reference, normalise it and resample it onto the common grid.

    Parameters
    ----------
    scan : Scan
        On its native grid.
    reference : Scan
        What it is aligned to.
    grid : Grid
        The common grid.
    settings : PreprocessSettings
        Its ``affine`` and ``percentiles`` count.
    seed : int
        As for :func:`align`.
    start : ndarray, shape (D + 1, D + 1), optional
        As for :func:`align`.

    Returns
    -------
    Prepared

    Raises
    ------
    InputError
        As for :func:`align`.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Scan, prepare
    >>> from regcore.alignment.settings import PreprocessSettings
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0))
    >>> reference = Scan(Volume(np.eye(4), grid))
    >>> scan = Scan(Volume(np.eye(4), Grid.centred((4, 4), spacing=(2, 2), centre=(5, -1))))
    >>> prepare(scan, reference, grid, PreprocessSettings(affine="centre")).image.data.diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    aligned = align(reference, scan, settings.affine, seed, start)
    return placed(scan, aligned, grid, settings)


def placed(scan: Scan, aligned: Aligned, grid: Grid, settings: PreprocessSettings) -> Prepared:
    """A scan, normalised and resampled onto the common grid by a map that is known."""
    mask = None if scan.mask is None else resample(scan.mask, grid, aligned.matrix, nearest=True)
    image = resample(prepare_image(scan, settings), grid, aligned.matrix)
    return Prepared(image, aligned.matrix, scan.image.grid, mask, aligned.kind, aligned.notes)
