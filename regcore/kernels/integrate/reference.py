"""Scaling and squaring in plain torch.

u₀ = v / 2ⁿ, then n times u(p) ← u(p) + u(p + u(p)), interpolated linearly and clamped at the border: the displacement
of exp(v).  The gradient of one step, for an incoming gradient g, is g + (∇u(p + u))ᵀ g, plus the contributions of each
voxel to the corners of its interpolation.
"""

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from regcore.kernels.warp.reference import warp_reference


def integrate_reference(velocity: Tensor, steps: int, half: bool = False) -> Tensor:
    """Displacement of exp(v) for a velocity (B, D, *space).

    With ``half``, states between squarings are rounded to 16 bits; the gradient ignores the rounding.
    """
    displacement = velocity / 2**steps
    for step in range(steps):
        # The backward pass stores the displacement before each squaring, and recomputes the rest.
        displacement = checkpoint(square_reference, displacement, use_reentrant=False)
        if half and step < steps - 1:
            displacement = displacement + (displacement.half().to(displacement.dtype) - displacement).detach()
    return displacement


def square_reference(displacement: Tensor) -> Tensor:
    return displacement + warp_reference(displacement, displacement, edge=True)
