"""MIND-SSC descriptors of images (self-similarity context), their squared difference, and the gradients of both.

:mod:`~regcore.kernels.mind_ssc.reference` has the equation.  :mod:`~regcore.kernels.mind_ssc.cpu` has the Numba
kernels, on the sums of :mod:`~regcore.kernels.mind_ssc.cpu_patch_sums`.  The Triton kernels are in
:mod:`regcore.kernels.not_validated.mind_ssc` and not used: on a GPU the reference runs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_gpu_kernel, has_kernel
from regcore.kernels.launch import cpu_operator, on_its_device
from regcore.kernels.mind_ssc import cpu
from regcore.kernels.mind_ssc.reference import descriptor_reference, difference_reference
from regcore.kernels.precomputed_gradients import returns_its_gradients

#: Pairs of neighbours of an image in 2-D and 3-D, which are the channels of its descriptor.
CHANNELS = {2: 4, 3: 12}


def descriptor(image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """As :func:`descriptor_reference` (MIND-SSC [1]_), with the kernel if possible.

    Parameters
    ----------
    image : Tensor, shape (B, 1, *space)
        Types narrower than float32 are converted to float32.
    radius, dilation : sequence of int
        In voxels along each axis, as for :func:`regcore.losses.mind.mind_ssc_descriptor`.

    Returns
    -------
    Tensor, shape (B, C, *space)

    References
    ----------
    .. [1] Heinrich, Jenkinson, Papież, Brady and Schnabel, "Towards realtime multimodal fusion for image-guided
       interventions using self-similarities", MICCAI 2013.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.mind_ssc import descriptor
    >>> tuple(descriptor(torch.rand(1, 1, 8, 8), radius=(2, 2), dilation=(2, 2)).shape)
    (1, 4, 8, 8)
    """
    image = _at_least_float32(image)
    if has_kernel(image):
        return torch.ops.regcore.mind_ssc_descriptor(image, radius, dilation)
    return descriptor_reference(image, radius, dilation)


def difference(descriptor: Tensor, image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """As :func:`difference_reference` (MIND-SSC [1]_), with the kernel if possible.

    Parameters
    ----------
    descriptor : Tensor, shape (B, C, *space)
        Of an image, by :func:`descriptor` with the same radius and dilation.
    image : Tensor, shape (B, 1, *space)
        The other image.
    radius, dilation : sequence of int
        In voxels along each axis.

    Returns
    -------
    Tensor, scalar

    References
    ----------
    .. [1] Heinrich, Jenkinson, Papież, Brady and Schnabel, "Towards realtime multimodal fusion for image-guided
       interventions using self-similarities", MICCAI 2013.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.mind_ssc import descriptor, difference
    >>> image, settings = torch.arange(64.0).view(1, 1, 8, 8).sin(), {"radius": (2, 2), "dilation": (2, 2)}
    >>> round(difference(descriptor(image, **settings), 1 - image, **settings).item(), 4)
    0.0
    """
    descriptor, image = _at_least_float32(descriptor), _at_least_float32(image)
    if not has_kernel(descriptor, image):
        return difference_reference(descriptor, image, radius, dilation)
    tracked = torch.is_grad_enabled()
    return torch.ops.regcore.mind_ssc_difference(
        descriptor, image, radius, dilation, tracked and descriptor.requires_grad, tracked and image.requires_grad
    )[0]


def mind_ssc(fixed: Tensor, moving: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """:func:`difference` of the descriptors of two images (MIND-SSC [1]_), with the kernel if possible.

    Parameters
    ----------
    fixed, moving : Tensor, shape (B, 1, *space)
        Images.
    radius, dilation : sequence of int
        In voxels along each axis, as for :func:`regcore.losses.mind.mind_ssc_descriptor`.

    Returns
    -------
    Tensor, scalar

    References
    ----------
    .. [1] Heinrich, Jenkinson, Papież, Brady and Schnabel, "Towards realtime multimodal fusion for image-guided
       interventions using self-similarities", MICCAI 2013.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.mind_ssc import mind_ssc
    >>> image = torch.arange(64.0).view(1, 1, 8, 8).sin()
    >>> round(mind_ssc(image, 1 - image, radius=(2, 2), dilation=(2, 2)).item(), 4)
    0.0
    """
    fixed, moving = _at_least_float32(fixed), _at_least_float32(moving)
    for_fixed, for_moving = (torch.is_grad_enabled() and image.requires_grad for image in (fixed, moving))
    alike = len(set(radius)) == len(set(dilation)) == 1
    small = CHANNELS[fixed.ndim - 2] * fixed.numel() < 2**31
    if alike and small and has_gpu_kernel(fixed, moving, operator="mind_ssc"):
        return torch.ops.regcore.mind_ssc(fixed, moving, radius[0], dilation[0], for_fixed, for_moving)[0]
    # The loss is symmetric, and the gradient of the second argument needs less time and memory.
    known, other = (moving, fixed) if for_fixed and not for_moving else (fixed, moving)
    return difference(descriptor(known, radius, dilation), other, radius, dilation)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


@cpu_operator("regcore::mind_ssc_descriptor")
def _descriptor(image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    return cpu.descriptors(image, radius, dilation)


@_descriptor.register_fake
def _(image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    return image.new_empty(image.shape[0], CHANNELS[image.ndim - 2], *image.shape[2:])


@cpu_operator("regcore::mind_ssc_descriptor_backward")
def _descriptor_backward(gradient: Tensor, image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    return cpu.descriptors_backward(gradient, image, radius, dilation)


@_descriptor_backward.register_fake
def _(gradient: Tensor, image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    return image.new_empty(image.shape)


def _remember(ctx, inputs, output) -> None:
    image, ctx.radius, ctx.dilation = inputs
    ctx.save_for_backward(image)


def _backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
    (image,) = ctx.saved_tensors
    return torch.ops.regcore.mind_ssc_descriptor_backward(gradient, image, ctx.radius, ctx.dilation), None, None


_descriptor.register_autograd(_backward, setup_context=_remember)


@cpu_operator("regcore::mind_ssc_difference")
def _difference(
    descriptor: Tensor,
    image: Tensor,
    radius: Sequence[int],
    dilation: Sequence[int],
    for_descriptor: bool,
    for_image: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients, which are empty if not needed."""
    return cpu.difference(descriptor, image, radius, dilation, for_descriptor, for_image)


@_difference.register_fake
def _(
    descriptor: Tensor,
    image: Tensor,
    radius: Sequence[int],
    dilation: Sequence[int],
    for_descriptor: bool,
    for_image: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake_results(descriptor, image, for_descriptor, for_image)


returns_its_gradients(_difference)


@torch.library.custom_op("regcore::mind_ssc", mutates_args=(), device_types="cuda")
@on_its_device
def _mind_ssc(
    fixed: Tensor, moving: Tensor, radius: int, dilation: int, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients, which are empty if not needed."""
    from regcore.kernels.not_validated import mind_ssc as gpu

    return gpu.loss_and_gradients(fixed, moving, radius, dilation, for_fixed, for_moving)


@_mind_ssc.register_fake
def _(
    fixed: Tensor, moving: Tensor, radius: int, dilation: int, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake_results(fixed, moving, for_fixed, for_moving)


returns_its_gradients(_mind_ssc)


def _fake_results(first: Tensor, second: Tensor, for_first: bool, for_second: bool) -> tuple[Tensor, Tensor, Tensor]:
    return (
        second.new_empty(()),
        first.new_empty(first.shape if for_first else 0),
        second.new_empty(second.shape if for_second else 0),
    )
