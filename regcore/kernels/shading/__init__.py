"""The last steps of an image from labels: a bias field, clipping, normalisation to 0 … 1 and a power.

:mod:`~regcore.kernels.shading.reference` has the equations.  There is no Numba kernel: on a CPU drawing is what takes
time.  The Triton kernels are in :mod:`regcore.kernels.not_validated.shading` and not used yet.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_gpu_kernel
from regcore.kernels.launch import on_its_device
from regcore.kernels.shading.reference import shade_reference, stretch_reference


def shade(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    """As :func:`shade_reference`, by the kernel where it can."""
    if _on_gpu(field, image):
        return torch.ops.regcore.shade(image, field, brightest)
    return shade_reference(image, field, brightest)


def stretch(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    """As :func:`stretch_reference`, by the kernel where it can."""
    if _on_gpu(ends, image):
        return torch.ops.regcore.stretch(image, ends, exponent)
    return stretch_reference(image, ends, exponent)


def _on_gpu(*tensors: Tensor) -> bool:
    """Whether the kernels take what was drawn by theirs; a CPU has none for this, where drawing is what takes time."""
    small = tensors[-1].numel() < 2**31 and all(tensor.dtype == torch.float32 for tensor in tensors)
    return small and has_gpu_kernel(*tensors, operator="shading")


@torch.library.custom_op("regcore::shade", mutates_args=(), device_types="cpu")
def _shade(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    return shade_reference(image, field, brightest)


@torch.library.custom_op("regcore::stretch", mutates_args=(), device_types="cpu")
def _stretch(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    return stretch_reference(image, ends, exponent)


@_shade.register_kernel("cuda")
@on_its_device
def _(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    from regcore.kernels.not_validated import shading as gpu

    return gpu.shade(image, field, brightest)


@_stretch.register_kernel("cuda")
@on_its_device
def _(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    from regcore.kernels.not_validated import shading as gpu

    return gpu.stretch(image, ends, exponent)


@_shade.register_fake
def _(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), image.new_empty(2)


@_stretch.register_fake
def _(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    return image.new_empty(image.shape)
