"""What a registration network leaves beside its flow."""

from typing import NamedTuple

from torch import Tensor


class Decoded(NamedTuple):
    """A flow and the features of the decoder that it was made from.

    Attributes
    ----------
    flow : Tensor, shape (B, D, *half or *space)
    quarter : Tensor, shape (B, C, *quarter)
        Of the last convolution at a quarter of the images' resolution.
    half : Tensor, shape (B, C', *half)
        Of the last one at half of it.
    """

    flow: Tensor
    quarter: Tensor
    half: Tensor
