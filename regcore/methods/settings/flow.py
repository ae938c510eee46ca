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
    """Input and output of the network."""

    input: Literal["images", "mind"] = Field(
        "images",
        description="input of the network: images (as in the papers), or mind: self-similarity descriptors (MIND-SSC), "
        "which hardly change with contrast",
    )
    passes: Count = Field(
        1,
        description="runs of the network per pair (1 in the papers); from the second on it sees the moving image as "
        "warped so far, and its output is added to the velocity",
    )
    flow: Literal["velocity", "displacement"] = Field(
        "velocity", description="output of the network: velocity (integrated; invertible) or displacement"
    )
    flow_resolution: Literal[1, 2] = Field(
        2, description="grid of the flow: 1 (the images' grid) or 2 (half the resolution)"
    )
    integration_steps: Whole = Field(7, description="squarings in scaling and squaring")

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.passes > 1 and self.flow != "velocity":
            raise InputError(f"{where}: 'passes: {self.passes}' needs velocities; set 'flow: velocity'")


class UNetSettings(MethodSettings):
    """The U-Net that predicts the flow."""

    architecture: UNetName = Field("paper", description="the U-Net; see regcore/networks/unet_architecture.py")
    width: Positive = Field(
        1,
        description="factor for the features of every layer (2: VoxelMorph ×2; 4: the 256 features of SynthMorph)",
    )

    def check_unet(self, flow_resolution: int, where: str) -> None:
        """Raise :class:`InputError` if the U-Net cannot predict a flow at this resolution or has no features."""
        architecture = ARCHITECTURES[self.architecture]
        if architecture.resolution > flow_resolution:
            raise InputError(
                f"{where}: the architecture '{self.architecture}' ends at half resolution; set 'flow_resolution: 2'"
            )
        try:
            architecture.widened(self.width)
        except ValueError as error:
            raise InputError(f"{where}: 'width: {self.width}': {error}") from error
