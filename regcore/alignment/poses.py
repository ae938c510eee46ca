"""Candidate poses: a search over all rotations, and over all translations for each of them."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from regcore.alignment.content import Content, Level
from regcore.alignment.information import classes

#: Rotations, by dimension.  300 lie about 30° apart, from which :mod:`regcore.alignment.aligner` descends.
ROTATIONS = {2: 72, 3: 300}
#: Voxels along each axis of the grid, by dimension; finer if one image shows only a part of the other.
VOXELS, FINER, PART = {2: 24, 3: 12}, {2: 32, 3: 16}, 0.6
#: Classes of intensity.
CLASSES = 4
#: The grid reaches this far beyond the content.
BEYOND = 1.15
#: Best translations of each rotation, and the voxels around one that belong to it.
PEAKS, AROUND = 2, 2


def search(fixed: Content, moving: Content, linears: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the best translations for each rotation, and their total information.

    The joint masses of the classes of both images under *all* translations are correlations, which are products in
    Fourier space [1]_.

    Parameters
    ----------
    fixed, moving : Content
        The images.
    linears : ndarray, shape (n, D, D)
        Rotations, fixed world → moving world.

    Returns
    -------
    ndarray, shape (n · PEAKS,)
        Total information, in nats times voxels of the coarse grid; of each rotation the best translations.
    ndarray, shape (n · PEAKS, D + 1, D + 1)
        Maps of the world, RAS mm.

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
    >>> scores, maps = search(scan, scan, rotations(2))
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
    size, axes = [2 * count] * ndim, tuple(range(-ndim, 0))

    def spectrum(level: Level, world: Tensor) -> Tensor:
        masses = classes(level.at(world), CLASSES).reshape(CLASSES + 1, *[count] * ndim)
        return torch.fft.rfftn(masses, size, axes)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    of_fixed = spectrum(levels[0], places + tensor(fixed.centre)).conj()
    scores, maps = [], []
    for linear in linears:
        of_moving = spectrum(levels[1], places @ tensor(linear).T + tensor(moving.centre))
        joint = torch.fft.irfftn(of_fixed[:, None] * of_moving[None], size, axes).clamp_(min=0).flatten(2)
        information = _entropy(joint.sum(1)).sum(0) + _entropy(joint.sum(0)).sum(0)
        information = _entropy(joint).sum((0, 1)) - information + _entropy(joint.sum((0, 1)))
        for best, value in _peaks(information.reshape(size)):
            shift = np.where(best >= count, best - 2 * count, best) * spacing
            scores.append(value)
            maps.append(about(linear, fixed.centre, moving.centre + linear @ shift))
    return np.array(scores), np.stack(maps)


def _peaks(information: Tensor) -> Iterator[tuple[np.ndarray, float]]:
    """The best translations, in voxels, that are not beside each other; the grid is periodic."""
    shape = torch.tensor(information.shape)
    for _ in range(PEAKS):
        flat = int(information.argmax())
        best = np.array(np.unravel_index(flat, information.shape))
        yield best, float(information.flatten()[flat])
        beside = [(torch.arange(-AROUND, AROUND + 1) + int(b)) % int(n) for b, n in zip(best, shape, strict=True)]
        information[torch.meshgrid(*beside, indexing="ij")] = -torch.inf


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
