"""Results of searches for hyperparameters: their trials, importances, and comparison with a grid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import griddata

from regcore.reporting.figures import AXES, plt
from regcore.study.results import Results

#: Trials are rings: state → colour, and what the legend says.
RINGS = {"complete": ("black", "trained to the end"), "pruned": ("cyan", "pruned")}
CROSS: dict[str, Any] = {"marker": "x", "color": "red", "markersize": 11, "markeredgewidth": 2.5, "linestyle": "none"}
COLOURS = ("#3182bd", "#fdae6b", "#74c476", "#9e9ac8", "#e7969c", "#d9d9d9")


def _axis_name(name: str) -> str:
    """Axis label of a hyperparameter."""
    return AXES.get(name, name.replace("_", " "))


def search_figure(results: Results, name: str) -> Figure:
    """An entry's trials over its hyperparameters, the best value so far, and the importances.

    Parameters
    ----------
    results : Results
        Of a study with the search.
    name : str
        The entry.

    Returns
    -------
    Figure
        Two panels if the importances are not known.
    """
    table, result = results.trials(name), results.search(name)
    panels = 3 if result["importances"] else 2
    figure, axes = plt.subplots(1, panels, figsize=(5.2 * panels, 4))
    _draw_trials(axes[0], table, result)
    _draw_history(axes[1], table)
    if result["importances"]:
        _draw_importances(axes[2], result["importances"])
    figure.suptitle(f"{name}: the best of {len(table)} trials is {values_text(result['params'])}")
    figure.tight_layout()
    return figure


def values_text(params: dict[str, Any]) -> str:
    """Hyperparameters with their values, in a line.

    Parameters
    ----------
    params : dict of str → float, int or str
        Hyperparameter → value.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.reporting.searches import values_text
    >>> values_text({"lambda": 0.3141, "alpha": 0.02, "time_steps": 7})
    'λ = 0.314, α′ = 0.02, time steps = 7'
    """
    return ", ".join(
        f"{_axis_name(name)} = {value:.3g}" if isinstance(value, float) else f"{_axis_name(name)} = {value}"
        for name, value in params.items()
    )


def _draw_trials(axis: Axes, table: pd.DataFrame, result: dict[str, Any]) -> None:
    """Validation Dice over the two most important hyperparameters, or the only one.

    Pruned trials have the Dice of their last validation, so the surface is interpolated only between trials trained to
    the end.
    """
    numeric = [name for name, rule in result["ranges"].items() if all(map(_is_number, rule.get("choices", [0])))]
    names = sorted(numeric, key=lambda name: -result["importances"].get(name, 0))[:2]
    names = [name for name in numeric if name in names]  # the order of the study's file
    done = table[table["state"] == "complete"]
    if not names:
        axis.text(0.5, 0.5, "no numerical hyperparameter", ha="center", transform=axis.transAxes)
        return
    if len(names) == 1:
        _draw_line(axis, table, names[0])
    else:
        _draw_surface(axis, table, done, names)
    axis.plot(*_place(result, names, done), **CROSS, label="best", clip_on=False, zorder=4)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8, frameon=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _place(result: dict[str, Any], names: Sequence[str], done: pd.DataFrame) -> list[float]:
    place = [result["params"][name] for name in names]
    return place if len(place) == 2 else [*place, result["dice"]]


def _draw_line(axis: Axes, table: pd.DataFrame, name: str) -> None:
    for state, (colour, label) in RINGS.items():
        part = table[table["state"] == state]
        axis.plot(part[name], part["value"], "o", markerfacecolor="none", markeredgecolor=colour, label=label)
    axis.set(xlabel=_axis_name(name), ylabel="Dice (validation pairs)")
    axis.grid(linewidth=0.3)


def _draw_surface(axis: Axes, table: pd.DataFrame, done: pd.DataFrame, names: Sequence[str]) -> None:
    points, low, high = done[list(names)].to_numpy(), *done["value"].agg(["min", "max"])
    norm = Normalize(low, high if high > low else low + 1e-6)
    spans = np.ptp(table[list(names)].to_numpy(), axis=0)
    spread = np.linalg.matrix_rank((points - points.mean(0)) / np.maximum(spans, 1e-12), tol=1e-3) if len(done) else 0
    if len(done) >= 4 and spread == 2:  # at least one triangle for interpolation
        lines = [np.linspace(table[name].min(), table[name].max(), 60) for name in names]
        x, y = np.meshgrid(*lines)
        surface = griddata(points / spans, done["value"], (x / spans[0], y / spans[1]), method="linear")
        axis.contourf(x, y, surface, levels=15, norm=norm, cmap="viridis")
    style: dict[str, Any] = {"linewidths": 1.6, "s": 48, "zorder": 3, "clip_on": False}
    for state, (colour, label) in RINGS.items():
        part = table[table["state"] == state]
        first, second = (part[name] for name in names)
        if state == "complete":
            drawn = axis.scatter(first, second, c=part["value"], norm=norm, edgecolors=colour, label=label, **style)
        else:  # the Dice of a few validations is not on the same scale
            axis.scatter(first, second, facecolors="none", edgecolors=colour, label=label, **style)
    bar = axis.figure.colorbar(drawn, ax=axis, format="%.4f")
    bar.set_label("Dice (validation pairs)")
    axis.set(xlabel=_axis_name(names[0]), ylabel=_axis_name(names[1]))


def _draw_history(axis: Axes, table: pd.DataFrame) -> None:
    """The best value so far, over the trials in the order in which they started."""
    ordered = table.sort_values("trial")
    done = ordered["value"].where(ordered["state"] == "complete")
    axis.step(ordered["trial"], done.cummax().ffill(), where="post", color="black", label="best so far")
    for state, (colour, label) in RINGS.items():
        part = ordered[ordered["state"] == state]
        axis.plot(part["trial"], part["value"], "o", markerfacecolor="none", markeredgecolor=colour, label=label)
    axis.set(xlabel="trial", ylabel="Dice (validation pairs)")
    locator = axis.xaxis.get_major_locator()
    assert isinstance(locator, MaxNLocator)
    locator.set_params(integer=True)
    axis.grid(linewidth=0.3)
    axis.legend(fontsize=8)


def _draw_importances(axis: Axes, shares: dict[str, float]) -> None:
    """Shares of the hyperparameters in the variance of Dice; said so where no trial told them apart."""
    axis.set_title("importance (fANOVA)", fontsize=10)
    if not any(shares.values()):
        axis.set_axis_off()
        axis.text(0.5, 0.5, "all trials are alike,\nor too few", ha="center", va="center", transform=axis.transAxes)
        return
    axis.pie(
        list(shares.values()),
        labels=[_axis_name(name) for name in shares],
        colors=[COLOURS[place % len(COLOURS)] for place in range(len(shares))],
        autopct="%.0f %%",
        startangle=90,
        wedgeprops={"edgecolor": "white"},
    )


def surfaces(results: Results, entries: dict[str, str]) -> tuple[pd.DataFrame, Figure]:
    """Validation Dice over the hyperparameters (Fig. 7 of [1]_), a panel for each search.

    Parameters
    ----------
    results : Results
        Of a study with the searches.
    entries : dict of str → str
        Name of an entry with a search → its title.

    Returns
    -------
    DataFrame
        The trials of all searches: ``entry``, then the columns of :meth:`regcore.study.results.Results.trials`.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Fig. 7.
    """
    figure, axes = plt.subplots(1, len(entries), figsize=(5.8 * len(entries), 4.6), squeeze=False)
    tables = []
    for axis, (name, title) in zip(axes[0], entries.items(), strict=True):
        table, result = results.trials(name), results.search(name)
        tables.append(table.assign(entry=name))
        _draw_trials(axis, table, result)
        axis.set_title(f"{title}: {values_text(result['params'])}", fontsize=10)
    figure.tight_layout()
    whole = pd.concat(tables, ignore_index=True)
    return whole[["entry", *(column for column in whole if column != "entry")]], figure


def importances(results: Results, entries: dict[str, str]) -> tuple[pd.DataFrame, Figure]:
    """The importances of the hyperparameters (Fig. 8 of [1]_), a pie for each search.

    Parameters
    ----------
    results : Results
        Of a study with the searches.
    entries : dict of str → str
        Name of an entry with a search → its title.

    Returns
    -------
    DataFrame
        ``entry hyperparameter importance``: shares in the variance of Dice, NaN where they are not known.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024, Fig. 8.
    """
    figure, axes = plt.subplots(1, len(entries), figsize=(4 * len(entries), 3.6), squeeze=False)
    rows = []
    for axis, (name, title) in zip(axes[0], entries.items(), strict=True):
        result = results.search(name)
        shares = result["importances"]
        rows += [
            {"entry": name, "hyperparameter": key, "importance": shares.get(key, np.nan)} for key in result["params"]
        ]
        _draw_importances(axis, shares)
        axis.set_title(title)
    figure.tight_layout()
    return pd.DataFrame(rows, columns=["entry", "hyperparameter", "importance"]), figure


def against_grid(results: Results, entries: dict[str, str]) -> pd.DataFrame:
    """The cost and result of each search, compared with the last one, which is a grid.

    Parameters
    ----------
    results : Results
        Of a study with the searches.
    entries : dict of str → str
        Name of an entry with a search → its title; the grid comes last.

    Returns
    -------
    DataFrame
        One row per search: ``method trials pruned pruned_percent steps validation_dice``, the best hyperparameters,
        ``steps_ratio`` (steps relative to those of the grid) and ``gap_points`` (validation Dice minus that of the
        grid, in hundredths).
    """
    rows = []
    for name, title in entries.items():
        result = results.search(name)
        rows.append(
            {
                "method": title,
                "trials": result["trials"],
                "pruned": result["pruned"],
                "pruned_percent": 100 * result["pruned"] / result["trials"],
                "steps": result["steps"],
                "validation_dice": result["dice"],
                **result["params"],
            }
        )
    table = pd.DataFrame(rows)
    table["steps_ratio"] = table["steps"] / table["steps"].iloc[-1]
    table["gap_points"] = 100 * (table["validation_dice"] - table["validation_dice"].iloc[-1])
    return table
