"""Jacobian determinants of p + u(p), and the counts that tell whether it is a digital diffeomorphism.

:mod:`~regcore.kernels.jacobian.reference` has the equations and the backward, :mod:`~regcore.kernels.jacobian.cpu` the
Numba kernels, :mod:`~regcore.kernels.jacobian.gpu` the Triton kernels.  The backward pass of the determinant is plain
torch on every device; the counts have no gradient.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_kernel
from regcore.kernels.jacobian import cpu
from regcore.kernels.jacobian.reference import (
    determinant_backward,
    determinant_reference,
    digital_folds_reference,
)
from regcore.kernels.launch import cpu_operator, on_its_device


def determinant(displacement: Tensor) -> Tensor:
    """As :func:`determinant_reference`, with the kernel if possible.

    Parameters
    ----------
    displacement : Tensor, shape (B, D, *space)
        In voxels.

    Returns
    -------
    Tensor, shape (B, *space)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.jacobian import determinant
    >>> determinant(torch.zeros(1, 2, 4, 4)).unique().tolist()
    [1.0]
    """
    fits = min(displacement.shape[2:]) > 1 and (displacement.is_cpu or displacement.numel() < 2**31)
    if fits and has_kernel(displacement, operator="jacobian_determinant"):
        return torch.ops.regcore.jacobian_determinant(displacement)
    return determinant_reference(displacement)


def digital_folds(displacement: Tensor, mask: Tensor) -> Tensor:
    """As :func:`digital_folds_reference` [1]_, with the kernel if possible.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels.
    mask : Tensor of bool, shape (*space)
        Voxels to consider.

    Returns
    -------
    Tensor, shape (5,)
        Voxels, voxels whose central determinant is ≤ 0, voxels with any simplex ≤ 0, simplices ≤ 0, and the
        volume turned inside out, in voxels.

    References
    ----------
    .. [1] Liu, Chen, Wei, Carass and Prince, "On finite difference Jacobian computation in deformable image
       registration", IJCV 2024, Section 4.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.jacobian import digital_folds
    >>> digital_folds(torch.zeros(1, 2, 5, 5), torch.ones(5, 5, dtype=torch.bool)).tolist()
    [9.0, 0.0, 0.0, 0.0, 0.0]
    """
    fits = displacement.shape[1] == 3 and min(displacement.shape[2:]) >= 3
    fits = fits and (displacement.is_cpu or displacement.numel() < 2**31) and mask.device == displacement.device
    if fits and has_kernel(displacement, operator="digital_folds"):
        return torch.ops.regcore.digital_folds(displacement.detach(), mask)
    return digital_folds_reference(displacement, mask)


@cpu_operator("regcore::jacobian_determinant")
def _determinant(displacement: Tensor) -> Tensor:
    return cpu.determinant(displacement)


@_determinant.register_kernel("cuda")
@on_its_device
def _(displacement: Tensor) -> Tensor:
    from regcore.kernels.jacobian import gpu

    return gpu.determinant(displacement)


@_determinant.register_fake
def _(displacement: Tensor) -> Tensor:
    return displacement.new_empty(displacement.shape[:1] + displacement.shape[2:])


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(ctx, gradient: Tensor) -> Tensor:
    return determinant_backward(gradient, ctx.saved_tensors[0])


_determinant.register_autograd(_backward, setup_context=_remember)


@cpu_operator("regcore::digital_folds")
def _digital_folds(displacement: Tensor, mask: Tensor) -> Tensor:
    return cpu.digital_folds(displacement, mask)


@_digital_folds.register_kernel("cuda")
@on_its_device
def _(displacement: Tensor, mask: Tensor) -> Tensor:
    from regcore.kernels.jacobian import gpu

    return gpu.digital_folds(displacement, mask)


@_digital_folds.register_fake
def _(displacement: Tensor, mask: Tensor) -> Tensor:
    return displacement.new_empty(5, dtype=torch.float64)
