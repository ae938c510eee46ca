"""The tables and figures of the AutoReg paper, drawn from a study's scores and searches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from regcore.experiments import Needs
from regcore.experiments import autoreg as paper
from regcore.experiments.settings import asked
from regcore.networks.architecture import LAMBDAS, OBJECTIVE
from regcore.reporting import architectures
from regcore.reporting.figures import structure_boxes
from regcore.reporting.starts import OVER_REFERENCE, over_starts, over_starts_formatted
from regcore.reporting.text import html_table
from regcore.study.results import Results


def title(name: str) -> str:
    """The paper's name of an entry."""
    return paper.TITLES.get(name, name)


# ---- scores


def _started(results: Results, names: Sequence[str]) -> dict[str, list[str]]:
    """Entry → its networks among ``names``."""
    settings = asked(results.experiments.autoreg)
    found = {name: [one for one in paper.starts(name, settings) if one in names] for name in paper.TITLES}
    return {name: networks for name, networks in found.items() if networks}


def compared(results: Results, needs: Needs, reference: str) -> tuple[pd.DataFrame, str]:
    """Tables III to V: Dice over several random starts, and each pair's mean over starts against a reference.

    The SD over pairs is the SD of these means; the SD over starts is that of each start's mean.
    """
    table = _over_starts(results, needs.scores, reference)
    folds = {"% |J| ≤ 0": table["folds_percent"].map("{:.3f}".format)}
    return table, html_table(_columns(table, "Method", title(reference), folds))


def _over_starts(results: Results, names: Sequence[str], reference: str) -> pd.DataFrame:
    networks = _started(results, names)
    rows = pd.concat([results.scores(name).assign(method=name) for name in names], ignore_index=True)
    table = over_starts(rows, networks, reference).rename(columns={"method": "entry"})
    table.insert(1, "method", table["entry"].map(title))
    for column, of_network in (
        ("folds_percent", lambda name: results.of_pairs(name, "folds_percent").mean()),
        ("parameters", lambda name: results.training(name)["parameters"]),
    ):
        table[column] = [np.mean([of_network(one) for one in networks[name]]) for name in table["entry"]]
    return table


def _columns(table: pd.DataFrame, first: str, compared_with: str, between: Mapping) -> dict:
    """Columns of an HTML table over several starts; ``between`` are columns of only one table."""
    other = table["mean_difference"].notna()
    return {
        first: table["method"],
        "Starts": table["starts"],
        "Dice (SD of pairs)": _with_spread(table["dice_mean"], table["dice_sd_pairs"]),
        "SD of starts": table["dice_sd_starts"].map("{:.4f}".format).where(table["starts"] > 1, ""),
        "Parameters": table["parameters"].map("{:,.0f}".format),
        **between,
        f"Over {compared_with}, points (95 %)": over_starts_formatted(table)[OVER_REFERENCE],
        "p (Wilcoxon)": table["p_wilcoxon"].map("{:.1g}".format).where(other, ""),
    }


def _with_spread(means: pd.Series, spreads: pd.Series, number: str = "{:.3f}") -> list[str]:
    return [f"{number.format(m)} ± {number.format(s)}" for m, s in zip(means, spreads, strict=True)]


def transfer(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Table II: which parts of another study's model to search again; Dice, and correlation of the images."""
    rows = []
    for name, (what, _) in paper.TRANSFER.items():
        row: dict[str, Any] = {"entry": name, "found_anew": what}
        for metric in ("dice", "correlation"):
            values = results.of_pairs(name, metric)
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


def time_and_size(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Table VIII: seconds to register a pair, and number of parameters."""
    rows = []
    for name in needs.scores:
        seconds = results.of_pairs(name, "seconds_compute")
        known = results.training(name)["parameters"] if results.plan.entries[name].learned else float("nan")
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


def all_methods(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Tables VI, VII and IX: Dice and folds of all methods, with the first start of each."""
    rows = []
    for name in needs.scores:
        dice, folds = results.of_pairs(name), results.of_pairs(name, "folds_count")
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


def boxes(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Fig. 6: Dice of each structure."""
    rows = pd.concat([results.scores(name).assign(method=title(name)) for name in needs.scores], ignore_index=True)
    figure = structure_boxes(rows, results.labels(rows), [title(name) for name in needs.scores], "dice")
    dice = rows[rows["metric"] == "dice"]
    quartiles = dice.groupby(["method", "label"], sort=False)["value"].describe()[["mean", "std", "25%", "50%", "75%"]]
    return quartiles.reset_index(), figure


# ---- searches


def cost_of_searching(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Table I: CPU time and memory of a training, and of a search with the training of its result.

    Memory includes the tensors of one step, and the weights with their gradients and Adam's moments.
    """
    cells, objective = (results.cell_search(name) for name in (paper.CELLS_ALONE, paper.SEARCHED))
    trained = {"Manual-Medium": (paper.MEDIUM, cells), "AutoReg": (paper.SEARCHED, objective)}
    steps = [(f"search, {stage}", facts) for search in (cells, objective) for stage, facts in search["stages"].items()]
    for place, (heading, (name, search)) in zip((0, len(steps) + 1), trained.items(), strict=True):
        facts = {**results.training(name), "step_bytes": search["training_step_bytes"]}
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


def controls(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Table 10 (not in the paper): cells found by gradient and by trial, at the same cost and with the same λ."""
    table = _over_starts(results, needs.scores, paper.CELLS_ALONE)
    networks = _started(results, needs.scores)
    facts = {name: [results.cell_search(one) for one in own] for name, own in networks.items()}
    table["search_cpu_seconds"] = [np.mean([one["cells_cpu_seconds"] for one in facts[n]]) for n in table["entry"]]
    table["architectures_tried"] = [
        np.mean([stage.get("architectures", 1) for one in facts[name] for stage in one["stages"].values()])
        for name in table["entry"]
    ]
    tried = table["architectures_tried"].map("{:.0f}".format)
    cost = {
        "Search, CPU s": table["search_cpu_seconds"].map("{:.0f}".format),
        "Architectures scored": tried.where(table["entry"] != paper.CELLS_ALONE, "–"),
    }
    return table, html_table(_columns(table, "Search", "the gradient", cost))


def heat_maps(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Fig. 3: the mixtures' weights in the last epoch of each stage, with boxes around the chosen operations."""
    table = architectures.mixtures(results.trace(*needs.architectures))
    return table, architectures.heat_maps(table)


def objective_by_epoch(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Fig. 4: λ and the losses over the epochs of the last stage."""
    trace = architectures.stage_of(results.trace(*needs.architectures), OBJECTIVE)
    return trace[["epoch", *LAMBDAS, *architectures.LOSSES]], architectures.objective_by_epoch(trace)


def side_by_side(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Fig. 15 (not in the paper): the architectures found from each random start."""
    found = {f"start {start}": results.architecture(name) for start, name in enumerate(needs.architectures, start=1)}
    return architectures.operations(found), architectures.side_by_side(found)
