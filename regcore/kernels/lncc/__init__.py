"""Squared local correlation of two images (LNCC), and its gradients, from sums over a box around every voxel.

:mod:`~regcore.kernels.lncc.reference` has the equation and both variants.  :mod:`~regcore.kernels.lncc.cpu` has the
Numba kernels, on the running sums of :mod:`~regcore.kernels.lncc.cpu_box_sums`; :mod:`~regcore.kernels.lncc.gpu` the
Triton kernels, on the sums of :mod:`~regcore.kernels.lncc.gpu_box_sums`.  The forward pass also computes the gradients,
so the backward pass only scales them.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_kernel
from regcore.kernels.launch import cpu_operator, on_its_device
from regcore.kernels.lncc import cpu
from regcore.kernels.lncc.reference import lncc_reference
from regcore.kernels.precomputed_gradients import returns_its_gradients


def lncc(fixed: Tensor, moving: Tensor, window: int, variant: str, gaussian: bool) -> Tensor:
    """As :func:`lncc_reference` (Eq. 6 of VoxelMorph [1]_), with the kernel if possible.

    Parameters
    ----------
    fixed, moving : Tensor, shape (B, C, *space)
        Images.
    window : int
        Side of the window in voxels.
    variant : {"ants", "voxelmorph"}
        As for :func:`regcore.losses.similarity.lncc`.
    gaussian : bool
        Weights of the window: a Gaussian of standard deviation ``window`` / 6, or equal.

    Returns
    -------
    Tensor, scalar

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 6.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.lncc import lncc
    >>> image = torch.arange(25.0).view(1, 1, 5, 5).sin()
    >>> round(lncc(image, 3 * image + 2, window=3, variant="ants", gaussian=False).item(), 4)
    -1.0
    """
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16)[: 2 if moving.is_cpu else 4]
    # Loops over an image in steps of many voxels overflow earlier than 32 bits.  The kernel has not been tested on a
    # GPU in 2-D, or with the gradient of the fixed image.
    tried = moving.is_cpu or (moving.ndim == 5 and not fixed.requires_grad)
    fits = tried and fixed.dtype == moving.dtype and moving.numel() < 2**31 - 2**21
    if gaussian or not (fits and has_kernel(fixed, moving, kinds=kinds, operator="lncc")):
        return lncc_reference(fixed, moving, window, variant, gaussian)
    tracked = torch.is_grad_enabled()
    return torch.ops.regcore.lncc(
        fixed, moving, window, variant, tracked and fixed.requires_grad, tracked and moving.requires_grad
    )[0]


@cpu_operator("regcore::lncc")
def _lncc(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return cpu.lncc(fixed, moving, window, variant, for_fixed, for_moving)


@_lncc.register_kernel("cuda")
@on_its_device
def _(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from regcore.kernels.lncc import gpu

    return gpu.lncc(fixed, moving, window, variant, for_fixed, for_moving)


@_lncc.register_fake
def _(
    fixed: Tensor, moving: Tensor, window: int, variant: str, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # In float32 for images of 16 bits, because the gradient of a mean over many voxels is too small for float16;
    # autograd casts it to their type after multiplying by the incoming gradient.
    kind = moving.dtype if moving.dtype == torch.float64 else torch.float32
    return (
        fixed.new_empty((), dtype=kind),
        fixed.new_empty(fixed.shape if for_fixed else 0, dtype=kind),
        moving.new_empty(moving.shape if for_moving else 0, dtype=kind),
    )


returns_its_gradients(_lncc)
