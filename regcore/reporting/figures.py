"""The figures of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import pandas as pd

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from regcore.cohort.labels import structures
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.process.files import atomic_write

#: Markers and lines of curves, distinguishable in greyscale.
CURVES = (("o", "-", "black"), ("s", "--", "#3182bd"), ("^", ":", "#b35806"), ("D", "-.", "#636363"))
#: Axis labels of hyperparameters.
AXES = {
    "lambda": "λ",
    "window": "local NCC window (voxels)",
    "gamma": "segmentation supervision γ",
    "lambda_max": "λ_max",
    "alpha": "α′",
    "lambda_mean": "λ_mean",
    "sigma": "σ′",
}

#: Fill and hatch of each method's boxes, distinguishable in greyscale.
STYLES = [
    ("#d9d9d9", ""),
    ("#969696", "//"),
    ("#3182bd", ""),
    ("#fdae6b", "\\\\"),
    ("#74c476", ".."),
    ("#9e9ac8", "xx"),
    ("#e7969c", "++"),
    ("#636363", "oo"),
    ("#ffffff", "---"),
    ("#fee391", "|||"),
    ("#9ecae1", "OO"),
    ("#c7e9c0", "**"),
    ("#bcbddc", "///..."),
    ("#fcbba1", "\\\\\\---"),
    ("#8c6d31", "..."),
    ("#525252", ""),
]
#: Limits the structures in a row, so that boxes are wide enough to show their hatches.
STRUCTURES_PER_ROW, BOXES_PER_ROW = 16, 110
LEGEND_COLUMNS = 6

#: Metric of labels → its axis label, and whether small values are good.
BOXED = {"dice": ("Dice", False), "hd95_mm": ("HD95 (mm)", True)}


def save_figure(figure, path: str | Path) -> None:
    """Write a PNG under a temporary name first, and free the figure."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)


def text_figure(text: str):
    """A figure with only a text, for instance why there is nothing to draw."""
    figure, axis = plt.subplots(figsize=(8, 1.5))
    axis.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    axis.set_axis_off()
    return figure


def structure_boxes(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str], metric: str):
    """Box plots of a metric by structure and method; left and right are pooled, the best structures come first.

    Boxes span the quartiles over pairs (and sides), the line is the median, whiskers reach 1.5 times the box,
    points are outliers.

    Parameters
    ----------
    rows : DataFrame
        Tidy rows of all methods.
    labels : DataFrame
        ``index name group``.
    order : sequence of str
        Methods in the order of the boxes.
    metric : {"dice", "hd95_mm"}
    """
    heading, small_is_good = BOXED[metric]
    found = rows[rows["metric"] == metric].dropna(subset="value")
    if found.empty:
        return text_figure(f"No label of any pair has a value of {heading}.")
    found = found.assign(structure=found["label"].map(structures(labels)))
    shown = list(found.groupby("structure")["value"].mean().sort_values(ascending=small_is_good).index)
    methods = [name for name in order if name in set(found["method"])]
    most = max(1, min(STRUCTURES_PER_ROW, BOXES_PER_ROW // len(methods)))
    longest = -(-len(shown) // -(-len(shown) // most))
    chunks = [shown[i : i + longest] for i in range(0, len(shown), longest)]
    figure, axes = plt.subplots(len(chunks), 1, figsize=(13, 3.6 * len(chunks)), squeeze=False, sharey=True)
    width = 0.8 / len(methods)
    values = {key: group["value"].to_numpy() for key, group in found.groupby(["structure", "method"])}
    for axis, chunk in zip(axes[:, 0], chunks, strict=True):
        for k, method in enumerate(methods):
            colour, hatch = STYLES[k % len(STYLES)]
            boxes = axis.boxplot(
                [values.get((structure, method), []) for structure in chunk],
                positions=np.arange(len(chunk)) + (k - (len(methods) - 1) / 2) * width,
                widths=0.85 * width,
                patch_artist=True,
                flierprops={"markersize": 2},
                medianprops={"color": "black"},
                boxprops={"facecolor": colour, "hatch": hatch, "linewidth": 0.6},
                label=method,
            )
            for part in (*boxes["whiskers"], *boxes["caps"]):
                part.set_linewidth(0.6)
        axis.set_xticks(range(len(chunk)), chunk, rotation=30, ha="right")
        axis.set_xlim(-0.6, longest - 0.4)
        axis.set_ylabel(heading)
        axis.grid(axis="y", linewidth=0.3)
    axes[0, 0].legend(
        ncols=min(len(methods), LEGEND_COLUMNS),
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        frameon=False,
        handlelength=3,
        handleheight=1.5,
    )
    figure.tight_layout()
    return figure


def training_curves(histories: Mapping[str, pd.DataFrame]):
    """Training losses and validation Dice against the training step, one row per method."""
    figure, axes = plt.subplots(len(histories), 2, figsize=(11, 3.2 * len(histories)), squeeze=False)
    for (losses, dice), (name, history) in zip(axes, histories.items(), strict=True):
        terms = [c for c in history if c not in ("step", "validation_dice", "seconds", "learning_rate")]
        for style, term in zip(("-", "--", ":", "-."), terms, strict=False):
            losses.plot(history["step"], history[term], style, label=term, marker=".", color="black")
        scale = "log" if (history[terms] > 0).all(axis=None) else "linear"  # correlation losses are negative
        losses.set(xlabel="training step", ylabel="loss (training pairs)", yscale=scale, title=name)
        losses.legend()
        best = history.iloc[int(history["validation_dice"].argmax())]
        dice.plot(history["step"], history["validation_dice"], "-", marker=".", color="black")
        dice.plot(best["step"], best["validation_dice"], "o", mfc="none", ms=12, color="black")
        dice.set(xlabel="training step", ylabel="Dice (validation pairs)", title=f"{name}: weights kept at the circle")
        for axis in (losses, dice):
            axis.grid(linewidth=0.3)
    figure.tight_layout()
    return figure


@dataclass(frozen=True, eq=False)
class ShownPair:
    """A pair and the field between its scans, for drawing."""

    title: str
    fixed_name: str
    moving_name: str
    fixed: Volume
    moving: Volume
    field: DisplacementField


def pair_panels(pairs: Sequence[ShownPair]):
    """Rows of fixed, moving, warped, difference, warped grid and displacement; intensities are 0 to 1.

    In 3-D the coronal slice through the middle of the fixed image's content is shown.
    """
    heads = ("fixed", "moving", "warped", "fixed − warped", "warped grid", "displacement (mm)")
    _, width, _, height = View(pairs[0].fixed).extent
    row_inches = 2.1 * height / width + 0.4
    figure, axes = plt.subplots(len(pairs), 6, figsize=(15, row_inches * len(pairs)), squeeze=False)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head)
    for row, shown in zip(axes, pairs, strict=True):
        view = View(shown.fixed)
        unmoved = DisplacementField.identity(shown.fixed.grid).warp(shown.moving)
        fixed = view.slice(shown.fixed.data)
        warped = view.slice(shown.field.warp(shown.moving).data)
        for axis, image in zip(row, (fixed, view.slice(unmoved.data), warped), strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, **view.frame)
        difference = row[3].imshow(fixed - warped, cmap="RdBu", vmin=-0.5, vmax=0.5, **view.frame)
        _scale(row[3], difference)
        moves = shown.field.targets() - DisplacementField.identity(shown.field.grid).targets()
        draw_grid(row[4], view, moves)
        colour = row[5].imshow(view.slice(np.linalg.norm(moves, axis=-1)), cmap="viridis", vmin=0, **view.frame)
        _scale(row[5], colour)
        row[0].set_ylabel(shown.title)
        row[0].set_xlabel(shown.fixed_name, fontsize=8)
        row[1].set_xlabel(shown.moving_name, fontsize=8)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    figure.subplots_adjust(wspace=0.34, hspace=0.16)
    return figure


@dataclass(frozen=True, eq=False)
class ComparedPair:
    """A pair and the fields of several methods by name, for drawing."""

    title: str
    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    fields: Mapping[str, DisplacementField]


def method_panels(pairs: Sequence[ComparedPair]):
    """Rows of the fixed image and the moving image warped by each method, with outlines of the fixed labels.

    Intensities are 0 to 1; in 3-D the coronal slice through the middle of the fixed image's content is shown.
    """
    columns = 1 + max(len(shown.fields) for shown in pairs)
    _, width, _, height = View(pairs[0].fixed).extent
    figure, axes = plt.subplots(
        len(pairs), columns, figsize=(2.3 * columns, (2.3 * height / width + 0.3) * len(pairs)), squeeze=False
    )
    for row, shown in zip(axes, pairs, strict=True):
        view = View(shown.fixed)
        labels = view.slice(shown.fixed_labels.data)
        outlines = (labels[1:, 1:] != labels[:-1, 1:]) | (labels[1:, 1:] != labels[1:, :-1])
        outlines = np.pad(outlines, ((1, 0), (1, 0)))
        images = {"fixed": shown.fixed}
        images |= {name: field.warp(shown.moving) for name, field in shown.fields.items()}
        for axis, (name, image) in zip(row, images.items(), strict=False):
            axis.imshow(view.slice(image.data), cmap="gray", vmin=0, vmax=1, **view.frame)
            axis.imshow(np.ma.masked_equal(outlines, False), cmap="autumn", alpha=0.45, **view.frame)
            axis.set_title(name, fontsize=9)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(shown.title)
    figure.tight_layout(pad=0.5)
    return figure


def _scale(axis, image) -> None:
    """A colour bar beside ``axis`` that does not shrink it."""
    bar = axis.figure.colorbar(image, cax=axis.inset_axes([1.03, 0, 0.05, 1]))
    bar.ax.tick_params(labelsize=7)


class View:
    """How to show a volume: closest-to-RAS orientation and, in 3-D, one coronal slice."""

    def __init__(self, volume: Volume):
        grid: Grid = volume.grid
        self.ndim = grid.ndim
        affine = np.eye(4)
        affine[: self.ndim, : self.ndim] = grid.affine[:-1, :-1]
        self.orientation = nib.io_orientation(affine)[: self.ndim]
        order = np.argsort(self.orientation[:, 0])
        self.planes = (0, 1) if self.ndim == 2 else (0, 2)
        spacing = grid.spacing[order][list(self.planes)]
        self.where = None
        if self.ndim == 3:
            content = np.argwhere(self._turn(volume.data) > 0.1)[:, 1]
            self.where = int(np.median(content)) if len(content) else volume.data.shape[order[1]] // 2
        height, width = self.slice(volume.data).shape
        self.extent = (0, width * spacing[0], 0, height * spacing[1])
        self.frame = {"origin": "lower", "extent": self.extent, "interpolation": "nearest"}

    def _turn(self, data: np.ndarray) -> np.ndarray:
        return nib.apply_orientation(data, self.orientation)

    def slice(self, data: np.ndarray) -> np.ndarray:
        """The shown plane of an array on the volume's grid, rows upwards."""
        turned = self._turn(data)
        return (turned if self.where is None else turned[:, self.where]).T


def draw_grid(axis, view: View, moves: np.ndarray) -> None:
    """Draw a regular grid deformed by the field, in the shown plane (mm)."""
    across, up = (view.slice(moves[..., plane]) for plane in view.planes)
    height, width = across.shape
    left, right, bottom, top = view.extent
    x, y = np.meshgrid((np.arange(width) + 0.5) * right / width, (np.arange(height) + 0.5) * top / height)
    step = max(1, round(max(height, width) / 40))
    x, y = x + across, y + up
    for i in range(0, height, step):
        axis.plot(x[i], y[i], color="black", linewidth=0.4)
    for j in range(0, width, step):
        axis.plot(x[:, j], y[:, j], color="black", linewidth=0.4)
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
