"""Composing, integrating and inverting displacements, and their Jacobian.

Displacements and velocities are ``(B, D, *space)`` in voxels.  Outside its grid a displacement keeps the
value at the edge, so that compositions near the border stay smooth.
"""

import torch
from torch import Tensor

from regcore.spatial.warp import warp


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Displacement of "apply ``first``, then ``second``": u(p) = u₁(p) + u₂(p + u₁(p))."""
    return first + warp(second, first, border="edge")


def integrate(velocity: Tensor, steps: int = 7) -> Tensor:
    """Displacement of exp(v) of a stationary velocity field by scaling and squaring.

    Parameters
    ----------
    velocity : Tensor, shape (B, D, *space)
    steps : int
        Number of squarings; the first map is p + v(p) / 2**steps.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def invert(displacement: Tensor, iterations: int = 30) -> tuple[Tensor, float]:
    """Inverse displacement by the fixed point v ← −u(p + v(p)).

    Converges where u is a contraction (‖∇u‖ < 1).

    Returns
    -------
    inverse : Tensor, shape of ``displacement``
    residual : float
        Largest length of ``compose(inverse, displacement)`` in voxels; near zero where it converged.
    """
    inverse = -displacement
    for _ in range(iterations):
        inverse = -warp(displacement, inverse, border="edge")
    residual = compose(inverse, displacement).norm(dim=1).max().item()
    return inverse, residual


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """det ∇φ of φ(p) = p + u(p), by central differences (one-sided at the border).

    The determinant does not depend on units or orientation: voxels of the fixed grid in, voxels of the
    fixed grid out.

    Returns
    -------
    Tensor, shape (B, *space)
    """
    ndim = displacement.shape[1]
    gradients = torch.gradient(displacement, dim=tuple(range(2, 2 + ndim)))
    jacobian = torch.stack(gradients, dim=-1).movedim(1, -2)
    jacobian = jacobian + torch.eye(ndim, dtype=displacement.dtype, device=displacement.device)
    return torch.linalg.det(jacobian)
