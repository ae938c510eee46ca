"""Candidate poses: a search over all rotations, and over all translations for each of them."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation
from torch import Tensor

from regcore.alignment.content import Content, Level
from regcore.kernels.class_information import classes

#: Rotations, by dimension.  300 lie about 30° apart, from which :mod:`regcore.alignment.aligner` descends.
ROTATIONS = {2: 72, 3: 300}
#: Voxels along each axis of the grid, by dimension; finer if one image shows only a part of the other.
VOXELS, FINER, PART = {2: 24, 3: 12}, {2: 32, 3: 16}, 0.6
#: Classes of intensity.
CLASSES = 4
#: The grid reaches this far beyond the content.
BEYOND = 1.15
#: The farthest translation of the centres, relative to the grid: hardly more than the reach of the larger content.
FARTHEST = 0.45
#: Best translations of each rotation, and the voxels around one that belong to it.
PEAKS, AROUND = 2, 2
#: Rotations that are looked at side by side.
BATCH = 12


def search(fixed: Content, moving: Content, linears: np.ndarray, cut_out: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the best translations for each rotation, and their total information.

    The joint masses of the classes of both images under all translations are correlations, which are products in
    Fourier space [1]_.

    Parameters
    ----------
    fixed, moving : Content
        The images.
    linears : ndarray, shape (n, D, D)
        Rotations, fixed world → moving world.
    cut_out : bool
        Whether to look a second time, as if nothing were known of what surrounds the fixed content.

    Returns
    -------
    list of (ndarray, ndarray)
        One or two pairs.  Shape (n · PEAKS,): total information, in nats times voxels of the coarse grid; of each
        rotation the best translations.  Shape (n · PEAKS, D + 1, D + 1): maps of the world, RAS mm.

    References
    ----------
    .. [1] Öfverstedt, Lindblad and Sladoje, "Fast computation of mutual information in the frequency domain with
       applications to global multimodal image alignment", Pattern Recognition Letters 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.content import content_of
    >>> from regcore.alignment.poses import rotations, search
    >>> from regcore.images.volume import Grid, Volume
    >>> data = np.pad(np.random.default_rng(0).uniform(5, 9, (20, 20)), 10)
    >>> scan = content_of(Volume(data, Grid.centred((40, 40), spacing=(2, 2), centre=(0, 0))))
    >>> [(scores, maps)] = search(scan, scan, rotations(2), cut_out=False)
    >>> np.allclose(maps[scores.argmax()], np.eye(3))
    True
    """
    ndim = fixed.value.ndim
    sizes = sorted((fixed.size, moving.size))
    count = (FINER if sizes[0] < PART * sizes[1] else VOXELS)[ndim]
    reach = BEYOND * max(fixed.reach, moving.reach)
    spacing = 2 * reach / count
    levels = [Level(content, spacing, 0.6 * content.reach) for content in (fixed, moving)]
    device = levels[0].data.device
    along = (torch.arange(count, device=device) - (count - 1) / 2) * spacing
    places = torch.stack(torch.meshgrid(*[along] * ndim, indexing="ij"), -1).reshape(1, -1, ndim)
    axes = tuple(range(-ndim, 0))
    lags = int(np.ceil(FARTHEST * count))
    size = [next_fast_len(count + lags, real=True)] * ndim  # farther translations wrap around, and are left out
    kept = (..., *[slice(2 * lags + 1)] * ndim)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    def spectra(level: Level, world: Tensor, before: int) -> Tensor:
        masses = classes(level.at(world), CLASSES).reshape(CLASSES + 1, len(world), *[count] * ndim)
        return torch.fft.rfftn(torch.nn.functional.pad(masses, [before, 0] * ndim), size, axes)

    of_fixed = spectra(levels[0], places + tensor(fixed.centre), 0).conj()
    readings = [slice(None), slice(1, None)] if cut_out else [slice(None)]  # with and without the fixed background
    found: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in readings]
    for some in np.array_split(linears, -(-len(linears) // BATCH)):
        of_moving = spectra(levels[1], places @ tensor(some).mT + tensor(moving.centre), lags)
        joint = torch.fft.irfftn(of_fixed[:, None] * of_moving[None], size, axes)[kept]
        joint = joint.flatten(3).clamp(min=0)
        for rows, (scores, maps) in zip(readings, found, strict=True):
            for best, values in _peaks(_information(joint[rows]), [2 * lags + 1] * ndim):
                targets = moving.centre + np.einsum("bij,bj->bi", some, (best - lags) * spacing)
                scores.append(values)
                maps += [about(linear, fixed.centre, target) for linear, target in zip(some, targets, strict=True)]
    return [(np.concatenate(scores), np.stack(maps)) for scores, maps in found]


def _information(joint: Tensor) -> Tensor:
    """Total information of joint masses (fixed classes, moving classes, B, n) → (B, n)."""
    rows, columns = joint.sum(1), joint.sum(0)
    marginal = _entropy(rows).sum(0) + _entropy(columns).sum(0)
    return _entropy(joint).sum((0, 1)) - marginal + _entropy(rows.sum(0))


def _peaks(information: Tensor, shape: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The best places (B, D) in a box, with their information (B,), that are not beside each other."""
    axes = [torch.arange(size, device=information.device) for size in shape]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    for _ in range(PEAKS):
        values, flat = information.max(1)
        best = places[flat]
        yield best.cpu().numpy(), values.cpu().numpy()
        information = information.masked_fill((places - best[:, None]).abs().amax(2) <= AROUND, -torch.inf)


def _entropy(mass: Tensor) -> Tensor:
    return mass * (mass + 1e-6).log()


def about(linear: np.ndarray, centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The map with a linear part that takes one point to another.

    Parameters
    ----------
    linear : ndarray, shape (D, D)
        Linear part.
    centre, target : ndarray, shape (D,)
        World positions, mm: ``centre`` is taken to ``target``.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.poses import about
    >>> about(np.diag([2.0, 2.0]), np.array([1.0, 0.0]), np.array([5.0, 5.0])).tolist()
    [[2.0, 0.0, 3.0], [0.0, 2.0, 5.0], [0.0, 0.0, 1.0]]
    """
    matrix = np.eye(len(centre) + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = target - linear @ centre
    return matrix


def rotations(ndim: int) -> np.ndarray:
    """Rotations spread evenly over all there are.

    Parameters
    ----------
    ndim : int
        2 or 3.

    Returns
    -------
    ndarray, shape (n, D, D)

    Notes
    -----
    In 3-D a super-Fibonacci spiral of quaternions [1]_, which has no preferred axis.

    References
    ----------
    .. [1] Alexa, "Super-Fibonacci spirals: fast, low-discrepancy sampling of SO(3)", CVPR 2022.

    Examples
    --------
    >>> from regcore.alignment.poses import rotations
    >>> rotations(3).shape
    (300, 3, 3)
    """
    count = ROTATIONS[ndim]
    if ndim == 2:
        angles = np.arange(count) * 2 * np.pi / count
        return np.stack([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    places = np.arange(count) + 0.5
    first, second = 2 * np.pi * places / np.sqrt(2), 2 * np.pi * places / 1.533751168755204288118041
    inner, outer = np.sqrt(places / count), np.sqrt(1 - places / count)
    quaternions = [inner * np.sin(first), inner * np.cos(first), outer * np.sin(second), outer * np.cos(second)]
    return Rotation.from_quat(np.stack(quaternions, 1)).as_matrix()


def of_axes(fixed: Content, moving: Content) -> np.ndarray:
    """Rotations that bring the principal axes of two contents onto each other, with all signs.

    Parameters
    ----------
    fixed, moving : Content
        The images.

    Returns
    -------
    ndarray, shape (2 or 4, D, D)
        No reflections.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.content import content_of
    >>> from regcore.alignment.poses import of_axes
    >>> from regcore.images.volume import Grid, Volume
    >>> data = np.pad(np.random.default_rng(0).uniform(5, 9, (20, 30)), 10)
    >>> scan = content_of(Volume(data, Grid.centred((40, 50), spacing=(2, 2), centre=(0, 0))))
    >>> of_axes(scan, scan).round(6).tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]]
    """
    axes = [np.linalg.eigh(np.cov(content.points.T))[1] for content in (fixed, moving)]
    signed = [axes[1] @ np.diag(signs) @ axes[0].T for signs in product([1, -1], repeat=len(axes[0]))]
    return np.stack([rotation for rotation in signed if np.linalg.det(rotation) > 0])


def distinct(maps: np.ndarray, losses: np.ndarray, content: Content, apart: float, count: int) -> np.ndarray:
    """Choose the best maps that differ from each other.

    Parameters
    ----------
    maps : ndarray, shape (n, D + 1, D + 1)
        Maps of the world, mm.
    losses : ndarray, shape (n,)
        Smaller is better.
    content : Content
        Where differences count.
    apart : float
        Least mean distance of two maps on the content, mm.
    count : int
        Most to choose.

    Returns
    -------
    ndarray of int
        Their indices, the best first.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.content import content_of
    >>> from regcore.alignment.poses import distinct
    >>> from regcore.images.volume import Grid, Volume
    >>> data = np.pad(np.random.default_rng(0).uniform(5, 9, (20, 20)), 10)
    >>> scan = content_of(Volume(data, Grid.centred((40, 40), spacing=(2, 2), centre=(0, 0))))
    >>> distinct(np.stack([np.eye(3), 1.001 * np.eye(3), -np.eye(3)]), np.array([2, 1, 3]), scan, 1.0, 5).tolist()
    [1, 2]
    """
    points = content.points[:: max(1, len(content.points) // 60)]
    moved = points @ maps[:, :-1, :-1].transpose(0, 2, 1) + maps[:, None, :-1, -1]
    chosen: list[int] = []
    for index in np.argsort(losses, kind="stable").tolist():
        gaps = np.linalg.norm(moved[chosen] - moved[index], axis=2).mean(1)
        if not len(chosen) or gaps.min() > apart:
            chosen.append(index)
        if len(chosen) == count:
            break
    return np.array(chosen)
