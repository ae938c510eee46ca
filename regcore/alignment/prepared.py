"""A scan on the common grid, and its files between the stages of a study.

A prepared scan is an image on the study's common grid, with the matrix from there to the scan's own world.  A field
between two prepared scans is mapped back to the native scans by
:meth:`regcore.images.field.DisplacementField.between_scans`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regcore.alignment.resampling import resample
from regcore.images.volume import Grid, Volume, read_labels, read_volume
from regcore.process.files import atomic_write, read_json


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
    aligned : str
        How it was aligned: the kind of map that the images carried.
    notes : tuple of str
        What a user should be told about the alignment.
    channels : tuple of Prepared
        Further images of the same subject on the common grid, mapped to the world of the first one.
    labels : Volume or None
        A label map on the common grid that guides the registration.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.prepared import Prepared
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
    aligned: str = "none"
    notes: tuple[str, ...] = ()
    channels: tuple["Prepared", ...] = ()
    labels: Volume | None = None

    def in_view(self) -> np.ndarray:
        """Which voxels of the common grid lie in the native scan's field of view, bool, shape (*common,).

        Examples
        --------
        >>> import numpy as np
        >>> from regcore.alignment.prepared import Prepared
        >>> from regcore.images.volume import Grid, Volume
        >>> grid = Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0))
        >>> half = Grid((2, 4), grid.affine)
        >>> Prepared(Volume(np.zeros((4, 4)), grid), np.eye(3), half).in_view()[:, 0].tolist()
        [True, True, False, False]
        """
        grid = self.image.grid
        to_voxels = (self.native.inverse @ self.to_native @ grid.affine).astype(np.float32)
        indices = [index.astype(np.float32) for index in np.indices(grid.shape, sparse=True)]
        inside = np.ones(grid.shape, bool)
        for row, size in zip(to_voxels[:-1], self.native.shape, strict=True):
            place = sum((step * index for step, index in zip(row, indices, strict=False)), row[-1])
            inside &= (place >= -0.5) & (place <= size - 0.5)
        return inside


def save_prepared(prepared: Prepared, stem: Path, labels: Path | None = None) -> None:
    """Write ``stem.nii`` and ``stem.json``; ``stem_labels.nii`` and ``stem_mask.nii`` for labels and a mask.

    Parameters
    ----------
    prepared : Prepared
        The scan. Its further channels and guiding labels, which studies have not, are not written.
    stem : Path
        Folder, and the start of the files' names.
    labels : Path, optional
        The scan's native label map.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.prepared import Prepared, save_prepared
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
    if prepared.mask is not None:
        prepared.mask.save(stem.with_name(stem.name + "_mask.nii"))
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
                    "aligned": prepared.aligned,
                    "notes": prepared.notes,
                    "masked": prepared.mask is not None,
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

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.prepared import Prepared, read_prepared, save_prepared
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0))
    >>> scan = Prepared(Volume(np.eye(4), grid), to_native=np.eye(3), native=grid)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_prepared(scan, Path(folder, "a_1_T1w"))
    ...     read_prepared(Path(folder, "a_1_T1w")).image.data.sum().item()
    4.0
    """
    facts = read_json(stem.with_name(stem.name + ".json"), "delete its folder and run the study again")
    return Prepared(
        read_volume(stem.with_name(stem.name + ".nii")),
        np.array(facts["common_world_to_native_world_ras_mm"]),
        Grid(facts["native_shape"], np.array(facts["native_affine"]), tuple(facts["native_level"])),
        read_labels(stem.with_name(stem.name + "_mask.nii")) if facts["masked"] else None,
        facts["aligned"],
        tuple(facts["notes"]),
    )
