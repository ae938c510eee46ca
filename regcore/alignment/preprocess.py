"""Preparation of scans on one grid: alignment to a reference, resampling, intensity normalisation.

A prepared scan is an image on the study's common grid, with the matrix from there to the scan's own world.  A field
between two prepared scans is mapped back to the native scans by
:meth:`regcore.images.field.DisplacementField.between_scans`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from regcore.alignment.optimisation import SIMILARITIES, optimise_affine
from regcore.alignment.settings import Alignment, PreprocessSettings
from regcore.errors import InputError
from regcore.images.ants import estimate_affine
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume, read_labels, read_volume
from regcore.process.files import atomic_write

#: Margin (mm) around the reference's content if a study gives no shape.
MARGIN_MM = 8.0
#: For affine alignment, volumes with more voxels than this are coarsened to the spacing: twelve parameters do not
#: need every voxel, and ANTs takes ten times as long at 1 mm.  Small volumes are used as they are.
ALIGNMENT_VOXELS, ALIGNMENT_SPACING_MM = 2_000_000, 2.0
#: An alignment that stretches or shrinks by more than this has failed.
CREDIBLE_SCALES, ATTEMPTS = (0.5, 2.0), 3


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the common grid.

    Parameters
    ----------
    image : Volume
        Intensities 0 to 1.
    to_native : ndarray, shape (D + 1, D + 1)
        World of the common grid → world of the native scan, RAS mm.
    native : Grid
        The native scan's grid.
    mask : Volume or None
        On the common grid: 0 where the image is ignored.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Prepared
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0))
    >>> scan = Prepared(Volume(np.zeros((4, 4)), grid), to_native=np.eye(3), native=grid)
    >>> scan.native.shape, scan.mask
    ((4, 4), None)
    """

    image: Volume
    to_native: np.ndarray
    native: Grid
    mask: Volume | None = None


def normalise(data: np.ndarray, percentiles: Sequence[float] = (0.5, 99.5)) -> np.ndarray:
    """Scale intensities so that two percentiles become 0 and 1, and clip beyond.

    If at least a tenth of the image has the lowest value, that value is background: it becomes 0, and the upper
    percentile is taken over the rest, so that the size of the field of view does not matter.

    Parameters
    ----------
    data : ndarray
        Intensities of an image of any shape.
    percentiles : (float, float)
        Become 0 and 1.

    Returns
    -------
    ndarray of float32, same shape
        Between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import normalise
    >>> normalise(np.array([0, 0, 0, 5, 10]), percentiles=(0, 100)).tolist()
    [0.0, 0.0, 0.0, 0.5, 1.0]
    """
    lowest = data.min()
    content = data[data > lowest]
    if content.size <= 0.9 * data.size:
        low, high = lowest, np.percentile(content, percentiles[1])
    else:
        low, high = np.percentile(data, percentiles)
    return np.clip((data - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)


def prepare_image(volume: Volume, settings: PreprocessSettings, mask: Volume | None = None) -> Volume:
    """Mask (if the study asks for it) and normalise an image on its own grid."""
    data = volume.data
    if mask is not None and settings.mask:
        data = np.where(mask.data > 0, data, data.min())
    return volume.with_data(normalise(data, settings.percentiles))


def read_scan(files: Mapping[str, str], settings: PreprocessSettings) -> Volume:
    """Read an image and, if the study asks for it, its mask; normalise it on its own grid.

    Parameters
    ----------
    files : mapping
        The scan's ``image`` and, optionally, ``mask``.
    settings : PreprocessSettings
        Its ``mask`` and ``percentiles`` count.

    Returns
    -------
    Volume
        Intensities 0 to 1.

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
    ...     read_scan({"image": str(Path(folder, "a.nii"))}, PreprocessSettings(percentiles=[0, 100])).data.tolist()
    [[0.0, 0.0], [0.5, 1.0]]
    """
    mask = read_labels(files["mask"]) if settings.mask and "mask" in files else None
    return prepare_image(read_volume(files["image"]), settings, mask)


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


def align(reference: Volume, scan: Volume, kind: Alignment, seed: int) -> np.ndarray:
    """Estimate the matrix from the reference's world to the scan's.

    Parameters
    ----------
    reference, scan : Volume
        Intensities 0 to 1.
    kind : {"affine", "rigid", "centre", "none", "nmi", "mind"}
        The last two are affine too, by :func:`regcore.alignment.optimisation.optimise_affine` instead of ANTs.
    seed : int
        Of ANTs' random samples.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        RAS mm.

    Raises
    ------
    InputError
        ``kind`` is "none" and the two images do not overlap in space, or ANTs found no plausible alignment.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import align
    >>> from regcore.images.volume import Grid, Volume
    >>> reference = Volume(np.ones((4, 4)), Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0)))
    >>> scan = Volume(np.ones((4, 4)), Grid.centred((4, 4), spacing=(2, 2), centre=(5, -1)))
    >>> align(reference, scan, "centre", seed=0).tolist()
    [[1.0, 0.0, 5.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]]
    """
    if kind == "none":
        if not reference.grid.overlaps(scan.grid):
            raise InputError(
                f"{scan.path}: does not overlap {reference.path} in space (by their headers); "
                "align with 'affine', 'rigid' or 'centre' instead of 'none', or correct the headers"
            )
        return np.eye(reference.grid.ndim + 1)
    if kind == "centre":
        matrix = np.eye(reference.grid.ndim + 1)
        matrix[:-1, -1] = scan.grid.centre - reference.grid.centre
        return matrix
    if kind in SIMILARITIES:
        return optimise_affine(reference, scan, kind, coarsened)
    fixed, moving = (coarsened(v) if v.data.size > ALIGNMENT_VOXELS else v for v in (reference, scan))
    for attempt in range(ATTEMPTS):  # each with different random samples of the metric
        matrix = estimate_affine(fixed, moving, kind, seed + 1000 * attempt)
        scales = np.linalg.svd(matrix[:-1, :-1], compute_uv=False)
        if CREDIBLE_SCALES[0] < scales.min() and scales.max() < CREDIBLE_SCALES[1]:
            return matrix
    raise InputError(
        f"{scan.path}: could not be aligned to {reference.path} (scales {np.round(scales, 2).tolist()}); check that "
        "both show the same anatomy, or align with 'centre' or 'none'"
    )


def coarsened(volume: Volume, spacing_mm: float = ALIGNMENT_SPACING_MM) -> Volume:
    """Smooth and resample an image with voxels finer than ``spacing_mm``; return others unchanged."""
    factors = np.maximum(spacing_mm / volume.grid.spacing, 1)
    if np.all(factors < 1.2):
        return volume
    smooth = gaussian_filter(volume.data, 0.5 * np.sqrt(factors**2 - 1))
    shape = np.maximum(np.round(np.array(volume.grid.shape) / factors), 2).astype(int)
    affine = volume.grid.affine.copy()
    affine[:-1, :-1] *= (np.array(volume.grid.shape) - 1) / (shape - 1)
    return resample(volume.with_data(smooth), Grid(shape, affine), np.eye(volume.grid.ndim + 1))


def resample(volume: Volume, grid: Grid, to_native: np.ndarray, nearest: bool = False) -> Volume:
    """Resample a native volume onto the common grid: ``result(x) = volume(to_native · x)``."""
    identity = DisplacementField.identity(grid)
    field = identity.between_scans(grid, np.eye(grid.ndim + 1), to_native)
    return field.warp(volume, nearest=nearest)


def prepare(volume: Volume, reference: Volume, grid: Grid, kind: Alignment, seed: int) -> Prepared:
    """Align an image (already normalised) to the reference and resample it onto the common grid.

    Parameters
    ----------
    volume : Volume
        Intensities 0 to 1, on its native grid.
    reference : Volume
        What it is aligned to.
    grid : Grid
        The common grid.
    kind : str
        As for :func:`align`.
    seed : int
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
    >>> from regcore.alignment.preprocess import prepare
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0))
    >>> reference = Volume(np.ones((4, 4)), grid)
    >>> scan = Volume(np.ones((4, 4)), Grid.centred((4, 4), spacing=(2, 2), centre=(5, -1)))
    >>> prepare(scan, reference, grid, "centre", seed=0).image.data.min().item()
    1.0
    """
    to_native = align(reference, volume, kind, seed)
    return Prepared(resample(volume, grid, to_native), to_native, volume.grid)


def save_prepared(prepared: Prepared, stem: Path, labels: Path | None = None) -> None:
    """Write ``stem.nii`` and ``stem.json``, and ``stem_labels.nii`` on the common grid.

    Parameters
    ----------
    prepared : Prepared
        The scan.
    stem : Path
        Folder, and the start of the files' names.
    labels : Path, optional
        The scan's native label map.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Prepared, save_prepared
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0))
    >>> scan = Prepared(Volume(np.zeros((4, 4)), grid), to_native=np.eye(3), native=grid)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_prepared(scan, Path(folder, "a_1_T1w"))
    ...     sorted(file.name for file in Path(folder).iterdir())
    ['a_1_T1w.json', 'a_1_T1w.nii']
    """
    if labels is not None:
        resample(read_labels(labels), prepared.image.grid, prepared.to_native, nearest=True).save(
            stem.with_name(stem.name + "_labels.nii")
        )
    prepared.image.save(stem.with_name(stem.name + ".nii"))
    with atomic_write(stem.with_name(stem.name + ".json")) as path:
        path.write_text(
            json.dumps(
                {
                    "common_world_to_native_world_ras_mm": prepared.to_native.tolist(),
                    "common_shape": prepared.image.grid.shape,
                    "common_spacing": prepared.image.grid.spacing.round(6).tolist(),
                    "native_shape": prepared.native.shape,
                    "native_affine": prepared.native.affine.tolist(),
                    "native_level": prepared.native.level,
                },
                indent=1,
            )
        )


def read_prepared(stem: Path) -> Prepared:
    """Read what :func:`save_prepared` wrote.

    Parameters
    ----------
    stem : Path
        As given to :func:`save_prepared`.

    Returns
    -------
    Prepared
        Without a mask.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.preprocess import Prepared, read_prepared, save_prepared
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0))
    >>> scan = Prepared(Volume(np.eye(4), grid), to_native=np.eye(3), native=grid)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_prepared(scan, Path(folder, "a_1_T1w"))
    ...     read_prepared(Path(folder, "a_1_T1w")).image.data.sum().item()
    4.0
    """
    facts = json.loads(stem.with_name(stem.name + ".json").read_text())
    return Prepared(
        read_volume(stem.with_name(stem.name + ".nii")),
        np.array(facts["common_world_to_native_world_ras_mm"]),
        Grid(facts["native_shape"], np.array(facts["native_affine"]), tuple(facts["native_level"])),
    )
