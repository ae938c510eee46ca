"""The training curve: mean losses between validations, and the file that shows them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from regcore.process.files import atomic_write


class MeanLosses:
    """Sums of losses by name, on their device. Reading their means waits for the device, adding does not.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.history import MeanLosses
    >>> losses = MeanLosses()
    >>> for value in (1.0, 2.0):
    ...     losses.add({"total": torch.tensor(value)})
    >>> losses.means()
    {'total': 1.5}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, losses: Mapping[str, Tensor], count: int = 1) -> None:
        """Add sums of ``count`` losses each."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value  # a copy: a recording overwrites its losses
        self._count += count

    def means(self, across: Callable[[Tensor], Tensor] = lambda value: value) -> dict[str, float]:
        """The means so far.

        Parameters
        ----------
        across : callable
            Sum of this process → mean of all processes' sums.
        """
        return {name: across(value).item() / self._count for name, value in self._sums.items()}


def save_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the training curve as ``history.csv``.

    Parameters
    ----------
    folder : Path
        Folder of the file.
    history : sequence of mapping
        One row per validation, as in :class:`regcore.training.trainer.Trained`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.training.history import save_history
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_history(Path(folder), [{"step": 10, "validation_dice": 0.61}, {"step": 20, "validation_dice": 0.7}])
    ...     print(Path(folder, "history.csv").read_text(), end="")
    step,validation_dice
    10,0.61
    20,0.7
    """
    with atomic_write(folder / "history.csv") as path:
        pd.DataFrame(history).to_csv(path, index=False)
