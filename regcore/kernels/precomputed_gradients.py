"""Losses whose forward pass computes gradients; the backward pass multiplies them by the incoming gradient."""

import torch
from torch import Tensor
from torch.library import CustomOpDef

from regcore.kernels.launch import cpu_operator, on_its_device


@cpu_operator("regcore::scale_ready")
def _scale_ready(gradient: Tensor, ready: Tensor) -> Tensor:
    """A separate operator without a derivative, so that second derivatives raise an error instead of being zero."""
    return gradient * ready


@_scale_ready.register_kernel("cuda")
@on_its_device
def _(gradient: Tensor, ready: Tensor) -> Tensor:
    return gradient * ready


@_scale_ready.register_fake
def _(gradient: Tensor, ready: Tensor) -> Tensor:
    return torch.empty_like(ready)


def returns_its_gradients(operator: CustomOpDef) -> None:
    """Register the derivative of an operator that returns a loss, and its gradients for its first inputs.

    A loss may have an axis for the batch, which is then the first of the gradients too.  Gradients that are not needed
    are empty.
    """

    def remember(ctx, inputs, output) -> None:
        ctx.inputs = len(inputs)
        ctx.save_for_backward(*output[1:])

    def backward(ctx, gradient: Tensor, *_):
        found = [
            torch.ops.regcore.scale_ready(_spread(gradient, ready), ready) if needed else None
            for ready, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        return *found, *[None] * (ctx.inputs - len(found))

    operator.register_autograd(backward, setup_context=remember)


def _spread(gradient: Tensor, ready: Tensor) -> Tensor:
    """The incoming gradient with as many axes as what it multiplies."""
    return gradient.reshape(*gradient.shape, *[1] * (ready.ndim - gradient.ndim))
