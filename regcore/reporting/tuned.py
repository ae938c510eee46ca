"""The figure of a tuning: Dice against the hyperparameters, and the optimum."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regcore.reporting.figures import AXES, plt
from regcore.tuning.optima import Optimum


def tuned_figure(
    along: pd.DataFrame,
    best: Optimum,
    curves: Mapping[str, pd.DataFrame],
    optima: Mapping[str, Optimum],
    pairs: int,
) -> Figure:
    """Dice against the hyperparameters, with a star at the optimum, for all pairs and for each group.

    Parameters
    ----------
    along : DataFrame
        As from :func:`regcore.tuning.optima.curve`, for all pairs.
    best : Optimum
        As from :func:`regcore.tuning.optima.optimum`, for all pairs.
    curves, optima : mapping of str → DataFrame and of str → Optimum
        The same by group; empty if there are no groups.
    pairs : int
        Number of pairs in the mean.

    Returns
    -------
    Figure
        Curves over one hyperparameter, with the SD over pairs as a band unless there are groups; a map over two.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.figures import plt
    >>> from regcore.reporting.tuned import tuned_figure
    >>> from regcore.tuning.optima import curve, optimum
    >>> rows = [(0.1, "a", 0.6), (0.1, "b", 0.7), (0.5, "a", 0.7), (0.5, "b", 0.9)]
    >>> table = pd.DataFrame(rows, columns=["lambda", "fixed", "value"]).assign(moving="m", label=1, metric="dice")
    >>> figure = tuned_figure(curve(table, ["lambda"]), optimum(table, ["lambda"]), {}, {}, pairs=2)
    >>> figure.axes[0].get_title()
    'Mean Dice ± standard deviation over 2 pairs; ★ best'
    >>> plt.close(figure)
    """
    figure, axis = plt.subplots(figsize=(7, 4.5))
    if len(best.values) == 1:
        with_band = pairs > 1 and not curves
        shown = " ± standard deviation" if with_band else ""
        _draw_lines(axis, along, best, {group: (own, optima[group]) for group, own in curves.items()}, with_band)
    else:
        shown = ""
        _draw_map(axis, along, best, optima)
    third = "".join(f", {AXES[name]} = {value:.3g}" for name, value in list(best.values.items())[2:])
    axis.set_title(f"Mean Dice{shown} over {counted(pairs)}{third}; ★ best")
    figure.tight_layout()
    if optima:  # beside the axes, without shrinking them
        left, columns = 1.02 if len(best.values) == 1 else 1.25, -(-len(optima) // 20)
        axis.legend(loc="upper left", bbox_to_anchor=(left, 1), ncols=columns)
    return figure


def _draw_lines(
    axis: Axes,
    along: pd.DataFrame,
    best: Optimum,
    groups: Mapping[str, tuple[pd.DataFrame, Optimum]],
    with_band: bool,
) -> None:
    """Over one hyperparameter, for all pairs and each group; the band is the standard deviation over pairs."""
    (name,) = best.values
    axis.plot(along[name], along["mean"], color="black", linewidth=2, zorder=3, label="all")
    if with_band:
        low, high = along["mean"] - along["sd"], along["mean"] + along["sd"]
        axis.fill_between(along[name], low, high, color="0.85", linewidth=0)
    looks = zip(_colours(len(groups)), _styles(len(groups)), strict=True)
    for (group, (own, found)), (colour, style) in zip(groups.items(), looks, strict=True):
        axis.plot(own[name], own["mean"], style, color=colour, linewidth=1, label=group)
        _star(axis, found.values[name], found.score, colour)
    _star(axis, best.values[name], best.score, "white", size=16)
    axis.set(xlabel=AXES[name], ylabel="Dice")
    axis.grid(linewidth=0.3)


def _draw_map(axis: Axes, along: pd.DataFrame, best: Optimum, optima: Mapping[str, Optimum]) -> None:
    """Over the first two hyperparameters, at the optimum of a third; for groups only the stars."""
    first, second, *others = best.values
    for name in others:
        along = along[along[name] == best.values[name]]
    wide = along.pivot(index=second, columns=first, values="mean")
    filled = axis.contourf(wide.columns, wide.index, wide.to_numpy(), levels=20, cmap="viridis")
    axis.figure.colorbar(filled, ax=axis, label="Dice")
    for (group, found), colour in zip(optima.items(), _colours(len(optima), "autumn"), strict=True):
        _star(axis, found.values[first], found.values[second], colour, label=group)
    _star(axis, best.values[first], best.values[second], "white", size=16, label="all")
    axis.set(xlabel=AXES[first], ylabel=AXES[second])


def counted(pairs: int) -> str:
    """A number of pairs in words.

    Parameters
    ----------
    pairs : int
        How many.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.reporting.tuned import counted
    >>> counted(1), counted(2)
    ('1 pair', '2 pairs')
    """
    return f"{pairs} pair" if pairs == 1 else f"{pairs} pairs"


def _star(axis: Axes, x: float, y: float, colour, size: int = 11, label: str | None = None) -> None:
    look = {"markerfacecolor": colour, "markeredgecolor": "black", "markersize": size}
    axis.plot([x], [y], "*", **look, label=label, clip_on=False, zorder=4 + 1 / size)  # small ones on large ones


def _colours(count: int, name: str = "viridis") -> np.ndarray:
    return plt.get_cmap(name)(np.linspace(0, 0.9, count))


def _styles(count: int) -> list[str]:
    return [("-", "--", ":", "-.")[place % 4] for place in range(count)]
