"""Diffusion regulariser: the mean squared forward difference of a field, and its gradient.

:mod:`~regcore.kernels.diffusion.reference` has the equation, :mod:`~regcore.kernels.diffusion.cpu` the Numba kernels,
:mod:`~regcore.kernels.diffusion.gpu` the Triton kernels.  Value and gradient each read the field once.
For a weight at every voxel, see :mod:`regcore.kernels.weighted_diffusion`.
"""

import torch
from torch import Tensor

from regcore.kernels.diffusion import cpu
from regcore.kernels.diffusion.reference import diffusion_reference, numbers
from regcore.kernels.dispatch import has_kernel
from regcore.kernels.launch import cpu_operator, on_its_device


def diffusion(field: Tensor) -> Tensor:
    """As :func:`diffusion_reference` [1]_, with the kernel if possible.

    Parameters
    ----------
    field : Tensor, shape (B, C, *space)
        In voxels.

    Returns
    -------
    Tensor, scalar

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 7.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.diffusion import diffusion
    >>> diffusion(torch.arange(4.0).expand(1, 2, 4, 4)).item()
    0.5
    """
    fits = min(field.shape[2:]) > 1 and field.numel() < 2**31
    if fits and has_kernel(field, operator="diffusion"):
        return torch.ops.regcore.diffusion(field)
    return diffusion_reference(field)


@cpu_operator("regcore::diffusion")
def _diffusion(field: Tensor) -> Tensor:
    return cpu.value(field)


@_diffusion.register_kernel("cuda")
@on_its_device
def _(field: Tensor) -> Tensor:
    from regcore.kernels.diffusion import gpu

    return gpu.value(field, numbers(field))


@_diffusion.register_fake
def _(field: Tensor) -> Tensor:
    return field.new_empty(())


@cpu_operator("regcore::diffusion_backward")
def _diffusion_backward(gradient: Tensor, field: Tensor) -> Tensor:
    return cpu.gradient(gradient, field)


@_diffusion_backward.register_kernel("cuda")
@on_its_device
def _(gradient: Tensor, field: Tensor) -> Tensor:
    from regcore.kernels.diffusion import gpu

    return gpu.gradient(gradient, field, numbers(field))


@_diffusion_backward.register_fake
def _(gradient: Tensor, field: Tensor) -> Tensor:
    return field.new_empty(field.shape)


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(ctx, gradient: Tensor) -> Tensor:
    return torch.ops.regcore.diffusion_backward(gradient, ctx.saved_tensors[0])


_diffusion.register_autograd(_backward, setup_context=_remember)
