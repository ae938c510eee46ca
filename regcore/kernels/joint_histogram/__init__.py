"""The joint histogram of two images with smooth windows, and its gradients. It is the basis of mutual information.

:mod:`~regcore.kernels.joint_histogram.reference` has the equation and the backward in plain torch,
:mod:`~regcore.kernels.joint_histogram.gpu` the Triton kernels.  There is no Numba kernel; on a CPU the reference uses
torch's matrix products.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_gpu_kernel
from regcore.kernels.joint_histogram.reference import gradients, histogram, joint_histogram_reference
from regcore.kernels.launch import cpu_operator, on_its_device

#: More bins than this do not fit into the registers of a GPU.
MOST_GPU_BINS = 64


def joint_histogram(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
    """As :func:`joint_histogram_reference`, with the kernel if possible.

    Parameters
    ----------
    fixed, warped : Tensor, shape (R, voxels)
        Intensities as positions in bins, from 0 to ``bins`` - 1.
    bins : int
        Number of bins per image.
    width : float
        Standard deviation of the window, in bins.

    Returns
    -------
    Tensor, shape (R, bins, bins)
        Each of the R histograms sums to one.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.joint_histogram import joint_histogram
    >>> positions = torch.tensor([[0.0, 1.0]])
    >>> joint_histogram(positions, positions, bins=2, width=0.1)[0].round(decimals=3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    # The gradient of the fixed image has not been tested on a GPU.
    fits = bins <= MOST_GPU_BINS and fixed.numel() < 2**31 and not fixed.requires_grad
    if fits and has_gpu_kernel(fixed, warped, operator="joint_histogram"):
        return torch.ops.regcore.joint_histogram(fixed, warped, bins, width)
    return joint_histogram_reference(fixed, warped, bins, width)


@cpu_operator("regcore::joint_histogram")
def _joint_histogram(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
    return histogram(fixed, warped, bins, width)


@_joint_histogram.register_kernel("cuda")
@on_its_device
def _(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
    from regcore.kernels.joint_histogram import gpu

    return gpu.forward(fixed, warped, bins, width)


@_joint_histogram.register_fake
def _(fixed: Tensor, warped: Tensor, bins: int, width: float) -> Tensor:
    return fixed.new_empty(fixed.shape[0], bins, bins)


@cpu_operator("regcore::joint_histogram_backward")
def _joint_histogram_backward(
    gradient: Tensor, fixed: Tensor, warped: Tensor, width: float, for_fixed: bool, for_warped: bool
) -> tuple[Tensor, Tensor]:
    """A separate operator without a derivative, so that second derivatives raise an error instead of being zero."""
    return gradients(gradient, fixed, warped, width, for_fixed, for_warped)


@_joint_histogram_backward.register_kernel("cuda")
@on_its_device
def _(
    gradient: Tensor, fixed: Tensor, warped: Tensor, width: float, for_fixed: bool, for_warped: bool
) -> tuple[Tensor, Tensor]:
    from regcore.kernels.joint_histogram import gpu

    return gpu.backward(gradient, fixed, warped, width, for_fixed, for_warped)


@_joint_histogram_backward.register_fake
def _(
    gradient: Tensor, fixed: Tensor, warped: Tensor, width: float, for_fixed: bool, for_warped: bool
) -> tuple[Tensor, Tensor]:
    return fixed.new_empty(fixed.shape if for_fixed else 0), warped.new_empty(warped.shape if for_warped else 0)


def _remember(ctx, inputs, output) -> None:
    fixed, warped, _, ctx.width = inputs
    ctx.save_for_backward(fixed, warped)


def _backward(ctx, gradient: Tensor):
    for_fixed, for_warped = ctx.needs_input_grad[:2]
    to_fixed, to_warped = torch.ops.regcore.joint_histogram_backward(
        gradient, *ctx.saved_tensors, ctx.width, for_fixed, for_warped
    )
    return to_fixed if for_fixed else None, to_warped if for_warped else None, None, None


_joint_histogram.register_autograd(_backward, setup_context=_remember)
