"""Scaling and squaring of a stationary velocity field, and its gradient, with a backward pass that stores no states.

:mod:`~regcore.kernels.integrate.reference` has the equation, :mod:`~regcore.kernels.integrate.cpu` the Numba kernels,
:mod:`~regcore.kernels.integrate.gpu` the Triton kernels.  Only the velocity is stored for the backward pass, which
repeats the squarings.  That is exact, because the same steps give the same bits.
"""

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_kernel
from regcore.kernels.integrate import cpu
from regcore.kernels.integrate.reference import integrate_reference
from regcore.kernels.launch import cpu_operator, on_its_device


def integrate(velocity: Tensor, steps: int, half: bool = False) -> Tensor:
    """As :func:`integrate_reference` [1]_, with the kernel if possible; the CPU kernel does not round.

    Parameters
    ----------
    velocity : Tensor, shape (B, D, *space)
        In voxels.
    steps : int
        Squarings.
    half : bool
        Whether states between squarings are stored in 16 bits.

    Returns
    -------
    Tensor, shape (B, D, *space)

    References
    ----------
    .. [1] Arsigny, Commowick, Pennec and Ayache, "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI
       2006.

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.integrate import integrate
    >>> integrate(torch.full((1, 2, 8, 8), 0.5), steps=7)[0, :, 4, 4].tolist()
    [0.5, 0.5]
    """
    # Between steps, a field may have a fourth number per voxel.
    fits = min(velocity.shape[2:]) > 1 and velocity.numel() // 3 * 4 < 2**31 and steps > 0
    if fits and has_kernel(velocity, operator="integrate"):
        return torch.ops.regcore.integrate(velocity, steps, half)
    return integrate_reference(velocity, steps, half)


@cpu_operator("regcore::integrate")
def _integrate(velocity: Tensor, steps: int, half: bool) -> Tensor:
    return cpu.integrate(velocity, steps, half)


@_integrate.register_kernel("cuda")
@on_its_device
def _(velocity: Tensor, steps: int, half: bool) -> Tensor:
    from regcore.kernels.integrate import gpu

    return gpu.integrate(velocity, steps, torch.float16 if half else velocity.dtype)


@_integrate.register_fake
def _(velocity: Tensor, steps: int, half: bool) -> Tensor:
    return velocity.new_empty(velocity.shape)


@cpu_operator("regcore::integrate_backward")
def _integrate_backward(gradient: Tensor, velocity: Tensor, steps: int, half: bool) -> Tensor:
    return cpu.backward(gradient, velocity, steps, half)


@_integrate_backward.register_kernel("cuda")
@on_its_device
def _(gradient: Tensor, velocity: Tensor, steps: int, half: bool) -> Tensor:
    from regcore.kernels.integrate import gpu

    return gpu.backward(gradient, velocity, steps, torch.float16 if half else velocity.dtype)


@_integrate_backward.register_fake
def _(gradient: Tensor, velocity: Tensor, steps: int, half: bool) -> Tensor:
    return velocity.new_empty(velocity.shape)


def _remember(ctx, inputs, output) -> None:
    velocity, ctx.steps, ctx.half = inputs
    ctx.save_for_backward(velocity)


def _backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
    (velocity,) = ctx.saved_tensors
    return torch.ops.regcore.integrate_backward(gradient, velocity, ctx.steps, ctx.half), None, None


_integrate.register_autograd(_backward, setup_context=_remember)
