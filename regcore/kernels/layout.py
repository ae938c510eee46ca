"""The memory layout of features in which convolutions are fastest: channels innermost."""

import torch
from torch import Tensor

#: The layout (B, *space, C), in which convolutions are fastest on CPUs and GPUs.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out(tensor: Tensor) -> Tensor:
    """The tensor in the layout of :data:`CHANNELS_LAST`; unlike ``contiguous`` this also works under ``vmap``."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def channels_last(tensor: Tensor) -> Tensor:
    """View (B, C, *space), in this layout, as (B, *space, C)."""
    return tensor.contiguous(memory_format=CHANNELS_LAST[tensor.ndim]).movedim(1, -1)
