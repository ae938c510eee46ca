"""Convolutions with separate weights for each sample, as from a hypernetwork.

``vmap`` runs such a network for all samples at once.  On a GPU, :func:`~regcore.kernels.convolution.convolve` then
calls a kernel that convolves each sample with its weights, through the ``vmap`` rule of :func:`sample_convolution`.
Elsewhere torch uses a grouped convolution.

:mod:`~regcore.kernels.sample_convolution.reference` is that grouped convolution.  There is no Numba kernel.  The Triton
kernels are in :mod:`regcore.kernels.not_validated.sample_convolution` and not used.
"""

import math

import torch
from torch import Tensor

from regcore.kernels.dispatch import has_kernel
from regcore.kernels.launch import cpu_operator, on_its_device
from regcore.kernels.layout import CHANNELS_LAST
from regcore.kernels.sample_convolution.reference import sample_convolution_reference


def sample_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1) -> Tensor:
    """As :func:`sample_convolution_reference`, with the kernel if possible.

    Parameters
    ----------
    x : Tensor, shape (B, C, *space)
        Features, padded by half a kernel of zeros.
    weight : Tensor, shape (B, F, C, k, ...)
        With an odd k.
    bias : Tensor, shape (B, F), optional
        Added to every voxel of a sample.
    slope : float
        Slope of a LeakyReLU for negative values; 1 for none.

    Returns
    -------
    Tensor, shape (B, F, *space)

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels.sample_convolution import sample_convolution
    >>> weight = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1, 1)
    >>> sample_convolution(torch.ones(2, 1, 4, 4), weight)[:, 0, 0, 0].tolist()
    [1.0, 2.0]
    """
    if not _has_sample_kernel(x, weight[0], bias):
        return sample_convolution_reference(x, weight, bias, slope)
    return torch.ops.regcore.sample_convolution(x, weight, bias, slope)


def _has_sample_kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel takes samples ``x`` and the ``weight`` (F, C, k, ...) of one of them; no CPU has one."""
    tensors = [weight, x] if bias is None else [bias, weight, x]
    fits = all(tensor.dtype == x.dtype for tensor in tensors) and set(weight.shape[2:]) in ({1}, {3})
    if x.is_cpu or not fits or max(weight.shape[:2]) * math.prod(x.shape[2:]) >= 2**31:
        return False
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    return has_kernel(*tensors, kinds=kinds, operator="sample_convolution")


def differs_by_sample(x: Tensor, weight: Tensor, stride: int = 1) -> bool:
    """Whether the weights are those of ``vmap``, which has one for each sample, and the kernel takes them.

    Parameters
    ----------
    x : Tensor, shape (B, C, *space)
        Features, as seen under ``vmap``.
    weight : Tensor, shape (F, C, k, ...)
        As seen under ``vmap``.
    stride : int
        The kernel supports only stride 1.

    Returns
    -------
    bool
    """
    if x.is_cpu or stride != 1 or not torch._C._functorch.is_batchedtensor(weight):
        return False
    return _has_sample_kernel(*_autocast(x, weight, None))


def of_samples(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1) -> Tensor:
    """Under ``vmap``: convolve all samples of ``x`` with one ``weight``.

    Parameters
    ----------
    x : Tensor, shape (B, C, *space)
        Features.
    weight : Tensor, shape (F, C, k, ...)
        With an odd k.
    bias : Tensor, shape (F,), optional
        Added to every voxel.
    slope : float
        Slope of a LeakyReLU for negative values; 1 for none.

    Returns
    -------
    Tensor, shape (B, F, *space)
    """
    x, weight, bias = _autocast(x, weight, bias)
    weight = weight.expand(x.shape[0], *weight.shape)
    bias = None if bias is None else bias.expand(x.shape[0], *bias.shape)
    return torch.ops.regcore.sample_convolution(x, weight, bias, slope)


def _autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors in the type that torch would convolve them in."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return x, weight, bias
    kind = torch.get_autocast_dtype(device)
    return x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)


@cpu_operator("regcore::sample_convolution")
def _sample_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    return sample_convolution_reference(x, weight, bias, slope).contiguous(memory_format=CHANNELS_LAST[x.ndim])


@_sample_convolution.register_kernel("cuda")
@on_its_device
def _(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    from regcore.kernels.not_validated import sample_convolution as gpu

    return gpu.forward(x, weight, bias, slope)


@_sample_convolution.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    return x.new_empty(weight.shape[0], *x.shape[2:], weight.shape[1]).movedim(-1, 1)


@cpu_operator("regcore::sample_convolution_backward")
def _sample_convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_weight: bool
) -> tuple[Tensor, Tensor]:
    leaves = x.detach().requires_grad_(), weight.detach().requires_grad_()
    with torch.enable_grad():
        value = sample_convolution_reference(*leaves)
        to_x, to_weight = torch.autograd.grad(value, leaves, gradient)
    return (
        to_x.contiguous(memory_format=CHANNELS_LAST[x.ndim]) if for_x else x.new_empty(0),
        to_weight.contiguous() if for_weight else weight.new_empty(0),
    )


@_sample_convolution_backward.register_kernel("cuda")
@on_its_device
def _(gradient: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_weight: bool) -> tuple[Tensor, Tensor]:
    from regcore.kernels.not_validated import sample_convolution as gpu

    return (
        gpu.image_gradient(gradient, weight) if for_x else x.new_empty(0),
        gpu.weight_gradient(gradient, x, weight.shape[-1]).to(weight.dtype).contiguous()
        if for_weight
        else weight.new_empty(0),
    )


@_sample_convolution_backward.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_weight: bool) -> tuple[Tensor, Tensor]:
    to_x = x.new_empty(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1) if for_x else x.new_empty(0)
    return to_x, weight.new_empty(weight.shape if for_weight else 0)


def _remember(ctx, inputs, output) -> None:
    x, weight, bias, ctx.slope = inputs
    ctx.save_for_backward(x, weight, output if ctx.slope != 1 else None)
    ctx.has_bias = bias is not None


def _backward(ctx, gradient: Tensor):
    x, weight, output = ctx.saved_tensors
    for_x, for_weight, for_bias, _ = ctx.needs_input_grad
    if ctx.slope != 1:  # output and input of the LeakyReLU have the same sign
        gradient = torch.where(output > 0, gradient, ctx.slope * gradient)
    to_x, to_weight = torch.ops.regcore.sample_convolution_backward(gradient, x, weight, for_x, for_weight)
    to_bias = gradient.flatten(2).sum(2) if ctx.has_bias and for_bias else None
    return to_x if for_x else None, to_weight if for_weight else None, to_bias, None


_sample_convolution.register_autograd(_backward, setup_context=_remember)


@_sample_convolution.register_vmap
def _(info, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None, slope: float):
    """Nested samples become one axis of samples; shared tensors are not copied."""

    def samples(tensor: Tensor | None, axis: int | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        return tensor.flatten(0, 1) if tensor.shape[1] > 1 else tensor.squeeze(1)

    found = torch.ops.regcore.sample_convolution(
        *[samples(tensor, axis) for tensor, axis in zip((x, weight, bias), in_dims, strict=False)], slope
    )
    return found.unflatten(0, (info.batch_size, -1)), 0
