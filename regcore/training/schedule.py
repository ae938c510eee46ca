"""How fast a training learns from step to step, and when it is out of patience.

Both follow from the step and from the history of validations alone, so that an interrupted training goes on alike.
"""

import math
from collections.abc import Mapping, Sequence

from regcore.methods.settings.training import TrainingSettings

#: What the learning rate is multiplied by on a plateau.
DROP = 0.2


def learning_rate(settings: TrainingSettings, step: int, history: Sequence[Mapping[str, float]]) -> float:
    """The learning rate of the step that follows ``step`` others."""
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    if settings.schedule == "plateau":
        before = [row for row in history if row["step"] <= step]
        return settings.learning_rate * DROP ** _plateaus(settings, before)
    return settings.learning_rate


def stopped_early(settings: TrainingSettings, step: int, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether patience ends a training after ``step`` steps: validation has met more plateaus than it may."""
    if settings.patience is None or step >= settings.steps:
        return False
    allowed = settings.drops if settings.schedule == "plateau" else 0
    return _plateaus(settings, history) > allowed


def score(settings: TrainingSettings, row: Mapping[str, float]) -> float:
    """What a row of the history says for the weights of its step; the higher the better."""
    return -row["validation_loss"] if settings.select == "loss" else row["validation_dice"]


def plateaus(scores: Sequence[float], patience: int, tolerance: float = 0) -> int:
    """How often so many scores in a row, counted anew each time, brought nothing clearly above the best before them.

    Parameters
    ----------
    tolerance : float
        Share of the best score by which a score has to be above it.

    Examples
    --------
    >>> plateaus([0.1, 0.5, 0.4, 0.5, 0.6], patience=2)
    1
    """
    best, since, count = float("-inf"), 0, 0
    for value in scores:
        better = best == float("-inf") or value > best + tolerance * abs(best)
        since = 0 if better else since + 1
        best = value if better else best
        if since == patience:
            since, count = 0, count + 1
    return count


def _plateaus(settings: TrainingSettings, history: Sequence[Mapping[str, float]]) -> int:
    if settings.patience is None:
        return 0
    return plateaus([score(settings, row) for row in history], settings.patience, settings.tolerance)
