"""Settings of the refinement of a network's field."""

from pydantic import Field

from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Positive, Whole


class RefineSettings(MethodSettings):
    """Start of the field, and the steps."""

    start: str | None = Field(
        None,
        description="source of the initial field: a learned method of the study, or the folder of a trained model",
    )
    iterations: Whole = Field(100, description="steps of Adam on the flow (100 in the paper)")
    step: Positive = Field(0.1, description="learning rate of Adam, in voxels of the flow")
