"""Seconds for two whole brains at 1 mm, by contestants that take turns."""

import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from capture import sources
from capture.bases import draw_base
from capture.kinds import KINDS
from capture.pairs import Pair, disturbed, fitted
from capture.score import score
from regcore.process.files import atomic_write
from regcore.process.isolation import CallFailed, Worker

THREADS = 2


def fine_pair() -> Pair:
    """Two brains at 1 mm, moderately apart: of two subjects where their scans are there, else embedded ones."""
    generator = np.random.default_rng(0)
    base = draw_base(KINDS["moderate"], "within", 0, "train", generator)
    fixed, moving = (
        replace(scan, smooth=scan.image, spacing=1.0) for scan in (sources.load(base.fixed), sources.load(base.moving))
    )
    return disturbed(fixed, moving, fitted(fixed, moving), "moderate", generator, "moderate-within-speed", base)


def time_contestants(contestants: list[str], repeats: int, limit: float, path: Path) -> None:
    """Write a row for every contestant and repeat; the first call of each, which loads and compiles, does not count."""
    pair = fine_pair()
    rows = []
    with tempfile.TemporaryDirectory(prefix="regcore-alignment-") as folder, ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(THREADS)) for name in contestants}
        paths = [str(Path(folder) / f"{name}.nii") for name in ("fixed", "moving")]
        pair.fixed.save(paths[0])
        pair.moving.save(paths[1])
        for repeat in range(repeats + 1):
            for name in contestants:
                row = {"contestant": name, "repeat": repeat, "threads": THREADS, "voxels": pair.fixed.data.size}
                try:
                    found = workers[name].call("capture.contestants:align", name, *paths, seconds=limit)
                except CallFailed as error:
                    row |= {"failed": str(error).splitlines()[0][:200]}
                else:
                    matrix = np.array(found["matrix"])
                    row |= {"seconds": round(found["seconds"], 3), "cpu_seconds": round(found["cpu_seconds"], 3)}
                    row |= {"error": round(score(pair, matrix)["error"], 4)}
                print(row, file=sys.stderr)
                if repeat:
                    rows.append(row)
    with atomic_write(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
