"""Counter-based random numbers (Philox4x32-10): uniform, normal, and images from labels; the same on every device.

:mod:`~regcore.kernels.philox.reference` has the equations and constants, :mod:`~regcore.kernels.philox.cpu` the Numba
kernels.  The Triton kernels are in :mod:`regcore.kernels.not_validated.philox` and not used.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from regcore.kernels.dispatch import WHOLE, has_kernel
from regcore.kernels.launch import cpu_operator, on_its_device
from regcore.kernels.philox import cpu
from regcore.kernels.philox.reference import label_image_reference, normal_reference, uniform_reference


def uniform(shape: Sequence[int], seed: int, offset: int, device: torch.device) -> Tensor:
    """As :func:`uniform_reference` [1]_, with the kernel if possible.

    Parameters
    ----------
    shape : sequence of int
        Shape of the result.
    seed, offset : int
        The same pair gives the same numbers on every device.
    device : torch.device
        Device of the result.

    Returns
    -------
    Tensor of float32, shape (*shape)

    References
    ----------
    .. [1] Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.philox import uniform
    >>> [round(value, 3) for value in uniform((3,), seed=7, offset=0, device=torch.device("cpu")).tolist()]
    [0.955, 0.75, 0.114]
    """
    like = _like(shape, device)
    if _drawn_by_kernel(like):
        return torch.ops.regcore.philox_uniform(like, seed, offset)
    return uniform_reference(shape, seed, offset, device)


def normal(shape: Sequence[int], seed: int, offset: int, device: torch.device) -> Tensor:
    """As :func:`normal_reference` [1]_, with the kernel if possible.

    Parameters
    ----------
    shape : sequence of int
        Shape of the result.
    seed, offset : int
        The same pair gives the same numbers on every device.
    device : torch.device
        Device of the result.

    Returns
    -------
    Tensor of float32, shape (*shape)

    References
    ----------
    .. [1] Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.philox import normal
    >>> [round(value, 3) for value in normal((3,), seed=7, offset=0, device=torch.device("cpu")).tolist()]
    [0.0, -0.305, 1.789]
    """
    like = _like(shape, device)
    if _drawn_by_kernel(like):
        return torch.ops.regcore.philox_normal(like, seed, offset)
    return normal_reference(shape, seed, offset, device)


def label_image(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    """As :func:`label_image_reference`, with the kernel if possible.

    Parameters
    ----------
    labels : Tensor of int
        Codes; those outside the tables are clamped to them.
    means, spreads : Tensor of float32, shape (codes,)
        Mean and standard deviation of each code's normal distribution.
    seed, offset : int
        As for :func:`normal`.

    Returns
    -------
    Tensor of float32, shape of ``labels``

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.philox import label_image
    >>> labels, means = torch.tensor([0, 1, 1]), torch.tensor([10.0, 20.0])
    >>> label_image(labels, means, 0 * means, seed=7, offset=0).tolist()
    [10.0, 20.0, 20.0]
    """
    if labels.device == means.device and labels.dtype in WHOLE and _drawn_by_kernel(_like(labels.shape, means.device)):
        return torch.ops.regcore.label_image(labels, means, spreads, seed, offset)
    return label_image_reference(labels, means, spreads, seed, offset)


def _like(shape: Sequence[int], device: torch.device) -> Tensor:
    """A stand-in for a result before it is drawn: its shape, type and device, without memory."""
    return torch.empty(1, dtype=torch.float32, device=device).expand(tuple(shape))


def _drawn_by_kernel(like: Tensor) -> bool:
    return like.numel() < 2**31 and has_kernel(like, operator="philox_normal")


@cpu_operator("regcore::philox_normal")
def _normal(like: Tensor, seed: int, offset: int) -> Tensor:
    """Draws in the shape of ``like``, whose values do not matter."""
    return cpu.normal(like, seed, offset)


@cpu_operator("regcore::philox_uniform")
def _uniform(like: Tensor, seed: int, offset: int) -> Tensor:
    return cpu.uniform(like, seed, offset)


@cpu_operator("regcore::label_image")
def _label_image(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    return cpu.label_image(labels, means, spreads, seed, offset)


@_normal.register_kernel("cuda")
@on_its_device
def _(like: Tensor, seed: int, offset: int) -> Tensor:
    from regcore.kernels.not_validated import philox as gpu

    return gpu.normal(like, seed, offset)


@_uniform.register_kernel("cuda")
@on_its_device
def _(like: Tensor, seed: int, offset: int) -> Tensor:
    from regcore.kernels.not_validated import philox as gpu

    return gpu.uniform(like, seed, offset)


@_label_image.register_kernel("cuda")
@on_its_device
def _(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    from regcore.kernels.not_validated import philox as gpu

    return gpu.label_image(labels, means, spreads, seed, offset)


@_normal.register_fake
@_uniform.register_fake
def _(like: Tensor, seed: int, offset: int) -> Tensor:
    return like.new_empty(like.shape)


@_label_image.register_fake
def _(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    return labels.new_empty(labels.shape, dtype=torch.float32)
