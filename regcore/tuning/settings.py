"""What a study's file says under ``tune``: the search for a method's hyperparameters.

Read without loading torch or Optuna.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from regcore.settings.base import Count, Number, Section, Settings, Whole
from regcore.settings.fields import Told

TPE: Literal["tpe"] = "tpe"
RANDOM: Literal["random"] = "random"
GRID: Literal["grid"] = "grid"


class Interval(Settings):
    """All values between two."""

    low: Number
    high: Number
    log: bool = False

    def samples(self, whole: bool) -> list[Any]:
        """Both ends, and a number between them that is round nowhere."""
        between = [] if whole else [self.low + 0.3819 * (self.high - self.low)]
        return [self.low, self.high, *between]


class Choices(Settings):
    """Some values."""

    choices: Annotated[list[Number | str | bool | None], Field(min_length=1)]

    def samples(self, whole: bool) -> list[Any]:
        """All of them."""
        return self.choices


#: As a person may write it; :attr:`SearchSettings.rules` has one of the two classes for each.
Range = Annotated[
    Annotated[list[Number], Field(min_length=2, max_length=2)] | Interval | Choices,
    Told("give [low, high], {low: …, high: …, log: true} or {choices: […]}"),
]


class SearchSettings(Section):
    """A search for hyperparameters."""

    ranges: Annotated[dict[str, Range], Field(min_length=1)] = Field(
        description="setting of the method → [low, high], {low: …, high: …, log: true} (drawn on a logarithmic "
        "scale) or {choices: […]}; whole numbers where the setting is one"
    )
    trials: Count | None = Field(
        None,
        description="trainings; raising it later runs the further ones alone.  null: 50, or all of a grid's "
        "combinations",
    )
    workers: Count = Field(4, description="trials that may run at the same time; with 1 a search is the same each time")
    sampler: Literal["tpe", "random", "grid"] = Field(
        TPE,
        description="tpe (Bayesian optimisation by a tree-structured Parzen estimator), random, or grid (all "
        "combinations of 'choices')",
    )
    random_trials: Count = Field(10, description="trials at random before tpe begins to learn from them")
    pruning: bool = Field(
        True, description="end a trial whose best Dice so far is below the median of the others' at the same look"
    )
    startup_trials: Count = Field(5, description="finished trials before the first is pruned")
    warmup: Whole | None = Field(
        None,
        description="looks at the validation pairs before a trial may be pruned; null: 6 % of all looks, at least one",
    )
    interval: Count | None = Field(
        None, description="looks between two decisions to prune; null: 2 % of a training's, at least one"
    )

    @property
    def rules(self) -> dict[str, Interval | Choices]:
        """The ranges, all written out."""
        return {
            key: Interval(low=rule[0], high=rule[1]) if isinstance(rule, list) else rule
            for key, rule in self.ranges.items()
        }
