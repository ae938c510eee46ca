"""The tidy table of one contestant: one row a pair, written after every alignment."""

import json
from pathlib import Path

import pandas as pd

from capture.pairs import Pair
from regcore.process.files import atomic_write

DIGITS = 4
COLUMNS = [
    "pair", "split", "kind", "family", "fixed", "moving", "known", "degrees", "extent_mm", "contestant",
    "error_mm", "error_seen_mm", "error", "dice", "dice_start", "dice_truth", "success", "worse",
    "seconds", "cpu_seconds", "verdict", "failed", "matrix",
]  # fmt: skip


class Rows:
    """``folder/<contestant>.csv``, which can be continued.

    Parameters
    ----------
    folder : Path
        Where the tables are.
    contestant : str
        Its name; spaces become ``-`` in the file's name.
    """

    def __init__(self, folder: Path, contestant: str):
        self.contestant = contestant
        self.path = folder / "pairs" / f"{contestant.replace(' ', '-').lower()}.csv"
        self.table = pd.read_csv(self.path) if self.path.is_file() else pd.DataFrame(columns=COLUMNS)

    def has(self, name: str, split: str) -> bool:
        """Whether a pair has its row."""
        return bool(((self.table["pair"] == name) & (self.table["split"] == split)).any())

    def add(self, pair: Pair, split: str, found: dict, scored: dict) -> None:
        """Add what was found for a pair, or why nothing was."""
        row = {
            "pair": pair.name, "split": split, "kind": pair.kind, "family": pair.family, "fixed": pair.base.fixed,
            "moving": pair.base.moving, "known": pair.known, "degrees": round(pair.degrees, 1),
            "extent_mm": round(pair.extent, 1), "contestant": self.contestant,
        }  # fmt: skip
        row |= {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in scored.items()}
        row |= {
            "seconds": round(found["seconds"], 3) if "seconds" in found else None,
            "cpu_seconds": round(found["cpu_seconds"], 3) if "seconds" in found else None,
            "verdict": found.get("verdict"),
            "failed": found.get("failed"),
            "matrix": json.dumps([[round(x, 6) for x in line] for line in found["matrix"]])
            if "matrix" in found
            else None,
        }
        new = pd.DataFrame([row]).reindex(columns=COLUMNS)
        self.table = pd.concat([self.table, new], ignore_index=True) if len(self.table) else new
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary:
            self.table.to_csv(temporary, index=False)


def read_rows(folder: Path, split: str) -> pd.DataFrame:
    """The rows of all contestants for one split."""
    tables = [pd.read_csv(path) for path in sorted((folder / "pairs").glob("*.csv"))]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return table[table["split"] == split]
