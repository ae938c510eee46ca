"""The outputs of a registration network: flow and decoder features."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Decoded(NamedTuple):
    """A flow and the decoder features it was computed from.

    Attributes
    ----------
    flow : Tensor, shape (B, D, *half or *space)
    quarter : Tensor, shape (B, C, *quarter)
        Features of the last convolution at a quarter of the images' resolution.
    half : Tensor, shape (B, C', *half)
        Features of the last convolution at half of it.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.unet import FlowNetwork
    >>> found = FlowNetwork(2).decode(torch.zeros(1, 2, 16, 16))
    >>> tuple(found.flow.shape), tuple(found.quarter.shape), tuple(found.half.shape)
    ((1, 2, 16, 16), (1, 32, 4, 4), (1, 32, 8, 8))
    """

    flow: Tensor
    quarter: Tensor
    half: Tensor


class Decoding(Protocol):
    """A registration network that shows the features of its decoder."""

    stride: int
    resolution: int

    @property
    def quarter_channels(self) -> int: ...

    @property
    def half_channels(self) -> int: ...

    def decode(self, pair: Tensor) -> Decoded: ...
