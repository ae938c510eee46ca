"""Draw the table that operators.py or gpu.py wrote: how many times as long as regcore's kernels every other form takes.

python benchmarks/figure.py docs/results/operators.csv docs/images/operators.png
python benchmarks/figure.py docs/results/gpu/operators.csv docs/images/operators-gpu.png
"""

import math
import sys

import matplotlib.pyplot as plt
import pandas as pd

from regcore.process.files import atomic_write

OURS = ("regcore (numba)", "regcore (Triton)")
TITLES = {
    "warp": "warp",
    "integrate": "integrate, 7 squarings",
    "lncc": "local correlation, window 9³",
    "dice": "soft Dice, 35 labels",
    "diffusion": "diffusion",
    "ndv": "non-diffeomorphic volume",
    "label_overlaps": "soft Dice, 35 labels",
    "weighted_diffusion": "weighted diffusion",
    "smoothing": "Gaussian smoothing of a field",
    "joint_histogram": "normalised mutual information, 32 bins",
    "jacobian_determinant": "Jacobian determinant",
    "digital_folds": "folds and non-diffeomorphic volume",
    "training-lncc": "training step with local correlation",
    "training-mse": "training step with MSE",
}
PASSES = {"forward+backward": ", forward + backward", "forward": ", forward", "step": ""}
GREEN, GREY = "#7fbf7b", "#a8a8a8"


def of_largest_size(table: pd.DataFrame, operator: str) -> pd.DataFrame:
    """Rows of one operator at its largest size, forward+backward where there is one, the slowest first."""
    rows = table[(table["operator"] == operator) & table["median_ms"].notna()]
    rows = rows[rows["pass"] == next(name for name in PASSES if name in set(rows["pass"]))]
    voxels = rows["size"].map(lambda size: math.prod(map(int, size.split("x"))))
    return rows[voxels == voxels.max()].sort_values("median_ms", ascending=False)


def of_gpu(table: pd.DataFrame) -> pd.DataFrame:
    """The table of gpu.py in the form of that of operators.py; forward passes alone are left out."""
    table = table.rename(columns={"ms": "median_ms"}).assign(size="160x192x224")
    table = table[~table["contestant"].str.endswith(", forward")]
    alone = ("smoothing", "jacobian_determinant", "digital_folds")
    return table.assign(**{"pass": ["forward" if name in alone else "forward+backward" for name in table["operator"]]})


def duration(milliseconds: float) -> str:
    if milliseconds < 10:
        return f"{milliseconds:.2g} ms"
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"


def draw(table: pd.DataFrame, path: str) -> None:
    panels = {name: of_largest_size(table, name) for name in TITLES if name in set(table["operator"])}
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, 0.42 * len(panels) + 0.2 * sum(map(len, panels.values()))), sharex=True,
        layout="constrained", height_ratios=[len(panel) for panel in panels.values()], squeeze=False,
    )  # fmt: skip
    for axis, (name, panel) in zip(axes[:, 0], panels.items(), strict=True):
        kernel = panel["contestant"].isin(OURS)
        ours, others = panel.loc[kernel, "median_ms"].iloc[0], panel[~kernel]
        ratios = others["median_ms"] / ours
        colours = [GREEN if contestant.startswith("regcore") else GREY for contestant in others["contestant"]]
        bars = axis.barh(others["contestant"], ratios - 1, left=1, color=colours)
        labels = [f"{ratio:.3g}×  {duration(ms)}" for ratio, ms in zip(ratios, others["median_ms"], strict=True)]
        axis.bar_label(bars, labels, padding=3, fontsize=8)
        what, size = PASSES[panel["pass"].iloc[0]], panel["size"].iloc[0].replace("x", "×")
        axis.set_title(f"{TITLES[name]}{what}, {size} (regcore {duration(ours)})", fontsize=9, loc="left")
        axis.set_xscale("log")
        axis.set_xlim(1, 2000)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xticks([1, 10, 100, 1000], ["1×", "10×", "100×", "1000×"])
    axes[-1, 0].set_xlabel("times as long as regcore's kernel, medians", fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    found = pd.read_csv(sys.argv[1])
    draw(found if "median_ms" in found else of_gpu(found), sys.argv[2])
