"""The learning rate over the steps, and early stopping.

Both depend only on the step and the history of validations, so an interrupted training resumes identically.
"""

import math
from collections.abc import Mapping, Sequence

from regcore.methods.settings.training import TrainingSettings

#: Factor of the learning rate on a plateau.
DROP = 0.2


def learning_rate(settings: TrainingSettings, step: int, history: Sequence[Mapping[str, float]]) -> float:
    """The learning rate of the step after ``step`` steps."""
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    if settings.schedule == "plateau":
        before = [row for row in history if row["step"] <= step]
        return settings.learning_rate * DROP ** _plateaus(settings, before)
    return settings.learning_rate


def stopped_early(settings: TrainingSettings, step: int, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether to stop after ``step`` steps, because validation has had too many plateaus."""
    if settings.patience is None or step >= settings.steps:
        return False
    allowed = settings.drops if settings.schedule == "plateau" else 0
    return _plateaus(settings, history) > allowed


def score(settings: TrainingSettings, row: Mapping[str, float]) -> float:
    """Score of the weights at a row of the history; higher is better."""
    return -row["validation_loss"] if settings.select == "loss" else row["validation_dice"]


def plateaus(scores: Sequence[float], patience: int, tolerance: float = 0) -> int:
    """Number of plateaus: runs of ``patience`` scores, counted from zero each time, without a clear improvement.

    Parameters
    ----------
    tolerance : float
        Relative improvement over the best score that counts.

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
