"""Architectures of AutoReg and the searches that found them, as figures."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from regcore.networks.architecture import (
    CANDIDATES,
    CELLS,
    DEFORMATION,
    EDGES,
    FEATURE,
    LAMBDAS,
    OBJECTIVE,
    Architecture,
)
from regcore.reporting.figures import CURVES, plt, text_figure

#: Symbols of the four weights.
SYMBOLS = dict(zip(LAMBDAS, ("λ1", "λ2", "λ3", "λ4"), strict=True))
CELL_TITLES = {FEATURE: "feature cells", DEFORMATION: "deformation cells"}
#: Resolution of a cell's features.
SCALES = {"half": "1/2", "quarter": "1/4"}
#: Colours of operations by kind, darker for large kernels.
KINDS = {"Conv": "Blues", "SConv": "Oranges", "DConv": "Greens"}
LOSSES = {"training_loss": "objective, training pairs", "validation_loss": "1 - Dice, validation pairs"}


def stage_of(trace: pd.DataFrame, stage: str) -> pd.DataFrame:
    """The epochs of a stage of a search.

    Parameters
    ----------
    trace : DataFrame
        Of all stages of a search: :meth:`regcore.study.results.Results.trace`.
    stage : {"feature", "deformation", "objective"}
        What was searched.

    Returns
    -------
    DataFrame
        A row for each epoch, without the columns of other stages; no row if there was no such stage.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.architectures import stage_of
    >>> trace = pd.DataFrame({"stage": ["feature", "objective"], "epoch": [1, 1], "lambda1": [None, 0.5]})
    >>> stage_of(trace, "objective")
           stage  epoch  lambda1
    0  objective      1      0.5
    """
    return trace[trace["stage"] == stage].dropna(axis=1, how="all").reset_index(drop=True)


def mixtures(trace: pd.DataFrame) -> pd.DataFrame:
    """The weights of all operations in the last epoch of each search for cells.

    The most likely operation of each edge is chosen, even if the architecture file was edited later.

    Parameters
    ----------
    trace : DataFrame
        Of all stages of a search: :meth:`regcore.study.results.Results.trace`.

    Returns
    -------
    DataFrame
        ``cells cell edge operation weight chosen``, one row for each operation of an edge; no row if no cells were
        searched.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.networks.architecture import CANDIDATES
    >>> from regcore.reporting.architectures import mixtures
    >>> weights = {f"feature.{cell}.{edge}.{operation}": 0.2 if operation == "3-Conv" else 0.1
    ...            for cell in ("half", "quarter") for edge in (1, 2, 3) for operation in CANDIDATES}
    >>> table = mixtures(pd.DataFrame([{"stage": "feature", "epoch": 9, **weights}]))
    >>> table[table["chosen"]][["cell", "edge", "operation", "weight"]].head(2)
       cell  edge operation  weight
    1  half     1    3-Conv     0.2
    9  half     2    3-Conv     0.2
    """
    tables = []
    for kind, cells in CELLS.items():
        rows = stage_of(trace, kind)
        for cell, number in itertools.product(cells, range(EDGES)) if len(rows) else []:
            weights = [rows.iloc[-1][f"{kind}.{cell}.{number + 1}.{operation}"] for operation in CANDIDATES]
            edge = {"cells": kind, "cell": cell, "edge": number + 1, "operation": list(CANDIDATES), "weight": weights}
            tables.append(pd.DataFrame(edge).assign(chosen=np.arange(len(weights)) == np.argmax(weights)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"cells": []})


def heat_maps(table: pd.DataFrame) -> Figure:
    """The weights of the operations in both kinds of cells (Fig. 3 of [1]_); boxes mark the chosen operations.

    Parameters
    ----------
    table : DataFrame
        As from :func:`mixtures`, of at least one kind of cells.

    Returns
    -------
    Figure

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023, Fig. 3.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.networks.architecture import CANDIDATES
    >>> from regcore.reporting.architectures import heat_maps
    >>> from regcore.reporting.figures import plt
    >>> edge = {"cells": "feature", "cell": "half", "edge": 1, "operation": list(CANDIDATES), "weight": 0.125}
    >>> figure = heat_maps(pd.DataFrame(edge).assign(chosen=[True] + 7 * [False]))
    >>> [axis.get_title() for axis in figure.axes[:2]]
    ['feature cells', 'deformation cells (not searched)']
    >>> plt.close(figure)
    """
    figure, axes = plt.subplots(1, len(CELLS), figsize=(9.5, 4.4), sharey=True, layout="constrained")
    limits = table["weight"].min(), table["weight"].max()
    for axis, kind in zip(axes, CELLS, strict=True):
        part = table[table["cells"] == kind]
        axis.set(title=CELL_TITLES[kind] + ("" if len(part) else " (not searched)"), xlabel="resolution, edge")
        if len(part):
            drawn = _draw_weights(axis, part, limits)
    axes[0].set_yticks(range(len(CANDIDATES)), list(CANDIDATES))
    figure.colorbar(drawn, ax=axes, label="weight in the mixture (uniform: 0.125)")
    return figure


def _draw_weights(axis: Axes, part: pd.DataFrame, limits: tuple[float, float]) -> Any:
    image = part["weight"].to_numpy().reshape(-1, len(CANDIDATES)).T
    drawn = axis.imshow(image, cmap="viridis", aspect="auto", vmin=limits[0], vmax=limits[1])
    chosen = part[part["chosen"]]
    for column, operation in enumerate(chosen["operation"]):
        corner = column - 0.5, list(CANDIDATES).index(operation) - 0.5
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2))
    places = [f"{SCALES[cell]}, {edge}" for cell, edge in zip(chosen["cell"], chosen["edge"], strict=True)]
    axis.set_xticks(range(len(places)), places)
    return drawn


def objective_by_epoch(rows: pd.DataFrame) -> Figure:
    """λ and the losses over the epochs of the search for λ (Fig. 4 of [1]_), each scaled to its own range.

    Parameters
    ----------
    rows : DataFrame
        As from :func:`stage_of`, of the search for the objective: ``epoch``, the four λ and both losses.

    Returns
    -------
    Figure

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023, Fig. 4.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.architectures import objective_by_epoch
    >>> from regcore.reporting.figures import plt
    >>> rows = pd.DataFrame({"epoch": [1, 2], "training_loss": [3, 2], "validation_loss": [0.5, 0.4]})
    >>> rows = rows.assign(lambda1=[0.5, 0.6], lambda2=1.0, lambda3=1.0, lambda4=[2, 1])
    >>> figure = objective_by_epoch(rows)
    >>> figure.axes[0].lines[0].get_label()
    'λ1: 0.5 → 0.6'
    >>> plt.close(figure)
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
    labels = {name: f"{SYMBOLS[name]}: {rows[name].iloc[0]:.3g} → {rows[name].iloc[-1]:.3g}" for name in LAMBDAS}
    for axis, curves, what in ((left, labels, "λ"), (right, LOSSES, "loss")):
        for (column, label), (marker, line, colour) in zip(curves.items(), CURVES, strict=False):
            axis.plot(rows["epoch"], _scaled(rows[column]), line, marker=marker, ms=3, color=colour, label=label)
        axis.set(xlabel="epoch", ylabel=f"{what}, from its minimum to its maximum")
        axis.grid(linewidth=0.3)
        axis.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))  # curves are everywhere else
    return figure


def _scaled(values: pd.Series) -> pd.Series:
    span = values.max() - values.min()
    return (values - values.min()) / (span if span > 0 else 1)


def operations(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The operation on each edge of several architectures.

    Parameters
    ----------
    found : mapping of str → mapping
        Name → an architecture as read by :func:`regcore.autoreg.search.read_found`.

    Returns
    -------
    DataFrame
        ``search cells cell edge operation``.

    Examples
    --------
    >>> from regcore.networks.architecture import Architecture
    >>> from regcore.reporting.architectures import operations
    >>> operations({"mine": {"architecture": Architecture.uniform("3-Conv").as_json()}}).head(2)
      search    cells  cell  edge operation
    0   mine  feature  half     1    3-Conv
    1   mine  feature  half     2    3-Conv
    """
    rows = [
        {"search": heading, "cells": kind, "cell": cell, "edge": number + 1, "operation": operation}
        for heading, values in found.items()
        for kind in CELLS
        for cell, number, operation in Architecture.parsed(values["architecture"], heading).edges(kind)
    ]
    return pd.DataFrame(rows)


def headings(paths: Sequence[Path]) -> list[str]:
    """Paths without the folders that all of them begin or end with, so that they fit above a column.

    Parameters
    ----------
    paths : sequence of Path
        Files or folders.

    Returns
    -------
    list of str
        One for each path, with a line for each part.

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.reporting.architectures import headings
    >>> headings([Path("results/small/cells.json"), Path("results/large/cells.json")])
    ['small', 'large']
    """
    parts = [path.parts for path in dict.fromkeys(paths)]
    if len(parts) < 2:
        return [path.name for path in paths]

    def shared(columns: Iterable[tuple[str, ...]]) -> int:
        return sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, columns))

    first = shared(zip(*parts, strict=False))
    last = shared(zip(*(reversed(own[first + 1 :]) for own in parts), strict=False))
    return ["/\n".join(path.parts[first : len(path.parts) - last]) or path.name for path in paths]


def side_by_side(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw architectures beside each other, with λ if known.

    Parameters
    ----------
    found : mapping of str → mapping
        As for :func:`operations`.

    Returns
    -------
    Figure

    Examples
    --------
    >>> from regcore.networks.architecture import Architecture
    >>> from regcore.reporting.architectures import side_by_side
    >>> from regcore.reporting.figures import plt
    >>> cells = Architecture.uniform("3-Conv").as_json()
    >>> figure = side_by_side({"mine": {"architecture": cells, "lambda1": 0.5}, "other": {"architecture": cells}})
    >>> [axis.get_title() for axis in figure.axes]
    ['mine\\nλ1 0.5', 'other']
    >>> plt.close(figure)
    """
    figure, axes = plt.subplots(1, len(found), figsize=(3.1 * len(found), 6.2), squeeze=False, layout="constrained")
    for axis, (heading, values) in zip(axes[0], found.items(), strict=True):
        _draw_architecture(axis, Architecture.parsed(values["architecture"], heading))
        known = [f"{SYMBOLS[name]} {values[name]:.2g}" for name in LAMBDAS if name in values]
        axis.set_title(heading + ("\n" + ", ".join(known) if known else ""), fontsize=9)
    return figure


def _draw_architecture(axis: Axes, architecture: Architecture) -> None:
    """Operations as boxes from the images at the top to the field at the bottom; darker: larger kernels."""
    place = 0.0
    for cells in CELLS:
        for cell, names in architecture.cells[cells].items():
            axis.text(0.02, place + 1, f"{cells}\n{SCALES[cell]}", va="center", fontsize=8)
            for operation in names:
                kernel, kind = operation.split("-")
                colour = plt.get_cmap(KINDS[kind])(0.15 + 0.09 * int(kernel))
                box = FancyBboxPatch((0.42, place - 0.3), 0.5, 0.6, boxstyle="round,pad=0.02", facecolor=colour)
                axis.add_patch(box)
                axis.text(0.67, place, operation, ha="center", va="center", fontsize=9)
                place += 1
            place += 0.5
    axis.set(xlim=(0, 1), ylim=(place - 0.7, -0.7))
    axis.set_axis_off()


def search_figure(trace: pd.DataFrame) -> Figure:
    """The course of a search: its mixtures, or, if no cells were searched, λ over its epochs.

    Parameters
    ----------
    trace : DataFrame
        As for :func:`mixtures`.

    Returns
    -------
    Figure
        A text if neither was searched.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.architectures import search_figure
    >>> from regcore.reporting.figures import plt
    >>> losses = {"training_loss": [3, 2], "validation_loss": [0.5, 0.4]}
    >>> trace = pd.DataFrame({"stage": "objective", "epoch": [1, 2], **losses})
    >>> figure = search_figure(trace.assign(lambda1=[0.5, 0.6], lambda2=1.0, lambda3=1.0, lambda4=[2, 1]))
    >>> figure.axes[1].get_ylabel()
    'loss, from its minimum to its maximum'
    >>> plt.close(figure)
    """
    table, rows = mixtures(trace), stage_of(trace, OBJECTIVE)
    if len(table):
        return heat_maps(table)
    return objective_by_epoch(rows) if len(rows) else text_figure("Nothing was searched by gradient.")
