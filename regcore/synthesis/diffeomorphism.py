"""Smooth random maps with a known inverse."""

import numpy as np
import torch
from scipy.ndimage import binary_dilation, gaussian_filter
from torch import Tensor

from regcore.spatial import compose, identity, integrate, sample

#: Smoothness (Gaussian σ, mm) of the velocity at each scale: lobes, gyri, details.
SCALES_MM = (24.0, 12.0, 6.0)
#: Smoothness (Gaussian σ, mm) of the field that enlarges one structure; it fades within about 2 σ from the wall.
REACH_MM = 6.0


def random_diffeomorphism(
    shape: tuple[int, ...], spacing: float, rms_mm: list[float], generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Compose exponentials of smoothed noise at the scales ``SCALES_MM``, and return the map and its inverse.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each array axis.
    spacing : float
        Voxel size in mm.
    rms_mm : list of float
        Root-mean-square length of the velocity at each scale.
    generator : numpy Generator
        The same state gives the same map.

    Returns
    -------
    forward, inverse : Tensor, shape (1, D, *shape), float64
        In voxels; ``compose(inverse, forward)`` is zero to a hundredth of a voxel.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.spatial import compose
    >>> from regcore.synthesis.diffeomorphism import random_diffeomorphism
    >>> forward, inverse = random_diffeomorphism((24, 24), 4, [2, 1, 0.5], np.random.default_rng(0))
    >>> compose(inverse, forward).abs().mean().item() < 0.1
    True
    """
    forward = inverse = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
    for sigma, rms in zip(SCALES_MM, rms_mm, strict=True):
        noise = generator.standard_normal((len(shape), *shape))
        smooth = np.stack([gaussian_filter(component, sigma / spacing, mode="nearest") for component in noise])
        length = np.sqrt((smooth**2).sum(0).mean())
        velocity = torch.from_numpy(smooth * (rms / spacing / length))[None]
        forward = compose(forward, integrate(velocity))
        inverse = compose(integrate(-velocity), inverse)
    return forward, _refine_inverse(forward, inverse)


def expanded(
    forward: Tensor, inverse: Tensor, mask: np.ndarray, spacing: float, outward_mm: float
) -> tuple[Tensor, Tensor]:
    """Enlarge a structure in the target of ``forward``; leave what is far from it unchanged.

    Parameters
    ----------
    forward, inverse : Tensor, shape (1, D, *space)
        A map and its inverse, in voxels; ``forward`` maps to the grid of ``mask``.
    mask : ndarray of bool, shape (*space)
        The structure.
    spacing : float
        Voxel size in mm.
    outward_mm : float
        Mean distance that its wall is moved outwards.

    Returns
    -------
    forward, inverse : Tensor, shape (1, D, *space)
        Inverse of each other to a few hundredths of a millimetre on average, and a few tenths where the structure is
        enlarged most.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.spatial import identity, sample
    >>> from regcore.synthesis.diffeomorphism import expanded
    >>> identical = torch.zeros(1, 2, 24, 24, dtype=torch.float64)
    >>> mask = np.zeros((24, 24), dtype=bool)
    >>> mask[10:14, 10:14] = True
    >>> forward, inverse = expanded(identical, identical, mask, spacing=2, outward_mm=1)
    >>> warped = sample(torch.from_numpy(mask)[None, None].double(), identity((24, 24), forward) + forward)
    >>> warped.sum().item() > mask.sum().item()
    True
    """
    velocity = torch.from_numpy(_outward(mask, spacing) * (outward_mm / spacing))[None]
    forward = compose(forward, integrate(-velocity))
    return forward, compose(integrate(velocity), inverse)


def _outward(mask: np.ndarray, spacing: float) -> np.ndarray:
    """Smooth vectors (D, *space) away from a structure, of mean length 1 at its wall, that fade with distance."""
    smooth = gaussian_filter(mask.astype(float), REACH_MM / spacing)
    away = -np.stack(np.gradient(smooth))
    wall = mask ^ binary_dilation(mask)
    return away / np.linalg.norm(away[:, wall], axis=0).mean()


def random_affine(ndim: int, generator: np.random.Generator) -> np.ndarray:
    """A random rotation of ±1.5°, scale of ±1.5 % and shift of ±1 mm about the origin.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    generator : numpy Generator
        The same state gives the same matrix.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        In mm.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.synthesis.diffeomorphism import random_affine
    >>> random_affine(2, np.random.default_rng(0)).round(2).tolist()
    [[1.0, 0.02, -0.97], [-0.02, 0.99, 0.63], [0.0, 0.0, 1.0]]
    """
    matrix = np.diag(1 + generator.uniform(-0.015, 0.015, ndim))
    for a in range(ndim):
        for b in range(a + 1, ndim):
            angle = np.deg2rad(generator.uniform(-1.5, 1.5))
            rotation = np.eye(ndim)
            rotation[[a, b], [a, b]] = np.cos(angle)
            rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
            matrix = rotation @ matrix
    result = np.eye(ndim + 1)
    result[:ndim, :ndim] = matrix
    result[:ndim, ndim] = generator.uniform(-1, 1, ndim)
    return result


def then_affine(displacement: Tensor, voxel_matrix: np.ndarray) -> Tensor:
    """Displacement of "apply ``displacement``, then the matrix", all in voxels.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels.
    voxel_matrix : ndarray, shape (D + 1, D + 1)
        Voxels → voxels.

    Returns
    -------
    Tensor, shape (1, D, *space)

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.synthesis.diffeomorphism import then_affine
    >>> shift = np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]])
    >>> then_affine(torch.ones(1, 2, 4, 4, dtype=torch.float64), shift)[0, :, 1, 1].tolist()
    [3.0, 1.0]
    """
    matrix = torch.from_numpy(voxel_matrix)
    here = identity(displacement.shape[2:], displacement)
    return _apply(matrix, here + displacement) - here


def affine_then(voxel_matrix: np.ndarray, displacement: Tensor) -> Tensor:
    """Displacement of "apply the matrix, then ``displacement``", all in voxels.

    Parameters
    ----------
    voxel_matrix : ndarray, shape (D + 1, D + 1)
        Voxels → voxels.
    displacement : Tensor, shape (1, D, *space)
        In voxels.

    Returns
    -------
    Tensor, shape (1, D, *space)

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.synthesis.diffeomorphism import affine_then
    >>> shift = np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]])
    >>> affine_then(shift, torch.ones(1, 2, 4, 4, dtype=torch.float64))[0, :, 1, 1].tolist()
    [3.0, 1.0]
    """
    matrix = torch.from_numpy(voxel_matrix)
    here = identity(displacement.shape[2:], displacement)
    moved = _apply(matrix, here)
    return moved + sample(displacement, moved, border="edge") - here


def _apply(matrix: Tensor, points: Tensor) -> Tensor:
    moved = torch.einsum("ij,bj...->bi...", matrix[:-1, :-1], points)
    return moved + matrix[:-1, -1].view(1, -1, *[1] * (points.ndim - 2))


def _refine_inverse(forward: Tensor, inverse: Tensor, iterations: int = 10) -> Tensor:
    """Remove the error of scaling and squaring: each pass subtracts compose(inverse, forward)."""
    for _ in range(iterations):
        inverse = inverse - compose(inverse, forward)
    return inverse
