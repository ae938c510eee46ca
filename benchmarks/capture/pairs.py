"""Pairs of a fixed and a moving image whose true map is known.

``make_pair("rotation", "within", 3, "train")`` is the same pair on every machine that has the same scans: all that is
random comes from the kind, the family, the number and the split.
"""

import json
import zlib
from dataclasses import dataclass

import numpy as np

from capture import sources
from capture.bases import Base, draw_base
from capture.kinds import KINDS
from capture.motion import angle, draw_motion, extent, shift
from capture.resampling import at_spacing, moving_grid, resampled
from capture.scanning import scanned
from capture.sources import Scan
from capture.truth import fit_to_labels
from regcore.images.grid import transform_points
from regcore.images.volume import Volume
from regcore.process.files import atomic_write

#: Cohorts that have the same label codes; between other two only the brain is scored.
SAME_CODES = {"oasis-brains", "avg152"}
#: Points of the fixed image's content at which an error is measured.
POINTS = 2000


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images, and what is known of the map between them.

    Parameters
    ----------
    name : str
        ``kind-family-number``.
    kind, family, base : str
        What was done; within or across contrasts; the two scans.
    known : bool
        Whether ``truth`` is the true map, not one fitted to the labels of two subjects.
    fixed, moving : Volume
        float32.
    fixed_labels, moving_labels : Volume
        int16, on the grids of the images.
    covered : ndarray of bool, shape (*fixed.grid.shape)
        Which voxels of the fixed image the moving image shows.
    truth : ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.
    points : ndarray, shape (n, D)
        World positions of the fixed image's content.
    seen : ndarray of bool, shape (n,)
        Which of ``points`` the moving image shows.
    extent : float
        Length of the fixed image's content along its longest principal axis, mm.
    degrees : float
        Angle of the true map's rotation.
    """

    name: str
    kind: str
    family: str
    base: Base
    known: bool
    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    moving_labels: Volume
    covered: np.ndarray
    truth: np.ndarray
    points: np.ndarray
    seen: np.ndarray
    extent: float
    degrees: float


def make_pair(kind: str, family: str, number: int, split: str = "train") -> Pair | None:
    """Make pair ``number`` of a kind; None if the kind does not exist in the family (or its scans are not there)."""
    generator = np.random.default_rng(zlib.crc32(f"{kind} {family} {number} {split}".encode()))
    base = draw_base(KINDS[kind], family, number, split, generator)
    if base is None:
        return None
    fixed, moving = sources.load(base.fixed), sources.load(base.moving)
    between = np.eye(fixed.image.grid.ndim + 1) if base.same else fitted(fixed, moving)
    return disturbed(fixed, moving, between, kind, generator, name=f"{kind}-{family}-{number:03d}", base=base)


def disturbed(
    fixed: Scan, moving: Scan, between: np.ndarray, kind: str, generator: np.random.Generator, name: str, base: Base
) -> Pair:
    """Do to the moving scan what ``kind`` says; ``between`` maps the fixed scan's world to the moving scan's."""
    what = KINDS[kind]
    content = fixed.content
    moved = moving.content
    motion = draw_motion(what, content.mean(0), generator)
    # Headers that are right: only the motion is left.  Else the scans' centres lie on each other before it.
    onto = np.linalg.inv(between) if what.aligned else shift(content.mean(0) - moved.mean(0))
    to_new = motion @ onto  # the moving scan's world → that of the moving image
    grid = moving_grid(transform_points(to_new, moved), moving.spacing, what, generator)
    image = resampled(moving.image if what.thick else moving.smooth, grid, np.linalg.inv(to_new), thick=what.thick)
    labels = resampled(moving.labels, grid, np.linalg.inv(to_new), nearest=True)
    half = _half(moving, generator) if what.hemisphere else None
    if half is not None:
        cut = half(transform_points(np.linalg.inv(to_new) @ grid.affine, _voxels(grid.shape)))
        image = image.with_data(np.where(cut, image.data.min(), image.data))
        labels = labels.with_data(np.where(cut, 0, labels.data))
    still = at_spacing(fixed.smooth, fixed.spacing)
    if base.cohorts[0] != base.cohorts[1] and not set(base.cohorts) <= SAME_CODES:
        labels, of_fixed = (v.with_data((v.data > 0).astype(np.int16)) for v in (labels, fixed.labels))
    else:
        of_fixed = fixed.labels
    still_labels = resampled(of_fixed, still.grid, np.eye(len(motion)), nearest=True)
    truth = to_new @ between

    def shown(world: np.ndarray) -> np.ndarray:
        """Whether the moving image shows positions of the fixed image's world."""
        voxels = transform_points(grid.inverse @ truth, world)
        inside = np.all((voxels >= 0) & (voxels <= np.array(grid.shape) - 1), axis=-1)
        return inside if half is None else inside & ~half(transform_points(between, world))

    points = content[generator.choice(len(content), min(POINTS, len(content)), replace=False)]
    return Pair(
        name=name,
        kind=kind,
        family=name.split("-")[-2],
        base=base,
        known=base.same,
        fixed=still,
        moving=scanned(image, what, generator),
        fixed_labels=still_labels,
        moving_labels=labels,
        covered=shown(still.grid.to_world(_voxels(still.grid.shape))),
        truth=truth,
        points=points,
        seen=shown(points),
        extent=extent(content),
        degrees=angle(truth),
    )


def fitted(fixed: Scan, moving: Scan) -> np.ndarray:
    """The map between two subjects that their labels tell; kept in the cache."""
    path = sources.CACHE / "fitted" / f"{fixed.name}--{moving.name}.json".replace(":", "_")
    if path.is_file():
        return np.array(json.loads(path.read_text()))
    matrix = fit_to_labels(fixed.labels, moving.labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(matrix.tolist()))
    return matrix


def _half(scan: Scan, generator: np.random.Generator):
    """Whether positions in the scan's world belong to the half that is cut away: left or right of the centre."""
    middle, side = float(np.median(scan.content[:, 0])), generator.choice([-1, 1])
    return lambda world: side * (world[..., 0] - middle) > 0


def _voxels(shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(np.indices(shape), 0, -1)
