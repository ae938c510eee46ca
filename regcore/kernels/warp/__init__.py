"""Linear interpolation of an image at displaced voxels, and its gradients with respect to image and displacement.

:mod:`~regcore.kernels.warp.reference` has the equation, :mod:`~regcore.kernels.warp.cpu` the Numba kernels,
:mod:`~regcore.kernels.warp.gpu` the Triton kernels.  In both, ``forward`` interpolates, ``pull`` computes the gradient
of the displacement, and ``push`` that of the image.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_kernel
from regcore.kernels.launch import cpu_operator, on_its_device
from regcore.kernels.warp import cpu
from regcore.kernels.warp.reference import warp_reference


def warp(image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    """As :func:`warp_reference` (Eq. 3 of VoxelMorph [1]_), with the kernel if possible.

    Parameters
    ----------
    image : Tensor, shape (B, C, *moving)
        Floating-point.
    displacement : Tensor, shape (B, D, *fixed)
        In voxels.
    edge : bool
        Outside the image: the value of the nearest voxel, or 0.

    Returns
    -------
    Tensor, shape (B, C, *fixed)

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 3.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.warp import warp
    >>> image = torch.arange(4.0).view(1, 1, 1, 4)
    >>> ahead = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    >>> warp(image, ahead, edge=True).flatten().tolist()
    [1.0, 2.0, 3.0, 3.0]
    """
    displacement = displacement.expand(image.shape[0], *displacement.shape[1:])
    fits = min(image.shape[2:]) > 1 and max(image.numel(), displacement.numel()) < 2**31
    if fits and has_kernel(image, displacement, operator="warp"):
        return torch.ops.regcore.warp(image, displacement, edge)
    return warp_reference(image, displacement, edge)


@cpu_operator("regcore::warp")
def _warp(image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    return cpu.forward(image, displacement, edge)


@_warp.register_kernel("cuda")
@on_its_device
def _(image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    from regcore.kernels.warp import gpu

    return gpu.forward(image, displacement, edge)


@_warp.register_fake
def _(image: Tensor, displacement: Tensor, edge: bool) -> Tensor:
    return image.new_empty(image.shape[:2] + displacement.shape[2:])


@cpu_operator("regcore::warp_backward")
def _warp_backward(
    gradient: Tensor, image: Tensor, displacement: Tensor, edge: bool, for_image: bool, for_displacement: bool
) -> tuple[Tensor, Tensor]:
    return (
        cpu.push(gradient, image, displacement, edge) if for_image else image.new_empty(0),
        cpu.pull(gradient, image, displacement, edge) if for_displacement else displacement.new_empty(0),
    )


@_warp_backward.register_kernel("cuda")
@on_its_device
def _(
    gradient: Tensor, image: Tensor, displacement: Tensor, edge: bool, for_image: bool, for_displacement: bool
) -> tuple[Tensor, Tensor]:
    from regcore.kernels.warp import gpu

    return (
        gpu.push(gradient, image, displacement, edge) if for_image else image.new_empty(0),
        gpu.pull(gradient, image, displacement, edge) if for_displacement else displacement.new_empty(0),
    )


@_warp_backward.register_fake
def _(
    gradient: Tensor, image: Tensor, displacement: Tensor, edge: bool, for_image: bool, for_displacement: bool
) -> tuple[Tensor, Tensor]:
    return (
        image.new_empty(image.shape if for_image else 0),
        displacement.new_empty(displacement.shape if for_displacement else 0),
    )


def _remember(ctx, inputs, output) -> None:
    image, displacement, ctx.edge = inputs
    ctx.save_for_backward(image, displacement)


def _backward(ctx, gradient: Tensor):
    image, displacement = ctx.saved_tensors
    for_image, for_displacement, _ = ctx.needs_input_grad
    to_image, to_displacement = torch.ops.regcore.warp_backward(
        gradient, image, displacement, ctx.edge, for_image, for_displacement
    )
    return to_image if for_image else None, to_displacement if for_displacement else None, None


_warp.register_autograd(_backward, setup_context=_remember)
