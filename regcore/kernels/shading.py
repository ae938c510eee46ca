"""The last steps of an image from labels: a bias field, clipping, normalisation to 0 … 1 and a power.

One pass multiplies, clips and finds the extremes, a second normalises; the bias field is interpolated between its
coarse voxels where it is needed, and never made.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.kernels.launch import has_gpu_kernel, on_its_device

MODES = {4: "bilinear", 5: "trilinear"}


def shade_reference(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    """``image`` · exp(``field``), clipped to 0 … ``brightest``, and its extremes.

    Parameters
    ----------
    image : Tensor, shape (1, 1, *space)
    field : Tensor, shape (1, 1, *coarse)
        Linear between its voxels, corners on corners.

    Returns
    -------
    tuple of Tensor
        The image, and minus its smallest value beside the largest: two maxima.
    """
    if field.shape != image.shape:
        field = F.interpolate(field, size=image.shape[2:], mode=MODES[image.ndim], align_corners=True)
    shaded = (image * field.exp()).clamp_(0, brightest)
    return shaded, extremes(shaded)


def extremes(image: Tensor) -> Tensor:
    """Minus the smallest value, and the largest."""
    low, high = image.aminmax()
    return torch.stack([-low, high])


def stretch_reference(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    """``image``, from its ``ends`` as in :func:`extremes` to 0 and 1, to the power of ``exponent`` > 0."""
    minus_low, high = ends
    extent = (high + minus_low).clamp(min=torch.finfo(image.dtype).tiny)
    return (image + minus_low).div_(extent).pow_(exponent)


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
    from regcore.kernels.gpu import shading as gpu

    return gpu.shade(image, field, brightest)


@_stretch.register_kernel("cuda")
@on_its_device
def _(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    from regcore.kernels.gpu import shading as gpu

    return gpu.stretch(image, ends, exponent)


@_shade.register_fake
def _(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    return image.new_empty(image.shape), image.new_empty(2)


@_stretch.register_fake
def _(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    return image.new_empty(image.shape)
