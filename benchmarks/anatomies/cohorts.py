"""Pairs of real scans (and of the embedded cohort), resampled on one grid after the common affine start.

The start is the same for all contestants and may use labels, since it is no result:

- ``centroids``: the affine map fitted to the centroids of the labels (of OASIS those that its cohort comes with), for
  scans with twenty labels or more;
- ``centres``: a shift that brings the centres of the labels together, for the prostate, whose one label would determine
  more than an alignment can know;
- ``aligner``: what regcore's aligner finds in the images, for crops of the hippocampus.

The common grid has the axes of the fixed scan.  What the moving one of two crops does not show of the fixed one is
background in both images and left out by a mask, as in regcore's own registration, and is not scored.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from capture import sources
from capture.pairs import fitted
from capture.resampling import at_spacing, resampled
from capture.sources import Scan
from scipy.ndimage import binary_closing, binary_dilation

from anatomies.pair import POINTS, Pair
from regcore.alignment.aligner import align_images
from regcore.alignment.intensities import normalise
from regcore.evaluation.accuracy import random_points
from regcore.images.background import background
from regcore.images.field import DisplacementField
from regcore.images.grid import Grid, transform_points
from regcore.images.volume import Volume
from regcore.process.files import atomic_write
from regcore.synthesis.diffeomorphism import random_diffeomorphism

#: Space around the content of extracted brains, voxels.
MARGIN = 4
#: Root-mean-square velocity of the made deformation of a template at each scale, mm: that of the embedded cohort.
DEFORMATION_MM = [5.2, 4.2, 0.8]
#: The prostate's patients have no table: theirs is here.
PROSTATE = {"train": range(4), "validation": range(4, 6), "test": range(6, 8)}


@dataclass(frozen=True)
class Between:
    """How two scans become a pair.

    Parameters
    ----------
    start : {"centroids", "centres", "aligner"}
        See the module.
    spacing : float, optional
        Voxel size, mm; by default the one at which the scans take part.
    own_grid : bool
        Whether the grid is the fixed scan's field of view, not a box around the content of both.
    cut : bool
        Whether the field of view cuts through tissue, so that what the moving scan does not show is left out.
    """

    start: str = "centroids"
    spacing: float | None = None
    own_grid: bool = False
    cut: bool = False


def put_together(name: str, fixed: Scan, moving: Scan, how: Between) -> Pair:
    """Resample two scans on one grid after the common start."""
    if how.spacing is not None:
        fixed, moving = (_at(scan, how.spacing) for scan in (fixed, moving))
    between = STARTS[how.start](fixed, moving)
    still = at_spacing(fixed.smooth, fixed.spacing)
    if not how.own_grid:
        contents = (fixed.content, transform_points(np.linalg.inv(between), moving.content))
        still = resampled(fixed.smooth, boxed(still.grid, np.concatenate(contents)), np.eye(len(between)))
    grid = still.grid
    pair = Pair(
        name=name,
        fixed_name=fixed.name,
        moving_name=moving.name,
        fixed=still.with_data(normalise(still.data)),
        moving=_normalised(resampled(moving.smooth, grid, between)),
        fixed_labels=resampled(fixed.labels, grid, np.eye(len(between)), nearest=True),
        moving_labels=resampled(moving.labels, grid, between, nearest=True),
    )
    return within_view(pair, seen(grid, moving.image.grid, between)) if how.cut else pair


def _at(scan: Scan, spacing: float) -> Scan:
    """The scan with voxels of another size; of 1 mm scans, 1 mm is not smoothed."""
    assert np.all(scan.image.grid.spacing >= 0.9 * spacing), "only as fine as the scan itself"
    return replace(scan, smooth=scan.image, spacing=spacing)


def _normalised(volume: Volume) -> Volume:
    return volume.with_data(normalise(volume.data))


def boxed(grid: Grid, content: np.ndarray) -> Grid:
    """A grid with the axes and voxels of ``grid`` around world positions, (n, D)."""
    voxels = grid.to_voxels(content)
    low = np.floor(voxels.min(0)).astype(int) - MARGIN
    high = np.ceil(voxels.max(0)).astype(int) + MARGIN
    affine = grid.affine.copy()
    affine[:-1, -1] = grid.to_world(low)
    return Grid(tuple(int(n) for n in high - low + 1), affine)


def seen(grid: Grid, moving: Grid, between: np.ndarray) -> np.ndarray:
    """Which voxels of ``grid`` lie in the moving scan's field of view, bool, (*grid.shape)."""
    places = np.moveaxis(np.indices(grid.shape), 0, -1)
    voxels = transform_points(moving.inverse @ between @ grid.affine, places)
    return np.all((voxels >= -0.5) & (voxels <= np.array(moving.shape) - 0.5), axis=-1)


def within_view(pair: Pair, shown: np.ndarray) -> Pair:
    """Leave out what the moving scan does not show."""
    if shown.all():
        return pair
    empty = [background(image) for image in (pair.fixed, pair.moving)]
    return replace(
        pair,
        fixed=pair.fixed.with_data(np.where(shown, pair.fixed.data, np.float32(empty[0]))),
        moving=pair.moving.with_data(np.where(shown, pair.moving.data, np.float32(empty[1]))),
        fixed_labels=pair.fixed_labels.with_data(np.where(shown, pair.fixed_labels.data, np.int16(0))),
        moving_mask=pair.fixed.with_data(shown.astype(np.uint8)),
    )


def by_centres(fixed: Scan, moving: Scan) -> np.ndarray:
    """A shift from the centre of the fixed scan's labels to that of the moving one's."""
    matrix = np.eye(fixed.labels.grid.ndim + 1)
    centres = [scan.labels.grid.to_world(np.argwhere(scan.labels.data > 0)).mean(0) for scan in (fixed, moving)]
    matrix[:-1, -1] = centres[1] - centres[0]
    return matrix


def by_aligner(fixed: Scan, moving: Scan) -> np.ndarray:
    """What regcore finds; kept in the cache, so that contestants of another day start where the others did."""
    path = sources.CACHE / "aligned" / f"{fixed.name}--{moving.name}.json".replace(":", "_")
    if not path.is_file():
        matrix = align_images(fixed.image, moving.image).matrix
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(matrix.tolist()))
    return np.array(json.loads(path.read_text()))


def by_centroids(fixed: Scan, moving: Scan) -> np.ndarray:
    """Through the template to which the cohort's affine maps lead; else fitted to this pair's labels."""
    if {scan.name.split(":")[0] for scan in (fixed, moving)} == {"oasis-brains"}:
        maps = _to_template()
        here, there = (np.array(maps[sources.scan_number(scan.name)]) for scan in (fixed, moving))
        return np.linalg.inv(there) @ here
    return fitted(fixed, moving)


STARTS: dict[str, Callable[[Scan, Scan], np.ndarray]] = {
    "centroids": by_centroids,
    "centres": by_centres,
    "aligner": by_aligner,
}


@lru_cache
def _to_template() -> dict[str, list]:
    text = (sources.DATA / "oasis-brains" / "affine_to_mni_labelcentroids.json").read_text()
    return {scan: entry["affine_native_world_to_mni_world"] for scan, entry in json.loads(text).items()}


def first_scans(cohort: str, split: str) -> list[str]:
    """The first session of everybody."""
    found: dict[str, str] = {}
    for name in sources.subjects(cohort, split):
        found.setdefault(name.rsplit("-", 1)[0], name)
    return list(found.values())


def of_two(people: list[str], number: int) -> tuple[str, str] | None:
    """Pair ``number`` of different people: first every one is fixed once and moving once, then again with others."""
    order = [str(name) for name in np.random.default_rng(0).permutation(people)]
    apart = 1 + number // max(len(order), 1)
    if apart >= len(order):
        return None
    return order[number % len(order)], order[(number + apart) % len(order)]


def between_people(cohort: str, how: Between) -> Callable:
    """A row of pairs of people of one cohort and one contrast."""

    def make(name: str, number: int, split: str, generator: np.random.Generator) -> Pair | None:
        people = of_two(first_scans(cohort, split), number)
        if people is None:
            return None
        return put_together(name, *(sources.load(f"{cohort}:{person}:T1w") for person in people), how)

    return make


def rescans(name: str, number: int, split: str, generator: np.random.Generator) -> Pair | None:
    """The second scan of a person onto the first; only ``test`` has people with two."""
    scans = sources.subjects("oasis-brains", split)
    twice = sorted(scan for scan in scans if scan.endswith("-2"))
    if number >= len(twice):
        return None
    later = twice[number]
    names = (f"oasis-brains:{scan}:T1w" for scan in (later.removesuffix("-2") + "-1", later))
    return put_together(name, *map(sources.load, names), Between(spacing=None))


def prostates(name: str, number: int, split: str, generator: np.random.Generator) -> Pair | None:
    """Two patients' MR."""
    cases = of_two([f"case{case:06d}" for case in PROSTATE[split]], number)
    if cases is None:
        return None
    scans = (sources.load(f"prostate-mr-us:{case}:MR") for case in cases)
    return put_together(name, *scans, Between("centres", own_grid=True, cut=True))


def prostate_ultrasound(name: str, number: int, split: str, generator: np.random.Generator) -> Pair | None:
    """A patient's MR onto the ultrasound."""
    if number >= len(PROSTATE[split]):
        return None
    case = f"prostate-mr-us:case{PROSTATE[split][number]:06d}"
    return put_together(
        name, *(sources.load(f"{case}:{of}") for of in ("US", "MR")), Between("centres", own_grid=True, cut=True)
    )


def onto_average(contrast: str, head: bool) -> Callable:
    """A row of T1 brains onto the average head of another contrast, or its brain."""

    def make(name: str, number: int, split: str, generator: np.random.Generator) -> Pair | None:
        brains = first_scans("oasis-brains", split)
        if number >= len(brains):
            return None
        average = sources.load(f"avg152:average:{contrast}")
        brain = sources.load(f"oasis-brains:{brains[number]}:T1w")
        target = average if head else extracted(average)
        return put_together(name, target, brain, Between(own_grid=head))

    return make


def extracted(scan: Scan) -> Scan:
    """A head without what lies more than two voxels from its labels."""
    grid = scan.image.grid
    labelled = resampled(scan.labels, grid, np.eye(grid.ndim + 1), nearest=True).data > 0
    brain = binary_dilation(binary_closing(labelled, iterations=2), iterations=2)
    air = scan.image.data.min()
    images = {of: image.with_data(np.where(brain, image.data, air)) for of, image in
              (("image", scan.image), ("smooth", scan.smooth))}  # fmt: skip
    return replace(scan, name=scan.name + "-brain", content=grid.to_world(np.argwhere(brain)), **images)


def deformed_template(name: str, number: int, split: str, generator: np.random.Generator) -> Pair:
    """The T2 template, deformed, onto the T1 template: one anatomy, and the map is known."""
    still, other = (sources.load(f"mni2009c:template:{contrast}") for contrast in ("T1w", "T2w"))
    image = at_spacing(still.smooth, still.spacing)
    grid = boxed(image.grid, still.content)
    forward, inverse = random_diffeomorphism(grid.shape, still.spacing, DEFORMATION_MM, generator)
    back = DisplacementField(inverse, grid)
    labels = resampled(still.labels, grid, np.eye(4), nearest=True)
    points = random_points(labels.data > 0, grid, POINTS, generator)
    return Pair(
        name=name,
        fixed_name=still.name,
        moving_name=other.name + "-deformed",
        fixed=_normalised(resampled(still.smooth, grid, np.eye(4))),
        moving=_normalised(back.warp(other.smooth)),
        fixed_labels=labels,
        moving_labels=back.warp(other.labels, nearest=True),
        points=points,
        targets=DisplacementField(forward, grid).at(points),
    )


def embedded(contrast: str) -> Callable:
    """A row of embedded subjects' T1 onto another subject of a contrast; the map between them is known."""

    def make(name: str, number: int, split: str, generator: np.random.Generator) -> Pair | None:
        people = of_two(sources.subjects("embedded", split), number)
        if people is None:
            return None
        fixed, moving = (
            sources.load(f"embedded:{who}:{of}") for who, of in zip(people, (contrast, "T1w"), strict=True)
        )
        pair = put_together(name, fixed, moving, Between())
        points = random_points(pair.fixed_labels.data > 0, pair.fixed.grid, POINTS, generator)
        to_template, from_template = (
            sources.embedded_map(who, back) for who, back in zip(people, (False, True), strict=True)
        )
        targets = from_template.at(to_template.at(points))
        return replace(
            pair, points=points, targets=transform_points(np.linalg.inv(by_centroids(fixed, moving)), targets)
        )

    return make
