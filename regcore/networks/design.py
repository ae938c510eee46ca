"""What is known of a registration network before it is made: a method asks its design, never the module itself."""

from typing import Protocol

from torch import nn


class Design(Protocol):
    """Numbers that make a network, and what these mean for whoever calls it."""

    @property
    def stride(self) -> int:
        """What images are padded to a multiple of before the network sees them."""

    @property
    def ndim(self) -> int | None:
        """Of the images, where the numbers fit no others."""

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether its backward pass computes a part of the network again."""

    def build(self, ndim: int) -> nn.Module:
        """Make the untrained network for ``ndim`` dimensions; its weights follow torch's seed."""
