"""The figures of the HyperMorph paper, drawn from the sweeps and models of a study's landscapes.

Hypernetworks and grids are those of the first random start, unless stated otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regcore.cohort.labels import structures
from regcore.experiments import Needs
from regcore.experiments import hypermorph as paper
from regcore.experiments.hypermorph import Landscape
from regcore.papers.hypermorph import landscapes
from regcore.reporting.figures import AXES, CURVES, plt
from regcore.study.results import Results
from regcore.tuning.optima import INTERVAL, Optimum, optimum

#: Markers of the values found by tuning and by the grid.
MARK: dict[str, Any] = {"markeredgecolor": "black", "linestyle": "none"}
STAR = MARK | {"marker": "*", "markersize": 14, "markerfacecolor": "white"}
RING = MARK | {"marker": "o", "markersize": 13, "markerfacecolor": "none"}


def dice_by_lambda(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Dice of a hypernetwork and of a grid of networks against λ, one panel per similarity (Fig. 3 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with both sweeps of each similarity.
    needs : Needs
        Not used: the study's settings of the experiments say which landscapes there are.

    Returns
    -------
    DataFrame
        ``similarity``, then as from :func:`regcore.papers.hypermorph.landscapes.compared`.
    Figure

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> from itertools import product
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.figures import dice_by_lambda
    >>> from regcore.reporting.figures import plt
    >>> def sweep(name):
    ...     lambdas = [0, 0.2, 0.4, 0.8, 1] if name == "mse-hyper" else [0.2, 0.8]
    ...     rows = pd.DataFrame(product(["validation", "test"], lambdas), columns=["split", "lambda"])
    ...     dice = 0.8 - (rows["lambda"] - 0.4) ** 2
    ...     return rows.assign(replicate=1, fixed="a", moving="b", label=1, metric="dice", value=dice)
    >>> optima = pd.DataFrame({"lambda": [0.41], "seconds": 1.5, "pairs": 8}, index=["hyper-mse"])
    >>> values = {"lambda": {"mse": [0.2, 0.8]}, "replicates": {"lambda": {}}}
    >>> experiments = ExperimentSettings.read({"hypermorph": values}, "experiments")
    >>> results = SimpleNamespace(experiments=experiments, sweep=sweep, optima=lambda name: optima)
    >>> table, figure = dice_by_lambda(results, Needs())
    >>> figure.axes[0].get_title(), abs(table["gap"]).max().round(6).item()
    ('MSE: λ* = 0.41 (grid: 0.2)', 0.0)
    >>> plt.close(figure)
    """
    shapes = landscapes.single(results)
    figure, axes = _panels(len(shapes))
    tables = []
    for axis, shape in zip(axes, shapes, strict=True):
        hyper, grid = landscapes.first_sweeps(results, shape)
        table = landscapes.compared(shape, hyper, grid, landscapes.tuned(results, shape))
        tables.append(table.assign(similarity=shape.name))
        _draw_curves(axis, landscapes.tested(hyper, ["lambda"]), table, table["test_pairs"].iloc[0])
        found, best = table[["lambda_tuned", "lambda_grid"]].iloc[0]
        axis.set(xlabel="λ", title=f"{landscapes.similarity(shape)}: λ* = {found:.2f} (grid: {best:g})")
    axes[0].set_ylabel("Dice (test pairs)")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return _first_columns(pd.concat(tables, ignore_index=True), "similarity"), figure


def dice_by_two(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Dice over two hyperparameters (Fig. 4 of [1]_); if training uses some labels, also of these and of the others.

    Tuning uses all labels. For groups of labels, the best point of the sweep is shown instead.

    Parameters
    ----------
    results : Results
        Of a study with both sweeps of each landscape over two hyperparameters.
    needs : Needs
        Not used: the study's settings of the experiments say which landscapes there are.

    Returns
    -------
    DataFrame
        ``landscape labels``, then as from :func:`regcore.papers.hypermorph.landscapes.compared`.
    Figure

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> from itertools import product
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.figures import dice_by_two
    >>> from regcore.reporting.figures import plt
    >>> def sweep(name):
    ...     lambdas, windows = ([0, 0.1, 0.5, 1], [3, 7, 15]) if name == "window-hyper" else ([0.1, 0.5], [3, 7])
    ...     rows = product(["validation", "test"], lambdas, windows)
    ...     rows = pd.DataFrame(rows, columns=["split", "lambda", "window"])
    ...     dice = 0.8 - (rows["lambda"] - 0.5) ** 2 - 0.01 * abs(rows["window"] - 7)
    ...     return rows.assign(replicate=1, fixed="a", moving="b", label=1, metric="dice", value=dice)
    >>> optima = pd.DataFrame({"lambda": [0.5], "window": 7.0, "seconds": 1.5, "pairs": 8}, index=["hyper-window"])
    >>> windows = {"lambda": [0.1, 0.5], "window": [3, 7], "range": [3, 15]}
    >>> values = {"lambda": {}, "replicates": {"lambda": {}}, "landscapes": {"window": windows}}
    >>> results = SimpleNamespace(
    ...     experiments=ExperimentSettings.read({"hypermorph": values}, "experiments"),
    ...     sweep=sweep,
    ...     optima=lambda name: optima,
    ...     training=lambda name: {"observed": []},
    ... )
    >>> table, figure = dice_by_two(results, Needs())
    >>> figure.axes[0].get_title()
    'NCC, all labels; largest gap 0.00 points'
    >>> table[["labels", "lambda", "window", "dice_grid"]].round(2)
      labels  lambda  window  dice_grid
    0    all     0.1       3       0.60
    1    all     0.1       7       0.64
    2    all     0.5       3       0.76
    3    all     0.5       7       0.80
    >>> plt.close(figure)
    """
    panels = [
        (shape, labels, codes)
        for shape in landscapes.planned(results).values()
        if len(shape.hyperparameters) == 2
        for labels, codes in _observed_and_held_out(results, shape).items()
    ]
    figure, axes = _panels(len(panels))
    tables = []
    for axis, (shape, labels, codes) in zip(axes, panels, strict=True):
        hyper, grid = (rows[rows["label"].isin(codes)] for rows in landscapes.first_sweeps(results, shape))
        tuned = landscapes.tuned(results, shape)
        if labels != "all":  # tuning counted all of them
            tuned = tuned | optimum(landscapes.of_split(hyper, "validation"), shape.hyperparameters).values
        table = landscapes.compared(shape, hyper, grid, tuned)
        tables.append(table.assign(landscape=shape.name, labels=labels))
        _draw_landscape(axis, shape.hyperparameters, landscapes.tested(hyper, shape.hyperparameters), table)
        gap = f"largest gap {table['max_gap'].iloc[0]:.2f} points"
        axis.set_title(f"{landscapes.similarity(shape)}, {labels} labels; {gap}", fontsize=10, pad=10)
    figure.tight_layout()
    _legend_below(figure, axes[0])
    whole = pd.concat(tables, ignore_index=True)
    return _first_columns(whole, "landscape", "labels", *(name for name in AXES if name in whole)), figure


def dice_by_start(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Mean and SD over random starts, of hypernetworks and of networks trained several times (Fig. 5 of [1]_).

    The lower row shows only the SD, which is small compared with the effect of λ.

    Parameters
    ----------
    results : Results
        Of a study with both sweeps of the landscapes that have several starts.
    needs : Needs
        Not used: the study's settings of the experiments say which landscapes there are.

    Returns
    -------
    DataFrame
        As from :func:`regcore.papers.hypermorph.landscapes.by_start`.
    Figure

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> from itertools import product
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.figures import dice_by_start
    >>> from regcore.reporting.figures import plt
    >>> def sweep(name):
    ...     rows = product([1, 2], ["validation", "test"], [0.2, 0.5, 0.8])
    ...     rows = pd.DataFrame(rows, columns=["replicate", "split", "lambda"])
    ...     dice = 0.8 - (rows["lambda"] - 0.5) ** 2 + 0.01 * rows["replicate"]
    ...     return rows.assign(fixed="a", moving="b", label=1, metric="dice", value=dice)
    >>> values = {"lambda": {"mse": [0.2, 0.8]}, "replicates": {"count": 2, "lambda": {"mse": [0.5]}}}
    >>> experiments = ExperimentSettings.read({"hypermorph": values}, "experiments")
    >>> table, figure = dice_by_start(SimpleNamespace(experiments=experiments, sweep=sweep), Needs())
    >>> figure.axes[0].get_title()
    'MSE, 2 random starts: λ* = 0.50 (networks: 0.5)'
    >>> plt.close(figure)
    """
    shapes = landscapes.repeated(results)
    size, ratios = (5.4 * len(shapes), 6), {"height_ratios": (3, 2)}
    figure, axes = plt.subplots(2, len(shapes), figsize=size, squeeze=False, sharex=True, gridspec_kw=ratios)
    tables = []
    for axis, below, shape in zip(*axes, shapes, strict=True):
        table = landscapes.by_start(results, shape)
        tables.append(table)
        low, high = (table["hyper_mean"] + sign * table["hyper_sd"] for sign in (-1, 1))
        axis.fill_between(table["lambda"], low, high, color="#9ecae1", linewidth=0, label="± SD over starts")
        axis.plot(table["lambda"], table["hyper_mean"], color="black", label="hypernetworks, mean")
        several = table.dropna(subset="grid_sd")
        style: dict[str, Any] = {"fmt": "o", "color": "0.35", "capsize": 4, "linewidth": 1.4, "markersize": 4}
        label = "networks, mean ± SD"
        axis.errorbar(several["lambda"], several["grid_mean"], several["grid_sd"], label=label, **style)
        found, best = table[["lambda_hyper", "lambda_grid"]].iloc[0]
        axis.set_title(
            f"{landscapes.similarity(shape)}, {shape.replicates} random starts: λ* = {found:.2f} (networks: {best:g})",
            fontsize=10,
        )
        below.plot(table["lambda"], table["hyper_sd"], color="black")
        below.plot(several["lambda"], several["grid_sd"], "o--", color="0.35", linewidth=0.7, markersize=4)
        below.set(xlabel="λ", ylim=(0, None))
        for drawn in (axis, below):
            drawn.grid(linewidth=0.3)
    axes[0, 0].set_ylabel("Dice × 100 (test pairs)")
    axes[1, 0].set_ylabel("its SD over starts")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    return pd.concat(tables, ignore_index=True), figure


def lambda_by_group(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Dice against λ for each data set, task and pairing of contrasts (Fig. 6 of [1]_).

    λ* is from the validation pairs. Pairs between two data sets are in no group.

    Parameters
    ----------
    results : Results
        Of a study with the sweep of each hypernetwork over λ.
    needs : Needs
        Not used: the study's settings of the experiments say which landscapes there are.

    Returns
    -------
    DataFrame
        ``similarity group_kind group pairs test_pairs lambda_star low high`` (λ* with its 95 % interval), Dice of the
        group's test pairs at λ* and at that of all pairs, ``dice_test_at_star dice_test_at_common``, and their
        difference × 100, ``loss``.
    Figure

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.figures import lambda_by_group
    >>> from regcore.reporting.figures import plt
    >>> pairs = pd.DataFrame({"split": ["validation", "test"] * 2, "fixed": list("abcd"), "moving": "m"})
    >>> pairs = pairs.assign(dataset=["one", "one", "two", "two"], task="across", contrasts="T1w to T1w")
    >>> best = pairs["dataset"].map({"one": 0.2, "two": 0.6})
    >>> rows = pairs[["split", "fixed", "moving"]].assign(replicate=1, label=1, metric="dice")
    >>> rows = [rows.assign(**{"lambda": x, "value": 0.8 - (x - best) ** 2}) for x in (0, 0.2, 0.4, 0.6, 1)]
    >>> values = {"lambda": {"mse": [0.2, 0.8]}, "replicates": {"lambda": {}}}
    >>> experiments, plan = ExperimentSettings.read({"hypermorph": values}, "experiments"), SimpleNamespace(pairs=pairs)
    >>> results = SimpleNamespace(experiments=experiments, sweep=lambda name: pd.concat(rows), plan=plan)
    >>> table, figure = lambda_by_group(results, Needs())
    >>> table[["group_kind", "group", "lambda_star", "dice_test_at_star", "loss"]].round(2)
      group_kind group  lambda_star  dice_test_at_star  loss
    0    dataset   one          0.2               0.80   4.0
    1    dataset   two          0.6               0.80   4.0
    2        all   all          0.4               0.76   0.0
    >>> plt.close(figure)
    """
    shapes = landscapes.single(results)
    found = {
        shape.name: landscapes.by_group(results, landscapes.first_sweep(results, paper.dense(shape.name)))
        for shape in shapes
    }
    kinds = [kind for kind in found[shapes[0].name] if kind != "all"] or ["all"]
    size = (5.4 * len(kinds), 4 * len(shapes))
    figure, axes = plt.subplots(len(shapes), len(kinds), figsize=size, squeeze=False)
    rows = []
    for shape, line in zip(shapes, axes, strict=True):
        groups = found[shape.name]
        common = optimum(landscapes.of_split(groups["all"]["all"], "validation"), ["lambda"]).values["lambda"]
        for kind, parts in groups.items():
            rows += [
                {"similarity": shape.name, "group_kind": kind, "group": name, **_group(part, common)}
                for name, part in parts.items()
            ]
        for axis, kind in zip(line, kinds, strict=True):
            chosen = [row for row in rows if (row["similarity"], row["group_kind"]) == (shape.name, kind)]
            _draw_groups(axis, groups[kind], chosen, common)
            by = f"by {landscapes.GROUPS[kind]}" if kind in landscapes.GROUPS else "all pairs (one data set, one task)"
            axis.set(xlabel="λ", title=f"{landscapes.similarity(shape)}, {by}")
        line[0].set_ylabel("Dice (test pairs)")
    figure.tight_layout()
    return pd.DataFrame(rows), figure


def lambda_by_structure(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """λ* of each structure on the validation pairs, left and right together (Fig. 7 of [1]_).

    Boxes: quartiles of λ* when pairs are resampled with replacement; whiskers: the interval.

    Parameters
    ----------
    results : Results
        Of a study with the sweep of each hypernetwork over λ.
    needs : Needs
        Not used: the study's settings of the experiments say which landscapes there are.

    Returns
    -------
    DataFrame
        ``similarity structure pairs lambda_star low high`` (95 % interval), in the order of λ*.
    Figure

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> from itertools import product
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.figures import lambda_by_structure
    >>> from regcore.reporting.figures import plt
    >>> rows = pd.DataFrame(product([0, 0.2, 0.4, 0.6], [1, 2, 3]), columns=["lambda", "label"])
    >>> rows["value"] = 0.8 - (rows["lambda"] - rows["label"].map({1: 0.2, 2: 0.2, 3: 0.6})) ** 2
    >>> rows = rows.assign(replicate=1, split="validation", fixed="a", moving="b", metric="dice")
    >>> names = ["left thalamus", "right thalamus", "brain stem"]
    >>> labels = pd.DataFrame({"index": [1, 2, 3], "name": names, "group": "all"})
    >>> values = {"lambda": {"mse": [0.2, 0.8]}, "replicates": {"lambda": {}}}
    >>> experiments = ExperimentSettings.read({"hypermorph": values}, "experiments")
    >>> results = SimpleNamespace(experiments=experiments, sweep=lambda name: rows, labels=lambda rows: labels)
    >>> table, figure = lambda_by_structure(results, Needs())
    >>> table[["structure", "lambda_star"]]
        structure  lambda_star
    0    thalamus          0.2
    1  brain stem          0.6
    >>> plt.close(figure)
    """
    shapes = landscapes.single(results)
    rows, drawn, common = [], {}, {}
    for shape in shapes:
        hyper = landscapes.with_dice(
            landscapes.of_split(landscapes.first_sweep(results, paper.dense(shape.name)), "validation")
        )
        common[shape.name] = optimum(hyper, ["lambda"]).values["lambda"]
        for structure, part in hyper.groupby(hyper["label"].map(structures(results.labels(hyper)))):
            pairs = len(part[["fixed", "moving"]].drop_duplicates())
            best = optimum(part, ["lambda"])
            rows.append({"similarity": shape.name, "structure": structure, "pairs": pairs, **_star(best)})
            drawn[shape.name, structure] = best.resampled["lambda"].to_numpy()
    table = pd.DataFrame(rows).sort_values("lambda_star", kind="stable")
    table = pd.concat([table[table["similarity"] == shape.name] for shape in shapes], ignore_index=True)
    size = (5.2 * len(shapes), 1.6 + 0.3 * table["structure"].nunique())
    figure, axes = plt.subplots(1, len(shapes), figsize=size, squeeze=False)
    for axis, shape in zip(axes[0], shapes, strict=True):
        part = table[table["similarity"] == shape.name]
        boxes = [drawn[shape.name, structure] for structure in part["structure"]]
        _draw_boxes(axis, part, boxes, common[shape.name])
        axis.set(
            xlabel="λ*", title=f"{landscapes.similarity(shape)} (dashed: all structures, {common[shape.name]:.2f})"
        )
    figure.tight_layout()
    _legend_below(figure, axes[0, 0])
    return table, figure


def _group(rows: pd.DataFrame, common: float) -> dict[str, float]:
    """λ* of a group of pairs, and Dice of its test pairs with this λ* and with that of all pairs."""
    best = _star(optimum(landscapes.of_split(rows, "validation"), ["lambda"]))
    tested = landscapes.tested(rows, ["lambda"])
    own, shared = (
        float(landscapes.interpolated(tested, ["lambda"], {"lambda": v})[0]) for v in (best["lambda_star"], common)
    )
    counts = rows.groupby("split")[["fixed", "moving"]].apply(lambda pairs: len(pairs.drop_duplicates()))
    return {
        "pairs": counts["validation"],
        "test_pairs": counts["test"],
        **best,
        "dice_test_at_star": own,
        "dice_test_at_common": shared,
        "loss": 100 * (own - shared),
    }


def _star(best: Optimum) -> dict[str, float]:
    """λ* and its interval."""
    low, high = best.interval["lambda"]
    return {"lambda_star": best.values["lambda"], "low": low, "high": high}


def _draw_curves(axis: Axes, dense: pd.DataFrame, table: pd.DataFrame, pairs: int) -> None:
    """A hypernetwork's curve, the networks of a grid, and the best λ of both."""
    error = dense["sd"] / math.sqrt(pairs)
    axis.fill_between(dense["lambda"], dense["mean"] - error, dense["mean"] + error, color="0.9", linewidth=0)
    axis.plot(dense["lambda"], dense["mean"], color="black", label="hypernetwork (± SE over pairs)")
    networks: dict[str, Any] = {"marker": "o", "markersize": 5, "color": "0.5", "linewidth": 0.7, "linestyle": "--"}
    axis.plot(table["lambda"], table["dice_grid"], label="networks of the grid", **networks)
    found, best = table["lambda_tuned"].iloc[0], table["lambda_grid"].iloc[0]
    axis.plot(
        found,
        landscapes.interpolated(dense, ["lambda"], {"lambda": found}),
        **STAR,
        label="λ* by tuning (validation pairs)",
    )
    at_best = table.loc[table["lambda"].round(landscapes.DIGITS) == best, "dice_grid"]
    axis.plot(best, at_best, **RING, label="best of the grid (validation pairs)")
    axis.grid(linewidth=0.3)


def _draw_landscape(axis: Axes, names: Sequence[str], dense: pd.DataFrame, table: pd.DataFrame) -> None:
    """A hypernetwork's landscape, the networks of a grid in the same colours, and the best points of both."""
    wide = dense.pivot(index=names[1], columns=names[0], values="mean")
    lowest = table["dice_hyper"].min()  # below it are places without a network, and failed networks
    levels = np.linspace(lowest, max(dense["mean"].max(), table["dice_grid"].max()), 15)
    filled = axis.contourf(wide.columns, wide.index, wide, levels=levels, cmap="viridis", extend="min")
    points: dict[str, Any] = {"c": table["dice_grid"], "norm": filled.norm, "cmap": filled.cmap, "s": 45}
    points |= {"edgecolors": "black", "clip_on": False, "zorder": 3}
    axis.scatter(table[names[0]], table[names[1]], **points, label="networks of the grid")
    for how, style, label in (
        ("tuned", STAR, "best of the hypernetwork"),
        ("grid", RING, "best of the grid"),
    ):
        place = [table[f"{name}_{how}"].iloc[0] for name in names]
        axis.plot(*place, **style | {"zorder": 4, "clip_on": False}, label=f"{label}, validation pairs")
    bar = axis.figure.colorbar(filled, ax=axis, format="%.3f")
    bar.set_label("Dice (test pairs)")
    axis.set(xlabel=AXES[names[0]], ylabel=AXES[names[1]])


def _draw_groups(axis: Axes, parts: Mapping[str, pd.DataFrame], rows: Sequence[Mapping], common: float) -> None:
    """Test Dice of each group, with its λ* and interval; hollow markers from the fifth group on."""
    for place, row in enumerate(rows):
        marker, line, colour = CURVES[place % len(CURVES)]
        tested = landscapes.tested(parts[row["group"]], ["lambda"])
        style: dict[str, Any] = {"marker": marker, "markersize": 4, "markevery": (5 + 3 * place, 20), "color": colour}
        if place >= len(CURVES):
            style["markerfacecolor"] = "white"
        label = f"{row['group']} (λ* = {row['lambda_star']:.2f})"
        axis.plot(tested["lambda"], tested["mean"], line, label=label, **style)
        axis.plot(row["lambda_star"], row["dice_test_at_star"], **STAR)
        axis.hlines(row["dice_test_at_star"], row["low"], row["high"], color=colour, linewidth=3, alpha=0.5)
    if len(rows) > 1:
        axis.axvline(common, color="0.5", linewidth=0.8, linestyle=(0, (5, 5)), label=f"all pairs (λ* = {common:.2f})")
    axis.grid(linewidth=0.3)
    axis.legend(fontsize=8)


def _draw_boxes(axis: Axes, part: pd.DataFrame, drawn: Sequence[np.ndarray], common: float) -> None:
    """λ* of structures, the smallest at the bottom, with boxes for resampled pairs."""
    axis.boxplot(
        drawn,
        orientation="horizontal",
        positions=range(len(part)),
        widths=0.6,
        whis=INTERVAL,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": "0.85", "linewidth": 0.6},
        medianprops={"color": "black", "linewidth": 0.8},
    )
    diamonds: dict[str, Any] = {"marker": "D", "markersize": 5, "color": "black", "linestyle": "none", "zorder": 3}
    axis.plot(part["lambda_star"], range(len(part)), **diamonds, label="λ* of all validation pairs")
    axis.axvline(common, color="0.5", linewidth=0.8, linestyle=(0, (5, 5)))
    axis.set_yticks(range(len(part)), part["structure"])
    axis.set_xlim(-0.02, 1.02)
    axis.grid(axis="x", linewidth=0.3)


def _observed_and_held_out(results: Results, shape: Landscape) -> dict[str, set[int]]:
    """Name of labels in a panel → their codes; only all labels if training uses all or none."""
    everything = set(landscapes.with_dice(results.sweep(paper.by_grid(shape.name)))["label"])
    seen = everything & set(results.training(next(iter(shape.hypernetworks())))["observed"])
    if not seen or seen == everything:
        return {"all": everything}
    return {"all": everything, "observed": seen, "held-out": everything - seen}


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes, at most three per row."""
    columns = 2 if count == 4 else min(count, 3)
    lines = -(-count // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5 * columns, 3.9 * lines), squeeze=False)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def _legend_below(figure: Figure, axis: Axes) -> None:
    """A legend of one axis' marks, below all axes."""
    figure.legend(
        *axis.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False
    )


def _first_columns(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with some columns first."""
    return table[[*names, *(name for name in table if name not in names)]]
