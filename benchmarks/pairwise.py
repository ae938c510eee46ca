"""Register test pairs of a study with optimisers that need no training, side by side, and time them.

    python benchmarks/pairwise.py config/studies/oasis-brains-2mm.yaml --pairs 24 --syn 4 --output docs/results/pairwise

The study's scans have to be prepared (``snakemake ... --until prepare``): all contestants start from the same
affinely aligned images on the common grid.  On every pair they take turns.  Seconds are from the prepared
files to a displacement field on disk, in one process, the first pair excluded: it warms up.  Dice and folds are
measured on the common grid, labels warped with nearest neighbour.  greedy takes part where picsl_greedy is
installed (``pip install regcore[greedy]``); ANTs SyN on the first ``--syn`` pairs only, because it takes minutes.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from regcore.alignment.prepared import read_prepared
from regcore.cohort.labels import found_labels, scored_labels
from regcore.evaluation import dice, folds
from regcore.images.field import DisplacementField
from regcore.images.volume import read_labels
from regcore.methods import make_method, read_settings
from regcore.process.files import atomic_write
from regcore.process.threads import tune_process
from regcore.process.versions import processor_name
from regcore.spatial import warp
from regcore.study.plan import Plan, plan_study

Contestant = Callable[[str, str], DisplacementField]


def of_method(name: str, settings: dict) -> Contestant:
    """A method of regcore, from the stems of two prepared scans to the field."""
    method = make_method(name, settings)

    def register(fixed: str, moving: str) -> DisplacementField:
        field = method.register(*(read_prepared(Path(stem)).image for stem in (fixed, moving))).field
        with tempfile.TemporaryDirectory() as folder:
            field.save(Path(folder) / "field.nii")
        return field

    return register


def contestants(arguments: argparse.Namespace) -> dict[str, Contestant]:
    found = {"affine": of_method("affine", {}), "instance": of_method("instance", {})}
    if read_settings("greedy").missing() is None:
        found["greedy NCC"] = of_method("greedy", {})
    if arguments.syn:
        found["ANTs SyN CC"] = of_method("syn", {})
    return found


def measure(plan: Plan, arguments: argparse.Namespace) -> pd.DataFrame:
    """One row per pair and contestant: Dice, folds, seconds."""
    pairs = plan.pairs_of("test").head(arguments.pairs)
    maps = {scan: read_labels(plan.prepared(scan) + "_labels.nii").data for scan in {*pairs["fixed"], *pairs["moving"]}}
    codes = scored_labels(found_labels(maps.values()), plan.settings.labels, plan.label_table)["index"]
    rows = []
    for number, pair in enumerate(pairs.itertuples()):
        for name, register in contestants(arguments).items():
            if name.startswith("ANTs") and number >= arguments.syn:
                continue
            stems = plan.prepared(pair.fixed), plan.prepared(pair.moving)
            if not number and not name.startswith("ANTs"):
                register(*stems)  # compiles kernels, loads libraries
            started = time.perf_counter()
            field = register(*stems)
            seconds = time.perf_counter() - started
            fixed, moving = maps[pair.fixed], torch.from_numpy(maps[pair.moving])[None, None]
            warped = warp(moving, field.displacement.float(), mode="nearest")[0, 0].numpy()
            score = float(np.nanmean(dice(fixed, warped, codes)))
            folded = folds(field.displacement, fixed > 0)
            rows.append({"pair": pair.pair, "method": name, "dice": score, "folds_percent": folded, "seconds": seconds})
            print(f"{number + 1}/{len(pairs)}  {name:20} Dice {score:.4f}  {seconds:.1f} s", file=sys.stderr)
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per contestant; differences to greedy (or SyN) on the pairs that both registered."""
    table = []
    scores = rows.pivot(index="pair", columns="method", values="dice")
    for name, part in rows.groupby("method", sort=False):
        seconds = part["seconds"]
        row = {
            "method": name,
            "pairs": len(part),
            "Dice": f"{part['dice'].mean():.3f} ± {part['dice'].std(ddof=1):.3f}",
            "folds %, most": f"{part['folds_percent'].max():.4f}",
            "seconds, median (least-most)": f"{seconds.median():.1f} ({seconds.min():.1f}-{seconds.max():.1f})",
        }
        for other in ("greedy NCC", "ANTs SyN CC"):
            if other in scores:
                difference = 100 * (scores[name] - scores[other]).dropna()
                row[f"points over {other}"] = (
                    f"{difference.mean():+.2f} ({difference.min():+.2f} to {difference.max():+.2f})"
                )
        table.append(row)
    return pd.DataFrame(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="file of the study")
    parser.add_argument("--directory", default=".", help="where results/ is")
    parser.add_argument("--pairs", type=int, default=24, help="test pairs, the first of the study")
    parser.add_argument("--syn", type=int, default=0, help="of these, how many ANTs SyN registers too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", required=True, help="path without ending: .csv and .md are written")
    arguments = parser.parse_args()
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(arguments.threads)
    tune_process(arguments.threads)
    output = Path(arguments.output).absolute()
    config = yaml.safe_load(Path(arguments.study).read_text())
    os.chdir(arguments.directory)
    plan = plan_study(config, check=False)
    rows = measure(plan, arguments)
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("torch", "antspyx", "picsl-greedy")
        if importlib.util.find_spec(package.replace("-", "_").replace("antspyx", "ants"))
    )
    with atomic_write(output.with_suffix(".csv")) as path:
        rows.to_csv(path, index=False, float_format="%.5g")
    with atomic_write(output.with_suffix(".md")) as path:
        path.write_text(
            f"`python {shlex.join(sys.argv)}`\n\n{processor_name()}, {arguments.threads} threads; {versions}.\n\n"
            f"{summary(rows).to_markdown(index=False)}\n"
        )


if __name__ == "__main__":
    main()
