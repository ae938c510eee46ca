"""Make a cohort of OASIS brains (T1w) and of SPM's averages of 152 brains (T2w, PDw), whose labels have the same codes.

    python benchmarks/cross_contrast_cohort.py data/oasis-brains/cohort.tsv data/avg152 data/oasis-avg152

Test subjects of the first table keep their rows; the averages become two contrasts of a subject of their own, with the
labels brought onto their grid and the voxels near them as mask, since they show whole heads.
``config/studies/synthmorph-oasis.yaml`` uses the result.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import binary_closing, binary_dilation

from regcore.alignment.resampling import resample
from regcore.images.volume import read_grid, read_labels
from regcore.process.files import atomic_write

LABELS, CONTRASTS = "labels_Neuromorphometrics.nii", ("T2w", "PDw")
FILES = ("image", "labels", "mask")


def average(contrast: str) -> str:
    return f"avg152{contrast.removesuffix('w')}.nii"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("oasis", type=Path, help="cohort.tsv")
    parser.add_argument("averages", type=Path, help=f"folder of avg152T2.nii, avg152PD.nii and {LABELS}")
    parser.add_argument("output", type=Path, help="folder for labels, mask and cohort.tsv")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    grid = read_grid(arguments.averages / average(CONTRASTS[0]))
    labels = resample(read_labels(arguments.averages / LABELS), grid, np.eye(4), nearest=True)
    labels.save(arguments.output / "avg152_labels.nii.gz")
    # Labels leave out most of the fluid around and between them.
    mask = binary_dilation(binary_closing(labels.data > 0, iterations=4), iterations=1)
    labels.with_data(mask.astype(np.uint8)).save(arguments.output / "avg152_mask.nii.gz")
    table = pd.read_csv(arguments.oasis, sep="\t", dtype=str)
    table = table[(table["split"] == "test") & (table["session"] == "1")].drop(columns=["age", "sex"], errors="ignore")
    for column in FILES:
        table[column] = [str((arguments.oasis.parent / name).resolve()) for name in table[column]]
    averages = [
        {
            "subject": "avg152",
            "session": "1",
            "split": "test",
            "contrast": contrast,
            "image": str((arguments.averages / average(contrast)).resolve()),
            "labels": "avg152_labels.nii.gz",
            "mask": "avg152_mask.nii.gz",
        }
        for contrast in CONTRASTS
    ]
    table = pd.concat([table, pd.DataFrame(averages)])
    with atomic_write(arguments.output / "cohort.tsv") as path:
        table.to_csv(path, sep="\t", index=False)


if __name__ == "__main__":
    main()
