"""The figures of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regcore.cohort.labels import structures
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


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG under a temporary name first, and free the figure.

    Parameters
    ----------
    figure : Figure
        Is closed.
    path : path
        The PNG.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.reporting.figures import save_figure, text_figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(text_figure("No pair was registered."), Path(folder) / "pairs.png")
    ...     print(*(path.name for path in Path(folder).iterdir()))
    pairs.png
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)


def text_figure(text: str) -> Figure:
    """A figure with only a text, for instance why there is nothing to draw.

    Parameters
    ----------
    text : str
        Long lines are wrapped.

    Returns
    -------
    Figure

    Examples
    --------
    >>> from regcore.reporting.figures import plt, text_figure
    >>> figure = text_figure("No pair was registered.")
    >>> figure.axes[0].texts[0].get_text()
    'No pair was registered.'
    >>> plt.close(figure)
    """
    figure, axis = plt.subplots(figsize=(8, 1.5))
    axis.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    axis.set_axis_off()
    return figure


def structure_boxes(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str], metric: str) -> Figure:
    """Box plots of a metric by structure and method; left and right are pooled, the best structures come first.

    Boxes span the quartiles over pairs (and sides), the line is the median, whiskers reach 1.5 times the box,
    points are outliers.

    Parameters
    ----------
    rows : DataFrame
        Tidy rows of all methods: ``method pair label metric value``.
    labels : DataFrame
        ``index name group``.
    order : sequence of str
        Methods in the order of the boxes.
    metric : {"dice", "hd95_mm"}
        What is drawn.

    Returns
    -------
    Figure
        A text if no label has a value.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.figures import plt, structure_boxes
    >>> dice = {"method": "syn", "pair": "a", "label": [1, 2], "metric": "dice", "value": [0.5, 0.75]}
    >>> labels = pd.DataFrame({"index": [1, 2], "name": ["left thalamus", "left fornix"], "group": "all"})
    >>> figure = structure_boxes(pd.DataFrame(dice), labels, ["syn"], "dice")
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['fornix', 'thalamus']
    >>> plt.close(figure)
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
    values = {key: group["value"].to_numpy() for key, group in found.groupby(["structure", "method"])}
    for axis, chunk in zip(axes[:, 0], chunks, strict=True):
        for k, method in enumerate(methods):
            _draw_boxes(axis, [values.get((structure, method), []) for structure in chunk], method, k, len(methods))
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


def _draw_boxes(axis: Axes, values: Sequence[npt.ArrayLike], method: str, k: int, methods: int) -> None:
    """The boxes of one method, the ``k``-th of several: one for each structure, beside those of the others."""
    width = 0.8 / methods
    colour, hatch = STYLES[k % len(STYLES)]
    boxes = axis.boxplot(
        values,
        positions=np.arange(len(values)) + (k - (methods - 1) / 2) * width,
        widths=0.85 * width,
        patch_artist=True,
        flierprops={"markersize": 2},
        medianprops={"color": "black"},
        boxprops={"facecolor": colour, "hatch": hatch, "linewidth": 0.6},
        label=method,
    )
    for part in (*boxes["whiskers"], *boxes["caps"]):
        part.set_linewidth(0.6)


def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Training losses and validation Dice against the training step, one row per method.

    Parameters
    ----------
    histories : mapping of str → DataFrame
        Method → its losses by ``step``, with ``validation_dice``; ``seconds`` and ``learning_rate`` are not drawn.

    Returns
    -------
    Figure
        A circle marks the weights that were kept.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.figures import plt, training_curves
    >>> history = pd.DataFrame({"step": [1, 2, 3], "total": [-0.2, -0.4, -0.5], "validation_dice": [0.6, 0.8, 0.7]})
    >>> figure = training_curves({"voxelmorph": history})
    >>> figure.axes[1].lines[1].get_xdata().tolist()  # the circle
    [2.0]
    >>> plt.close(figure)
    """
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
