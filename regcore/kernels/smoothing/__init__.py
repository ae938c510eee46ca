"""Gaussian smoothing of images and fields, axis by axis; beyond the border the value at the edge goes on.

:mod:`~regcore.kernels.smoothing.reference` has the equation, :mod:`~regcore.kernels.smoothing.cpu` the Numba kernels,
:mod:`~regcore.kernels.smoothing.gpu` the Triton kernel.  The kernels have no backward: where a gradient is wanted the
reference runs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_kernel
from regcore.kernels.launch import on_its_device
from regcore.kernels.smoothing import cpu
from regcore.kernels.smoothing.reference import gaussian_reference, radius_of


def gaussian(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    """See :func:`gaussian_reference`, which also runs where a gradient is wanted.

    Parameters
    ----------
    values : Tensor, shape (B, C, *space)
        An image or a field.
    sigmas : sequence of float, length D
        Standard deviation along each axis, in voxels.

    Returns
    -------
    Tensor, shape (B, C, *space)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.smoothing import gaussian
    >>> point = torch.zeros(1, 1, 1, 5)
    >>> point[..., 2] = 1
    >>> [round(value, 3) for value in gaussian(point, (0, 1)).flatten().tolist()]
    [0.054, 0.242, 0.399, 0.242, 0.054]
    """
    if not has_kernel(values, operator="smoothing") or (values.requires_grad and torch.is_grad_enabled()):
        return gaussian_reference(values, sigmas)
    if values.is_cuda:
        return torch.ops.regcore.gaussian(values, list(sigmas))
    return cpu.smooth(values, sigmas)


@torch.library.custom_op("regcore::gaussian", mutates_args=(), device_types="cuda")
@on_its_device
def _gaussian(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    from regcore.kernels.smoothing import gpu

    smoothed = gpu.smooth(values, sigmas, [radius_of(sigma) for sigma in sigmas])
    return smoothed.clone() if smoothed is values else smoothed


@_gaussian.register_fake
def _(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    return values.new_empty(values.shape)
