"""Settings of VoxelMorph's objective, which TransMorph and TM-SPR share, and of how images are compared."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.constants import LABELS_ALONE
from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.flow import FlowSettings
from regcore.settings.base import Count, NonNegative, Number, Positive

SIMILARITY = (
    "mse: mean squared difference; lncc: local correlation; nmi: normalised mutual information, for images of "
    "different contrast; mind: the MIND-SSC descriptor, also for those. Each wants its own λ"
)
WINDOW = "side of the windows of lncc in voxels"
#: A size of windows, or a number of bins.
Several = Annotated[int, Field(ge=2)]


class SimilaritySettings(MethodSettings):
    """How alike two images are."""

    similarity: Literal["mse", "lncc", "nmi", "mind"] = Field("mse", description=SIMILARITY)
    bins: Several = Field(32, description="bins of each image in the histogram of nmi")


class ImageTermsSettings(SimilaritySettings, FlowSettings):
    """What the losses compare, and what is done to training pairs."""

    image_sigma: Positive = Field(
        1,
        description="standard deviation of the images' noise that mse is measured in: it is divided by the square; 1 "
        "leaves it as it is",
    )
    bidirectional: bool = Field(
        False,
        description="also compare the fixed image, warped by the inverse, with the moving one; needs a velocity",
    )
    observed: Literal["all", "half", "one", "groups"] | Annotated[list[Any], Field(min_length=1)] = Field(
        "all",
        description="labels that training with γ sees: all, half or one of the structures, groups (labels merged into "
        "the study's groups), or a list of numbers and ranges",
    )
    observed_draw: Count = Field(1, description="which draw of half the structures, or of one")
    flips: bool = Field(False, description="flip the axes of training pairs at random")
    augmentation: Literal["deformations", "contrasts"] | None = Field(
        None,
        description="what else is done to training pairs: deformations (random ones of every image), or contrasts (the "
        "network sees images through random lookup tables, the loss does not); null: nothing",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.bidirectional and self.flow == "displacement":
            raise InputError(f"{where}: 'bidirectional' needs the inverse, which 'flow: displacement' does not have")


class ObjectiveSettings(ImageTermsSettings):
    """The terms of the images and of their labels."""

    window: Several = Field(9, description=WINDOW)
    gamma: NonNegative | Literal["infinity"] = Field(
        0, description="weight of the overlap of labels in training, γ of Eq. 10; infinity: labels alone"
    )

    @property
    def labels_alone(self) -> bool:
        """Whether the overlap of labels is the only term."""
        return self.gamma == LABELS_ALONE

    @property
    def overlap_weight(self) -> Number:
        """γ as a factor of the overlap beside an image term, or 1 where labels are alone."""
        return 1 if isinstance(self.gamma, str) else self.gamma


class WeightingSettings(MethodSettings):
    """How the terms are weighed."""

    weighting: Literal["sum", "convex"] = Field(
        "sum",
        description="how terms are weighed: sum (Eq. 4 and 10: similarity + λ smoothness + γ overlap), or convex (Eq. "
        "3 of HyperMorph: (1 - λ) ((1 - γ) similarity + γ overlap) + λ smoothness)",
    )
    smoothness: Positive = Field(
        1, description="what the smoothness term is multiplied by, λ aside; 2 in the authors' code of HyperMorph"
    )
    lambda_: NonNegative | None = Field(
        None,
        description="weight of the smoothness term, λ of Eq. 4; null: the published one, 0.02 for mse and 1 for lncc",
    )
