"""A page of pairs with what a contestant found: the moving image before and after, under outlines of the fixed one."""

import json
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from capture.pairs import Pair, make_pair
from capture.resampling import resampled
from regcore.images.volume import Volume
from regcore.process.files import atomic_write

#: Pairs of a page.
PAIRS = 10
LEVELS = (0.15, 0.55)


def draw_pairs(contestant: str, table: pd.DataFrame, folder: Path) -> None:
    """Draw ten pairs of a contestant's rows: the five with the largest errors, and five spread over the others."""
    rows = table[table["matrix"].notna()].sort_values("error", ascending=False)
    if rows.empty:
        return
    chosen = rows
    if len(rows) > PAIRS:
        others = rows.iloc[PAIRS // 2 :].sort_values("pair")
        spread = others.iloc[np.linspace(0, len(others) - 1, PAIRS // 2).round().astype(int)]
        chosen = pd.concat([rows.iloc[: PAIRS // 2], spread])
    figure, axes = plt.subplots(len(chosen), 5, figsize=(10, 2.1 * len(chosen)), squeeze=False)
    for line, row in zip(axes, chosen.itertuples(), strict=True):
        kind, family, number = row.pair.rsplit("-", 2)
        pair = make_pair(kind, family, int(number), row.split)
        draw_line(line, pair, np.array(json.loads(row.matrix)), said(row))
    figure.tight_layout(pad=0.3)
    path = folder / f"pictures-{contestant.replace(' ', '-').lower()}.png"
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=75)
    plt.close(figure)


def said(row) -> str:
    verdict = f"; {row.verdict}" if isinstance(row.verdict, str) else ""
    found = "found" if row.success else "MISSED"
    text = f"{row.pair} {row.degrees:.0f}°: {found}, error {100 * row.error:.1f} %, Dice {row.dice:.2f}{verdict}"
    return "\n".join(textwrap.wrap(text, 60)[:3])


def draw_line(axes, pair: Pair, matrix: np.ndarray, title: str) -> None:
    """Fixed; moving before and after in the plane of the fixed image's last axis, then of its first."""
    before, after = (resampled(pair.moving, pair.fixed.grid, m) for m in (np.eye(len(matrix)), matrix))
    outlines = gaussian_filter(pair.fixed.data, 0.7)
    middle = np.round(pair.fixed.grid.to_voxels(pair.points).mean(0)).astype(int)
    panels = [(pair.fixed, -1), (before, -1), (after, -1), (before, 0), (after, 0)]
    for axis, (volume, across) in zip(axes, panels, strict=True):
        shown = plane(volume, middle, across)
        top = np.percentile(pair.moving.data if volume is not pair.fixed else pair.fixed.data, 99.5)
        axis.imshow(shown, cmap="gray", vmin=float(volume.data.min()), vmax=float(top), origin="lower")
        fixed = plane(pair.fixed.with_data(outlines), middle, across)
        span = np.percentile(outlines, 99.5) - outlines.min()
        levels = [outlines.min() + part * span for part in LEVELS]
        axis.contour(fixed, levels=levels, colors=["#ffcc00", "#00ccff"], linewidths=0.6)
        axis.set_axis_off()
    axes[0].set_title(title, fontsize=6, loc="left")
    axes[1].set_title("before", fontsize=6)
    axes[2].set_title("after", fontsize=6)


def plane(volume: Volume, middle: np.ndarray, across: int) -> np.ndarray:
    """A slice through ``middle`` across an axis; of a 2-D image all of it."""
    if volume.data.ndim == 2:
        return volume.data.T
    return np.take(volume.data, int(np.clip(middle[across], 0, volume.data.shape[across] - 1)), axis=across).T
