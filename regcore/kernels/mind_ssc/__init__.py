"""Squared difference of the MIND-SSC descriptors (self-similarity context) of two images, and its gradients.

:mod:`~regcore.kernels.mind_ssc.reference` has the equation.  There is no Numba kernel: on a CPU the reference runs.
The Triton kernels are in :mod:`regcore.kernels.not_validated.mind_ssc` and not used yet.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_gpu_kernel
from regcore.kernels.launch import on_its_device
from regcore.kernels.mind_ssc.reference import mind_ssc_reference
from regcore.kernels.precomputed_gradients import returns_its_gradients


def mind_ssc(fixed: Tensor, moving: Tensor, radius: int, dilation: int) -> Tensor:
    """As :func:`mind_ssc_reference` (MIND-SSC [1]_), by the kernel where it can.

    Parameters
    ----------
    fixed, moving : Tensor, shape (B, 1, *space)
        Images.
    radius, dilation : int
        As for :func:`regcore.losses.mind.mind_ssc_descriptor`.

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
    >>> round(mind_ssc(image, 1 - image, radius=2, dilation=2).item(), 4)
    0.0
    """
    fixed, moving = (image.to(torch.promote_types(image.dtype, torch.float32)) for image in (fixed, moving))
    channels = {2: 4, 3: 12}[fixed.ndim - 2]
    if channels * fixed.numel() >= 2**31 or not has_gpu_kernel(fixed, moving, operator="mind_ssc"):
        return mind_ssc_reference(fixed, moving, radius, dilation)
    tracked = torch.is_grad_enabled()
    return torch.ops.regcore.mind_ssc(
        fixed, moving, radius, dilation, tracked and fixed.requires_grad, tracked and moving.requires_grad
    )[0]


@torch.library.custom_op("regcore::mind_ssc", mutates_args=(), device_types="cuda")
@on_its_device
def _mind_ssc(
    fixed: Tensor, moving: Tensor, radius: int, dilation: int, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and, where wanted, its gradients; those not wanted are empty."""
    from regcore.kernels.not_validated import mind_ssc as gpu

    return gpu.loss_and_gradients(fixed, moving, radius, dilation, for_fixed, for_moving)


@_mind_ssc.register_fake
def _(
    fixed: Tensor, moving: Tensor, radius: int, dilation: int, for_fixed: bool, for_moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        moving.new_empty(()),
        fixed.new_empty(fixed.shape if for_fixed else 0),
        moving.new_empty(moving.shape if for_moving else 0),
    )


returns_its_gradients(_mind_ssc)
