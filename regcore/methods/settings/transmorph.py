"""Settings of TransMorph, and of TransMorph with a hypernetwork."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from regcore.methods.settings.base import MethodSettings, Share
from regcore.methods.settings.flow import FlowSettings
from regcore.methods.settings.hypernetwork import AFTER_ENCODER, RANGES, FromFeaturesSettings, Ranges
from regcore.methods.settings.objective import SIMILARITY
from regcore.methods.settings.voxelmorph import VoxelMorphObjectiveSettings
from regcore.settings.base import Count, Number


class TransMorphNetworkSettings(MethodSettings):
    """The network of TransMorph."""

    size: Literal["regular", "small", "tiny"] = Field(
        "regular", description="regular (the paper's 96 features in the first stage), small (48) or tiny (24)"
    )
    attention: Annotated[list[Count], Field(min_length=2, max_length=3)] | None = Field(
        None,
        description="tokens of eight voxels along each axis of an attention window; null: 1/32 of the training grid's "
        "voxels, rounded up",
    )
    time_steps: Count = Field(7, description="number of displacements that compose the field")
    compose: Literal["paper", "code"] = Field(
        "paper",
        description="paper (maps are composed) or code (the authors' shortcut: an increment is warped by itself)",
    )
    norm: Literal["batch", "instance"] = Field(
        "batch", description="normalisation of convolutions outside the decoder: batch (the authors' code) or instance"
    )
    drop_path: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.3, description="probability that training skips residuals in the last block of the encoder"
    )
    checkpointing: bool = Field(
        False, description="recompute the encoder in the backward pass: less memory, slower steps"
    )


class TransMorphPredictionSettings(TransMorphNetworkSettings, FlowSettings):
    """Fixed settings of that network: its input is images, its output a velocity at half resolution."""

    similarity: Literal["mse", "lncc", "nmi", "mind"] = Field("lncc", description=SIMILARITY)
    input: Literal["images"] = Field("images", description="input of the network: images")
    flow: Literal["velocity"] = Field("velocity", description="output of the network: a velocity")
    flow_resolution: Literal[2] = Field(2, description="the flow is at half the resolution of the images")


class TransMorphSettings(TransMorphPredictionSettings, VoxelMorphObjectiveSettings):
    """VoxelMorph's objective, and the network."""

    presets: ClassVar = {"code": {"compose": "code"}}

    preset: Literal["code"] | None = Field(
        None, description="code (the authors' composition of steps) or null (the paper's)"
    )


class HyperTransMorphSettings(FromFeaturesSettings, TransMorphSettings):
    """Settings of TransMorph, and of a hypernetwork over λ."""

    ranges_key: ClassVar = "prior"

    passes: Literal[1] = Field(1, description="runs of the network per pair: one")
    weighting: Literal["convex"] = Field(
        "convex", description="weighting of the terms: (1 - λ) ((1 - γ) similarity + γ overlap) + λ smoothness"
    )
    lambda_: Share | None = Field(None, description="λ to register with; null: the best on the validation pairs")
    prior: Ranges = Field({"lambda": [0, 1]}, description=RANGES)

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        return {"lambda": (0, 1)}

    def settle_weights(self, given: Mapping[str, Any], where: str) -> None:
        self.generated = self.generated or AFTER_ENCODER
        self.settle_hyperparameters(given, where)
