"""Random rigid motions and scales, and what they amount to."""

import numpy as np
from scipy.spatial.transform import Rotation

from capture.kinds import Kind


def draw_motion(kind: Kind, centre: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rotation and scales about ``centre``, then a shift."""
    ndim = len(centre)
    scales = np.exp(generator.uniform(*np.log(kind.scales), ndim))
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = rotation(ndim, kind.degrees, generator) @ np.diag(scales)
    return shift(centre + generator.uniform(-1, 1, ndim) * kind.shift_mm) @ matrix @ shift(-centre)


def rotation(ndim: int, degrees: float, generator: np.random.Generator) -> np.ndarray:
    """About a random axis by up to ``degrees``; 180 is uniform over all rotations."""
    if ndim == 2:
        turn = np.deg2rad(generator.uniform(-degrees, degrees))
        return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if degrees == 180:
        quaternion = generator.standard_normal(4)
        return Rotation.from_quat(quaternion / np.linalg.norm(quaternion)).as_matrix()
    axis = generator.standard_normal(3)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.deg2rad(generator.uniform(0, degrees))).as_matrix()


def angle(matrix: np.ndarray) -> float:
    """Degrees of the rotation in a matrix, by its polar decomposition."""
    left, _, right = np.linalg.svd(matrix[:-1, :-1])
    turned = left @ right
    cosine = (np.trace(turned) - 1) / 2 if len(turned) == 3 else np.trace(turned) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def extent(points: np.ndarray) -> float:
    """Length of a set of points along its longest principal axis."""
    centred = points - points.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return float(np.ptp(centred @ axes, axis=0).max())


def shift(vector: np.ndarray) -> np.ndarray:
    """The matrix that adds ``vector``."""
    matrix = np.eye(len(vector) + 1)
    matrix[:-1, -1] = vector
    return matrix
