"""Alignment of two images of any anatomy and contrast, however they lie.

1. What each image shows is found (:mod:`regcore.alignment.content`); all lengths are relative to its extent.
2. Candidates: the positions in the headers, the given start, the centres on each other, principal axes with all signs,
   and a search over all rotations and translations on a coarse grid (:mod:`regcore.alignment.poses`).
3. From coarse to fine all candidates that are still among the best descend side by side, first rigid with one scale,
   then with as many degrees of freedom as asked for and as the data carry.  What the headers say is kept to the end and
   wins if nothing is clearly better.

The measure is total mutual information of classes of intensity (:mod:`regcore.kernels.class_information`) over what
both images show, and scales and shears cost.  The image with less content is the one whose points are looked at,
whichever is fixed: so a slab cannot be stretched over a whole organ, and swapping the images gives the inverse map.
Nothing is drawn at random.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from regcore.alignment.content import Content, Level, content_of
from regcore.alignment.descent import descend
from regcore.alignment.poses import about, distinct, of_axes, rotations, search
from regcore.alignment.settings import OWN, Own
from regcore.errors import InputError
from regcore.images.volume import Volume
from regcore.kernels.class_information import class_information, classes

#: Candidates of the search that descend, and how far apart they are, relative to the reach of the content.
CANDIDATES, APART = 48, 0.05
#: A pose wins over that of the headers if its information is higher by more than this share: shapes that are nearly
#: symmetric have poses about as good as the right one.  The second number holds if the content of an image fills it:
#: crops of two subjects can be explained about as well by a part of each other.
CLEARLY, CLEARLY_CROPPED = 0.1, 0.3
#: A map that was given or lies in the headers is kept as it is if descending from it gains less than this, in nats per
#: voxel of content: an error of about 0.2 % of the extent within a contrast, and 0.4 to 0.8 % across contrasts.
WORTH_MOVING = 0.05
#: A content smaller than this, relative to the other, may be cut out of what the other shows; it is taken to be so if
#: its inside is then explained clearly better.
CUT_OUT = 0.75
#: A content thinner than this in relation to its length, or in voxels, does not carry all degrees of freedom.
THIN, FEW_VOXELS = 0.3, 10


@dataclass(frozen=True)
class _Stage:
    """One stage of the descent.

    Voxels across the content, classes, points, iterations, poses that go on, what strain costs, whether all degrees of
    freedom are free, and whether the headers' pose goes on even if others are better.
    """

    across: int
    classes: int
    points: int
    iterations: int
    kept: int
    strain_cost: float
    free: bool
    headers_stay: bool


STAGES = (
    _Stage(12, 4, 1_500, 6, 24, 3.0, free=False, headers_stay=True),
    _Stage(16, 4, 2_500, 10, 12, 3.0, free=False, headers_stay=True),
    _Stage(24, 6, 4_000, 15, 6, 2.0, free=False, headers_stay=True),
    _Stage(40, 8, 10_000, 15, 2, 1.0, free=True, headers_stay=False),
    _Stage(110, 24, 60_000, 14, 1, 0.1, free=True, headers_stay=False),
)


@dataclass(frozen=True, eq=False)
class Aligned:
    """A map between the worlds of two images.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.
    kind : str
        Its degrees of freedom: "affine", "similarity", "rigid" or "translation".
    notes : tuple of str
        What a user should be told.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.aligner import Aligned
    >>> Aligned(np.eye(4), "rigid").notes
    ()
    """

    matrix: np.ndarray
    kind: str
    notes: tuple[str, ...] = ()


def align_images(
    fixed: Volume,
    moving: Volume,
    kind: Own = "auto",
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    start: np.ndarray | None = None,
) -> Aligned:
    """Find the map that brings two images onto each other.

    Parameters
    ----------
    fixed, moving : Volume
        With their own intensities and headers, 2-D or 3-D.
    kind : {"auto", "affine", "similarity", "rigid", "translation"}
        Degrees of freedom.  "auto": affine, or a similarity where a slab or few slices do not carry more.
    fixed_mask, moving_mask : Volume, optional
        On the grids of the images: 0 where they do not count.
    start : ndarray, shape (D + 1, D + 1), optional
        A map, fixed world → moving world, RAS mm, in place of the positions in the headers.

    Returns
    -------
    Aligned

    Raises
    ------
    InputError
        The images differ in dimension, or a mask leaves nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.aligner import align_images
    >>> from regcore.images.volume import Grid, Volume
    >>> rng = np.random.default_rng(0)
    >>> data = np.pad(np.kron(rng.uniform(5, 9, (6, 8)), np.ones((5, 5))), 20)
    >>> fixed = Volume(data, Grid.centred(data.shape, spacing=(2, 2), centre=(0, 0)))
    >>> moving = Volume(30 - data, Grid.centred(data.shape, spacing=(2, 2), centre=(400, -70)))
    >>> align_images(fixed, moving, "rigid").matrix[:2, 2].round().tolist()
    [400.0, -70.0]
    """
    if kind not in OWN:
        raise ValueError(f"kind {kind!r} must be one of {', '.join(OWN)}")
    if fixed.grid.ndim != moving.grid.ndim:
        raise InputError(f"{fixed.path} is {fixed.grid.ndim}-D and {moving.path} is {moving.grid.ndim}-D")
    contents = content_of(fixed, fixed_mask), content_of(moving, moving_mask)
    first = np.eye(fixed.grid.ndim + 1) if start is None else np.asarray(start, dtype=float)
    swapped = contents[1].size < contents[0].size
    if swapped:
        contents, first = (contents[1], contents[0]), np.linalg.inv(first)
    carried, notes = _carried(kind, *contents)
    found = _best(*contents, carried, first)
    return Aligned(np.linalg.inv(found) if swapped else found, carried, notes)


def _carried(kind: Own, fixed: Content, moving: Content) -> tuple[Own, tuple[str, ...]]:
    """The degrees of freedom that the data carry."""
    if kind != "auto":
        return kind, ()
    if min(fixed.thickness(), moving.thickness()) < THIN or min(*fixed.grid.shape, *moving.grid.shape) < FEW_VOXELS:
        return "similarity", ("an image is thin: one scale was found for all axes, and no shear (similarity)",)
    return "affine", ()


def _best(smaller: Content, larger: Content, kind: Own, first: np.ndarray) -> np.ndarray:
    """The best map; the smaller content may be cut out of what the larger one shows.

    If it is, as an extracted brain of a head, then what surrounds it says nothing.  That reading is preferred if its
    map explains the inside of the smaller content clearly better.
    """
    cut_out = smaller.has_background and smaller.size <= CUT_OUT * larger.size
    candidates = _candidates(smaller, larger, kind, first, cut_out)
    clearly = CLEARLY if smaller.has_background and larger.has_background else CLEARLY_CROPPED
    found = _refined(smaller, larger, candidates[0], kind, clearly)
    if not cut_out:
        return found
    alone = replace(smaller, valid=smaller.inside, has_background=False)
    other = _refined(alone, larger, np.concatenate([candidates[1], found[None]]), kind, clearly)
    losses = _Problem(alone, larger, STAGES[-1], kind).losses(np.stack([found, other]))
    return other if losses[1] < losses[0] - clearly * abs(losses[0]) else found


def _candidates(fixed: Content, moving: Content, kind: Own, first: np.ndarray, cut_out: bool) -> list[np.ndarray]:
    """Maps to descend from, for each reading; the first is the given one."""
    ndim = fixed.value.ndim
    linears = np.eye(ndim)[None]
    if kind != "translation":
        linears = np.concatenate([linears, of_axes(fixed, moving), rotations(ndim)])
    centred = about(np.eye(ndim), fixed.centre, moving.centre)
    return [
        np.stack([first, centred, maps[0], *maps[distinct(maps, -scores, fixed, APART * fixed.reach, CANDIDATES)]])
        for scores, maps in search(fixed, moving, linears, cut_out)
    ]


def _refined(fixed: Content, moving: Content, maps: np.ndarray, kind: Own, clearly: float) -> np.ndarray:
    """Descend from all candidates; return the best map."""
    first = maps[0]
    for stage in STAGES:
        problem = _Problem(fixed, moving, stage, kind)
        maps, losses = problem.descend(maps)
        handicapped = losses.copy()
        handicapped[0] -= clearly * abs(losses[0])  # of the headers, or, in the last stage, the best so far
        chosen = distinct(maps, handicapped, fixed, 0.6 * APART * fixed.reach, stage.kept)
        if stage is STAGES[-2]:
            chosen = chosen[losses[chosen] <= losses[chosen[0]] + CLEARLY * abs(losses[chosen[0]])]
        order = np.concatenate([[0], chosen[chosen != 0]]) if stage.headers_stay else chosen
        maps, losses = maps[order], losses[order]
    return first if problem.losses(first[None])[0] < losses[0] + WORTH_MOVING else maps[0]


class _Problem:
    """Poses of a moving image at one level.

    Parameters are in mm: angles and strains by the shift they cause at the reach.
    """

    def __init__(self, fixed: Content, moving: Content, stage: _Stage, kind: Own):
        self.ndim = fixed.value.ndim
        self.stage = stage
        self.kind = "similarity" if kind == "affine" and not stage.free else kind
        self.centre, self.reach = fixed.centre, fixed.reach
        self.spacing = 2 * max(fixed.reach, moving.reach) / stage.across
        self.moving = Level(moving, self.spacing, moving.reach)
        self.device = self.moving.data.device
        level = Level(fixed, self.spacing, fixed.reach)
        places, samples = _near_content(level, fixed, self.spacing, stage.points)
        self.samples = samples.contiguous()
        self.content = float(classes(samples[:, None], stage.classes)[1:].sum())
        self.points = self._tensor(places - self.centre)

    def descend(self, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps and losses after the descent from each of ``maps`` (n, D + 1, D + 1)."""
        base = self._base(maps)

        def loss(parameters: Tensor, which: Tensor) -> Tensor:
            return self._loss(parameters, [part[which] for part in base])

        found, losses = descend(
            loss, self._unmoved(maps), 0.5 * self.spacing, self.stage.iterations, 0.02 * self.spacing
        )
        linear, target, _ = self._placed(found, base)
        moved = [part.cpu().numpy().astype(float) for part in (linear, target)]
        return np.stack([about(m, self.centre, t) for m, t in zip(*moved, strict=True)]), losses.cpu().numpy()

    def losses(self, maps: np.ndarray) -> np.ndarray:
        """Losses of ``maps`` (n, D + 1, D + 1) as they are."""
        base = self._base(maps)
        return self._loss(self._unmoved(maps), base).cpu().numpy()

    def _unmoved(self, maps: np.ndarray) -> Tensor:
        """Parameters of maps that stay as they are: shifts, turns and strains of zero."""
        turns = self.ndim * (self.ndim - 1) // 2
        stretches = {"similarity": 1, "affine": self.ndim + turns}.get(self.kind, 0)
        count = self.ndim + (0 if self.kind == "translation" else turns) + stretches
        return torch.zeros(len(maps), count, device=self.device)

    def _base(self, maps: np.ndarray) -> list[Tensor]:
        """Rotations, strains, and where the centre goes."""
        rotation, strain = _polar(maps[:, :-1, :-1])
        target = maps[:, :-1, :-1] @ self.centre + maps[:, :-1, -1]
        return [self._tensor(part) for part in (rotation, strain, target)]

    def _loss(self, parameters: Tensor, base: list[Tensor]) -> Tensor:
        """Minus the information per voxel of content, plus the cost of strain."""
        linear, target, strain = self._placed(parameters, base)
        maps = self.moving.to_voxels[:, :-1] @ torch.cat([linear, target[:, :, None]], 2)
        maps = torch.cat([maps[:, :, :-1], maps[:, :, -1:] + self.moving.to_voxels[:, -1:]], 2)
        information = class_information(maps, self.moving.data, self.points, self.samples, self.stage.classes)
        return self.stage.strain_cost * (strain**2).sum((1, 2)) - information / self.content

    def _placed(self, parameters: Tensor, base: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Linear part R exp(ω) exp(S), where the centre goes, and S."""
        rotation, strain, target = base
        shift, rest = parameters[:, : self.ndim], parameters[:, self.ndim :] / self.reach
        if self.kind != "translation":
            turns = self.ndim * (self.ndim - 1) // 2
            rotation = rotation @ torch.linalg.matrix_exp(_skew(rest[:, :turns], self.ndim))
            strain = strain + _symmetric(rest[:, turns:], self.ndim)
        return rotation @ torch.linalg.matrix_exp(strain), target + shift, strain

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32, device=self.device)


def _near_content(level: Level, content: Content, spacing: float, most: int) -> tuple[np.ndarray, Tensor]:
    """World positions (n, D) of a level's voxels on and close around the content, and their samples (3, n)."""
    margin = 0.1 * content.reach + spacing
    first, last = content.points.min(0) - margin, content.points.max(0) + margin
    near = level.data[..., 2].cpu().numpy() > 0
    linear, origin = level.affine[:-1, :-1].astype(np.float32), level.affine[:-1, -1].astype(np.float32)
    for axis in range(len(origin)):  # each world coordinate is a sum over the axes of the grid
        indices = np.indices(near.shape, sparse=True)
        along = [index * step for index, step in zip(indices, linear[axis], strict=True)]
        coordinate = sum(along[1:], along[0]) + origin[axis]
        near &= (coordinate >= first[axis]) & (coordinate <= last[axis])
    chosen = np.flatnonzero(near)
    if len(chosen) > most:  # spread evenly by the golden ratio, the same each time
        chosen = chosen[np.unique((np.arange(most) * 0.6180339887498949 % 1 * len(chosen)).astype(int))]
    voxels = np.stack(np.unravel_index(chosen, near.shape), -1)
    places = voxels @ level.affine[:-1, :-1].T + level.affine[:-1, -1]
    return places, level.data.reshape(-1, 3)[torch.from_numpy(chosen).to(level.data.device)].T


def _polar(linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and logarithms of the symmetric stretches of matrices (n, D, D): linear = R exp(S)."""
    left, values, right = np.linalg.svd(linear)
    return left @ right, right.transpose(0, 2, 1) @ (np.log(values)[..., None] * right)


def _skew(angles: Tensor, ndim: int) -> Tensor:
    rows, columns = torch.triu_indices(ndim, ndim, 1)
    upper = angles.new_zeros(len(angles), ndim, ndim)
    upper[:, rows, columns] = angles
    return upper - upper.mT


def _symmetric(entries: Tensor, ndim: int) -> Tensor:
    """Strains from nothing, one number (a scale), or the upper triangle."""
    if entries.shape[1] <= 1:
        return entries.sum(1)[:, None, None] * torch.eye(ndim, device=entries.device)
    rows, columns = torch.triu_indices(ndim, ndim)
    upper = entries.new_zeros(len(entries), ndim, ndim)
    upper[:, rows, columns] = entries
    return (upper + upper.mT) / 2
