"""Measure how often the verdict on a registration is right, on pairs of scans whose true map is known.

    python benchmarks/verdict.py --pairs 1 --split train
    python benchmarks/verdict.py --first 2 --pairs 7 --kinds translation fov60 --split train
    python benchmarks/verdict.py --pairs 1 --split test
    python benchmarks/verdict.py --first 2 --pairs 8 --kinds moderate --split test
    python benchmarks/verdict.py --first 2 --pairs 6 --kinds scale fov60 --split test
    python benchmarks/verdict.py --summary

All but the last judge registrations and add a row each to ``<output>/registrations.csv``; what is there stays.
Every pair of ``capture`` (rotations, shifts, partial views, contrasts, a head against a brain, ...) is registered well,
by the true map with a small error, and badly: turned, shifted, stretched, mirrored, with a deformation that folds; and
by ANTs, with whatever comes out, among it the wrong optima of turned heads and slabs stretched over a brain.  A
registration is right if its mean error over the fixed image's content that the moving image shows is below 5 % of the
content's extent, and wrong if it is above 7 %, or stretched or folded; what lies between is left out.

The limits in ``regcore/evaluation/verdict.py`` were chosen on ``train``; the page reports ``test``, which has other
subjects.
"""

import argparse
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from capture.kinds import KINDS
from capture.pairs import Pair, make_pair
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from regcore.alignment.intensities import normalise
from regcore.alignment.resampling import coarsened
from regcore.evaluation.verdict import DOUBTFUL, FAILED, LEVELS, LIMITS, judge, measure
from regcore.images.ants import estimate_affine
from regcore.images.field import DisplacementField
from regcore.images.volume import transform_points
from regcore.process.files import atomic_write

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "verdict"
FAMILIES = ("within", "across")
#: Mean errors, relative to the content's extent, below which a registration is right and above which it is wrong.
RIGHT, WRONG = 0.05, 0.07
#: Kinds that ANTs is run on: what it finds there is right in some and a wrong optimum in others.
BY_ANTS = ("rotation", "slab20", "head-brain", "moderate")

#: A map that mirrors, and a map that does not between images of which one is mirrored.
MIRRORED_MAP, MIRRORED_IMAGE = "mirrored map", "mirrored image"

#: Their error where the moving image shows something, such as a thin slab, may be small.
WRONG_AT_ALL_EVENTS = ("stretched", "folded")


def registrations(pair: Pair, generator: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Names and matrices, fixed world → moving world."""
    ndim, centre, extent = len(pair.truth) - 1, pair.points.mean(0), pair.extent

    def spoiled(linear: np.ndarray, part: float = 0.0) -> np.ndarray:
        direction = generator.standard_normal(ndim)
        matrix = np.eye(ndim + 1)
        matrix[:-1, :-1] = linear
        matrix[:-1, -1] = centre - linear @ centre + part * extent * direction / np.linalg.norm(direction)
        return pair.truth @ matrix

    def turned(degrees: float) -> np.ndarray:
        if ndim == 2:
            angle = np.deg2rad(degrees) * generator.choice([-1, 1])
            return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return about(generator.standard_normal(3), degrees)

    none = np.eye(ndim)
    yield "exact", pair.truth
    small = turned(generator.uniform(0, 4)) @ np.diag(generator.uniform(0.97, 1.03, ndim))
    yield "near", spoiled(small, generator.uniform(0, 0.015))
    yield "turned 15-30°", spoiled(turned(generator.uniform(15, 30)))
    yield "turned 30-90°", spoiled(turned(generator.uniform(30, 90)), generator.uniform(0, 0.05))
    yield "turned 180°", spoiled(turned(180), generator.uniform(0, 0.03))
    yield "shifted 10-20 %", spoiled(none, generator.uniform(0.1, 0.2))
    stretched = none.copy()
    axis = generator.integers(ndim)
    stretched[axis, axis] = generator.choice([0.6, 1.7])
    yield "stretched", spoiled(stretched)
    axis = 0 if generator.random() < 0.5 else generator.integers(ndim)
    yield MIRRORED_MAP, spoiled(none - 2 * np.outer(none[axis], none[axis]))
    if pair.kind in BY_ANTS:
        yield "ANTs", by_ants(pair)


def about(axis: np.ndarray, degrees: float) -> np.ndarray:
    """The rotation about an axis, by Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def by_ants(pair: Pair) -> np.ndarray:
    images = [volume.with_data(normalise(volume.data)) for volume in (pair.fixed, pair.moving)]
    return estimate_affine(*(coarsened(image, pair.extent / 60) for image in images), seed=0)


def folded(field: DisplacementField, extent: float, generator: np.random.Generator) -> DisplacementField:
    """The field with a rough random deformation of about 5 % of the extent."""
    grid = field.grid
    width = 0.03 * extent / grid.spacing
    rough = np.stack([gaussian_filter(generator.standard_normal(grid.shape), width) for _ in range(grid.ndim)])
    rough *= 0.05 * extent / np.linalg.norm(rough, axis=0).mean() / grid.spacing.mean()
    return DisplacementField(field.displacement + torch.from_numpy(rough[None]).float(), grid)


def judged(pair: Pair, split: str) -> list[dict]:
    generator = np.random.default_rng(zlib.crc32(f"{pair.name} {split}".encode()))
    fields = [
        (name, DisplacementField.from_world(transform_points(matrix, voxels(pair)), pair.fixed.grid))
        for name, matrix in registrations(pair, generator)
    ]
    fields.append(("folded", folded(fields[0][1], pair.extent, generator)))
    facts = {"split": split, "pair": pair.name, "kind": pair.kind, "family": pair.family, "ndim": len(pair.truth) - 1}
    rows = []
    for name, field in fields:
        points = pair.points[pair.seen] if pair.seen.any() else pair.points
        away = np.linalg.norm(field.at(points) - transform_points(pair.truth, points), axis=1).mean() / pair.extent
        found = measure(pair.fixed, pair.moving, field)
        rows.append(facts | {"registration": name, "error": away} | found)
        if name == MIRRORED_MAP:
            # As if the mirror belonged to the image, and the registration had begun where it ended.
            begun = {"likeness_start": found["likeness"], "less_than_start": 0.0, "mirrors": 0.0}
            rows.append(facts | {"registration": MIRRORED_IMAGE, "error": away} | found | begun)
    return rows


def voxels(pair: Pair) -> np.ndarray:
    return pair.fixed.grid.to_world(np.moveaxis(np.indices(pair.fixed.grid.shape), 0, -1))


def run(arguments: argparse.Namespace) -> None:
    path = arguments.output / "registrations.csv"
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["split", "pair"])
    done = set(zip(rows["split"], rows["pair"], strict=True))
    for number in range(arguments.first, arguments.first + arguments.pairs):
        for kind in arguments.kinds:
            for family in FAMILIES:
                name = f"{kind}-{family}-{number:03d}"
                pair = None if (arguments.split, name) in done else make_pair(kind, family, number, arguments.split)
                if pair is None:
                    continue
                new = pd.DataFrame(judged(pair, arguments.split))
                rows = pd.concat([rows, new], ignore_index=True) if len(rows) else new
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as temporary:
                    rows.to_csv(temporary, index=False, float_format="%.5g")
                print(name, file=sys.stderr)


def with_verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds ``level`` and ``risk``, and ``wrong``; without registrations that are neither right nor wrong."""
    names = rows.columns[rows.columns.get_loc("error") + 1 :]
    verdicts = [judge(row) for row in rows[names].to_dict("records")]
    rows = rows.assign(
        level=[verdict.level for verdict in verdicts],
        risk=[verdict.risk for verdict in verdicts],
        why=["; ".join(verdict.reasons) for verdict in verdicts],
        wrong=(rows["error"] > WRONG) | rows["registration"].isin(WRONG_AT_ALL_EVENTS),
    )
    return rows[rows["wrong"] | (rows["error"] < RIGHT)].reset_index(drop=True)


def auc(risk: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a wrong registration has the higher risk."""
    ranks, count = rankdata(risk), int(wrong.sum())
    return float((ranks[wrong].sum() - count * (count + 1) / 2) / (count * (len(wrong) - count)))


def rates(rows: pd.DataFrame) -> dict[str, object]:
    """Counts, AUC and the rates at the limits."""
    right, wrong = rows[~rows["wrong"]], rows[rows["wrong"]]

    def share(of: pd.DataFrame, *levels: str) -> str:
        return f"{100 * of['level'].isin(levels).mean():.1f} %" if len(of) else ""

    both = len(right) and len(wrong)
    return {
        "right": len(right),
        "wrong": len(wrong),
        "AUC": f"{auc(rows['risk'].to_numpy(), rows['wrong'].to_numpy()):.3f}" if both else "",
        "right called ok": share(right, LEVELS[0]),
        "right called failed": share(right, FAILED),
        "wrong not called ok": share(wrong, DOUBTFUL, FAILED),
        "wrong called failed": share(wrong, FAILED),
    }


def tables(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    test = rows[rows["split"] == "test"]
    mirrored = test["registration"] == MIRRORED_IMAGE
    whole = {
        "all": test,
        "all but mirrored images": test[~mirrored],
        "the pairs that the limits were chosen on": rows[rows["split"] == "train"],
        "those pairs, all but mirrored images": rows[
            (rows["split"] == "train") & (rows["registration"] != MIRRORED_IMAGE)
        ],
    }
    registrations = {
        name: test[(test["registration"] == name)] for name in test["registration"].drop_duplicates() if name != "ANTs"
    }
    registrations["ANTs"] = test[test["registration"] == "ANTs"]
    kinds = {
        KINDS[kind].says: test[(test["kind"] == kind) & ~mirrored] for kind in KINDS if (test["kind"] == kind).any()
    }
    families = {f"{family} contrasts": test[(test["family"] == family) & ~mirrored] for family in FAMILIES}
    families |= {f"{ndim}-D": test[(test["ndim"] == ndim) & ~mirrored] for ndim in (2, 3)}
    return [
        ("All", _table(whole)),
        ("By registration", _table(registrations)),
        ("By kind of pair, all but mirrored images", _table(families | kinds)),
    ]


def _table(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame({name: rates(rows) for name, rows in parts.items()}).T


def draw(rows: pd.DataFrame, path: Path) -> None:
    test = rows[rows["split"] == "test"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    bins = np.linspace(0, 6, 31)
    for wrong, colour, hatch, says in ((False, "#7fbf7b", "", "right"), (True, "#a8a8a8", "///", "wrong")):
        risk = test.loc[test["wrong"] == wrong, "risk"].clip(upper=5.99)
        left.hist(risk, bins, color=colour, hatch=hatch, alpha=0.7, label=f"{says} ({len(risk)})", edgecolor="white")
    for level, place in ((DOUBTFUL, 1), (FAILED, 2)):
        left.axvline(place, color="black", linestyle="--", linewidth=1)
        left.text(place + 0.05, left.get_ylim()[1] * 0.9, level)
    left.set(xlabel="risk (6 and above in the last bar)", ylabel="registrations")
    left.legend()
    for name, part, style in (
        ("all", test, "-"),
        ("all but mirrored images", test[test["registration"] != MIRRORED_IMAGE], "--"),
    ):
        limits = np.sort(part["risk"].unique())[::-1]
        wrong = part["wrong"].to_numpy()
        found = part["risk"].to_numpy()[None] >= limits[:, None]
        hit, alarm = found[:, wrong].mean(1), found[:, ~wrong].mean(1)
        area = auc(part["risk"].to_numpy(), wrong)
        right.plot([0, *alarm], [0, *hit], "k" + style, label=f"{name}: AUC {area:.3f}")
    right.set(
        xlabel="right registrations called wrong", ylabel="wrong registrations found", xlim=(-0.01, 1), ylim=(0, 1.01)
    )
    right.legend(loc="lower right")
    figure.tight_layout()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def limits() -> pd.DataFrame:
    return pd.DataFrame(
        [{"measure": limit.measure, "doubtful from": limit.doubtful, "failed from": limit.failed} for limit in LIMITS]
    )


def summarise(output: Path) -> None:
    rows = with_verdicts(pd.read_csv(output / "registrations.csv"))
    draw(rows, output / "roc.png")
    commands = "\n".join(line.strip() for line in (__doc__ or "").splitlines() if "--split" in line)
    parts = [
        "# How often the verdict is right",
        "Every registration gets a verdict without any labels: ok, doubtful or failed. Here pairs of scans whose true "
        "map is known are registered well and badly. A registration is right if its mean error is below "
        f"{100 * RIGHT:.0f} % of the content's extent, and wrong above {100 * WRONG:.0f} %, or if it is stretched or "
        "folded. The subjects are others than those that the limits were chosen on.",
        f"```\n{commands}\n```",
        "![Left: the risk of right and wrong registrations. Right: ROC curve](roc.png)",
    ]
    for heading, table in tables(rows):
        parts += [f"## {heading}", table.to_markdown(disable_numparse=True)]
    alarms = rows[(rows["split"] == "test") & ~rows["wrong"] & (rows["level"] == FAILED)]
    missed = rows[(rows["split"] == "test") & rows["wrong"] & (rows["level"] == LEVELS[0])]
    parts += [
        "A brain mirrored left to right is nearly like itself: if one image is mirrored, only small asymmetries tell, "
        "and none with a template that is symmetric, as one of those across contrasts is. A map that mirrors is always "
        "found.",
        "Right registrations called failed: " + (", ".join(alarms["pair"].drop_duplicates()) or "none") + ".",
        "Wrong registrations called ok: " + (", ".join(missed["pair"] + " " + missed["registration"]) or "none") + ".",
        "## Limits",
        limits().to_markdown(index=False),
    ]
    with atomic_write(output / "README.md") as path:
        path.write_text("\n\n".join(parts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="pairs of every kind and family")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first of them")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--summary", action="store_true", help="only write the page and the figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.summary:
        run(arguments)
    summarise(arguments.output)


if __name__ == "__main__":
    main()
