"""Settings of the refinement of a network's field."""

from typing import Literal

from pydantic import Field

from regcore.methods.settings.base import MethodSettings
from regcore.methods.settings.objective import SIMILARITY, WINDOW, Several
from regcore.settings.base import NonNegative, Positive, Whole, absent

#: The similarity for networks whose loss compares no images; this and the next two as measured in docs/synthmorph.md.
WITHOUT_IMAGES: Literal["lncc"] = "lncc"
#: λ of each similarity.
LAMBDA = {"mse": 0.03, "lncc": 2, "nmi": 1, "mind": 0.2}
#: Iterations with a similarity; more hardly change its result.
ENOUGH = 50


class RefineSettings(MethodSettings):
    """Start of the field, what to compare, and the steps."""

    start: str | None = Field(
        None,
        description="source of the initial field: a learned method of the study, the folder of a trained model, or a "
        "released one: synthmorph-2d, synthmorph-3d",
    )
    similarity: Literal["mse", "lncc", "nmi", "mind"] | None = Field(
        None,
        exclude_if=absent,
        description=f"{SIMILARITY}; null: the network's own loss, or {WITHOUT_IMAGES} if that compares no images",
    )
    window: Several | None = Field(None, exclude_if=absent, description=f"{WINDOW}, with 'similarity'; null: 5")
    bins: Several | None = Field(
        None, exclude_if=absent, description="bins per image in the histogram of nmi, with 'similarity'; null: 32"
    )
    lambda_: NonNegative | None = Field(
        None,
        exclude_if=absent,
        description="weight of the smoothness of the displacement, with 'similarity'; null: "
        + ", ".join(f"{value} for {name}" for name, value in LAMBDA.items()),
    )
    iterations: Whole = Field(
        100, description=f"steps of Adam on the flow; 100 as in the paper, but {ENOUGH} by default with a similarity"
    )
    step: Positive = Field(0.1, description="learning rate of Adam, in voxels of the flow")
