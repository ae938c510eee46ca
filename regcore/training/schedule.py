"""The learning rate over the steps, and early stopping.

Both depend only on the step and the history of validations, so an interrupted training resumes identically.
"""

import math
from collections.abc import Mapping, Sequence

from regcore.methods.settings.training import TrainingSettings

#: Factor of the learning rate on a plateau.
DROP = 0.2


def learning_rate(settings: TrainingSettings, step: int, history: Sequence[Mapping[str, float]]) -> float:
    """The learning rate of the step after ``step`` steps.

    Parameters
    ----------
    settings : TrainingSettings
        ``schedule`` and what it needs.
    step : int
        Steps so far.
    history : sequence of mapping
        The validations so far, for ``schedule: plateau``.

    Returns
    -------
    float

    Examples
    --------
    >>> from regcore.methods import read_settings
    >>> from regcore.training.schedule import learning_rate
    >>> settings = read_settings("voxelmorph", {"steps": 100, "schedule": "cosine", "learning_rate": 1e-3})
    >>> [round(learning_rate(settings, step, []), 5) for step in (0, 50, 90)]
    [0.001, 0.0005, 2e-05]
    """
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    if settings.schedule == "plateau":
        before = [row for row in history if row["step"] <= step]
        return settings.learning_rate * DROP ** _plateaus(settings, before)
    return settings.learning_rate


def stopped_early(settings: TrainingSettings, step: int, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether to stop after ``step`` steps, because validation has had too many plateaus.

    Parameters
    ----------
    settings : TrainingSettings
        ``patience``, ``tolerance``, ``schedule`` and ``drops``.
    step : int
        Steps so far.
    history : sequence of mapping
        The validations so far.

    Returns
    -------
    bool
        False without ``patience``, and after the last step.

    Examples
    --------
    >>> from regcore.methods import read_settings
    >>> from regcore.training.schedule import stopped_early
    >>> settings = read_settings("voxelmorph", {"steps": 100, "patience": 2})
    >>> history = [{"step": 10 * (n + 1), "validation_dice": dice} for n, dice in enumerate([0.6, 0.7, 0.69, 0.7])]
    >>> stopped_early(settings, 30, history[:3]), stopped_early(settings, 40, history)
    (False, True)
    """
    if settings.patience is None or step >= settings.steps:
        return False
    allowed = settings.drops if settings.schedule == "plateau" else 0
    return _plateaus(settings, history) > allowed


def score(settings: TrainingSettings, row: Mapping[str, float]) -> float:
    """Score of the weights at a row of the history; higher is better.

    Parameters
    ----------
    settings : TrainingSettings
        ``select``.
    row : mapping
        ``validation_dice``, or ``validation_loss``.

    Returns
    -------
    float
        Dice, or minus the loss.

    Examples
    --------
    >>> from regcore.methods import read_settings
    >>> from regcore.training.schedule import score
    >>> row = {"step": 10, "validation_dice": 0.7, "validation_loss": 0.02}
    >>> [score(read_settings("voxelmorph", {"select": select}), row) for select in ("dice", "loss")]
    [0.7, -0.02]
    """
    return -row["validation_loss"] if settings.select == "loss" else row["validation_dice"]


def plateaus(scores: Sequence[float], patience: int, tolerance: float = 0) -> int:
    """Number of plateaus: runs of ``patience`` scores, counted from zero each time, without a clear improvement.

    Parameters
    ----------
    scores : sequence of float
        In the order of the validations; higher is better.
    patience : int
        Length of a run.
    tolerance : float
        Relative improvement over the best score that counts.

    Returns
    -------
    int

    Examples
    --------
    >>> from regcore.training.schedule import plateaus
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
