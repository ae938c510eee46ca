"""TransMorph with a diffeomorphic field of several steps (Chen et al., 2022), the backbone of TM-SPR.

The objective is VoxelMorph's; what differs is the network, and that the displacement itself is held smooth, at full
resolution, as in the authors' code.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regcore.errors import InputError
from regcore.losses import diffusion
from regcore.methods.voxelmorph import VoxelMorph
from regcore.networks.transmorph import COMPOSITIONS, NORM, SIZES, STRIDE, window_for
from regcore.networks.transmorph import TransMorph as Network

#: Of VoxelMorph's settings those of its network do not apply.
OBJECTIVE = {
    name: rule for name, rule in VoxelMorph.properties.items() if name not in ("preset", "architecture", "width")
}
NETWORK = {
    "size": {
        "description": "regular (the paper's 96 features in the first stage), small (48) or tiny (24)",
        "enum": list(SIZES),
        "default": "regular",
    },
    "attention": {
        "description": "tokens of eight voxels along each axis of a window of attention; null: 1/32 of the training "
        "grid's voxels, rounded up",
        "type": ["array", "null"],
        "minItems": 2,
        "maxItems": 3,
        "items": {"type": "integer", "minimum": 1},
        "default": None,
    },
    "time_steps": {
        "description": "displacements that the field is composed of",
        "type": "integer",
        "minimum": 1,
        "default": 7,
    },
    "compose": {
        "description": "paper (steps are composed as maps) or code (the authors' shortcut: an increment is warped by "
        "itself)",
        "enum": list(COMPOSITIONS),
        "default": "paper",
    },
    "norm": {
        "description": "of convolutions outside the decoder: batch (the authors' code) or instance",
        "enum": list(NORM),
        "default": "batch",
    },
    "drop_path": {
        "description": "how often training leaves out residuals of the last block of the encoder",
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.3,
    },
    "checkpointing": {
        "description": "compute the encoder again in the backward pass: less memory, longer steps",
        "type": "boolean",
        "default": False,
    },
}


class TransMorph(VoxelMorph):
    """A Swin transformer and a convolutional decoder predict a velocity at half resolution."""

    properties: ClassVar[dict] = {
        "preset": {
            "description": "code (the authors' composition of steps) or null: the paper's",
            "enum": ["code", None],
            "default": None,
        },
        **OBJECTIVE,
        "similarity": OBJECTIVE["similarity"] | {"default": "lncc"},
        "input": OBJECTIVE["input"] | {"enum": ["images"]},
        "flow": OBJECTIVE["flow"] | {"enum": ["velocity"]},
        "flow_resolution": OBJECTIVE["flow_resolution"] | {"enum": [2]},
        **NETWORK,
    }
    presets: ClassVar[dict[str, dict]] = {"code": {"compose": "code"}}

    def _check_network(self, where: str) -> None:
        pass  # any size makes a network

    @property
    def stride(self) -> int:
        return STRIDE

    def settle(self, shape: Sequence[int]) -> None:
        settle_attention(self.settings, shape)

    def build(self, ndim: int) -> nn.Module:
        return network(self.settings, ndim)

    def _terms(self, flow: Tensor, deformed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"diffusion": diffusion(deformed["displacement"])}


def settle_attention(settings: dict[str, Any], shape: Sequence[int]) -> None:
    """Fill in the window of attention for images of ``shape``, or check the one that is there."""
    window = settings["attention"]
    if window is None:
        settings["attention"] = window_for(shape)
    elif len(window) != len(shape):
        raise InputError(f"'attention: {window}' must have {len(shape)} numbers, as many as images have axes")


def network(settings: Mapping[str, Any], ndim: int) -> nn.Module:
    """The network that settings ask for; without a window that is settled one of the least size."""
    names = {"size": "size", "time_steps": "steps", "compose": "compose", "norm": "norm"}
    chosen = {own: settings[name] for name, own in names.items()}
    kept = {name: settings[name] for name in ("drop_path", "checkpointing")}
    return Network(ndim, settings["attention"] or [1] * ndim, **chosen, **kept)
