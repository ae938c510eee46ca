"""Settings of ``autosearch`` in a study file: AutoReg's search for cells and objective.

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
        description="what to search for: feature and deformation (the cells), objective (λ1 to λ4); the rest comes "
        "from 'start'",
    )
    start: str | None = Field(
        None,
        description="start of the search: another entry with a search, an architecture file, or the folder of a "
        "trained autoreg model; what is not searched is also taken from it; null: the method's own settings",
    )
    by: Literal["gradient", "random", "tpe"] = Field(
        "gradient",
        description="how to search for cells: gradient (Algorithm 1), or as a control random or tpe, which try "
        "architectures with the weights of one super-network",
    )
    as_long_as: str | None = Field(
        None,
        description="entry with a search by gradient whose CPU time is the time limit; only with 'by: random' or "
        "'by: tpe'",
    )
    epoch: Count = Field(100, description="steps per epoch")
    warmup: Whole = Field(15, description="epochs that train only the weights before the search for cells")
    epochs: Count = Field(30, description="maximum of epochs that search for cells")
    objective_warmup: Whole | None = Field(
        None, description="epochs that train only the weights before the search for λ; null: as for cells"
    )
    objective_epochs: Count | None = Field(None, description="maximum of epochs that search for λ; null: as for cells")
    stable: Count = Field(
        10,
        description="epochs without a change of the strongest operations, or of λ, after which a stage ends",
    )
    tolerance: NonNegative = Field(0.01, description="relative change of λ below which it counts as unchanged")
    optimiser: Literal["adam", "muon"] = Field(
        "adam", description="optimiser of the weights in a search, as in training"
    )
    learning_rate: Positive = Field(
        1e-4, description="learning rate for the weights in a search, and for the look-ahead step of the hypergradient"
    )
    architecture_rate: Positive = Field(1e-4, description="learning rate of Adam for α")
    objective_rate: Positive = Field(4e-3, description="learning rate of Adam for λ")
    keep_length: bool = Field(
        True,
        description="in the search for λ, treat the length of the look-ahead step as constant, so that λ cannot lower "
        "the loss by a longer step; false: Algorithm 1 as printed, in which λ grow without limit",
    )
    epsilon: Positive = Field(1e-4, description="ε of the finite differences (the paper: its learning rate, 1e-4)")

    def warmup_of(self, objective: bool) -> int:
        """Epochs that train only the weights before the search for cells or the objective."""
        return self.warmup if not objective or self.objective_warmup is None else self.objective_warmup

    def epochs_of(self, objective: bool) -> int:
        """Maximum of epochs that search for cells or the objective."""
        return self.epochs if not objective or self.objective_epochs is None else self.objective_epochs

    @property
    def settled(self) -> "CellSearchSettings":
        """The settings with null replaced by its meaning."""
        return self.with_values({"objective_warmup": self.warmup_of(True), "objective_epochs": self.epochs_of(True)})


class ObjectivePart(Settings):
    """λ in an architecture file."""

    lambda1: Annotated[int | float, Field(ge=0, le=1)] | None = left_out(
        "λ1, weight of local correlation in the similarity"
    )
    lambda2: NonNegative | None = left_out("λ2, weight of the diffusion of the velocity")
    lambda3: NonNegative | None = left_out("λ3, weight of the similarity at half resolution")
    lambda4: NonNegative | None = left_out("λ4, weight of the similarity at a quarter of the resolution")


class NetworkPart(Settings):
    """The network's sizes in an architecture file."""

    channels: Count | None = left_out("features per image at half resolution")
    separable: str | None = left_out("kind of separable convolution")
    downsampling: str | None = left_out("convolution with stride two in a feature cell")
