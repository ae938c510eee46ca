"""Register pairs of many anatomies with deformable methods, side by side, and compare them.

    python benchmarks/portfolio.py --pairs 10
    python benchmarks/portfolio.py --pairs 2 --split train --rows slices sliding --contestants greedy instance
    python benchmarks/portfolio.py --pairs 4 --split train --method 'instance {"smooth_field": 0.7}' --label smoother
    python benchmarks/portfolio.py --summary

All but the last register pairs and add a row each to ``<output>/pairs/<contestant>.csv``; what is there is not
repeated, so a run can be stopped, continued and divided: by rows one after the other, by contestants also at the same
time.  Contestants take turns on every pair, each in a process of its own.  All write the page and the figure at their
end.  ``--method`` (with ``--label``, once or several times) tries a method with other settings, also beside
``--contestants``.

The rows are declared in ``anatomies/rows.py``: brains of two people, of one person, across contrasts, slices,
hippocampus, prostate, and made anatomies with known motion.  ``--split train`` and ``validation`` are for development:
their subjects and random numbers are others than those of the committed table (``test``).
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from anatomies.contestants import CONTESTANTS, FIELD, FIXED, MASK, MOVING, Contestant
from anatomies.pair import Pair
from anatomies.rows import ROWS, make_pair
from anatomies.score import score
from anatomies.summary import write_summary
from anatomies.table import Table

from regcore.process.isolation import CallFailed, Worker

BENCHMARKS = Path(__file__).resolve().parent
OUTPUT = BENCHMARKS.parent / "docs" / "results" / "portfolio"
#: Of larger images, a process keeps gigabytes: it is ended after every registration.
KEPT_VOXELS = 3_000_000


def measure_row(row: str, tables: dict[str, Table], arguments: argparse.Namespace) -> None:
    """Register the pairs of a row that the tables lack."""
    tables = {name: table for name, table in tables.items() if table.contestant.registers(ROWS[row].ndim)}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(arguments.threads)) for name in tables}
        for number in range(arguments.pairs):
            left = [name for name in tables if not tables[name].has(f"{row}-{number:03d}", arguments.split)]
            pair = make_pair(row, number, arguments.split) if left else None
            if pair is not None:
                measure_pair(row, pair, {name: tables[name] for name in left}, workers, arguments)


def measure_pair(
    row: str, pair: Pair, tables: dict[str, Table], workers: dict[str, Worker], arguments: argparse.Namespace
) -> None:
    start = score(pair, np.zeros((pair.fixed.grid.ndim, *pair.fixed.grid.shape), np.float32))
    with tempfile.TemporaryDirectory(prefix="regcore-portfolio-") as name:
        folder = Path(name)
        pair.fixed.save(folder / FIXED)
        pair.moving.save(folder / MOVING)
        if pair.moving_mask is not None:
            pair.moving_mask.save(folder / MASK)
        for label, table in tables.items():
            with ExitStack() as stack:
                large = pair.fixed.data.size > KEPT_VOXELS
                worker = stack.enter_context(Worker(arguments.threads)) if large else workers[label]
                found = registered(worker, table.contestant, folder, pair, arguments.limit)
            added = table.add(row, pair, arguments.split, arguments.threads, start, found)
            print(said(added), file=sys.stderr)


def registered(worker: Worker, contestant: Contestant, folder: Path, pair: Pair, limit: float) -> dict:
    """The cost and the scores of a registration, or why there is none."""
    (folder / FIELD).unlink(missing_ok=True)
    call = ("anatomies.contestants:register", contestant.method, dict(contestant.settings), str(folder))
    try:
        cost = worker.call(*call, seconds=limit)
        return cost | score(pair, np.load(folder / FIELD))
    except CallFailed as error:
        return {"failed": str(error).splitlines()[0][:200]}


def said(row: dict) -> str:
    """A line of progress."""
    begin = f"{row['pair']:18} {row['contestant']:18}"
    if "failed" in row:
        return f"{begin} FAILED: {row['failed']}"
    error = f"  error {row['error_start_mm']:.2f} → {row['error_mm']:.2f} mm" if "error_mm" in row else ""
    return f"{begin} Dice {row['dice_start']:.4f} → {row['dice']:.4f}{error}  {row['seconds']:.2f} s"


def chosen(arguments: argparse.Namespace) -> dict[str, Contestant]:
    """The contestants that were asked for, by label; all if none was."""
    names = arguments.contestants or ([] if arguments.method else list(CONTESTANTS))
    found = {name: CONTESTANTS[name] for name in names}
    if len(arguments.label) > len(arguments.method):
        raise SystemExit("every --label needs a --method")
    labels = [*arguments.label, *arguments.method[len(arguments.label) :]]
    for label, text in zip(labels, arguments.method, strict=True):
        name, _, settings = text.partition(" ")
        found[label] = Contestant(name, json.loads(settings or "{}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="pairs of every row that has so many")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=[], metavar="NAME")
    parser.add_argument("--method", action="append", default=[], metavar="'NAME {settings}'")
    parser.add_argument("--label", action="append", default=[], help="of the --method of the same place")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a registration has failed")
    parser.add_argument("--summary", action="store_true", help="only write the page and the figure")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    # Workers find `anatomies` by this.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
    contestants = chosen(arguments)
    absent = {name: reason for name, contestant in contestants.items() if (reason := contestant.missing())}
    for name, reason in absent.items():
        print(f"not run: {name}: {reason}", file=sys.stderr)
    tables = {
        name: Table(arguments.output, name, contestant)
        for name, contestant in contestants.items()
        if name not in absent
    }
    for row in arguments.rows if arguments.pairs and not arguments.summary else []:
        if ROWS[row].here:
            measure_row(row, tables, arguments)
        else:
            print(f"not run: {row}: its cohorts are not there", file=sys.stderr)
    write_summary(arguments.output, arguments.split, absent)


if __name__ == "__main__":
    main()
