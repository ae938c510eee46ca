"""Dice of a released model on a study's validation pairs, on finer and finer grids and after more and more passes.

    snakemake --cores all results/synthmorph-3d/prepared/part-00 --configfile config/studies/synthmorph-3d.yaml
    python benchmarks/resolution.py config/studies/synthmorph-3d.yaml synthmorph-3d \
        --grids 3:64 2:96 1.5:128 --passes 1 3 --output docs/results/synthmorph/resolution.csv

Reads the study's prepared scans for their alignment alone and resamples the native ones, so grids are compared on scans
that are aligned alike.  Dice is measured on the grid itself; seconds are medians over the pairs, on one thread.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from regcore.alignment.prepared import read_prepared
from regcore.alignment.preprocess import prepare_image, read_scan
from regcore.alignment.resampling import resample
from regcore.cohort.labels import found_labels, scored_labels
from regcore.images.volume import Grid, read_labels
from regcore.methods.base import as_tensor
from regcore.models.released import released_models
from regcore.models.trained import load_model
from regcore.process.files import atomic_write
from regcore.process.threads import tune_process
from regcore.settings.yaml import load_yaml
from regcore.study.plan import Plan, plan_study
from regcore.study.stages.train import pairs_of_split
from regcore.training.validation import LabelledPairs


def labelled_pairs(plan: Plan, spacing: float, voxels: int) -> LabelledPairs:
    """Validation pairs on a cube of so many voxels a side around the centre of the study's grid."""
    pairs = pairs_of_split(plan, "validation")
    images, labels = {}, {}
    for scan in sorted({scan for pair in pairs for scan in pair}):
        stem = plan.prepared(scan)
        prepared = read_prepared(Path(stem))
        to_native, centre = prepared.to_native, prepared.image.grid.centre
        grid = Grid.centred((voxels,) * plan.ndim, (spacing,) * plan.ndim, centre)
        files = plan.cohort.files(scan)
        settings = plan.settings.preprocess
        image = prepare_image(read_scan(files, settings), settings)
        images[scan] = as_tensor(resample(image, grid, to_native))
        labels[scan] = resample(read_labels(files["labels"]), grid, to_native, nearest=True).data
    return LabelledPairs(pairs, images, labels)


def measure(plan: Plan, model: str, grids: list[tuple[float, int]], passes: list[int]) -> pd.DataFrame:
    """Rows of ``spacing_mm voxels passes contrasts dice pairs seconds``; 0 passes: what pairs start from."""
    method = load_model(released_models()[model]).method
    contrast, rows = plan.cohort.table["contrast"], []
    for spacing, voxels in grids:
        labelled = labelled_pairs(plan, spacing, voxels)
        scored = scored_labels(found_labels(labelled.labels.values()), plan.settings.labels, plan.label_table)
        for count in (0, *passes):
            scores: dict[str, list[float]] = {}
            seconds = []
            for fixed, moving in labelled.pairs:
                image = labelled.images[fixed]
                started = time.perf_counter()
                if count:
                    flow = method.predict(method.module, image, labelled.images[moving], count)
                    displacement = method.displacement(flow, image)
                else:
                    displacement = torch.zeros(1, plan.ndim, *image.shape[2:])
                seconds.append(time.perf_counter() - started)
                dice = labelled.dice((fixed, moving), displacement, list(scored["index"]))
                scores.setdefault(f"{contrast[moving]} to {contrast[fixed]}", []).append(float(np.nanmean(dice)))
            for contrasts, values in scores.items():
                row = {"spacing_mm": spacing, "voxels": voxels, "passes": count, "contrasts": contrasts}
                rows.append(row | {"dice": round(float(np.mean(values)), 4), "pairs": len(values)})
                rows[-1]["seconds"] = round(statistics.median(seconds), 2)
                print(*rows[-1].values(), flush=True)
    return pd.DataFrame(rows)


def grid_of(text: str) -> tuple[float, int]:
    spacing, voxels = text.split(":")
    return float(spacing), int(voxels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a study's file")
    parser.add_argument("model", help="a released model: synthmorph-2d or synthmorph-3d")
    parser.add_argument("--grids", type=grid_of, nargs="+", required=True, help="spacing in mm : voxels a side")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, required=True, help="CSV")
    arguments = parser.parse_args()
    tune_process(1)
    plan = plan_study(load_yaml(arguments.study))
    with torch.inference_mode():
        table = measure(plan, arguments.model, arguments.grids, arguments.passes)
    with atomic_write(arguments.output) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    main()
