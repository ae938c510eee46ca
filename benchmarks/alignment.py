"""Measure from how far, how often and how fast two scans are brought onto each other, by regcore and by other tools.

    python benchmarks/alignment.py --pairs 10
    python benchmarks/alignment.py --pairs 2 --contestants regcore --kinds rotation fov60 --split train
    python benchmarks/alignment.py --native-pairs --contestants headers regcore ANTs
    python benchmarks/alignment.py --speed 3
    python benchmarks/alignment.py --pictures --contestants regcore
    python benchmarks/alignment.py --summary

The first two align pairs and add a row each to ``<output>/pairs/<contestant>.csv``; what is there is not repeated, so a
run can be stopped, continued and divided: by kinds one after the other, by contestants also at the same time.
``--native-pairs`` aligns pairs of training subjects of two cohorts as their files have them.  ``--speed`` times a whole
brain at 1 mm on two threads.  ``--pictures`` draws ten pairs with what a contestant found.  ``--summary`` writes the
page and the figure from all rows; the other forms do so at their end too.

Pairs are declared in ``capture/kinds.py`` and ``capture/bases.py``.  ``--split train`` is for development: its
subjects and its random numbers are others than those of the committed table (``test``).
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from capture.contestants import CONTESTANTS, missing
from capture.kinds import KINDS
from capture.native_pairs import measure_native_pairs
from capture.pairs import Pair, make_pair
from capture.pictures import draw_pairs
from capture.rows import Rows
from capture.score import score
from capture.speed import time_contestants
from capture.summary import write_summary

from regcore.process.isolation import CallFailed, Worker

BENCHMARKS = Path(__file__).resolve().parent
OUTPUT = BENCHMARKS.parent / "docs" / "results" / "alignment"
FAMILIES = ("within", "across")


def measure(arguments: argparse.Namespace, contestants: list[str]) -> None:
    rows = {name: Rows(arguments.output, name) for name in contestants}
    with ExitStack() as stack:
        # One each: two versions of ITK in one process cannot read files.
        workers = {name: stack.enter_context(Worker(threads=1)) for name in contestants}
        for number in range(arguments.pairs):
            for kind in arguments.kinds:
                for family in FAMILIES:
                    name = f"{kind}-{family}-{number:03d}"
                    left = [c for c in contestants if not rows[c].has(name, arguments.split)]
                    pair = make_pair(kind, family, number, arguments.split) if left else None
                    if pair is not None:
                        measure_pair(pair, left, rows, workers, arguments)


def measure_pair(
    pair: Pair, contestants: list[str], rows: dict[str, Rows], workers: dict[str, Worker], arguments: argparse.Namespace
) -> None:
    with tempfile.TemporaryDirectory(prefix="regcore-alignment-") as folder:
        paths = [str(Path(folder) / f"{name}.nii") for name in ("fixed", "moving")]
        pair.fixed.save(paths[0])
        pair.moving.save(paths[1])
        for name in contestants:
            try:
                found = workers[name].call("capture.contestants:align", name, *paths, seconds=arguments.limit)
                scored = score(pair, np.array(found["matrix"]))
            except CallFailed as error:
                found = {"failed": str(error).splitlines()[0][:200]}
                scored = {"success": False, "worse": False}
            rows[name].add(pair, arguments.split, found, scored)
            error = f"error {100 * scored['error']:.1f} %" if "error" in scored else found["failed"]
            taken = f"{found['cpu_seconds']:.1f} CPU s" if "seconds" in found else ""
            print(
                f"{pair.name:24} {name:18} {'ok  ' if scored['success'] else 'FAIL'} {error} {taken}", file=sys.stderr
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="pairs of every kind and family")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which an alignment has failed")
    parser.add_argument("--native-pairs", action="store_true")
    parser.add_argument("--speed", type=int, default=0, metavar="N", help="repeats of the timing")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    # Workers find `capture` by this.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
    absent = {name: reason for name in arguments.contestants if (reason := missing(name))}
    for reason in absent.values():
        print(f"not run: {reason}", file=sys.stderr)
    contestants = [name for name in arguments.contestants if name not in absent]
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.pairs:
        measure(arguments, contestants)
    if arguments.native_pairs:
        measure_native_pairs(contestants, arguments.limit, arguments.output / "native-pairs.csv")
    if arguments.speed:
        time_contestants(contestants, arguments.speed, arguments.limit, arguments.output / "speed.csv")
    if arguments.pictures:
        for name in contestants:
            draw_pairs(name, Rows(arguments.output, name).table, arguments.output)
    write_summary(arguments.output, arguments.split)


if __name__ == "__main__":
    main()
