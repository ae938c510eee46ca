"""What labels that guide ``instance`` do to the structures that guide, and to the others.

    python benchmarks/guiding_labels.py ../data/brain-slices/cohort.tsv --pairs 6 --weights 0 0.1 0.3 1 3

In each pair a random half of the structures guides.  Measured: the Dice of both halves, and how uneven the field is
(SD of log J).  The default weights (``regcore.methods.constants.LABEL_WEIGHTS``) are about those at which the others
fare best.  Scans lie where their headers put them, or with ``--centre`` middle on middle.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from regcore.alignment.intensities import normalise
from regcore.alignment.resampling import resample
from regcore.evaluation.overlap import dice
from regcore.images.volume import Volume, read_labels, read_volume
from regcore.methods import make_method
from regcore.methods.base import GuidingLabels
from regcore.methods.registration import shared_codes
from regcore.process.threads import tune_process
from regcore.spatial import jacobian_determinant


@dataclass(frozen=True)
class Pair:
    """Two images and their labels on the fixed grid, and the codes of the half of the structures that guides."""

    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    moving_labels: Volume
    guiding: list[int]
    others: list[int]


def read_pair(folder: Path, fixed: pd.Series, moving: pd.Series, centre: bool, generator: np.random.Generator) -> Pair:
    images = [read_volume(folder / row.image) for row in (fixed, moving)]
    images = [image.with_data(normalise(image.data)) for image in images]
    labels = [read_labels(folder / row.labels) for row in (fixed, moving)]
    grid = images[0].grid
    shift = np.eye(grid.ndim + 1)
    if centre:
        shift[:-1, -1] = images[1].grid.centre - grid.centre
    there = resample(labels[1], grid, shift, nearest=True)
    codes = generator.permutation(shared_codes(labels[0], there)).tolist()
    half = len(codes) // 2
    return Pair(images[0], resample(images[1], grid, shift), labels[0], there, codes[:half], codes[half:])


def measured(pair: Pair, similarity: str, weight: float) -> dict[str, float]:
    maps = [
        labels.with_data(np.where(np.isin(labels.data, pair.guiding), labels.data, 0))
        for labels in (pair.fixed_labels, pair.moving_labels)
    ]
    method = make_method("instance", {"similarity": similarity})
    guides = GuidingLabels(maps[0], maps[1], weight) if weight else None
    field = method.register(pair.fixed, pair.moving, labels=guides).field
    warped = field.warp(pair.moving_labels, nearest=True).data
    jacobian = jacobian_determinant(field.displacement)
    halves = {"guiding": pair.guiding, "others": pair.others}
    return {
        **{half: float(np.mean(dice(pair.fixed_labels.data, warped, codes))) for half, codes in halves.items()},
        "sd log J": float(jacobian.clamp_min(1e-3).log().std()),
        "folds %": 100 * float((jacobian <= 0).float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 0.1, 0.3, 1, 3])
    parser.add_argument("--similarity", default="lncc")
    parser.add_argument("--centre", action="store_true", help="join the centres of the grids first")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    tune_process(arguments.threads)
    scans = pd.read_csv(arguments.cohort, sep="\t")
    scans = scans[scans["split"] == arguments.split].reset_index(drop=True)
    generator = np.random.default_rng(1)
    rows = []
    for _ in range(arguments.pairs):
        first, second = generator.choice(len(scans), 2, replace=False)
        rows_of_pair = scans.loc[first], scans.loc[second]
        pair = read_pair(arguments.cohort.parent, *rows_of_pair, arguments.centre, generator)
        rows += [{"weight": w, **measured(pair, arguments.similarity, w)} for w in arguments.weights]
    print(pd.DataFrame(rows).groupby("weight").mean().round(3).to_string())


if __name__ == "__main__":
    main()
