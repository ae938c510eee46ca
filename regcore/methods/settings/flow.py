"""Settings of networks that predict a flow, and of the U-Nets among them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.training import TrainingSettings
from regcore.networks.unet_architecture import ARCHITECTURES
from regcore.settings.base import Count, Positive, Whole

IMAGES, MIND = "images", "mind"

#: Names in :data:`regcore.networks.unet_architecture.ARCHITECTURES`.
UNetName = Literal["paper", "paper-vm1", "paper-diff", "strided", "strided-vm1", "code", "half", "wide", "synthmorph"]


class FlowSettings(TrainingSettings):
    """What the network sees, and what its flow is."""

    input: Literal["images", "mind"] = Field(
        "images",
        description="what the network sees: images (the papers), or mind, their self-similarity descriptors "
        "(MIND-SSC), which hardly change with contrast",
    )
    passes: Count = Field(
        1,
        description="how often the network looks at a pair; from the second time on it sees the moving image as "
        "warped so far, and what it finds is added to the velocity (the papers: 1)",
    )
    flow: Literal["velocity", "displacement"] = Field(
        "velocity", description="what the network predicts: velocity (integrated; invertible) or displacement"
    )
    flow_resolution: Literal[1, 2] = Field(
        2, description="1: the flow is used on the images' grid; 2: on one half as fine"
    )
    integration_steps: Whole = Field(7, description="squarings of scaling and squaring")

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.passes > 1 and self.flow != "velocity":
            raise InputError(f"{where}: 'passes: {self.passes}' adds velocities; set 'flow: velocity'")


class UNetSettings(MethodSettings):
    """Which U-Net predicts the flow."""

    architecture: UNetName = Field("paper", description="the U-Net; see regcore/networks/unet_architecture.py")
    width: Positive = Field(
        1,
        description="multiplies the features of every layer (2 is VoxelMorph's ×2; 4 makes the 256 of SynthMorph)",
    )

    def check_unet(self, flow_resolution: int, where: str) -> None:
        """Raise :class:`InputError` for a U-Net that cannot predict a flow at this resolution, or has no features."""
        architecture = ARCHITECTURES[self.architecture]
        if architecture.resolution > flow_resolution:
            raise InputError(
                f"{where}: the architecture '{self.architecture}' ends at half resolution; set 'flow_resolution: 2'"
            )
        try:
            architecture.widened(self.width)
        except ValueError as error:
            raise InputError(f"{where}: 'width: {self.width}': {error}") from error
