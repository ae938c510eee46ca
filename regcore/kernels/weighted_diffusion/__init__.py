"""Diffusion regulariser with a weight at every voxel, and its gradients with respect to field and weight.

:mod:`~regcore.kernels.weighted_diffusion.reference` has the equation.  There is no Numba kernel; on a CPU the reference
runs.  The Triton kernels are in :mod:`regcore.kernels.not_validated.weighted_diffusion` and not used.
"""

import torch
from torch import Tensor

from regcore.kernels.diffusion.reference import numbers
from regcore.kernels.dispatch import has_gpu_kernel
from regcore.kernels.launch import on_its_device
from regcore.kernels.weighted_diffusion.reference import weighted_diffusion_reference


def weighted_diffusion(field: Tensor, weight: Tensor) -> Tensor:
    """As :func:`weighted_diffusion_reference` [1]_, with the kernel if possible (none on a CPU).

    Parameters
    ----------
    field : Tensor, shape (B, C, *space)
        In voxels.
    weight : Tensor, shape (B, 1, *space)
        λ; a difference has that of the voxel in front.

    Returns
    -------
    Tensor, scalar

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Eqs. 10 and 19.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.weighted_diffusion import weighted_diffusion
    >>> weighted_diffusion(torch.arange(4.0).expand(1, 2, 4, 4), torch.full((1, 1, 4, 4), 3.0)).item()
    1.5
    """
    if field.numel() < 2**31 and has_gpu_kernel(weight, field, operator="weighted_diffusion"):
        return torch.ops.regcore.weighted_diffusion(field, weight)
    return weighted_diffusion_reference(field, weight)


@torch.library.custom_op("regcore::weighted_diffusion", mutates_args=(), device_types="cuda")
@on_its_device
def _weighted_diffusion(field: Tensor, weight: Tensor) -> Tensor:
    from regcore.kernels.not_validated import weighted_diffusion as gpu

    return gpu.value(field, weight, numbers(field))


@_weighted_diffusion.register_fake
def _(field: Tensor, weight: Tensor) -> Tensor:
    return field.new_empty(())


@torch.library.custom_op("regcore::weighted_diffusion_backward", mutates_args=(), device_types="cuda")
@on_its_device
def _weighted_diffusion_backward(
    gradient: Tensor, field: Tensor, weight: Tensor, for_field: bool, for_weight: bool
) -> tuple[Tensor, Tensor]:
    from regcore.kernels.not_validated import weighted_diffusion as gpu

    to_field, to_weight = gpu.gradients(gradient, field, weight, numbers(field), for_field, for_weight)
    return to_field, to_weight.to(weight.dtype)


@_weighted_diffusion_backward.register_fake
def _(gradient: Tensor, field: Tensor, weight: Tensor, for_field: bool, for_weight: bool) -> tuple[Tensor, Tensor]:
    return field.new_empty(field.shape if for_field else 0), weight.new_empty(weight.shape if for_weight else 0)


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    for_field, for_weight = ctx.needs_input_grad
    to_field, to_weight = torch.ops.regcore.weighted_diffusion_backward(
        gradient, *ctx.saved_tensors, for_field, for_weight
    )
    return to_field if for_field else None, to_weight if for_weight else None


_weighted_diffusion.register_autograd(_backward, setup_context=_remember)
