"""Draw the table that operators.py wrote: one panel per operator, one bar per contestant, on a logarithmic axis.

python benchmarks/figure.py docs/results/operators.csv docs/images/operators.png
"""

import math
import sys

import matplotlib.pyplot as plt
import pandas as pd

TITLES = {
    "warp": "warp",
    "integrate": "integrate, 7 squarings",
    "lncc": "local correlation, 9³",
    "dice": "soft Dice, 35 labels",
    "diffusion": "diffusion",
    "ndv": "non-diffeomorphic volume",
    "training-lncc": "training step, local correlation",
    "training-mse": "training step, MSE",
}
OURS, REFERENCE, OTHERS = "#1b7837", "#a6dba0", "#9e9e9e"


def colour(contestant: str) -> str:
    if contestant == "regcore (numba)":
        return OURS
    return REFERENCE if contestant.startswith("regcore") else OTHERS


def of_largest_size(table: pd.DataFrame, operator: str) -> pd.DataFrame:
    """Rows of one operator at its largest size, forward+backward where there is one, the fastest last."""
    rows = table[(table["operator"] == operator) & table["median_ms"].notna()]
    passes = rows["pass"].unique()
    rows = rows[rows["pass"] == ("forward+backward" if "forward+backward" in passes else passes[-1])]
    voxels = rows["size"].map(lambda size: math.prod(map(int, size.split("x"))))
    return rows[voxels == voxels.max()].sort_values("median_ms", ascending=False)


def draw(table: pd.DataFrame, path: str) -> None:
    operators = [name for name in TITLES if name in set(table["operator"])]
    panels = [of_largest_size(table, name) for name in operators]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, 0.9 * len(panels) + 0.24 * sum(map(len, panels))), layout="constrained",
        height_ratios=[len(panel) + 1 for panel in panels], squeeze=False,
    )  # fmt: skip
    for axis, name, panel in zip(axes[:, 0], operators, panels, strict=True):
        bars = axis.barh(panel["contestant"], panel["median_ms"], color=panel["contestant"].map(colour))
        labels = [f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms" for ms in panel["median_ms"]]
        axis.bar_label(bars, labels, padding=3, fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(panel["median_ms"].min() / 3, panel["median_ms"].max() * 4)
        what = {"step": "", "forward": ", forward"}.get(panel["pass"].iloc[0], ", forward + backward")
        axis.set_title(f"{TITLES[name]}{what}, {panel['size'].iloc[0].replace('x', ' × ')}", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("milliseconds, median", fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(pd.read_csv(sys.argv[1]), sys.argv[2])
