"""The verdict on one registration: ok, doubtful or failed, with the reasons.

A registration that went wrong ends like one that succeeded, with a field.  What tells them apart without any labels is
measured here, at a coarse resolution and by a likeness that does not depend on contrast (``likeness``): whether the
images are more alike than in many poses that are surely wrong, whether a pose nearby or a mirrored one would suit them
better, whether they are less alike than before, and whether the map is credible for one anatomy.  All limits are
relative to the extent of the content.  ``benchmarks/verdict.py --choose`` chose them by a rule on pairs with a known
map; it says how often they are right on others.

:func:`measure` compares images and field; :func:`judge` turns the numbers into words.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regcore.evaluation.likeness import Likeness, View, cell_means, view
from regcore.evaluation.poses import mirrored_poses, near_poses, wrong_poses
from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.spatial import jacobian_determinant

OK, DOUBTFUL, FAILED = LEVELS = ("ok", "doubtful", "failed")

#: Images that are this alike lie right in any pose that is as good: a ball can be turned.
CLEARLY_ALIKE = 0.7
#: Likeness below which a ratio of two says nothing.
LEAST_LIKENESS = 0.005


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a registration.

    Parameters
    ----------
    level : {"ok", "doubtful", "failed"}
    reasons : tuple of str
        Sentences, the gravest first.  An ok registration may have some too: what is worth knowing.
    concerns : tuple of str
        The measure behind each reason.
    risk : float
        How far the worst measure is: 1 at its limit for doubtful, 2 at that for failed.
    measures : dict
        Name → value; see :func:`measure`.

    Examples
    --------
    >>> from regcore.evaluation.verdict import judge
    >>> judge({"folds_percent": 20.0}).level
    'failed'
    """

    level: str
    reasons: tuple[str, ...]
    concerns: tuple[str, ...]
    risk: float
    measures: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """For JSON: numbers with four digits."""
        return {
            "level": self.level,
            "reasons": list(self.reasons),
            "concerns": list(self.concerns),
            "risk": _rounded(self.risk),
            "measures": {name: _rounded(value) for name, value in self.measures.items()},
        }


@dataclass(frozen=True)
class Limit:
    """From where on a measure makes a registration doubtful, and from where on failed.

    Parameters
    ----------
    measure : str
    good, doubtful, failed : float
        A value of a good registration, and the two limits.
    says : str
        The reason; ``{value}`` is the measure, and others can be named.

    Examples
    --------
    >>> from regcore.evaluation.verdict import Limit
    >>> Limit("folds_percent", 0, 1, 10, "folds {value} %").risk(5.5)
    1.5
    """

    measure: str
    good: float
    doubtful: float
    failed: float
    says: str

    def risk(self, value: float) -> float:
        """0 at a good value, 1 at the limit for doubtful, 2 at that for failed, linear in between and beyond."""
        if (value - self.doubtful) * (self.failed - self.doubtful) < 0:
            return (value - self.good) / (self.doubtful - self.good)
        return 1 + (value - self.doubtful) / (self.failed - self.doubtful)


LIMITS = (
    Limit(
        "wrong_poses_z",
        15,
        4.8,
        2,
        "the images are hardly more alike than in {wrong_poses:.0f} wrong poses (z = {value:.1f})",
    ),
    Limit("better_nearby", -0.4, 0.12, 0.41, "a pose nearby makes the images more alike, by {value:.0%}"),
    Limit(
        "better_mirrored", -0.2, 0.1, 0.3, "the images are more alike when mirrored, by {value:.0%}: is one flipped?"
    ),
    Limit("mirrors", 0, 0.5, 1, "the map mirrors the anatomy (its determinant is negative)"),
    Limit("less_than_start", -0.5, 0.1, 0.3, "the images are less alike than at the start, by {value:.0%}"),
    Limit("less_than_affine", -0.3, 0.1, 0.3, "the deformation makes the images less alike, by {value:.0%}"),
    Limit("largest_scale", 1, 1.5, 2, "the map stretches the anatomy {value:.2f} times along one direction"),
    Limit("smallest_scale", 1, 0.67, 0.5, "the map shrinks the anatomy {value:.2f} times along one direction"),
    Limit("coverage", 1, 0.15, 0.03, "the moving image covers only {value:.0%} of the fixed image's content"),
    Limit("folds_percent", 0, 1, 10, "the field folds {value:.1f} % of the content"),
    Limit(
        "smallest_jacobian", 1, 0.037, 0, "the field shrinks a hundredth of the content to {value:.2f} of its volume"
    ),
    Limit("largest_jacobian", 1, 5, 10, "the field swells a hundredth of the content {value:.1f} times"),
)
#: Worth saying though the registration may be ok: measure → (largest value at which it is said, sentence).
NOTES = {"coverage": (0.9, "the moving image covers {value:.0%} of the fixed image's content")}


def verdict(
    fixed: Volume,
    moving: Volume,
    field: DisplacementField,
    start: np.ndarray | None = None,
) -> Verdict:
    """Judge a registration; parameters as for :func:`measure`.

    Parameters
    ----------
    fixed, moving : Volume
    field : DisplacementField
    start : ndarray, shape (D + 1, D + 1), optional

    Returns
    -------
    Verdict

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.verdict import verdict
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> scan = Volume(image, Grid.centred((64, 64), spacing=(1, 1), centre=(0, 0)))
    >>> verdict(scan, scan, DisplacementField.identity(scan.grid)).level
    'ok'
    >>> turned = scan.with_data(np.rot90(image).copy())
    >>> verdict(scan, turned, DisplacementField.identity(scan.grid)).level
    'failed'
    """
    return judge(measure(fixed, moving, field, start))


def measure(
    fixed: Volume,
    moving: Volume,
    field: DisplacementField,
    start: np.ndarray | None = None,
) -> dict[str, float]:
    """Measure what tells a registration that went wrong from one that succeeded.

    Poses are tried on the affine part of the field, the affine map nearest to it over the content: a deformation makes
    any two images alike to some degree, which says nothing about their pose.

    Parameters
    ----------
    fixed, moving : Volume
        Each with its own intensities, background and grid.
    field : DisplacementField
        The whole map, on the grid of ``fixed``.
    start : ndarray, shape (D + 1, D + 1), optional
        Where the registration began, fixed world → moving world, RAS mm; default: the positions in the headers.

    Returns
    -------
    dict
        ``likeness``, ``likeness_start`` and ``likeness_affine`` under the field, the start and the affine part;
        ``less_than_start`` and ``less_than_affine``, the part of the likeness that was lost; ``wrong_poses_z``, the
        likeness of the affine part in standard deviations above the mean of ``wrong_poses`` others, turned by 40° or
        more or shifted by a quarter of the content or more; ``better_nearby`` and ``better_mirrored``, by which part
        the best of the poses nearby and of the mirrored poses is more alike; ``mirrors``, 1 if the affine part mirrors
        what the start does not; ``smallest_scale`` and ``largest_scale``; ``coverage``, the share of the fixed content
        within the moving image's field of view; ``folds_percent``, ``smallest_jacobian`` and ``largest_jacobian`` (1st
        and 99th percentile, relative to the affine part) over the content.

    Raises
    ------
    ValueError
        The field is not on the grid of ``fixed``.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.verdict import measure
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> scan = Volume(image, Grid.centred((64, 64), spacing=(1, 1), centre=(0, 0)))
    >>> found = measure(scan, scan, DisplacementField.identity(scan.grid))
    >>> found["coverage"], found["folds_percent"], round(found["largest_scale"], 4)
    (1.0, 0.0, 1.0)
    """
    if not field.grid.same_as(fixed.grid, voxels=0.01):
        raise ValueError(f"the field {field.grid.shape} is not on the grid of the fixed image {fixed.grid.shape}")
    start = np.eye(fixed.grid.ndim + 1) if start is None else start
    likeness = Likeness(view(fixed), view(moving))
    targets = likeness.targets_of(field)
    affine = affine_part(likeness.points[likeness.inside], targets[likeness.inside])
    found = {"coverage": likeness.coverage(targets)}
    found |= _compared(likeness, targets, affine, start)
    found |= _credible(affine, start)
    found |= _deformation(field, likeness.fixed, affine)
    return found


def judge(measures: Mapping[str, float]) -> Verdict:
    """Turn measures into a verdict.

    Parameters
    ----------
    measures : mapping
        From :func:`measure`; what is missing or NaN is not judged.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> from regcore.evaluation.verdict import judge
    >>> found = judge({"coverage": 0.1})
    >>> found.level, found.reasons
    ('doubtful', ("the moving image covers only 10% of the fixed image's content",))
    """
    known = {name: float(value) for name, value in measures.items() if np.isfinite(value)}
    risks = {limit: limit.risk(known[limit.measure]) for limit in LIMITS if limit.measure in known}
    if known.get("likeness_affine", 0) > CLEARLY_ALIKE:
        risks = {limit: risk for limit, risk in risks.items() if limit.measure != "wrong_poses_z"}
    grave = sorted((limit for limit in risks if risks[limit] >= 1), key=lambda limit: -risks[limit])
    said = [(limit.measure, limit.says) for limit in grave]
    for name, (limit, sentence) in NOTES.items():
        if known.get(name, np.inf) <= limit and name not in [measure for measure, _ in said]:
            said.append((name, sentence))
    worst = max(risks.values(), default=0.0)
    return Verdict(
        LEVELS[int(np.clip(np.floor(worst), 0, 2))],
        tuple(sentence.format(value=known[name], **known) for name, sentence in said),
        tuple(name for name, _ in said),
        max(worst, 0.0),
        dict(measures),
    )


def affine_part(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The affine map nearest to a map of points, by least squares.

    Parameters
    ----------
    points, targets : ndarray, shape (n, D)

    Returns
    -------
    ndarray, shape (D + 1, D + 1)

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.verdict import affine_part
    >>> points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> affine_part(points, 2 * points + 1).round(6).__abs__().tolist()
    [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    """
    centre, onto = points.mean(0), targets.mean(0)
    linear, *_ = np.linalg.lstsq(points - centre, targets - onto, rcond=None)
    matrix = np.eye(points.shape[1] + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = linear.T, onto - linear.T @ centre
    return matrix


def _compared(likeness: Likeness, targets: np.ndarray, affine: np.ndarray, start: np.ndarray) -> dict[str, float]:
    """Likeness under the field, its affine part, the start, and poses changed from the affine part."""
    shown = likeness.fixed
    wrong, near, mirrored = wrong_poses(shown), near_poses(shown), mirrored_poses(shown)
    poses = [affine @ pose for pose in (*wrong, *near, *mirrored)]
    found = likeness.of(np.stack([targets, *map(likeness.targets, (affine, start, *poses))]))
    whole, own, before = found[:3]
    # A pose that shrinks the fixed image brings more of it into a slab, though not more of the slab onto it.
    shrunk = np.array([min(1.0, abs(np.linalg.det(pose))) for pose in (*wrong, *near, *mirrored)])
    others = found[3:] * shrunk
    wrongs, nears, mirrors = np.split(others, [len(wrong), len(wrong) + len(near)])
    floor = max(own, LEAST_LIKENESS)
    return {
        "likeness": float(whole),
        "likeness_affine": float(own),
        "likeness_start": float(before),
        "less_than_start": _lost(whole, before),
        "less_than_affine": _lost(whole, own),
        "wrong_poses": float(len(wrongs)),
        "wrong_poses_z": float((own - wrongs.mean()) / max(wrongs.std(), 1e-6)),
        "better_nearby": float(nears.max() / floor - 1),
        "better_mirrored": float(mirrors.max() / floor - 1),
    }


def _lost(now: float, before: float) -> float:
    return float(1 - now / max(before, LEAST_LIKENESS))


def _credible(affine: np.ndarray, start: np.ndarray) -> dict[str, float]:
    scales = np.linalg.svd(affine[:-1, :-1], compute_uv=False)
    mirrors = np.linalg.det(affine[:-1, :-1]) * np.linalg.det(start[:-1, :-1]) < 0
    return {
        "smallest_scale": float(scales.min()),
        "largest_scale": float(scales.max()),
        "mirrors": float(mirrors),
    }


def _deformation(field: DisplacementField, shown: View, affine: np.ndarray) -> dict[str, float]:
    """Folds and extremes of the Jacobian over the content's cells, relative to the affine part, which may mirror."""
    # The determinant of a map in the fixed image's voxels is that in the world.
    determinant = np.linalg.det(affine[:-1, :-1])
    relative = jacobian_determinant(field.displacement.double())[0].cpu().numpy() / determinant
    folded = cell_means(relative <= 0, shown.voxels, shown.factors)[shown.content]
    smallest, largest = np.percentile(cell_means(relative, shown.voxels, shown.factors)[shown.content], [1, 99])
    return {
        "folds_percent": float(100 * folded.mean()),
        "smallest_jacobian": float(smallest),
        "largest_jacobian": float(largest),
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None
