"""Settings of the similarity, and of VoxelMorph's objective, which TransMorph and TM-SPR share."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.constants import LABELS_ALONE
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.flow import FlowSettings
from regcore.settings.base import Count, NonNegative, Number, Positive

SIMILARITY = (
    "mse: mean squared difference; lncc: local correlation; nmi: normalised mutual information, for different "
    "contrasts; mind: the MIND-SSC descriptor, also for different contrasts. Each needs its own λ"
)
WINDOW = "side of the windows of lncc in voxels"
#: Size of a window, or number of bins.
Several = Annotated[int, Field(ge=2)]


class SimilaritySettings(MethodSettings):
    """Similarity of two images."""

    similarity: Literal["mse", "lncc", "nmi", "mind"] = Field("mse", description=SIMILARITY)
    bins: Several = Field(32, description="bins per image in the histogram of nmi")


class ImageTermsSettings(SimilaritySettings, FlowSettings):
    """Images in the losses, and augmentation of training pairs."""

    image_sigma: Positive = Field(
        1,
        description="standard deviation of the noise in the images; mse is divided by its square; 1 for no scaling",
    )
    bidirectional: bool = Field(
        False,
        description="also compare the moving image with the fixed one warped by the inverse; needs a velocity",
    )
    observed: Literal["all", "half", "one", "groups"] | Annotated[list[Any], Field(min_length=1)] = Field(
        "all",
        description="labels used in training with γ: all, half or one of the structures, groups (labels merged into "
        "the study's groups), or a list of numbers and ranges",
    )
    observed_draw: Count = Field(1, description="number of the random draw, with observed: half or one")
    flips: bool = Field(False, description="flip axes of training pairs at random")
    augmentation: Literal["deformations", "contrasts"] | None = Field(
        None,
        description="further augmentation of training pairs: deformations (a random one of every image), contrasts "
        "(random lookup tables for the network's input, not for the loss) or null (none)",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.bidirectional and self.flow == "displacement":
            raise InputError(f"{where}: 'bidirectional' needs the inverse, which 'flow: displacement' does not have")


class ObjectiveSettings(ImageTermsSettings):
    """The terms for images and labels."""

    window: Several = Field(9, description=WINDOW)
    gamma: NonNegative | Literal["infinity"] = Field(
        0, description="weight of the overlap of labels in training, γ of Eq. 10; infinity: only labels"
    )

    @property
    def labels_alone(self) -> bool:
        """Whether the overlap of labels is the only term."""
        return self.gamma == LABELS_ALONE

    @property
    def overlap_weight(self) -> Number:
        """Factor of the overlap: γ, or 1 if it is the only term."""
        return 1 if isinstance(self.gamma, str) else self.gamma


class WeightingSettings(MethodSettings):
    """Weighting of the terms."""

    weighting: Literal["sum", "convex"] = Field(
        "sum",
        description="weighting of the terms: sum (Eq. 4 and 10: similarity + λ smoothness + γ overlap) or convex (Eq. "
        "3 of HyperMorph: (1 - λ) ((1 - γ) similarity + γ overlap) + λ smoothness)",
    )
    smoothness: Positive = Field(
        1, description="factor of the smoothness term besides λ; 2 in the authors' code of HyperMorph"
    )
    lambda_: NonNegative | None = Field(
        None,
        description="weight of the smoothness term, λ of Eq. 4; null: the published value, 0.02 for mse and 1 for lncc",
    )
