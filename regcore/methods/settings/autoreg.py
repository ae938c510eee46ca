"""Settings of AutoReg's network and objective. Those of its search are in :mod:`regcore.autoreg.settings`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from regcore.methods.settings.base import Share
from regcore.methods.settings.flow import FlowSettings, UNetName
from regcore.networks.architecture import MANUAL, Architecture
from regcore.settings.base import Count, NonNegative

CELLS, UNET = "cells", "unet"


class AutoRegSettings(FlowSettings):
    """The network of cells, or a U-Net, and λ."""

    presets: ClassVar = {"code": {"separable": "code"}}

    preset: Literal["code"] | None = Field(
        None, description="code (the authors' separable convolutions) or null (the paper's)"
    )
    network: Literal["cells", "unet"] = Field(
        "cells",
        description="cells (the paper's two scales) or unet (see unet; then only the objective is AutoReg's)",
    )
    architecture: str | dict[str, Any] = Field(
        "manual-medium",
        description="the cells: a network chosen by hand (manual-small, -medium or -large: all 1-, 3- or "
        "7-convolutions), the path of an architecture file, or the content of such a file",
    )
    channels: Count = Field(16, description="features per image at half resolution; other sizes follow from it")
    separable: Literal["true", "code"] = Field(
        "true",
        description="true (one kernel per feature, then a mixing of features) or code (what the authors' code calls "
        "separable: a full convolution before them)",
    )
    downsampling: Literal["first", "last"] = Field(
        "first",
        description="convolution with stride two in a feature cell: first (the authors' code; fits the paper's memory) "
        "or last (the paper's text)",
    )
    checkpointing: bool = Field(
        False,
        description="in a search, recompute operations in the backward pass: less memory, slower steps",
    )
    unet: UNetName = Field(
        "paper", description="the U-Net, with 'network: unet'; see regcore/networks/unet_architecture.py"
    )
    lambda1: Share = Field(
        0.5, description="λ1, weight of local correlation in the similarity; MIND has 1 - λ1 (Eq. 4)"
    )
    lambda2: NonNegative = Field(
        1.5,
        description="λ2, weight of the diffusion of the velocity (Eq. 5; defaults of λ1 to λ4: the initial values in "
        "the authors' code)",
    )
    lambda3: NonNegative = Field(0.32, description="λ3, weight of the similarity at half resolution (Eq. 5)")
    lambda4: NonNegative = Field(
        0.08, description="λ4, weight of the similarity at a quarter of the resolution (Eq. 5)"
    )
    input: Literal["images"] = Field("images", description="input of the network: images")
    passes: Literal[1] = Field(1, description="runs of the network per pair: one")
    flow: Literal["velocity"] = Field("velocity", description="output of the network: a velocity")
    flow_resolution: Literal[2] = Field(2, description="the flow is at half the resolution of the images")

    _file: Path | None = PrivateAttr(None)

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if isinstance(self.architecture, str) and Path(self.architecture).is_file():
            self._file = Path(self.architecture)
        self.architecture = _architecture_of(self.architecture, f"{where}.architecture").as_json()

    @property
    def architecture_file(self) -> Path | None:
        """The file of the architecture; None if it is not from a file."""
        return self._file

    @property
    def cells(self) -> Architecture:
        """The operations of the cells."""
        return Architecture.parsed(self.architecture, "architecture")

    @property
    def unused(self) -> set[str]:
        if self.network == CELLS:
            return {"unet"}
        return {"architecture", "channels", "separable", "downsampling", "checkpointing"}


def _architecture_of(value: str | Mapping[str, Any], where: str) -> Architecture:
    """An architecture: chosen by hand, from a file, or given directly.

    Raises
    ------
    InputError
        As for :meth:`Architecture.read`.
    """
    if isinstance(value, Mapping):
        return Architecture.parsed(value, where)
    return Architecture.uniform(MANUAL[value]) if value in MANUAL else Architecture.read(value)
