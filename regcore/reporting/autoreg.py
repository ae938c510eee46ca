"""The tables and figures of the AutoReg paper, from a study's scores and searches."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from regcore.evaluation.statistics import paired_comparison
from regcore.experiments import autoreg as paper
from regcore.networks.architecture import CANDIDATES, CELLS, DEFORMATION, FEATURE, LAMBDAS, OBJECTIVE, Architecture
from regcore.plan import Plan
from regcore.reporting import landscapes
from regcore.reporting.figures import plt, structure_boxes
from regcore.reporting.voxelmorph import CURVES, html_table, labels_in
from regcore.tuning.cells import FACTS, FOUND, TRACE, read_found

#: What the four weights are called.
SYMBOLS = dict(zip(LAMBDAS, ("λ1", "λ2", "λ3", "λ4"), strict=True))
CELL_TITLES = {FEATURE: "feature cells", DEFORMATION: "deformation cells"}
#: Resolution of a cell's features.
SCALES = {"half": "1/2", "quarter": "1/4"}
#: Colours of operations by kind, lighter for small kernels.
KINDS = {"Conv": "Blues", "SConv": "Oranges", "DConv": "Greens"}


def show(plan: Plan, experiment: str) -> tuple[pd.DataFrame, str | Figure]:
    """One experiment: its numbers, and the HTML table or the figure that shows them."""
    planned = plan.experiments["autoreg"]
    makers: dict[str, Callable[[], tuple[pd.DataFrame, str | Figure]]] = {
        "table1": lambda: cost_of_searching(plan),
        "table2": lambda: transfer(plan),
        "table3": lambda: compared(plan, planned.scored["table3"], paper.SEARCHED),
        "table4": lambda: compared(plan, planned.scored["table4"], paper.MEDIUM),
        "table5": lambda: compared(plan, planned.scored["table5"], "vm-unified"),
        "table8": lambda: time_and_size(plan, planned.scored["table8"]),
        "table9": lambda: all_methods(plan, planned.scored["table9"]),
        "table10": lambda: controls(plan, planned.scored["table10"]),
        "fig3": lambda: heat_maps(plan, paper.CELLS_ALONE),
        "fig4": lambda: objective_by_epoch(plan, paper.SEARCHED),
        "fig6": lambda: boxes(plan, planned.scored["fig6"]),
        "fig15": lambda: side_by_side(plan, planned.searched["fig15"]),
    }
    return makers[experiment]()


def title(name: str) -> str:
    """What the paper calls an entry."""
    return paper.TITLES.get(name, name)


# ---- scores


def _rows(plan: Plan, name: str) -> pd.DataFrame:
    return pd.read_parquet(plan.folder / "metrics" / f"{name}.parquet")


def _of_pairs(plan: Plan, name: str, metric: str = "dice") -> pd.Series:
    """Mean of a metric of every test pair."""
    rows = _rows(plan, name)
    return rows[rows["metric"] == metric].groupby("pair")["value"].mean()


def _started(plan: Plan, names: Sequence[str]) -> dict[str, list[str]]:
    """Entry → its networks among ``names``."""
    settings = plan.config["experiments"]["autoreg"]
    found = {name: [one for one in paper.starts(name, settings) if one in names] for name in paper.TITLES}
    return {name: networks for name, networks in found.items() if networks}


def compared(plan: Plan, names: Sequence[str], reference: str) -> tuple[pd.DataFrame, str]:
    """Tables III to V: Dice of networks from several starts, and of each pair's mean over them beside a reference.

    The SD over pairs is that of these means, the SD over starts that of each start's mean.
    """
    networks = _started(plan, names)
    pairs = {name: pd.DataFrame({one: _of_pairs(plan, one) for one in own}) for name, own in networks.items()}
    rows = []
    for name, dice in pairs.items():
        means = dice.mean(axis=1)
        test = paired_comparison(*means.align(pairs[reference].mean(axis=1)))
        rows.append(
            {
                "entry": name,
                "method": title(name),
                "starts": len(dice.columns),
                "dice_mean": means.mean(),
                "dice_sd_pairs": means.std(ddof=1),
                "dice_sd_starts": dice.mean().std(ddof=1),
                "folds_percent": np.mean([_of_pairs(plan, one, "folds_percent").mean() for one in networks[name]]),
                "parameters": np.mean([_training(plan, one)["parameters"] for one in networks[name]]),
                "points_over_reference": 100 * test.mean_difference,
                "low": 100 * test.ci_low,
                "high": 100 * test.ci_high,
                "p_wilcoxon": test.p_wilcoxon,
            }
        )
    table = pd.DataFrame(rows)
    other = table["entry"] != reference
    return table, html_table(
        {
            "Method": table["method"],
            "Starts": table["starts"],
            "Dice (SD of pairs)": _with_spread(table["dice_mean"], table["dice_sd_pairs"]),
            "SD of starts": table["dice_sd_starts"].map("{:.4f}".format).where(table["starts"] > 1, ""),
            "% |J| ≤ 0": table["folds_percent"].map("{:.3f}".format),
            "Parameters": table["parameters"].map("{:,.0f}".format),
            f"Over {title(reference)}, points (95 %)": [
                f"{row.points_over_reference:+.2f} ({row.low:+.2f} to {row.high:+.2f})" if own else ""
                for row, own in zip(table.itertuples(), other, strict=True)
            ],
            "p (Wilcoxon)": table["p_wilcoxon"].map("{:.1g}".format).where(other, ""),
        }
    )


def _with_spread(means: pd.Series, spreads: pd.Series, number: str = "{:.3f}") -> list[str]:
    return [f"{number.format(m)} ± {number.format(s)}" for m, s in zip(means, spreads, strict=True)]


def transfer(plan: Plan) -> tuple[pd.DataFrame, str]:
    """Table II: what of another study's model has to be found anew; Dice, and correlation of the images."""
    rows = []
    for name, (what, _) in paper.TRANSFER.items():
        row = {"entry": name, "found_anew": what}
        for metric in ("dice", "correlation"):
            values = _of_pairs(plan, name, metric)
            row |= {f"{metric}_mean": values.mean(), f"{metric}_sd": values.std(ddof=1)}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table, html_table(
        {
            "Found anew": table["found_anew"],
            "Dice": _with_spread(table["dice_mean"], table["dice_sd"]),
            "Correlation": _with_spread(table["correlation_mean"], table["correlation_sd"]),
        }
    )


def time_and_size(plan: Plan, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Table VIII: seconds to register a pair, and the number of parameters."""
    rows = []
    for name in names:
        seconds = _of_pairs(plan, name, "seconds_compute")
        known = _training(plan, name)["parameters"] if plan.learned(name) else float("nan")
        row = {"entry": name, "method": title(name), "parameters": known}
        rows.append(row | {"seconds_mean": seconds.mean(), "seconds_sd": seconds.std(ddof=1)})
    table = pd.DataFrame(rows)
    return table, html_table(
        {
            "Method": table["method"],
            "Seconds a pair": _with_spread(table["seconds_mean"], table["seconds_sd"]),
            "Parameters": table["parameters"].map(lambda count: "" if pd.isna(count) else f"{count:,.0f}"),
        }
    )


def all_methods(plan: Plan, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Tables VI, VII and IX: Dice and folds of all methods, the first start of each."""
    rows = []
    for name in names:
        dice, folds = _of_pairs(plan, name), _of_pairs(plan, name, "folds_count")
        row = {"entry": name, "method": title(name), "dice_mean": dice.mean(), "dice_sd": dice.std(ddof=1)}
        rows.append(row | {"folds_mean": folds.mean(), "folds_sd": folds.std(ddof=1)})
    table = pd.DataFrame(rows)
    return table, html_table(
        {
            "Method": table["method"],
            "Dice": _with_spread(table["dice_mean"], table["dice_sd"]),
            "|J| ≤ 0": _with_spread(table["folds_mean"], table["folds_sd"], "{:.1f}"),
        }
    )


def boxes(plan: Plan, names: Sequence[str]) -> tuple[pd.DataFrame, Figure]:
    """Fig. 6: Dice of each structure."""
    rows = pd.concat([_rows(plan, name).assign(method=title(name)) for name in names], ignore_index=True)
    figure = structure_boxes(rows, labels_in(plan, rows), [title(name) for name in names], "dice")
    dice = rows[rows["metric"] == "dice"]
    quartiles = dice.groupby(["method", "label"], sort=False)["value"].describe()[["mean", "std", "25%", "50%", "75%"]]
    return quartiles.reset_index(), figure


# ---- searches


def _search(plan: Plan, name: str, file: str) -> dict[str, Any]:
    return json.loads((plan.architecture_folder(name) / file).read_text())


def _trace(plan: Plan, name: str) -> pd.DataFrame:
    return pd.read_csv(plan.architecture_folder(name) / TRACE)


def _training(plan: Plan, name: str) -> dict[str, Any]:
    return landscapes.model(plan, name)["training"]


def cost_of_searching(plan: Plan) -> tuple[pd.DataFrame, str]:
    """Table I: CPU time and memory of a training, and of a search with the training of what it found.

    Memory is that of the tensors of one step, and of the weights with their gradients and Adam's moments.
    """
    cells, objective = (_search(plan, name, FACTS) for name in (paper.CELLS_ALONE, paper.SEARCHED))
    trained = {"Manual-Medium": (paper.MEDIUM, cells), "AutoReg": (paper.SEARCHED, objective)}
    steps = [(f"search, {stage}", facts) for search in (cells, objective) for stage, facts in search["stages"].items()]
    for place, (heading, (name, search)) in zip((0, len(steps) + 1), trained.items(), strict=True):
        facts = {**_training(plan, name), "step_bytes": search["training_step_bytes"]}
        steps.insert(place, (f"training, {heading}", facts))
    rows = [
        {"what": what, "cpu_seconds": facts["cpu_seconds"], "bytes": facts["step_bytes"] + 16 * facts["parameters"]}
        for what, facts in steps
    ]
    table = pd.DataFrame(rows)
    both = table.iloc[1:]
    total = {"what": "search + training", "cpu_seconds": both["cpu_seconds"].sum(), "bytes": both["bytes"].max()}
    table = pd.concat([table, pd.DataFrame([total])], ignore_index=True)
    for column in ("cpu_seconds", "bytes"):
        table[f"{column}_ratio"] = table[column] / table[column].iloc[0]
    return table, html_table(
        {
            "": table["what"],
            "CPU s": table["cpu_seconds"].map("{:.0f}".format),
            "× a training": table["cpu_seconds_ratio"].map("{:.2f}".format),
            "Memory, MiB": (table["bytes"] / 2**20).map("{:.1f}".format),
            "× a training's": table["bytes_ratio"].map("{:.2f}".format),
        }
    )


def controls(plan: Plan, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Table 10, ours: cells by gradient beside cells found by trying, at the same cost; all with the same λ."""
    table, _ = compared(plan, names, paper.CELLS_ALONE)
    networks = _started(plan, names)
    facts = {name: [_search(plan, one, FACTS) for one in own] for name, own in networks.items()}
    table["search_cpu_seconds"] = [np.mean([one["cells_cpu_seconds"] for one in facts[n]]) for n in table["entry"]]
    table["architectures_tried"] = [
        np.mean([stage.get("architectures", 1) for one in facts[name] for stage in one["stages"].values()])
        for name in table["entry"]
    ]
    other = table["entry"] != paper.CELLS_ALONE
    return table, html_table(
        {
            "Search": table["method"],
            "Starts": table["starts"],
            "Dice (SD of pairs)": _with_spread(table["dice_mean"], table["dice_sd_pairs"]),
            "SD of starts": table["dice_sd_starts"].map("{:.4f}".format).where(table["starts"] > 1, ""),
            "Parameters": table["parameters"].map("{:,.0f}".format),
            "Search, CPU s": table["search_cpu_seconds"].map("{:.0f}".format),
            "Architectures scored": table["architectures_tried"].map("{:.0f}".format).where(other, "–"),
            "Over the gradient, points (95 %)": [
                f"{row.points_over_reference:+.2f} ({row.low:+.2f} to {row.high:+.2f})" if own else ""
                for row, own in zip(table.itertuples(), other, strict=True)
            ],
            "p (Wilcoxon)": table["p_wilcoxon"].map("{:.1g}".format).where(other, ""),
        }
    )


def heat_maps(plan: Plan, name: str) -> tuple[pd.DataFrame, Figure]:
    """Fig. 3: the mixtures' weights in the last epoch of each stage; boxes are around the chosen operations."""
    trace, found = _trace(plan, name), Architecture.read(plan.architecture_folder(name) / FOUND)
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), sharey=True, layout="constrained")
    last = {kind: trace[trace["stage"] == kind].iloc[-1] for kind in CELLS}
    tables = []
    for kind in CELLS:
        for cell, number, chosen in found.edges(kind):
            weights = [last[kind][f"{kind}.{cell}.{number + 1}.{operation}"] for operation in CANDIDATES]
            part = pd.DataFrame({"operation": list(CANDIDATES), "weight": weights})
            tables.append(part.assign(cells=kind, cell=cell, edge=number + 1, chosen=part["operation"] == chosen))
    table = pd.concat(tables, ignore_index=True)
    low, high = table["weight"].min(), table["weight"].max()
    for axis, kind in zip(axes, CELLS, strict=True):
        part, edges = table[table["cells"] == kind], found.edges(kind)
        image = part["weight"].to_numpy().reshape(len(edges), len(CANDIDATES)).T
        drawn = axis.imshow(image, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        for column, (_, _, operation) in enumerate(edges):
            row = list(CANDIDATES).index(operation)
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=2))
        axis.set_xticks(range(len(edges)), [f"{SCALES[cell]}, {number + 1}" for cell, number, _ in edges])
        axis.set(title=CELL_TITLES[kind], xlabel="resolution, edge")
    axes[0].set_yticks(range(len(CANDIDATES)), list(CANDIDATES))
    figure.colorbar(drawn, ax=axes, label="weight in the mixture (uniform: 0.125)")
    return table[["cells", "cell", "edge", "operation", "weight", "chosen"]], figure


def objective_by_epoch(plan: Plan, name: str) -> tuple[pd.DataFrame, Figure]:
    """Fig. 4: λ and the losses over the epochs of the last stage, each over its own range."""
    trace = _trace(plan, name)
    part = trace[trace["stage"] == OBJECTIVE].reset_index(drop=True)
    figure, (above, below) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for weight, (marker, line, colour) in zip(LAMBDAS, CURVES, strict=True):
        label = f"{SYMBOLS[weight]}: {part[weight].iloc[0]:.3g} → {part[weight].iloc[-1]:.3g}"
        above.plot(part["epoch"], _scaled(part[weight]), line, marker=marker, ms=3, color=colour, label=label)
    losses = {"training_loss": "objective, training pairs", "validation_loss": "1 - Dice, validation pairs"}
    for (column, label), (marker, line, colour) in zip(losses.items(), CURVES, strict=False):
        below.plot(part["epoch"], _scaled(part[column]), line, marker=marker, ms=3, color=colour, label=label)
    for axis, what in ((above, "λ"), (below, "loss")):
        axis.set(xlabel="epoch", ylabel=f"{what}, from its least to its largest value")
        axis.grid(linewidth=0.3)
        axis.legend(fontsize=8)
    return part[["epoch", *LAMBDAS, *losses]], figure


def _scaled(values: pd.Series) -> pd.Series:
    span = values.max() - values.min()
    return (values - values.min()) / (span if span > 0 else 1)


def side_by_side(plan: Plan, names: Sequence[str]) -> tuple[pd.DataFrame, Figure]:
    """Fig. 15, ours: what searches found, of this study and of those that it names, as networks side by side."""
    beside = plan.config["experiments"]["autoreg"]["beside"]
    folders = {f"{plan.config['study']}, start {n + 1}": plan.architecture_folder(name) for n, name in enumerate(names)}
    found = {heading: read_found(folder, heading) for heading, folder in {**folders, **beside}.items()}
    figure, axes = plt.subplots(1, len(found), figsize=(3.1 * len(found), 6.2), squeeze=False, layout="constrained")
    rows = []
    for axis, (heading, values) in zip(axes[0], found.items(), strict=True):
        architecture = Architecture.parsed(values["architecture"], heading)
        draw_architecture(axis, architecture)
        known = [f"{SYMBOLS[name]} {values[name]:.2g}" for name in LAMBDAS if name in values]
        axis.set_title(heading + ("\n" + ", ".join(known) if known else ""), fontsize=9)
        for kind in CELLS:
            for cell, number, operation in architecture.edges(kind):
                rows.append(
                    {"search": heading, "cells": kind, "cell": cell, "edge": number + 1, "operation": operation}
                )
    return pd.DataFrame(rows), figure


def draw_architecture(axis: Axes, architecture: Architecture) -> None:
    """Operations as boxes from the images at the top to the field at the bottom; darker: larger kernels."""
    place = 0.0
    for kind, cells in CELLS.items():
        for cell in cells:
            axis.text(0.02, place + 1, f"{kind}\n{SCALES[cell]}", va="center", fontsize=8)
            for operation in architecture.cells[kind][cell]:
                kernel, kind_of = operation.split("-")
                colour = plt.get_cmap(KINDS[kind_of])(0.15 + 0.09 * int(kernel))
                axis.add_patch(
                    FancyBboxPatch((0.42, place - 0.3), 0.5, 0.6, boxstyle="round,pad=0.02", facecolor=colour)
                )
                axis.text(0.67, place, operation, ha="center", va="center", fontsize=9)
                place += 1
            place += 0.5
    axis.set(xlim=(0, 1), ylim=(place - 0.7, -0.7))
    axis.set_axis_off()
