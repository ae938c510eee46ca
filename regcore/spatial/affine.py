"""Affine maps in voxels: from parameters, to displacements, fitted to points, between grids.

A matrix is ``(B, D + 1, D + 1)``, homogeneous, and acts on columns of voxel coordinates whose component order
is the array axis order: ``φ(p) = A p + t``.  Like a displacement, it maps the fixed grid to the positions where the
moving image is sampled.  Affine registration of two images is in :mod:`regcore.alignment`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.checks import describe, require_field, require_finite, require_floating, require_same_shape
from regcore.spatial.sampling import identity

#: The planes of the rotation angles, first axis towards second: about axes 0, 1 and 2 in 3-D.
PLANES = {2: [(0, 1)], 3: [(1, 2), (2, 0), (0, 1)]}
#: Points whose smallest variance is below this share of the largest do not determine an affine.
FLAT = 1e-12


def affine_matrix(
    translation: Tensor,
    rotation: Tensor | None = None,
    scaling: Tensor | None = None,
    shear: Tensor | None = None,
    centre: Tensor | Sequence[float] | None = None,
) -> Tensor:
    """Build affine maps from parameters: φ(p) = c + t + R Z S (p − c).

    A point is first sheared, then scaled along the axes, then rotated, all about ``centre``, then translated
    (M = T R Z S, the order of VoxelMorph's and of ``transforms3d.affines.compose``).  Everything is in
    voxels: on a grid with unequal spacing this is not a rotation in space; build that in mm and convert it
    with :func:`affine_between_grids`.

    Parameters
    ----------
    translation : Tensor, shape (B, D)
        Voxels along each array axis.
    rotation : Tensor, shape (B, 1) in 2-D, (B, 3) in 3-D, optional
        Radians.  2-D: from axis 0 towards axis 1.  3-D: R = R₀ R₁ R₂ with Rᵢ right-handed about axis i, the
        intrinsic Euler angles "XYZ".
    scaling : Tensor, shape (B, D), optional
        Z = diag(scaling).
    shear : Tensor, shape (B, 1) in 2-D, (B, 3) in 3-D, optional
        Entries of S above its unit diagonal: (0, 1), (0, 2), (1, 2).
    centre : Tensor or sequence of float, shape (D,) or (B, D), optional
        Voxel coordinates; by default the origin, voxel 0.  The centre of a grid is ``(n - 1) / 2``.

    Returns
    -------
    Tensor, shape (B, D + 1, D + 1)
        With ``translation``'s type and device; differentiable in every parameter.

    Raises
    ------
    ValueError
        A parameter has another shape (without the batch axis it applies to all), or is not finite.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import affine_matrix
    >>> quarter = affine_matrix(torch.zeros(1, 2), rotation=torch.tensor([[torch.pi / 2]]))
    >>> (quarter[0] @ torch.tensor([1.0, 1.0, 1.0])).round(decimals=3).tolist()
    [-1.0, 1.0, 1.0]
    """
    if translation.ndim != 2 or translation.shape[1] not in PLANES or not translation.is_floating_point():
        raise ValueError(f"{describe('translation', translation)} must be (batch, 2) or (batch, 3), floating-point")
    require_finite("translation", translation)
    ndim = translation.shape[1]
    turns = len(PLANES[ndim])
    linear = _rotation(_parameter("rotation", rotation, turns, 0.0, translation), ndim)
    linear = linear * _parameter("scaling", scaling, ndim, 1.0, translation)[:, None]
    linear = linear @ _unit_triangle(_parameter("shear", shear, turns, 0.0, translation), ndim)
    centre = _parameter("centre", centre, ndim, 0.0, translation)
    return _homogeneous(linear, centre + translation - _apply(linear, centre))


def affine_displacement(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """Displacement of affine maps on a grid: u(p) = (A − I) p + t.

    The identity gives exactly zero.

    Parameters
    ----------
    matrix : Tensor, shape (B, D, D + 1) or (B, D + 1, D + 1)
        Voxels of the fixed grid → voxels.
    shape : sequence of int, length D
        Voxels of the fixed grid along each array axis.

    Returns
    -------
    Tensor, shape (B, D, *shape)
        In voxels; differentiable in ``matrix``.

    Raises
    ------
    ValueError
        The matrix has another shape, a last row other than 0 … 0 1, or is not finite.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import affine_displacement, affine_matrix
    >>> matrix = affine_matrix(torch.tensor([[0.0, 2.0]]), scaling=torch.tensor([[1.5, 1.0]]))
    >>> affine_displacement(matrix, (3, 2))[0, :, 2, 1].tolist()
    [1.0, 2.0]
    """
    ndim = len(shape)
    if matrix.ndim != 3 or matrix.shape[1:] not in ((ndim, ndim + 1), (ndim + 1, ndim + 1)) or ndim not in PLANES:
        raise ValueError(
            f"{describe('matrix', matrix)} must be (batch, {ndim}, {ndim + 1}) or (batch, {ndim + 1}, {ndim + 1}) "
            f"for a grid of {tuple(shape)}"
        )
    require_floating("matrix", matrix)
    require_finite("matrix", matrix)
    if matrix.shape[1] > ndim:
        _require_affine("matrix", matrix)
    gradient = matrix[:, :ndim, :ndim] - torch.eye(ndim, dtype=matrix.dtype, device=matrix.device)
    displacement = matrix[:, :ndim, ndim]
    for axis, size in enumerate(shape):  # axis by axis: only the last sum is as large as the result
        along = gradient[:, :, axis, None] * torch.arange(size, dtype=matrix.dtype, device=matrix.device)
        displacement = displacement[..., None] + along.view(*along.shape[:2], *[1] * axis, size)
    return displacement


def fit_affine(points: Tensor, targets: Tensor, weights: Tensor | None = None, kind: str = "affine") -> Tensor:
    """Least-squares affine or rigid map of points onto targets, in closed form.

    Minimises Σᵢ wᵢ ‖A xᵢ + t − yᵢ‖².  With Σ and K the weighted covariances of x with x and of y with x, the
    affine solution is A = K Σ⁻¹; the rigid one is the rotation U diag(1, …, det U Vᵀ) Vᵀ of K = U S Vᵀ [1]_ [2]_,
    never a reflection.  Sums are computed in float64.

    Parameters
    ----------
    points, targets : Tensor, shape (B, D, *any)
        Corresponding coordinates, one point for each element of ``any``.
    weights : Tensor, shape (B or 1, 1, *any), optional
        Not negative, for instance a mask.
    kind : {"affine", "rigid"}
        Whether scales and shears are fitted too.

    Returns
    -------
    Tensor, shape (B, D + 1, D + 1)
        In ``targets``' type.

    Raises
    ------
    ValueError
        The shapes differ or are not those above; a value is not finite; a weight is negative; or the points do
        not determine the map (an affine map needs extent along every axis, a rigid one in 3-D along two).

    References
    ----------
    .. [1] Kabsch, "A solution for the best rotation to relate two sets of vectors", Acta Crystallographica A 1976.
    .. [2] Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import fit_affine
    >>> points = torch.tensor([[[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
    >>> found = fit_affine(points, 2 * points + 3)[0]
    >>> found.round(decimals=3).tolist()
    [[2.0, 0.0, 3.0], [0.0, 2.0, 3.0], [0.0, 0.0, 1.0]]
    """
    if points.ndim < 3 or points.shape[1] not in PLANES or kind not in ("affine", "rigid"):
        raise ValueError(f"{describe('points', points)} must be (batch, 2 or 3, *any), and kind {kind!r} a known one")
    require_same_shape("points", points, "targets", targets)
    require_floating("points", points)
    require_floating("targets", targets)
    require_finite("points", points)
    require_finite("targets", targets)
    share = _shares(weights, points)
    x, y = points.flatten(2).double(), targets.flatten(2).double()
    x_mean, y_mean = (share * x).sum(-1), (share * y).sum(-1)
    x, y = x - x_mean[..., None], y - y_mean[..., None]
    weighted = (share * x).mT
    fit = _linear_fit if kind == "affine" else _rotation_fit
    linear = fit(x @ weighted, y @ weighted)
    return _homogeneous(linear, y_mean - _apply(linear, x_mean)).to(targets.dtype)


def fit_affine_to_displacement(displacement: Tensor, weights: Tensor | None = None, kind: str = "affine") -> Tensor:
    """Affine or rigid map closest to a displacement; the inverse of :func:`affine_displacement`.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *space)
        In voxels.
    weights, kind
        As for :func:`fit_affine`; a mask of shape (B or 1, 1, *space) restricts the fit to its inside.

    Returns
    -------
    Tensor, shape (B, D + 1, D + 1)

    Raises
    ------
    ValueError
        As :func:`fit_affine`; a grid with a single voxel along an axis does not determine an affine map.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import affine_displacement, affine_matrix, fit_affine_to_displacement
    >>> matrix = affine_matrix(torch.tensor([[1.0, -2.0]]))
    >>> found = fit_affine_to_displacement(affine_displacement(matrix, (4, 4)))
    >>> found[0, :2, 2].round(decimals=3).tolist()
    [1.0, -2.0]
    """
    require_field("displacement", displacement)
    require_finite("displacement", displacement)
    points = identity(displacement.shape[2:], displacement.double()).expand(displacement.shape)
    return fit_affine(points, points + displacement, weights, kind).to(displacement.dtype)


def affine_between_grids(
    matrix: Tensor | np.ndarray, fixed: Tensor | np.ndarray, moving: Tensor | np.ndarray
) -> Tensor:
    """Express a map of the world in voxels: voxels of the fixed grid → voxels of the moving grid.

    ``moving⁻¹ · matrix · fixed``.  With the inverses of the grids instead, it converts from voxels to the world.  For a
    displacement in voxels of the fixed grid, as in :class:`regcore.images.field.DisplacementField`, pass the fixed grid
    for both.

    Parameters
    ----------
    matrix : Tensor or ndarray, shape (D + 1, D + 1) or (B, D + 1, D + 1)
        World of the fixed image → world of the moving image, mm, such as a matrix of ITK or ANTs after LPS → RAS.
    fixed, moving : Tensor or ndarray, shape (D + 1, D + 1) or (B, D + 1, D + 1)
        Voxels → world of each grid, mm: :attr:`regcore.images.volume.Grid.affine`.

    Returns
    -------
    Tensor, shape (B, D + 1, D + 1), B = 1 if nothing has a batch axis
        With the type and device of ``matrix`` if that is a tensor, otherwise float64.

    Raises
    ------
    ValueError
        A shape is wrong or differs; a value is not finite; or a last row is not 0 … 0 1.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.spatial import affine_between_grids
    >>> fixed, moving = np.diag([2.0, 2.0, 1.0]), np.diag([1.0, 1.0, 1.0])
    >>> affine_between_grids(np.eye(3), fixed, moving)[0].diag().tolist()
    [2.0, 2.0, 1.0]
    """
    like = matrix if isinstance(matrix, Tensor) else torch.empty(0, dtype=torch.float64)
    matrices = [_world_matrix(*pair, like) for pair in (("matrix", matrix), ("fixed", fixed), ("moving", moving))]
    for name, grid in zip(("fixed", "moving"), matrices[1:], strict=True):
        if grid.shape[1:] != matrices[0].shape[1:] or len({len(grid), len(matrices[0]), 1}) > 2:
            raise ValueError(f"{describe(name, grid)} must be as large as {describe('matrix', matrices[0])}")
    between = torch.linalg.solve(matrices[2], matrices[0] @ matrices[1])
    last = torch.zeros_like(between[:, -1:])
    last[..., -1] = 1
    return torch.cat([between[:, :-1], last], dim=1).to(like.dtype)


def _parameter(name: str, value: Tensor | Sequence[float] | None, count: int, default: float, like: Tensor) -> Tensor:
    """A parameter as (B, count) with the type of ``like`` (B, D); its default if it is None."""
    value = [default] * count if value is None else value
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if value.ndim not in (1, 2) or value.shape[-1] != count or (value.ndim == 2 and len(value) != len(like)):
        raise ValueError(
            f"{describe(name, value)} must be ({count},) or ({len(like)}, {count}) for {describe('translation', like)}"
        )
    require_finite(name, value)
    return value.expand(len(like), count)


def _rotation(angles: Tensor, ndim: int) -> Tensor:
    rotation = torch.eye(ndim, dtype=angles.dtype, device=angles.device).repeat(len(angles), 1, 1)
    for (first, second), angle in zip(PLANES[ndim], angles.unbind(1), strict=True):
        a, b = rotation[..., first], rotation[..., second]  # rotating the plane mixes two columns
        columns = list(rotation.unbind(-1))
        columns[first], columns[second] = (
            a * angle.cos()[:, None] + b * angle.sin()[:, None],
            b * angle.cos()[:, None] - a * angle.sin()[:, None],
        )
        rotation = torch.stack(columns, dim=-1)
    return rotation


def _unit_triangle(shear: Tensor, ndim: int) -> Tensor:
    triangle = torch.eye(ndim, dtype=shear.dtype, device=shear.device).repeat(len(shear), 1, 1)
    rows, columns = torch.triu_indices(ndim, ndim, offset=1)
    triangle[:, rows, columns] = shear
    return triangle


def _apply(linear: Tensor, vectors: Tensor) -> Tensor:
    return (linear @ vectors[..., None])[..., 0]


def _homogeneous(linear: Tensor, offset: Tensor) -> Tensor:
    top = torch.cat([linear, offset[..., None]], dim=-1)
    last = torch.zeros_like(top[:, :1])
    last[..., -1] = 1
    return torch.cat([top, last], dim=1)


def _require_affine(name: str, matrix: Tensor) -> None:
    """Refuse a transposed or projective matrix, if its values can be read without waiting for a GPU."""
    if torch.compiler.is_compiling() or not matrix.is_cpu:
        return
    last = torch.zeros(matrix.shape[-1], dtype=matrix.dtype)
    last[-1] = 1
    # Products and exponentials of matrices may be off by rounding there.
    if not torch.allclose(matrix.detach()[:, -1], last.expand(len(matrix), -1), rtol=0, atol=1e-6):
        raise ValueError(f"{describe(name, matrix)} must have the last row 0 ... 0 1; is it transposed?")


def _world_matrix(name: str, value: Tensor | np.ndarray, like: Tensor) -> Tensor:
    """A (D + 1, D + 1) matrix, or a batch of them, as float64 (B, D + 1, D + 1) on the device of ``like``."""
    matrix = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, dtype=np.float64))
    if matrix.ndim not in (2, 3) or matrix.shape[-1] - 1 not in PLANES or matrix.shape[-2] != matrix.shape[-1]:
        raise ValueError(f"{describe(name, matrix)} must be 3x3 or 4x4, or a batch of such")
    require_floating(name, matrix)
    require_finite(name, matrix)
    matrix = matrix if matrix.ndim == 3 else matrix[None]
    _require_affine(name, matrix)
    return matrix.to(like.device, torch.float64)


def _shares(weights: Tensor | None, points: Tensor) -> Tensor:
    """Weights as (B or 1, 1, n), normalised to sum to one."""
    wanted = (1, *points.shape[2:])
    if weights is None:
        weights = torch.ones(1, *wanted, device=points.device)
    if weights.shape[1:] != wanted or len(weights) not in (1, len(points)):
        raise ValueError(
            f"{describe('weights', weights)} must be {(len(points), *wanted)} for {describe('points', points)}"
        )
    require_finite("weights", weights)
    weights = weights.flatten(2).double()
    total = weights.sum(-1, keepdim=True)
    if weights.is_cpu and not torch.compiler.is_compiling() and (weights.min() < 0 or total.min() <= 0):
        raise ValueError(f"{describe('weights', weights)} must not be negative, and not all zero")
    return weights / total


def _linear_fit(covariance: Tensor, cross: Tensor) -> Tensor:
    _require_extent(torch.linalg.eigvalsh(covariance.detach()), 0, "affine")
    return torch.linalg.solve(covariance, cross, left=False)


def _rotation_fit(covariance: Tensor, cross: Tensor) -> Tensor:
    ndim = cross.shape[-1]
    _require_extent(torch.linalg.eigvalsh(covariance.detach()), 1, "rigid")
    left, _, right = torch.linalg.svd(cross)
    signs = torch.ones_like(cross[:, 0])
    signs[:, ndim - 1] = torch.linalg.det(left @ right).sign()
    return left * signs[:, None] @ right


def _require_extent(variances: Tensor, needed: int, kind: str) -> None:
    """Refuse points without extent along an axis that the map needs; ``variances`` are ascending."""
    if torch.compiler.is_compiling() or not variances.is_cpu:
        return
    if (variances[:, needed] <= FLAT * variances[:, -1]).any():
        raise ValueError(f"points with variances {variances.tolist()} along their axes do not determine the {kind} map")
