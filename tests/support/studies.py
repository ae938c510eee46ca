"""A small study of discs, for tests of training and of stages."""

from pathlib import Path

import numpy as np
import pandas as pd

from regcore.images.volume import Grid, Volume, read_labels, read_volume
from regcore.study.plan import plan_study
from regcore.study.stages.prepare import prepare_scans

GRID = Grid.centred((32, 32), (1, 1), (0, 0))


def small_study(folder, methods, train_subjects=5, unlabelled=()):
    """A study of discs, two scans in each of validation and test."""
    distance = np.linalg.norm(np.moveaxis(np.indices((32, 32)), 0, -1) - 15.5, axis=-1)
    rows = []
    for number, split in enumerate(["train"] * train_subjects + ["validation"] * 2 + ["test"] * 2):
        radius = 6 + number % 6 + 0.25 * (number // 6)
        Volume(1 / (1 + np.exp(distance - radius)).astype("f4"), GRID).save(folder / f"s{number}.nii.gz")
        Volume((distance < radius).astype(np.int16), GRID).save(folder / f"s{number}_seg.nii.gz")
        labels = "" if number in unlabelled else f"s{number}_seg.nii.gz"
        rows.append((f"s{number}", "1", split, "T1w", f"s{number}.nii.gz", labels))
    columns = ["subject", "session", "split", "contrast", "image", "labels"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "cohort.tsv", sep="\t", index=False)
    config = {
        "study": "discs",
        "cohort": {"table": str(folder / "cohort.tsv")},
        "preprocess": {"affine": "none", "shape": [32, 32]},
        "methods": methods,
    }
    return plan_study(config, results=str(folder / "results"))


def prepared(plan):
    for scan in plan.scans:
        prepare_scans(plan, [scan], Path(plan.prepared(scan)).parent)
    return plan


def dice_by_hand(plan, model, fixed, moving):
    images = [read_volume(f"{plan.prepared(scan)}.nii") for scan in (fixed, moving)]
    inside, labels = (read_labels(f"{plan.prepared(scan)}_labels.nii") for scan in (fixed, moving))
    moved = model.method.register(*images).field.warp(labels, nearest=True).data
    return 2 * ((moved == 1) & (inside.data == 1)).sum() / ((moved == 1).sum() + (inside.data == 1).sum())
