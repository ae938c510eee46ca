"""Poses that are surely wrong, near a found one, or mirrored: maps of the fixed image's world, made from its view."""

import itertools

import numpy as np

from regcore.evaluation.likeness import View

#: Turns (degrees, about each axis), shifts (parts of the content's extent) and stretches of poses near the found one.
NEAR_TURNS, NEAR_SHIFTS, NEAR_STRETCHES = (12, 25), (0.08, 0.16), (0.75, 1.33)
#: Shifts of the wrong poses, parts of the content's length along the axis; and their turns in 2-D, degrees.
WRONG_SHIFTS, WRONG_TURNS = (0.25, 0.4), (45, 75, 105, 135, 165, 195, 225, 255, 285, 315)


def wrong_poses(shown: View) -> list[np.ndarray]:
    """Maps of the fixed world that spoil any alignment: all turns onto other axes, and shifts along each axis.

    Parameters
    ----------
    shown : View
        Of the fixed image.

    Returns
    -------
    list of ndarray, shape (D + 1, D + 1)
        35 in 3-D, 18 in 2-D.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import view
    >>> from regcore.evaluation.poses import wrong_poses
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> len(wrong_poses(view(Volume(image, Grid.centred((64, 64), spacing=(1, 1), centre=(0, 0))))))
    18
    """
    ndim = len(shown.sides)
    turns = _onto_axes() if ndim == 3 else [_turn(2, 0, degrees) for degrees in WRONG_TURNS]
    shifts = [
        sign * part * shown.sides[axis] * shown.directions[:, axis]
        for axis, part, sign in itertools.product(range(ndim), WRONG_SHIFTS, (-1, 1))
    ]
    return [_about(shown, turn) for turn in turns] + [_about(shown, np.eye(ndim), shift) for shift in shifts]


def near_poses(shown: View) -> list[np.ndarray]:
    """Maps of the fixed world that would improve an alignment that is somewhat wrong; as :func:`wrong_poses`.

    Parameters
    ----------
    shown : View
        Of the fixed image.

    Returns
    -------
    list of ndarray, shape (D + 1, D + 1)
        Turned by 12° or 25° about an array axis, shifted by 8 or 16 % of the extent, or stretched along one or all
        axes.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import view
    >>> from regcore.evaluation.poses import near_poses
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> len(near_poses(view(Volume(image, Grid.centred((64, 64), spacing=(1, 1), centre=(0, 0))))))
    18
    """
    ndim, axes = len(shown.sides), shown.directions
    turns = [
        axes @ _turn(ndim, plane, sign * degrees) @ np.linalg.inv(axes)
        for plane, degrees, sign in itertools.product(range(ndim * (ndim - 1) // 2), NEAR_TURNS, (-1, 1))
    ]
    shifts = [
        sign * part * shown.extent * axes[:, axis]
        for axis, part, sign in itertools.product(range(ndim), NEAR_SHIFTS, (-1, 1))
    ]
    stretches = [
        np.eye(ndim) + (factor - 1) * np.outer(axes[:, axis], axes[:, axis])
        for axis, factor in itertools.product(range(ndim), NEAR_STRETCHES)
    ]
    every = [factor * np.eye(ndim) for factor in NEAR_STRETCHES]
    linear = [_about(shown, matrix) for matrix in [*turns, *stretches, *every]]
    return linear + [_about(shown, np.eye(ndim), shift) for shift in shifts]


def mirrored_poses(shown: View) -> list[np.ndarray]:
    """Mirrors across each array axis, through the centre of the content; as :func:`wrong_poses`.

    Parameters
    ----------
    shown : View
        Of the fixed image.

    Returns
    -------
    list of ndarray, shape (D + 1, D + 1)

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation.likeness import view
    >>> from regcore.evaluation.poses import mirrored_poses
    >>> from regcore.images.volume import Grid, Volume
    >>> image = np.random.default_rng(0).random((64, 64))
    >>> len(mirrored_poses(view(Volume(image, Grid.centred((64, 64), spacing=(1, 1), centre=(0, 0))))))
    2
    """
    return [_about(shown, np.eye(len(axis)) - 2 * np.outer(axis, axis)) for axis in shown.directions.T]


def _about(shown: View, linear: np.ndarray, shift: np.ndarray | float = 0) -> np.ndarray:
    """A linear map about the centre of the content, then a shift."""
    matrix = np.eye(len(linear) + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = shown.centre - linear @ shown.centre + shift
    return matrix


def _turn(ndim: int, plane: int, degrees: float) -> np.ndarray:
    """A rotation in one of the planes of the axes."""
    first, second = list(itertools.combinations(range(ndim), 2))[plane]
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(ndim)
    matrix[[first, second], [first, second]] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def _onto_axes() -> list[np.ndarray]:
    """The 23 rotations other than none that map the axes of space onto each other."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0 and not np.array_equal(matrix, np.eye(3)):
                found.append(matrix)
    return found
