"""Checks of tensor arguments that every operator shares.

A wrong shape is always refused.  A value that is NaN or infinite is refused on the CPU, where looking
costs a fraction of the operator; on a GPU it would stall the queue, and under ``torch.compile`` there is
nothing to look at, so there it shows in the result instead.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class NotFiniteError(ValueError):
    """A tensor holds NaN or infinite values; a training that meets one has diverged."""


def describe(name: str, tensor: Tensor | np.ndarray) -> str:
    """``"name (2, 1, 8, 8)"``: an argument and its shape, for messages."""
    return f"{name} {tuple(tensor.shape)}"


def require_image(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless ``tensor`` is (B, C, *space) in two or three dimensions, none of them empty."""
    if tensor.ndim not in (4, 5) or 0 in tensor.shape:
        raise ValueError(f"{describe(name, tensor)} must be (batch, channel, *space) in 2-D or 3-D, and not empty")


def require_field(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless ``tensor`` is a displacement or velocity, (B, D, *space) with D axes."""
    require_image(name, tensor)
    if tensor.shape[1] != tensor.ndim - 2 or not tensor.is_floating_point():
        raise ValueError(
            f"{describe(name, tensor)} of {tensor.dtype} must be a floating-point field (batch, D, *space) with one "
            f"component for each of its {tensor.ndim - 2} axes"
        )


def require_floating(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless ``tensor`` is of a floating-point type."""
    if not tensor.is_floating_point():
        raise ValueError(f"{describe(name, tensor)} of {tensor.dtype} must be of a floating-point type")


def require_same_shape(first_name: str, first: Tensor | np.ndarray, name: str, tensor: Tensor | np.ndarray) -> None:
    """Raise ValueError unless two tensors, or arrays, have the same shape."""
    if first.shape != tensor.shape:
        raise ValueError(f"{describe(name, tensor)} must have the shape of {describe(first_name, first)}")


def require_same_space(first_name: str, first: Tensor, name: str, tensor: Tensor) -> None:
    """Raise ValueError unless two tensors (B, C, *space) agree in batch and space; channels may differ."""
    if first.shape[:1] + first.shape[2:] != tensor.shape[:1] + tensor.shape[2:]:
        raise ValueError(f"{describe(name, tensor)} must have the batch and space of {describe(first_name, first)}")


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise :class:`NotFiniteError` where a tensor on the CPU holds NaN or infinite values."""
    if torch.compiler.is_compiling() or not tensor.is_cpu or not tensor.is_floating_point():
        return
    lowest, highest = torch.aminmax(tensor.detach())  # one reading; NaN wins over every number
    if not (lowest.isfinite() and highest.isfinite()):
        count = int((~tensor.isfinite()).sum())
        raise NotFiniteError(f"{describe(name, tensor)} holds {count} values that are NaN or infinite")


def require_not_negative(name: str, tensor: Tensor) -> None:
    """Raise ValueError where a tensor on the CPU is negative anywhere, NaN or infinite."""
    require_finite(name, tensor)
    if not torch.compiler.is_compiling() and tensor.is_cpu and (lowest := tensor.detach().min()) < 0:
        raise ValueError(f"{describe(name, tensor)} must not be negative, found {lowest:.6g}")


def require_finite_loss(loss: Tensor, arguments: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Return ``loss``; where it is NaN or infinite, raise :class:`NotFiniteError` that names the argument to blame.

    Looking at the result costs nothing; only a failed one makes the arguments be looked at.
    """
    if not torch.compiler.is_compiling() and loss.is_cpu and not loss.detach().isfinite().all():
        for name, tensor in arguments:
            require_finite(name, tensor)
    return loss
