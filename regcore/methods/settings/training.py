"""Settings of training, shared by all learned methods."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Count, NonNegative, Positive, Whole

#: Contrasts of the fixed and moving image.
Pairing = Annotated[list[str], Field(min_length=2, max_length=2)]


class TrainingSettings(MethodSettings):
    """Settings of the trainer."""

    steps: Count = Field(150000, description="training steps")
    batch_size: Count = Field(1, description="pairs per step")
    accumulate: Count = Field(
        1, description="number of parts that a batch is split into: less memory, the same gradient"
    )
    optimiser: Literal["adam", "muon"] = Field(
        "adam", description="adam (as in the papers) or muon (updates of convolutions are orthogonal matrices)"
    )
    learning_rate: Positive = Field(1e-4, description="learning rate of the optimiser")
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="schedule of the learning rate: constant (the paper), cosine (to zero) or plateau (divided by five "
        "whenever patience runs out; training ends the next time after 'drops' of these)",
    )
    drops: Whole = Field(2, description="number of drops of the learning rate with 'schedule: plateau'")
    validate_every: Count = Field(1000, description="steps between two validations and checkpoints")
    patience: Count | None = Field(
        None,
        description="validations without a better score after which training stops; null: never",
    )
    select: Literal["dice", "loss"] = Field(
        "dice",
        description="score of a validation: dice (mean Dice) or loss (the method's own; convergence then does not "
        "depend on labels)",
    )
    tolerance: NonNegative = Field(0, description="relative improvement over the best score that resets patience")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the network: float32, or bfloat16 (faster on GPUs; losses, fields and weights "
        "stay float32)",
    )
    compile: bool = Field(False, description="use torch.compile: a slow start, then faster steps on GPUs")
    record: bool = Field(
        False,
        description="on a GPU, record a step as a CUDA graph and replay it, so kernels do not wait for Python; for "
        "steps without random numbers, and images of one size",
    )
    replicate: Count = Field(
        1,
        description="number of the training, among several that differ only in the random start and the order of pairs",
    )
    training_subjects: Annotated[int, Field(ge=2)] | None = Field(
        None, description="number of training subjects to use, drawn by the study's seed; null: all"
    )
    training_contrasts: Annotated[list[Pairing], Field(min_length=1)] | None = Field(
        None,
        description="train on these pairings of contrasts, [[fixed, moving], ...], and choose weights on validation "
        "pairs with them; null: those of the study",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if self.schedule == "plateau" and self.patience is None:
            raise InputError(f"{where}: 'schedule: plateau' needs 'patience', the validations that make a plateau")
