"""Settings of a training, which every learned method has."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Count, NonNegative, Positive, Whole

#: Contrasts of a fixed and a moving image.
Pairing = Annotated[list[str], Field(min_length=2, max_length=2)]


class TrainingSettings(MethodSettings):
    """What the trainer reads."""

    steps: Count = Field(150000, description="training steps")
    batch_size: Count = Field(1, description="pairs per step")
    accumulate: Count = Field(
        1, description="parts that a batch is cut into, one after the other: less memory, the same gradient"
    )
    optimiser: Literal["adam", "muon"] = Field(
        "adam", description="adam (the papers), or muon: the updates of convolutions are orthogonal matrices"
    )
    learning_rate: Positive = Field(1e-4, description="of the optimiser")
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="learning rate over the steps: constant (the paper), a cosine that ends at zero, or plateau: a "
        "fifth whenever patience is at its end, and once more training ends after 'drops' of these",
    )
    drops: Whole = Field(2, description="how often the rate drops with 'schedule: plateau'")
    validate_every: Count = Field(
        1000, description="steps between two looks at the validation pairs and two checkpoints"
    )
    patience: Count | None = Field(
        None,
        description="looks at the validation pairs without a better score after which training stops; null: never",
    )
    select: Literal["dice", "loss"] = Field(
        "dice",
        description="what the look at the validation pairs goes by: dice (mean Dice), or loss (the method's own; a "
        "convergence that does not depend on labels)",
    )
    tolerance: NonNegative = Field(
        0, description="share of the best score so far by which a look has to be better for patience to begin anew"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the network's arithmetic: float32, or bfloat16 (faster on GPUs; losses, fields and weights "
        "stay float32)",
    )
    compile: bool = Field(
        False, description="run the network through torch.compile: a slow start, then faster steps on GPUs"
    )
    record: bool = Field(
        False,
        description="on a GPU, record a step as a CUDA graph and replay it, so that no kernel waits for Python; for "
        "steps that draw nothing at random, and images of one size",
    )
    replicate: Count = Field(
        1,
        description="which of several trainings that differ in nothing but the random start and the order of pairs",
    )
    training_subjects: Annotated[int, Field(ge=2)] | None = Field(
        None, description="train on so many of the training subjects, drawn by the study's seed; null: on all"
    )
    training_contrasts: Annotated[list[Pairing], Field(min_length=1)] | None = Field(
        None,
        description="train on these pairings of contrasts, [[fixed, moving], ...], and choose the weights on "
        "validation pairs of them; null: those of the study",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.schedule == "plateau" and self.patience is None:
            raise InputError(f"{where}: 'schedule: plateau' needs 'patience', the number of looks that make a plateau")
