"""Measure how often the verdict on a registration is right, on pairs of scans whose true map is known.

    python benchmarks/verdict.py --pairs 1 --split train
    python benchmarks/verdict.py --first 2 --pairs 7 --kinds translation fov60 --split train
    python benchmarks/verdict.py --pairs 1 --kinds identity tiny moderate rotation --split train --deformable
    python benchmarks/verdict.py --first 3 --pairs 2 --kinds moderate scale --split train --deformable
    python benchmarks/verdict.py --first 8 --pairs 2 --kinds moderate scale fov60 --split train --deformable
    python benchmarks/verdict.py --pairs 1 --split test
    python benchmarks/verdict.py --first 2 --pairs 8 --kinds moderate --split test
    python benchmarks/verdict.py --first 2 --pairs 6 --kinds scale fov60 --split test
    python benchmarks/verdict.py --pairs 1 --kinds identity tiny moderate rotation --split test --deformable
    python benchmarks/verdict.py --first 3 --pairs 2 --kinds moderate scale --split test --deformable
    python benchmarks/verdict.py --first 8 --pairs 2 --kinds moderate scale fov60 --split test --deformable
    python benchmarks/verdict.py --choose
    python benchmarks/verdict.py --summary

All but the last two judge registrations and add a row each to ``<output>/registrations.csv``; what is there stays.
Every pair of ``capture`` (rotations, shifts, partial views, contrasts, a head against a brain, ...) is registered well,
by the true map with a small error, and badly: turned, shifted, stretched, mirrored, with a deformation that folds; by
ANTs, with whatever comes out, among it the wrong optima of turned heads and slabs stretched over a brain; and, where
one anatomy is shown, so that the map is known, by deformable methods from right and from wrong starts.  A registration
is right if its mean error over the fixed image's content that the moving image shows is below 5 % of the content's
extent, and wrong if it is above 7 %, or stretched or folded; what lies between is left out.

``--choose`` prints the limits that the right registrations of ``train`` give (:func:`chosen`), which are those in
``regcore/evaluation/verdict.py``; the page reports ``test``.
"""

import argparse
import itertools
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
from regcore.alignment.preprocess import Scan
from regcore.alignment.resampling import coarsened
from regcore.commands.scans import prepared_pair
from regcore.evaluation.verdict import DOUBTFUL, FAILED, LEVELS, LIMITS, judge, measure
from regcore.images.ants import estimate_affine
from regcore.images.field import DisplacementField
from regcore.images.grid import transform_points
from regcore.images.volume import Volume
from regcore.methods import make_method
from regcore.methods.registration import register_scans
from regcore.process.files import atomic_write

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "verdict"
FAMILIES = ("within", "across")
#: Mean errors, relative to the content's extent, below which a registration is right and above which it is wrong.
RIGHT, WRONG = 0.05, 0.07
#: Kinds that ANTs is run on: what it finds there is right in some and a wrong optimum in others.
BY_ANTS = ("rotation", "slab20", "head-brain", "moderate")

#: Shares of the right registrations that stay within the two limits of a measure.
KEPT = {DOUBTFUL: 0.95, FAILED: 0.98}
#: The least that is worth calling doubtful, or failed, by what a measure says: no limit is nearer to what is good.
LEAST = {
    "better_nearby": (0.1, 0.3),
    "better_mirrored": (0.1, 0.3),
    "mirrors": (0.5, 1),
    "less_than_start": (0.1, 0.3),
    "less_than_affine": (0.1, 0.3),
    "largest_scale": (1.5, 2),
    "smallest_scale": (0.67, 0.5),
    "coverage": (0.15, 0.03),
    "folds_percent": (1, 10),
    "smallest_jacobian": (0.1, 0),
    "largest_jacobian": (5, 10),
}

#: Measures of what a deformation does.
OF_DEFORMATIONS = ("less_than_affine", "folds_percent", "smallest_jacobian", "largest_jacobian")
#: Deformable methods, run where the true map is known, and their settings.
DEFORMABLE: dict[str, dict[str, int]] = {"instance": {}, "greedy": {"seed": 1}}
#: Where they start: a registration, and what is added to their name.
STARTS = {"near": "", "turned 15-30°": ", start turned", "shifted 10-20 %": ", start shifted"}
#: Voxels along the content, by the number of axes, to which the fixed image is coarsened for them.
ACROSS = {2: 100, 3: 45}

#: A map that mirrors, and a map that does not between images of which one is mirrored.
MIRRORED_MAP, MIRRORED_IMAGE = "mirrored map", "mirrored image"

#: Their error where the moving image shows something, such as a thin slab, may be small.
WRONG_AT_ALL_EVENTS = ("stretched", "folded")


#: A name, the fixed image, and the field on its grid.
Found = tuple[str, Volume, DisplacementField]


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


def posed(pair: Pair, poses: dict[str, np.ndarray], generator: np.random.Generator) -> Iterator[Found]:
    """The registrations by matrices, and one with folds."""
    places = pair.fixed.grid.to_world(np.moveaxis(np.indices(pair.fixed.grid.shape), 0, -1))
    for name, matrix in (poses | ({"ANTs": by_ants(pair)} if pair.kind in BY_ANTS else {})).items():
        yield name, pair.fixed, DisplacementField.from_world(transform_points(matrix, places), pair.fixed.grid)
    exact = DisplacementField.from_world(transform_points(pair.truth, places), pair.fixed.grid)
    yield "folded", pair.fixed, folded(exact, pair.extent, generator)


def deformed(pair: Pair, poses: dict[str, np.ndarray]) -> Iterator[Found]:
    """What deformable methods find from a start that is nearly right, and from wrong ones; coarse to save time."""
    fixed = coarsened(pair.fixed, pair.extent / ACROSS[pair.fixed.grid.ndim])
    for (name, settings), (start, says) in itertools.product(DEFORMABLE.items(), STARTS.items()):
        images = prepared_pair(Scan(fixed), Scan(pair.moving), None, "none", poses[start], seed=0)
        found = register_scans(make_method(name, settings), *images, inverse=False)
        yield name + says, fixed, found.field


def judged(pair: Pair, split: str, deformable: bool) -> list[dict]:
    generator = np.random.default_rng(zlib.crc32(f"{pair.name} {split}".encode()))
    poses = dict(registrations(pair, generator))
    facts = {"split": split, "pair": pair.name, "kind": pair.kind, "family": pair.family, "ndim": len(pair.truth) - 1}
    points = pair.points[pair.seen] if pair.seen.any() else pair.points
    rows = []
    for name, fixed, field in deformed(pair, poses) if deformable else posed(pair, poses, generator):
        away = np.linalg.norm(field.at(points) - transform_points(pair.truth, points), axis=1).mean() / pair.extent
        found = measure(fixed, pair.moving, field)
        rows.append(facts | {"registration": name, "error": away} | found)
        if name == MIRRORED_MAP:
            # As if the mirror belonged to the image, and the registration had begun where it ended.
            begun = {"likeness_start": found["likeness"], "less_than_start": 0.0, "mirrors": 0.0}
            rows.append(facts | {"registration": MIRRORED_IMAGE, "error": away} | found | begun)
    return rows


def run(arguments: argparse.Namespace) -> None:
    path = arguments.output / "registrations.csv"
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["split", "pair", "registration"])
    done = set(zip(rows["split"], rows["pair"], by_deformation(rows), strict=True))
    for number in range(arguments.first, arguments.first + arguments.pairs):
        for kind, family in itertools.product(arguments.kinds, FAMILIES):
            name = f"{kind}-{family}-{number:03d}"
            if (arguments.split, name, arguments.deformable) in done:
                continue
            pair = make_pair(kind, family, number, arguments.split)
            if pair is None or (arguments.deformable and not pair.known):
                continue
            new = pd.DataFrame(judged(pair, arguments.split, arguments.deformable))
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


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """The limits of every measure: the farther of ``LEAST`` and of what right registrations of ``train`` reach.

    Within the latter stay the shares ``KEPT`` of them; only those by deformable methods count for what the deformation
    does.  Rounded to two digits, away from what is good.

    Returns
    -------
    DataFrame
        One row per measure; columns ``doubtful failed``.
    """
    right = rows[(rows["split"] == "train") & ~rows["wrong"]]
    found = {}
    for limit in LIMITS:
        counted = right[by_deformation(right)] if limit.measure in OF_DEFORMATIONS else right
        sign = 1 if limit.failed > limit.good else -1
        reached = [rounded_up(float(np.quantile(sign * counted[limit.measure], share))) for share in KEPT.values()]
        least = [sign * value for value in LEAST[limit.measure]] if limit.measure in LEAST else reached
        found[limit.measure] = dict(zip(KEPT, sign * np.maximum(reached, least) + 0.0, strict=True))
    return pd.DataFrame(found).T


def rounded_up(value: float) -> float:
    """To two digits, towards larger values."""
    unit = 10.0 ** (np.floor(np.log10(max(abs(value), 1e-9))) - 1)
    return float(f"{np.ceil(value / unit - 1e-6) * unit:.2g}")


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
        "of these, affine": test[~mirrored & ~by_deformation(test)],
        "of these, deformable": test[~mirrored & by_deformation(test)],
        "`train`, all but mirrored images": rows[(rows["split"] == "train") & (rows["registration"] != MIRRORED_IMAGE)],
    }
    poses = [*test.loc[~by_deformation(test), "registration"].drop_duplicates()]
    names = [*(name for name in poses if name != "ANTs"), "ANTs", *(m + s for m in DEFORMABLE for s in STARTS.values())]
    registrations = {name: test[test["registration"] == name] for name in names}
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


def by_deformation(rows: pd.DataFrame) -> pd.Series:
    """Which registrations a deformable method made."""
    return rows["registration"].str.startswith(tuple(DEFORMABLE))


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
    left.legend(loc="upper center", bbox_to_anchor=(0.65, 1))
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
        [
            {
                "measure": limit.measure,
                "doubtful from": limit.doubtful,
                "failed from": limit.failed,
                "at least": " and ".join(f"{least:g}" for least in LEAST.get(limit.measure, ())),
            }
            for limit in LIMITS
        ]
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
        "folded. Where one anatomy is shown, two deformable methods take part too, from a start that is nearly right "
        "and from wrong ones; some of these they correct: right and wrong go by the true map.",
        "The limits were chosen on the split `train`, by a rule; all that follows but one row is of the split `test`. "
        "Its subjects are others; templates, one scan, and prostates are the same in both. Rows were added at "
        "several times, those of affine maps before those of deformable methods.",
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
        "Pairs `across-007` are the MR of a prostate and its ultrasound, which are not alike in any pose.",
        "Right registrations called failed: " + (", ".join(alarms["pair"].drop_duplicates()) or "none") + ".",
        "Wrong registrations called ok: " + (", ".join(missed["pair"] + " " + missed["registration"]) or "none") + ".",
        "## Limits",
        f"`--choose` prints them. {100 * KEPT[DOUBTFUL]:g} % of the right registrations of `train` stay within a "
        f"measure's limit for doubtful, {100 * KEPT[FAILED]:g} % within that for failed; and no limit is nearer to "
        "what is good than the least that is worth the word, in the last column. For what a deformation does, only "
        "registrations by deformable methods count.",
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
    parser.add_argument("--deformable", action="store_true", help="by deformable methods, where the map is known")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--choose", action="store_true", help="only print the limits that the rows of train give")
    parser.add_argument("--summary", action="store_true", help="only write the page and the figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.choose:
        found = chosen(with_verdicts(pd.read_csv(arguments.output / "registrations.csv")))
        print(found.to_string())
        return
    if not arguments.summary:
        run(arguments)
    summarise(arguments.output)


if __name__ == "__main__":
    main()
