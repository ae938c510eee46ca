"""What a study's file says under ``autosearch``: AutoReg's search for cells and objective.

Read without loading torch.
"""

from typing import Annotated, Literal

from pydantic import Field

from regcore.settings.base import Count, NonNegative, Positive, Section, Settings, Whole
from regcore.settings.fields import Distinct, left_out

Stage = Literal["feature", "deformation", "objective"]


class CellSearchSettings(Section):
    """A search for cells and objective."""

    what: Annotated[list[Stage], Distinct()] = Field(
        ["feature", "deformation", "objective"],
        description="what is searched for: feature and deformation (the cells), objective (λ1 to λ4); the rest is "
        "taken from 'start'",
    )
    start: str | None = Field(
        None,
        description="another entry with a search, an architecture file, or the folder of a trained autoreg model: "
        "where the search begins, and what it leaves as it is comes from; null: the method's own settings",
    )
    by: Literal["gradient", "random", "tpe"] = Field(
        "gradient",
        description="how cells are searched for: gradient (Algorithm 1), or as a control random or tpe, which try "
        "architectures with the weights of one super-network",
    )
    as_long_as: str | None = Field(
        None,
        description="entry with a search by gradient whose CPU time the search for cells may take; with 'by: "
        "random' or 'tpe'",
    )
    epoch: Count = Field(100, description="steps of an epoch")
    warmup: Whole = Field(15, description="epochs that train the weights alone before cells are searched")
    epochs: Count = Field(30, description="epochs that search for cells, at most")
    objective_warmup: Whole | None = Field(
        None, description="epochs that train the weights alone before λ is searched; null: as for cells"
    )
    objective_epochs: Count | None = Field(None, description="epochs that search for λ, at most; null: as for cells")
    stable: Count = Field(
        10,
        description="epochs without a change of the likeliest operations, or of λ, after which a stage ends",
    )
    tolerance: NonNegative = Field(0.01, description="relative change of λ that counts as none")
    optimiser: Literal["adam", "muon"] = Field("adam", description="of the weights in a search, as for trainings")
    learning_rate: Positive = Field(
        1e-4, description="for the weights in a search, and of the step that a hypergradient looks ahead"
    )
    architecture_rate: Positive = Field(1e-4, description="of Adam for α")
    objective_rate: Positive = Field(4e-3, description="of Adam for λ")
    keep_length: bool = Field(
        True,
        description="in the search for λ, take the length of the step that is looked ahead as given, so that λ "
        "cannot lower the loss by lengthening it; false: Algorithm 1 as printed, in which λ grow without end",
    )
    epsilon: Positive = Field(1e-4, description="ε of the finite differences (the paper: its learning rate, 1e-4)")

    def warmup_of(self, objective: bool) -> int:
        """Epochs that train the weights alone before the cells, or the objective, are searched."""
        return self.warmup if not objective or self.objective_warmup is None else self.objective_warmup

    def epochs_of(self, objective: bool) -> int:
        """Epochs that search for cells, or for the objective, at most."""
        return self.epochs if not objective or self.objective_epochs is None else self.objective_epochs

    @property
    def settled(self) -> "CellSearchSettings":
        """The settings with what null stands for."""
        return self.with_values({"objective_warmup": self.warmup_of(True), "objective_epochs": self.epochs_of(True)})


class ObjectivePart(Settings):
    """λ in an architecture file."""

    lambda1: Annotated[int | float, Field(ge=0, le=1)] | None = left_out(
        "λ1, share of local correlation in the similarity"
    )
    lambda2: NonNegative | None = left_out("λ2, weight of the diffusion of the velocity")
    lambda3: NonNegative | None = left_out("λ3, weight of the similarity at half resolution")
    lambda4: NonNegative | None = left_out("λ4, weight of the similarity at a quarter of the resolution")


class NetworkPart(Settings):
    """Sizes of the network in an architecture file."""

    channels: Count | None = left_out("features of an image at half resolution")
    separable: str | None = left_out("kind of separable convolution")
    downsampling: str | None = left_out("convolution of a feature cell that takes steps of two")
