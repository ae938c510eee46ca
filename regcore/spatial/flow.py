"""Composition, integration, inversion and Jacobian of displacements.

Displacements and velocities are ``(B, D, *space)`` in voxels.  Outside its grid a displacement has the
value of the nearest edge voxel, so that compositions near the border stay smooth.
"""

from torch import Tensor

from regcore.checks import require_field, require_finite, require_same_shape
from regcore.kernels import integrate as integration
from regcore.kernels import jacobian
from regcore.kernels import warp as kernel
from regcore.kernels.jacobian.reference import corner_determinants_reference


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Displacement of "apply ``first``, then ``second``": u(p) = u₁(p) + u₂(p + u₁(p)).

    Parameters
    ----------
    first, second : Tensor, shape (B, D, *space)
        In voxels of the same grid.

    Returns
    -------
    Tensor, shape (B, D, *space)

    Raises
    ------
    ValueError
        The two are not fields of the same shape, or not finite.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import compose
    >>> shift = torch.ones(1, 2, 4, 4)
    >>> compose(shift, shift)[0, :, 0, 0].tolist()
    [2.0, 2.0]
    """
    for name, field in (("first", first), ("second", second)):
        require_field(name, field)
        require_finite(name, field)
    require_same_shape("first", first, "second", second)
    return _composed(first, second)


def integrate(velocity: Tensor, steps: int = 7, half: bool = False) -> Tensor:
    """Displacement of exp(v) of a stationary velocity field by scaling and squaring [1]_.

    The first map is p + v(p) / 2**steps, and every step composes the map with itself.  The backward pass stores
    only the velocity and recomputes the squarings.

    Parameters
    ----------
    velocity : Tensor, shape (B, D, *space)
        In voxels of its own grid, which may be coarser than the image's; see
        :func:`~regcore.spatial.resample_displacement`.
    steps : int
        Number of squarings.
    half : bool
        On a GPU, store the intermediate squarings in 16 bits: less memory traffic, at an error of about a
        thousandth of the largest displacement.

    Returns
    -------
    Tensor, shape (B, D, *space)

    Raises
    ------
    ValueError
        ``steps`` is negative, or the velocity is not a field or not finite.

    References
    ----------
    .. [1] Arsigny, Commowick, Pennec and Ayache, "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI
       2006.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import integrate
    >>> velocity = torch.full((1, 2, 8, 8), 0.5)
    >>> integrate(velocity)[0, :, 4, 4].tolist()
    [0.5, 0.5]
    """
    require_field("velocity", velocity)
    require_finite("velocity", velocity)
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, not {steps}")
    return integration.integrate(velocity, steps, half)


def invert(displacement: Tensor, iterations: int = 30) -> tuple[Tensor, float]:
    """Inverse displacement by the fixed point v ← −u(p + v(p)).

    Converges where u is a contraction (‖∇u‖ < 1).

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *space)
        In voxels.
    iterations : int
        Number of fixed-point steps.

    Returns
    -------
    inverse : Tensor, shape of ``displacement``
    residual : float
        Largest length of ``compose(inverse, displacement)`` in voxels; near zero if it converged.

    Raises
    ------
    ValueError
        The displacement is not a field or not finite, or ``iterations`` is negative.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import invert
    >>> shift = torch.full((1, 2, 6, 6), 0.25)
    >>> inverse, residual = invert(shift)
    >>> inverse[0, :, 3, 3].tolist(), residual
    ([-0.25, -0.25], 0.0)
    """
    require_field("displacement", displacement)
    require_finite("displacement", displacement)
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, not {iterations}")
    inverse = -displacement
    for _ in range(iterations):
        inverse = -kernel.warp(displacement, inverse, edge=True)
    residual = _composed(inverse, displacement).norm(dim=1).max().item()
    return inverse, residual


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """det ∇φ of φ(p) = p + u(p), by central differences (one-sided at the border).

    The determinant does not depend on units or orientation, so voxels of the fixed grid are used throughout.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *space)
        In voxels, two or more along each axis.

    Returns
    -------
    Tensor, shape (B, *space)

    Raises
    ------
    ValueError
        The displacement is not a field, not finite, or only one voxel thick.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import identity, jacobian_determinant
    >>> stretch = 0.5 * identity((4, 4), torch.zeros(1))
    >>> jacobian_determinant(stretch)[0, 1, 1].item()
    2.25
    """
    _require_thick(displacement, 2)
    return jacobian.determinant(displacement)


def corner_jacobian_determinants(displacement: Tensor) -> Tensor:
    """det ∇φ at every inner voxel with a one-sided difference along each axis, on either side.

    A map is a digital diffeomorphism only where all of them are positive [1]_; central differences cannot show that.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *space)
        In voxels, three or more along each axis.

    Returns
    -------
    Tensor, shape (B, 2**D, *(n - 2 for n in space))
        In the order of ``itertools.product((1, -1), repeat=D)``: 1 is the neighbour ahead on that axis.

    Raises
    ------
    ValueError
        The displacement is not a field, not finite, or fewer than three voxels thick.

    References
    ----------
    .. [1] Liu, Chen, Wei, Carass and Prince, "On finite difference Jacobian computation in deformable image
       registration", IJCV 2024, Section 4.

    Examples
    --------
    >>> import torch
    >>> from regcore.spatial import corner_jacobian_determinants
    >>> found = corner_jacobian_determinants(torch.zeros(1, 2, 4, 5))
    >>> tuple(found.shape), found.unique().tolist()
    ((1, 4, 2, 3), [1.0])
    """
    _require_thick(displacement, 3)
    return corner_determinants_reference(displacement)[:, : 2 ** displacement.shape[1]]


def _composed(first: Tensor, second: Tensor) -> Tensor:
    return first + kernel.warp(second, first, edge=True)


def _require_thick(displacement: Tensor, voxels: int) -> None:
    require_field("displacement", displacement)
    require_finite("displacement", displacement)
    if min(displacement.shape[2:]) < voxels:
        raise ValueError(f"displacement {tuple(displacement.shape)} must have {voxels} voxels or more along each axis")
