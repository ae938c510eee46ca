"""TransMorph with a diffeomorphic field composed of several steps (Chen et al., 2022), the backbone of TM-SPR.

The objective is VoxelMorph's.  The network differs, and the smoothness term acts on the displacement at full
resolution, as in the authors' code.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from regcore.errors import InputError
from regcore.losses import diffusion
from regcore.methods.objective import ObjectiveMethod
from regcore.methods.settings.transmorph import TransMorphNetworkSettings, TransMorphSettings
from regcore.methods.voxelmorph import weights_of_terms
from regcore.networks.transmorph import TransMorphDesign, window_for


class TransMorph(ObjectiveMethod):
    """A Swin transformer and a convolutional decoder predict a velocity at half resolution."""

    settings_type: ClassVar = TransMorphSettings
    settings: TransMorphSettings

    @property
    def design(self) -> TransMorphDesign:
        return transmorph_design(self.settings)

    def fit_to(self, shape: Sequence[int]) -> None:
        self.settings.attention = settled_attention(self.settings.attention, shape)

    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"diffusion": diffusion(deformed["displacement"])}

    def _weights(self, with_labels: bool) -> dict[str, float]:
        return weights_of_terms(self.settings, with_labels)


def transmorph_design(settings: TransMorphNetworkSettings) -> TransMorphDesign:
    """The network for some settings."""
    return TransMorphDesign(
        window=settings.attention,
        size=settings.size,
        steps=settings.time_steps,
        compose=settings.compose,
        norm=settings.norm,
        drop_path=settings.drop_path,
        keeps_checkpoints=settings.checkpointing,
    )


def settled_attention(window: list[int] | None, shape: Sequence[int]) -> list[int]:
    """The window of attention for images of ``shape``: the given one if it fits, or the default."""
    if window is None:
        return window_for(shape)
    if len(window) != len(shape):
        raise InputError(f"'attention: {window}' must have {len(shape)} numbers, as many as images have axes")
    return window
