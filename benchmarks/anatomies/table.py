"""The tidy table of one contestant: one row a pair, written after every registration."""

import json
from pathlib import Path

import pandas as pd

from anatomies.contestants import Contestant
from anatomies.pair import Pair
from regcore.errors import InputError
from regcore.process.files import atomic_write

COLUMNS = [
    "row", "pair", "split", "fixed", "moving", "voxels", "contestant", "method", "settings", "threads",
    "dice", "hd95_mm", "error_mm", "dice_start", "hd95_start_mm", "error_start_mm", "folds_percent",
    "sd_log_jacobian", "seconds", "cpu_seconds", "memory_mb", "failed",
]  # fmt: skip
#: What is measured of the start too.
OF_START = {"dice": "dice_start", "hd95_mm": "hd95_start_mm", "error_mm": "error_start_mm"}


class Table:
    """``folder/pairs/<label>.csv``, which can be continued.

    Parameters
    ----------
    folder : Path
        Where the tables are.
    label : str
        The contestant's name; what a file's name may not have becomes ``-``.
    contestant : Contestant
        Its method and settings.

    Raises
    ------
    InputError
        The table there is of other settings.
    """

    def __init__(self, folder: Path, label: str, contestant: Contestant):
        self.label, self.contestant = label, contestant
        self.path = folder / "pairs" / f"{''.join(c if c.isalnum() or c in '.-_' else '-' for c in label)}.csv"
        self.rows = pd.read_csv(self.path) if self.path.is_file() else pd.DataFrame(columns=COLUMNS)
        self.settings = json.dumps(dict(contestant.settings), sort_keys=True)
        others = set(zip(self.rows["contestant"], self.rows["method"], self.rows["settings"], strict=True))
        if others - {(label, contestant.method, self.settings)}:
            raise InputError(f"{self.path} has rows of {sorted(others)}: choose another --label or --output")

    def has(self, pair: str, split: str) -> bool:
        """Whether a pair has its row."""
        return bool(((self.rows["pair"] == pair) & (self.rows["split"] == split)).any())

    def add(self, row: str, pair: Pair, split: str, threads: int, start: dict, found: dict) -> dict:
        """Add what was found for a pair, or why nothing was; returns the row."""
        new = {
            "row": row, "pair": pair.name, "split": split, "fixed": pair.fixed_name, "moving": pair.moving_name,
            "voxels": pair.fixed.data.size, "contestant": self.label, "method": self.contestant.method,
            "settings": self.settings, "threads": threads,
        }  # fmt: skip
        new |= {name: start[measure] for measure, name in OF_START.items() if measure in start} | found
        new = {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in new.items()}
        line = pd.DataFrame([new]).reindex(columns=COLUMNS)
        self.rows = pd.concat([self.rows, line], ignore_index=True) if len(self.rows) else line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary:
            self.rows.to_csv(temporary, index=False)
        return new


def read_tables(folder: Path, split: str) -> pd.DataFrame:
    """The rows of all contestants for one split."""
    tables = [pd.read_csv(path) for path in sorted((folder / "pairs").glob("*.csv"))]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return table[table["split"] == split]
