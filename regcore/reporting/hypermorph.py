"""The figures and the table of the HyperMorph paper, from the sweeps and models of a study's landscapes.

Dice is the mean over labels, then over pairs; gaps and standard deviations are points of it, on a scale of 0 to 100.
Hypernetworks and grids are those of the first random start, where nothing else is said.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.interpolate import RegularGridInterpolator

from regcore.experiments import hypermorph as paper
from regcore.experiments.hypermorph import SIMILARITIES, Landscape
from regcore.labels import structures
from regcore.plan import Plan
from regcore.reporting.figures import plt
from regcore.reporting.voxelmorph import CURVES, html_table, labels_in
from regcore.training.trainer import DROP
from regcore.tuning.amortised import INTERVAL, Optimum, curve, optimum

#: Hyperparameters on axes and in headings.
AXES = {"lambda": "λ", "window": "local NCC window (voxels)", "gamma": "segmentation supervision γ"}
SYMBOLS = {"lambda": "λ", "window": "window", "gamma": "γ"}
#: What sets groups of pairs apart: column of the study's pairs → heading.
GROUPS = {"dataset": "data set", "task": "task", "contrasts": "contrasts"}
#: How values that tuning and the grid found are marked.
STAR = {"marker": "*", "markersize": 14, "markerfacecolor": "white", "markeredgecolor": "black", "linestyle": "none"}
RING = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": "black", "linestyle": "none"}
#: Digits to which values of hyperparameters agree: those of a hypernetwork have gone through single precision.
DIGITS = 6

#: What Table 1 says of random starts.
SPREAD = ("lambdas", "hyper_sd", "grid_sd", "sd_ratio")


def show(plan: Plan, experiment: str) -> tuple[pd.DataFrame, str | Figure]:
    """One experiment: its numbers, and the HTML table or the figure that shows them."""
    makers: dict[str, Callable[[Plan], tuple[pd.DataFrame, str | Figure]]] = {
        "fig3": dice_by_lambda,
        "fig4": dice_by_two,
        "fig5": dice_by_start,
        "fig6": lambda_by_group,
        "fig7": lambda_by_structure,
        "table1": robustness_and_cost,
    }
    return makers[experiment](plan)


def title(shape: Landscape) -> str:
    """A landscape by its similarity and hyperparameters: "NCC: λ, window"."""
    return f"{_similarity(shape)}: {', '.join(SYMBOLS[name] for name in shape.hyperparameters)}"


def dice_by_lambda(plan: Plan) -> tuple[pd.DataFrame, Figure]:
    """Fig. 3: Dice of a hypernetwork and of a grid of networks against λ, a panel for each similarity."""
    shapes = _single(plan)
    figure, axes = _panels(len(shapes))
    tables = []
    for axis, shape in zip(axes, shapes, strict=True):
        hyper, grid = _first(_sweep(plan, paper.dense(shape.name))), _first(_sweep(plan, paper.by_grid(shape.name)))
        table = compared(shape, hyper, grid, _tuned(plan, shape))
        tables.append(table.assign(similarity=shape.name))
        _draw_curves(axis, _curve(hyper, "test", ["lambda"]), table, table["test_pairs"].iloc[0])
        found, best = table[["lambda_tuned", "lambda_grid"]].iloc[0]
        axis.set(xlabel="λ", title=f"{_similarity(shape)}: λ* = {found:.2f} (grid: {best:g})")
    axes[0].set_ylabel("Dice (test pairs)")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return _first_columns(pd.concat(tables, ignore_index=True), "similarity"), figure


def dice_by_two(plan: Plan) -> tuple[pd.DataFrame, Figure]:
    """Fig. 4: Dice over two hyperparameters; where training sees some of the labels, of these and the others too.

    Tuning counts all labels; of the others the best point of the sweep is shown in its place.
    """
    panels = [
        (shape, labels, codes)
        for shape in _planned(plan).values()
        if len(shape.hyperparameters) == 2
        for labels, codes in _observed_and_held_out(plan, shape).items()
    ]
    figure, axes = _panels(len(panels))
    tables = []
    for axis, (shape, labels, codes) in zip(axes, panels, strict=True):
        sweeps = [_first(_sweep(plan, name)) for name in (paper.dense(shape.name), paper.by_grid(shape.name))]
        hyper, grid = (rows[rows["label"].isin(codes)] for rows in sweeps)
        tuned = _tuned(plan, shape)
        if labels != "all":  # tuning counted all of them
            tuned = tuned | optimum(_of(hyper, "validation"), shape.hyperparameters).values
        table = compared(shape, hyper, grid, tuned)
        tables.append(table.assign(landscape=shape.name, labels=labels))
        _draw_landscape(axis, shape.hyperparameters, _curve(hyper, "test", shape.hyperparameters), table)
        gap = f"largest gap {table['max_gap'].iloc[0]:.2f} points"
        axis.set_title(f"{_similarity(shape)}, {labels} labels; {gap}", fontsize=10, pad=10)
    figure.tight_layout()
    _legend_below(figure, axes[0])
    whole = pd.concat(tables, ignore_index=True)
    return _first_columns(whole, "landscape", "labels", *(name for name in AXES if name in whole)), figure


def compared(shape: Landscape, hyper: pd.DataFrame, grid: pd.DataFrame, tuned: Mapping[str, Any]) -> pd.DataFrame:
    """A hypernetwork and a grid of networks at the grid's points.

    Parameters
    ----------
    hyper, grid : DataFrame
        Rows of the two sweeps, of one start.
    tuned : mapping
        What tuning the hypernetwork found: its line of the optima.

    Returns
    -------
    DataFrame
        For each point the hyperparameters, ``dice_grid dice_hyper`` on the test pairs and their ``gap``
        (hypernetwork minus grid).  The same in all rows: ``max_gap``, the largest either way; for each
        hyperparameter what tuning found (``_tuned``), what is best on the validation pairs in the
        hypernetwork's sweep (``_sweep``) and among the grid's networks (``_grid``), and by how much the last
        differs from the first (``_difference``) and from the second (``_sweep_difference``); ``optimum_gap``,
        Dice of the test pairs with the first minus with the last.
    """
    names = shape.hyperparameters
    dense, trained = _curve(hyper, "test", names), _curve(grid, "test", names)
    table = trained[names].assign(dice_grid=trained["mean"], dice_hyper=_at(dense, names, trained))
    table["gap"] = 100 * (table["dice_hyper"] - table["dice_grid"])
    table["max_gap"] = table["gap"].abs().max()
    best = {"tuned": tuned} | {
        how: optimum(_of(rows, "validation"), names).values for how, rows in (("sweep", hyper), ("grid", grid))
    }
    for name in names:
        for how, values in best.items():
            table[f"{name}_{how}"] = round(float(values[name]), DIGITS)
        table[f"{name}_difference"] = abs(table[f"{name}_tuned"] - table[f"{name}_grid"])
        table[f"{name}_sweep_difference"] = abs(table[f"{name}_sweep"] - table[f"{name}_grid"])
    with_tuned, with_grid = _at(dense, names, tuned), _at(trained, names, best["grid"])
    table["optimum_gap"] = 100 * float(with_tuned[0] - with_grid[0])
    pairs = hyper.loc[hyper["split"] == "test", ["fixed", "moving"]].drop_duplicates()
    return table.assign(tuning_seconds=tuned["seconds"], tuning_pairs=tuned["pairs"], test_pairs=len(pairs))


def dice_by_start(plan: Plan) -> tuple[pd.DataFrame, Figure]:
    """Fig. 5: mean and SD over random starts, of hypernetworks and of those networks that are trained several times.

    Below, the SD alone, which is small beside what λ does.
    """
    shapes = _repeated(plan)
    size, ratios = (5.4 * len(shapes), 6), {"height_ratios": (3, 2)}
    figure, axes = plt.subplots(2, len(shapes), figsize=size, squeeze=False, sharex=True, gridspec_kw=ratios)
    tables = []
    for axis, below, shape in zip(*axes, shapes, strict=True):
        table = _by_start(plan, shape)
        tables.append(table)
        low, high = (table["hyper_mean"] + sign * table["hyper_sd"] for sign in (-1, 1))
        axis.fill_between(table["lambda"], low, high, color="#9ecae1", linewidth=0, label="± SD over starts")
        axis.plot(table["lambda"], table["hyper_mean"], color="black", label="hypernetworks, mean")
        several = table.dropna(subset="grid_sd")
        style = {"fmt": "o", "color": "0.35", "capsize": 4, "linewidth": 1.4, "markersize": 4}
        label = "networks, mean ± SD"
        axis.errorbar(several["lambda"], several["grid_mean"], several["grid_sd"], label=label, **style)
        axis.set_title(f"{_similarity(shape)}, {shape.replicates} random starts")
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


def lambda_by_group(plan: Plan) -> tuple[pd.DataFrame, Figure]:
    """Fig. 6: Dice against λ for each data set, task and pairing of contrasts; λ* is chosen on validation pairs.

    Pairs of two data sets are in none of them.
    """
    shapes = _single(plan)
    found = {shape.name: _groups(plan, _first(_sweep(plan, paper.dense(shape.name)))) for shape in shapes}
    kinds = [kind for kind in found[shapes[0].name] if kind != "all"] or ["all"]
    size = (5.4 * len(kinds), 4 * len(shapes))
    figure, axes = plt.subplots(len(shapes), len(kinds), figsize=size, squeeze=False)
    rows = []
    for shape, line in zip(shapes, axes, strict=True):
        groups = found[shape.name]
        common = optimum(_of(groups["all"]["all"], "validation"), ["lambda"]).values["lambda"]
        for kind, parts in groups.items():
            rows += [
                {"similarity": shape.name, "group_kind": kind, "group": name, **_group(part, common)}
                for name, part in parts.items()
            ]
        for axis, kind in zip(line, kinds, strict=True):
            chosen = [row for row in rows if (row["similarity"], row["group_kind"]) == (shape.name, kind)]
            _draw_groups(axis, groups[kind], chosen, common)
            by = f"by {GROUPS[kind]}" if kind in GROUPS else "all pairs (one data set, one task)"
            axis.set(xlabel="λ", title=f"{_similarity(shape)}, {by}")
        line[0].set_ylabel("Dice (test pairs)")
    figure.tight_layout()
    return pd.DataFrame(rows), figure


def lambda_by_structure(plan: Plan) -> tuple[pd.DataFrame, Figure]:
    """Fig. 7: λ* of each structure on the validation pairs, left and right pooled.

    Boxes: the quartiles of λ* when the pairs are drawn again with replacement; whiskers: the interval.
    """
    shapes = _single(plan)
    rows, drawn, common = [], {}, {}
    for shape in shapes:
        hyper = _dice(_of(_first(_sweep(plan, paper.dense(shape.name))), "validation"))
        common[shape.name] = optimum(hyper, ["lambda"]).values["lambda"]
        for structure, part in hyper.groupby(hyper["label"].map(structures(labels_in(plan, hyper)))):
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
        axis.set(xlabel="λ*", title=f"{_similarity(shape)} (dashed: all structures, {common[shape.name]:.2f})")
    figure.tight_layout()
    _legend_below(figure, axes[0, 0])
    return table, figure


def robustness_and_cost(plan: Plan) -> tuple[pd.DataFrame, str]:
    """Table 1: SD over random starts, mean over λ; and what training a grid and a hypernetwork took."""
    spread = {shape.name: _spread(_by_start(plan, shape)) for shape in _repeated(plan)}
    shapes = _planned(plan)
    rows = [
        {"landscape": name, **spread.get(name, dict.fromkeys(SPREAD, math.nan)), **_cost(plan, shape)}
        for name, shape in shapes.items()
    ]
    table = pd.DataFrame(rows)
    titles = table["landscape"].map({name: title(shape) for name, shape in shapes.items()})
    robust, parts = table.dropna(subset="hyper_sd"), []
    if len(robust):
        parts.append(
            html_table(
                {
                    "SD of Dice × 100 over starts": titles[robust.index],
                    "λ values": robust["lambdas"].map("{:.0f}".format),
                    "HyperMorph": robust["hyper_sd"].map("{:.3f}".format),
                    "Networks": robust["grid_sd"].map("{:.3f}".format),
                    "Networks / HyperMorph": robust["sd_ratio"].map("{:.2f}".format),
                }
            )
        )
    columns = {"Training": titles, "Networks of the grid": table["points"]}
    for seconds, heading in (("seconds", "s"), ("cpu_seconds", "CPU s")):
        if table[f"grid_{seconds}"].notna().any():
            columns[f"Grid, {heading}"] = _numbers(table[f"grid_{seconds}"], "{:.0f}")
            columns[f"HyperMorph, {heading}"] = _numbers(table[f"hyper_{seconds}"], "{:.0f}")
            columns[f"mean (SD) over starts, {heading}"] = [
                f"{mean:.0f} ({sd:.0f})" if not math.isnan(sd) else ""
                for mean, sd in zip(table[f"hyper_{seconds}_mean"], table[f"hyper_{seconds}_sd"], strict=True)
            ]
            columns[f"Grid / HyperMorph, {heading}"] = _numbers(table[f"{seconds}_ratio"], "{:.2f}")
    columns |= {"Grid, steps": table["grid_steps"], "HyperMorph, steps": table["hyper_steps"]}
    parts.append(html_table(columns | {"Device": table["device"]}))
    return table, "\n".join([*parts, f'<p class="note">{_what_seconds_are(plan)}</p>'])


def _spread(table: pd.DataFrame) -> dict[str, float]:
    """Means over the λ whose networks are trained several times."""
    several = table.dropna(subset="grid_sd")
    hyper, grid = several["hyper_sd"].mean(), several["grid_sd"].mean()
    return dict(zip(SPREAD, (len(several), hyper, grid, grid / hyper), strict=True))


def _cost(plan: Plan, shape: Landscape) -> dict[str, Any]:
    """Of the first start: the grid's networks together, and the hypernetwork; mean and SD of those of all starts."""
    grid = _trainings(plan, _grid_of_first(shape))
    hyper = _trainings(plan, shape.hypernetworks())
    row: dict[str, Any] = {"points": len(grid)}
    for what in ("seconds", "cpu_seconds"):
        row[f"grid_{what}"] = grid[what].sum(skipna=False)
        row[f"hyper_{what}"] = hyper[what].iloc[0]
        row[f"hyper_{what}_mean"], row[f"hyper_{what}_sd"] = hyper[what].mean(), hyper[what].std(ddof=1)
        row[f"{what}_ratio"] = row[f"grid_{what}"] / row[f"hyper_{what}"]
    row |= {"grid_steps": grid["steps"].sum(), "hyper_steps": hyper["steps"].iloc[0]}
    where = pd.concat([grid, hyper]).drop_duplicates(["device", "threads", "processes"])
    devices = [f"{d} ({t * p} thread{'s' if t * p > 1 else ''})" for d, t, p in _columns(where)]
    return {**row, "device": "; ".join(devices)}


def _columns(where: pd.DataFrame) -> Iterable[tuple[str, int, int]]:
    return zip(where["device"], where["threads"], where["processes"], strict=True)


def _trainings(plan: Plan, names: Iterable[str]) -> pd.DataFrame:
    """What training each network took."""
    return pd.DataFrame([{"cpu_seconds": math.nan} | _model(plan, name)["training"] for name in names])


def _what_seconds_are(plan: Plan) -> str:
    """The convergence rule in words, and how many networks it did not end."""
    names = [name for shape in _planned(plan).values() for name in (*_grid_of_first(shape), *shape.hypernetworks())]
    models = [_model(plan, name) for name in names]
    rules = dict.fromkeys(convergence_rule(model["settings"]) for model in models)
    limited = [model for model in models if model["settings"]["patience"] and not model["training"]["stopped_early"]]
    ended = f" {len(limited)} of {len(models)} trainings came to their largest number of steps before." * bool(limited)
    return (
        f"Seconds of training, looks at the validation pairs included; {', or '.join(rules)}.{ended} The grid: all its "
        "networks together, each trained once."
    )


def convergence_rule(settings: Mapping[str, Any]) -> str:
    """When a training with these settings ends, as a clause."""
    if settings["patience"] is None:
        return f"training takes {settings['steps']} steps"
    score = {"loss": "loss", "dice": "Dice"}[settings["select"]] + " of the validation pairs"
    better = f"is {100 * settings['tolerance']:g} % better" if settings["tolerance"] else "is better"
    nothing = (
        f"{settings['patience']} looks in a row at the {score}, one every {settings['validate_every']} steps, "
        f"find none that {better} than the best before"
    )
    if settings["schedule"] != "plateau" or not settings["drops"]:
        return f"training ends when {nothing}"
    times = "once" if settings["drops"] == 1 else f"{settings['drops']} times"
    return (
        f"the learning rate is multiplied by {DROP:g} when {nothing}; after that has happened {times}, training ends "
        "the next time"
    )


def _by_start(plan: Plan, shape: Landscape) -> pd.DataFrame:
    """Mean and SD over starts at all λ of the hypernetworks' sweep and of the networks, points of Dice."""
    hyper, grid = _sweep(plan, paper.dense(shape.name)), _sweep(plan, paper.by_grid(shape.name))
    grid = grid[grid["lambda"].round(DIGITS).isin(shape.again["lambda"])]
    lambdas = pd.DataFrame({"lambda": np.union1d(hyper["lambda"].round(DIGITS), grid["lambda"].round(DIGITS))})
    curves, networks = (
        {start: _curve(rows, "test", ["lambda"]) for start, rows in sweep.groupby("replicate")}
        for sweep in (hyper, grid)
    )
    starts = pd.DataFrame({start: _at(found, ["lambda"], lambdas) for start, found in curves.items()})
    trained = pd.DataFrame(
        {start: found.set_index(found["lambda"].round(DIGITS))["mean"] for start, found in networks.items()}
    ).reindex(lambdas["lambda"])
    table = lambdas.assign(hyper_mean=100 * starts.mean(axis=1), hyper_sd=100 * starts.std(axis=1, ddof=1))
    table["grid_mean"] = 100 * trained.mean(axis=1).to_numpy()
    table["grid_sd"] = 100 * trained.std(axis=1, ddof=1).to_numpy()
    table["gap"] = table["hyper_mean"] - table["grid_mean"]
    table.insert(0, "similarity", shape.name)
    return table.assign(replicates=starts.shape[1], max_gap=table["gap"].abs().max())


def _groups(plan: Plan, rows: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """Kind of group → name → rows of its validation and test pairs; only kinds with several groups, and all pairs."""
    rows = _dice(rows).merge(plan.pairs[["split", "fixed", "moving", *GROUPS]], on=["split", "fixed", "moving"])
    found = {}
    for kind in GROUPS:
        parts = {name: part for name, part in rows.groupby(kind) if name and part["split"].nunique() == 2}
        if len(parts) > 1:
            found[kind] = parts
    return {**found, "all": {"all": rows}}


def _group(rows: pd.DataFrame, common: float) -> dict[str, float]:
    """λ* of a group of pairs, and Dice of its test pairs with it and with the λ* of all pairs."""
    best = _star(optimum(_of(rows, "validation"), ["lambda"]))
    tested = _curve(rows, "test", ["lambda"])
    own, shared = (float(_at(tested, ["lambda"], {"lambda": v})[0]) for v in (best["lambda_star"], common))
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
    networks = {"marker": "o", "markersize": 5, "color": "0.5", "linewidth": 0.7, "linestyle": "--"}
    axis.plot(table["lambda"], table["dice_grid"], label="networks of the grid", **networks)
    found, best = table["lambda_tuned"].iloc[0], table["lambda_grid"].iloc[0]
    axis.plot(found, _at(dense, ["lambda"], {"lambda": found}), **STAR, label="λ* by tuning (validation pairs)")
    at_best = table.loc[table["lambda"].round(DIGITS) == best, "dice_grid"]
    axis.plot(best, at_best, **RING, label="best of the grid (validation pairs)")
    axis.grid(linewidth=0.3)


def _draw_landscape(axis: Axes, names: Sequence[str], dense: pd.DataFrame, table: pd.DataFrame) -> None:
    """A hypernetwork's landscape, the networks of a grid in the same colours, and the best points of both."""
    wide = dense.pivot(index=names[1], columns=names[0], values="mean")
    lowest = table[["dice_grid", "dice_hyper"]].min(axis=None)  # what lies below is compared with no network
    levels = np.linspace(lowest, max(dense["mean"].max(), table["dice_grid"].max()), 15)
    filled = axis.contourf(wide.columns, wide.index, wide, levels=levels, cmap="viridis", extend="min")
    points = {"c": table["dice_grid"], "norm": filled.norm, "cmap": filled.cmap, "edgecolors": "black", "s": 45}
    axis.scatter(table[names[0]], table[names[1]], **points, clip_on=False, zorder=3, label="networks of the grid")
    for how, style, label in (
        ("tuned", STAR, "tuning; of some labels the best of the sweep"),
        ("grid", RING, "best of the grid"),
    ):
        place = [table[f"{name}_{how}"].iloc[0] for name in names]
        axis.plot(*place, **style | {"zorder": 4, "clip_on": False}, label=f"{label}, validation pairs")
    bar = axis.figure.colorbar(filled, ax=axis, format="%.3f")
    bar.set_label("Dice (test pairs)")
    axis.set(xlabel=AXES[names[0]], ylabel=AXES[names[1]])


def _draw_groups(axis: Axes, parts: Mapping[str, pd.DataFrame], rows: Sequence[Mapping], common: float) -> None:
    """Test Dice of each group, with its λ* and the interval of that; hollow markers from the fifth group on."""
    for place, row in enumerate(rows):
        marker, line, colour = CURVES[place % len(CURVES)]
        tested = _curve(parts[row["group"]], "test", ["lambda"])
        style = {"marker": marker, "markersize": 4, "markevery": (5 + 3 * place, 20), "color": colour}
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
    """λ* of structures, from the smallest at the bottom, with boxes of those of resampled pairs."""
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
    diamonds = {"marker": "D", "markersize": 5, "color": "black", "linestyle": "none", "zorder": 3}
    axis.plot(part["lambda_star"], range(len(part)), **diamonds, label="λ* of all validation pairs")
    axis.axvline(common, color="0.5", linewidth=0.8, linestyle=(0, (5, 5)))
    axis.set_yticks(range(len(part)), part["structure"])
    axis.set_xlim(-0.02, 1.02)
    axis.grid(axis="x", linewidth=0.3)


def _observed_and_held_out(plan: Plan, shape: Landscape) -> dict[str, set[int]]:
    """What labels are called in a panel → their codes; all of them alone where training sees all or none."""
    everything = set(_dice(_sweep(plan, paper.by_grid(shape.name)))["label"])
    seen = everything & set(_model(plan, next(iter(shape.hypernetworks())))["training"]["observed"])
    if not seen or seen == everything:
        return {"all": everything}
    return {"all": everything, "observed": seen, "held-out": everything - seen}


def _planned(plan: Plan) -> dict[str, Landscape]:
    """The study's landscapes in the paper's order."""
    labelled = paper.dense("gamma") in plan.experiments["hypermorph"].sweeps
    planned = paper.landscapes(plan.config["experiments"]["hypermorph"], labelled)
    return {name: planned[name] for name in (*SIMILARITIES, *paper.SECOND) if name in planned}


def _single(plan: Plan) -> list[Landscape]:
    """The landscapes over λ alone, one for each similarity."""
    return [shape for shape in _planned(plan).values() if len(shape.hyperparameters) == 1]


def _repeated(plan: Plan) -> list[Landscape]:
    """Those whose networks are trained several times."""
    return [shape for shape in _single(plan) if shape.replicates > 1]


def _grid_of_first(shape: Landscape) -> list[str]:
    return [name for name, values in shape.networks().items() if values["replicate"] == 1]


def _similarity(shape: Landscape) -> str:
    return SIMILARITIES[shape.settings["similarity"]]


def _sweep(plan: Plan, name: str) -> pd.DataFrame:
    return pd.read_parquet(plan.folder / "sweeps" / f"{name}.parquet")


def _tuned(plan: Plan, shape: Landscape) -> Mapping[str, Any]:
    """What tuning the first hypernetwork of a landscape found."""
    table = pd.read_csv(plan.folder / "sweeps" / f"{paper.dense(shape.name)}.csv").set_index("entry")
    return table.loc[next(iter(shape.hypernetworks()))].to_dict()


def _model(plan: Plan, name: str) -> dict:
    return json.loads((plan.folder / "models" / name / "model.json").read_text())


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first start."""
    return rows[rows["replicate"] == 1]


def _of(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    return rows[rows["split"] == split]


def _dice(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that have a Dice; a label that neither scan of a pair has, has none."""
    return rows[rows["metric"] == "dice"].dropna(subset="value")


def _curve(rows: pd.DataFrame, split: str, names: Sequence[str]) -> pd.DataFrame:
    """Dice of the pairs of a split at each of the hyperparameters."""
    return curve(_of(rows, split), names)


def _at(found: pd.DataFrame, names: Sequence[str], points: pd.DataFrame | Mapping[str, Any]) -> np.ndarray:
    """A curve or landscape, interpolated linearly; NaN outside its range."""
    ordered = found.sort_values(list(names))
    lines = [np.unique(ordered[name].round(DIGITS)) for name in names]
    values = ordered["mean"].to_numpy().reshape([len(line) for line in lines])
    wanted = np.stack([np.atleast_1d(points[name]).astype(float) for name in names], axis=-1)
    return RegularGridInterpolator(lines, values, bounds_error=False)(wanted.round(DIGITS))


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """So many axes, at most three beside each other."""
    columns = 2 if count == 4 else min(count, 3)
    lines = -(-count // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(5 * columns, 3.9 * lines), squeeze=False)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def _legend_below(figure: Figure, axis: Axes) -> None:
    """What the marks of one axis mean, under all of them."""
    figure.legend(
        *axis.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False
    )


def _first_columns(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with some columns moved to the front."""
    return table[[*names, *(name for name in table if name not in names)]]


def _numbers(values: pd.Series, form: str) -> list[str]:
    return ["" if math.isnan(value) else form.format(value) for value in values]
