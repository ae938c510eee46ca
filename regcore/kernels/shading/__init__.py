"""The last steps of image synthesis: a bias field, clipping, normalisation to 0 … 1 and a power.

:mod:`~regcore.kernels.shading.reference` has the equations.  There is no Numba kernel, because on a CPU most time goes
into drawing.  The Triton kernels are in :mod:`regcore.kernels.not_validated.shading` and not used.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_gpu_kernel
from regcore.kernels.launch import cpu_operator, on_its_device
from regcore.kernels.shading.reference import shade_reference, stretch_reference


def shade(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    """As :func:`shade_reference`, with the kernel if possible.

    Parameters
    ----------
    image : Tensor, shape (1, 1, *space)
        Intensities.
    field : Tensor, shape (1, 1, *coarse)
        Logarithm of the bias; linear between its voxels, corners on corners.
    brightest : float
        The result is clipped to 0 … this.

    Returns
    -------
    image : Tensor, shape (1, 1, *space)
        The result.
    ends : Tensor, shape (2,)
        Minus its smallest value, and the largest.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.shading import shade
    >>> image, ends = shade(torch.ones(1, 1, 1, 2), torch.full((1, 1, 1, 2), 0.5), brightest=255)
    >>> [round(value, 3) for value in image.flatten().tolist()], [round(value, 3) for value in ends.tolist()]
    ([1.649, 1.649], [-1.649, 1.649])
    """
    if _on_gpu(field, image):
        return torch.ops.regcore.shade(image, field, brightest)
    return shade_reference(image, field, brightest)


def stretch(image: Tensor, ends: Tensor, exponent: float) -> Tensor:
    """As :func:`stretch_reference`, with the kernel if possible.

    Parameters
    ----------
    image : Tensor, shape (1, 1, *space)
        Intensities.
    ends : Tensor, shape (2,)
        Minus the value that becomes 0, and the value that becomes 1, as from :func:`shade`.
    exponent : float
        Positive.

    Returns
    -------
    Tensor, shape (1, 1, *space)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.shading import stretch
    >>> image = torch.tensor([[[[2.0, 3.0, 4.0]]]])
    >>> stretch(image, torch.tensor([-2.0, 4.0]), exponent=2).flatten().tolist()
    [0.0, 0.25, 1.0]
    """
    if _on_gpu(ends, image):
        return torch.ops.regcore.stretch(image, ends, exponent)
    return stretch_reference(image, ends, exponent)


def _on_gpu(*tensors: Tensor) -> bool:
    """Whether the kernels take what was drawn by theirs; a CPU has none for this, where drawing is what takes time."""
    small = tensors[-1].numel() < 2**31 and all(tensor.dtype == torch.float32 for tensor in tensors)
    return small and has_gpu_kernel(*tensors, operator="shading")


@cpu_operator("regcore::shade")
def _shade(image: Tensor, field: Tensor, brightest: float) -> tuple[Tensor, Tensor]:
    return shade_reference(image, field, brightest)


@cpu_operator("regcore::stretch")
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
