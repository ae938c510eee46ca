"""Settings of ``tune`` in a study file: the search for a method's hyperparameters.

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
    """All values of an interval."""

    low: Number
    high: Number
    log: bool = False

    def samples(self, whole: bool) -> list[Any]:
        """Both ends, and a value between them with many digits."""
        between = [] if whole else [self.low + 0.3819 * (self.high - self.low)]
        return [self.low, self.high, *between]


class Choices(Settings):
    """Some values."""

    choices: Annotated[list[Number | str | bool | None], Field(min_length=1)]

    def samples(self, whole: bool) -> list[Any]:
        """All choices."""
        return self.choices


#: A range as written in a study file; :attr:`SearchSettings.rules` turns it into one of the two classes.
Range = Annotated[
    Annotated[list[Number], Field(min_length=2, max_length=2)] | Interval | Choices,
    Told("give [low, high], {low: …, high: …, log: true} or {choices: […]}"),
]


class SearchSettings(Section):
    """A search for hyperparameters."""

    ranges: Annotated[dict[str, Range], Field(min_length=1)] = Field(
        description="setting of the method → [low, high], {low: …, high: …, log: true} (logarithmic scale) or "
        "{choices: […]}; whole numbers if the setting is a whole number",
    )
    trials: Count | None = Field(
        None,
        description="number of trainings; raising it later runs only the additional ones; null: 50, or all of a grid's "
        "combinations",
    )
    workers: Count = Field(4, description="trials that may run at the same time; with 1, a search is reproducible")
    sampler: Literal["tpe", "random", "grid"] = Field(
        TPE,
        description="tpe (Bayesian optimisation by a tree-structured Parzen estimator), random, or grid (all "
        "combinations of 'choices')",
    )
    random_trials: Count = Field(10, description="random trials before tpe starts to learn from them")
    pruning: bool = Field(
        True, description="end a trial whose best Dice so far is below the others' median at the same validation"
    )
    startup_trials: Count = Field(5, description="finished trials before the first is pruned")
    warmup: Whole | None = Field(
        None,
        description="validations before a trial may be pruned; null: 6 % of all validations, at least one",
    )
    interval: Count | None = Field(
        None, description="validations between two decisions to prune; null: 2 % of all validations, at least one"
    )

    @property
    def rules(self) -> dict[str, Interval | Choices]:
        """The ranges as objects."""
        return {
            key: Interval(low=rule[0], high=rule[1]) if isinstance(rule, list) else rule
            for key, rule in self.ranges.items()
        }
