"""Scaling and squaring in plain torch.

u₀ = v / 2ⁿ, then n times u(p) ← u(p) + u(p + u(p)), interpolated linearly and clamped at the border: the displacement
of exp(v).  The gradient of one step, for g that arrives, is g + (∇u(p + u))ᵀ g, and what each voxel gave to the
interpolation at its corners.
"""

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from regcore.kernels.warp.reference import warp_reference


def integrate_reference(velocity: Tensor, steps: int, half: bool = False) -> Tensor:
    """Displacement of exp(v) for a velocity (B, D, *space).

    With ``half`` what lies between the squarings is rounded to 16 bits; the gradient passes as if it were not.
    """
    displacement = velocity / 2**steps
    for step in range(steps):
        # The backward keeps the displacement before each squaring, and works out anew what lies within.
        displacement = checkpoint(square_reference, displacement, use_reentrant=False)
        if half and step < steps - 1:
            displacement = displacement + (displacement.half().to(displacement.dtype) - displacement).detach()
    return displacement


def square_reference(displacement: Tensor) -> Tensor:
    return displacement + warp_reference(displacement, displacement, edge=True)
