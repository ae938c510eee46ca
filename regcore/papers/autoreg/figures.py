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


def _title(name: str) -> str:
    """The paper's name of an entry."""
    return paper.TITLES.get(name, name)


# ---- scores


def _started(results: Results, names: Sequence[str]) -> dict[str, list[str]]:
    """Entry → its networks among ``names``."""
    settings = asked(results.experiments.autoreg)
    found = {name: [one for one in paper.starts(name, settings) if one in names] for name in paper.TITLES}
    return {name: networks for name, networks in found.items() if networks}


def compared(results: Results, needs: Needs, reference: str) -> tuple[pd.DataFrame, str]:
    """Dice over several random starts, and each pair's mean over starts against a reference (Tables III to V of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these networks.
    needs : Needs
        ``scores``: the networks, of every entry all that the study has.
    reference : str
        The entry that the others are compared with.

    Returns
    -------
    DataFrame
        As from :func:`regcore.reporting.starts.over_starts`, where ``entry`` is the name and ``method`` the paper's
        name; then ``folds_percent parameters``, means over starts. The SD over pairs is the SD of each pair's mean over
        starts, the SD over starts that of each start's mean.
    str
        HTML.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.autoreg.figures import compared
    >>> gains = {"manual-small": 0, "manual-small-2": 0.02, "autoreg": 0.03, "autoreg-2": 0.05}
    >>> dice = lambda name: pd.DataFrame({"pair": ["a", "b"], "label": 1, "metric": "dice", "value": [0.5, 0.7]})
    >>> results = SimpleNamespace(
    ...     scores=lambda name: dice(name).assign(value=lambda rows: rows["value"] + gains[name]),
    ...     of_pairs=lambda name, metric: pd.Series([0.0, 0.1]),
    ...     training=lambda name: {"parameters": 1000},
    ...     experiments=ExperimentSettings.read({"autoreg": {"starts": 2}}, "experiments"),
    ... )
    >>> table, html = compared(results, Needs(scores=list(gains)), reference="manual-small")
    >>> table[["method", "starts", "dice_mean", "mean_difference"]].round(2)
             method  starts  dice_mean  mean_difference
    0  Manual-Small       2       0.61              NaN
    1       AutoReg       2       0.64             0.03
    """
    table = _over_starts(results, needs.scores, reference)
    folds = {"% |J| ≤ 0": table["folds_percent"].map("{:.3f}".format)}
    return table, html_table(_columns(table, "Method", _title(reference), folds))


def _over_starts(results: Results, names: Sequence[str], reference: str) -> pd.DataFrame:
    networks = _started(results, names)
    rows = pd.concat([results.scores(name).assign(method=name) for name in names], ignore_index=True)
    table = over_starts(rows, networks, reference).rename(columns={"method": "entry"})
    table.insert(1, "method", table["entry"].map(_title))
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
    """Which parts of another study's model to search again (Table II of [1]_): Dice, and correlation of the images.

    Parameters
    ----------
    results : Results
        Of a study with the transferred networks.
    needs : Needs
        Not used: the networks are always the same.

    Returns
    -------
    DataFrame
        ``entry found_anew dice_mean dice_sd correlation_mean correlation_sd`` over pairs.
    str
        HTML.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.autoreg.figures import transfer
    >>> results = SimpleNamespace(of_pairs=lambda name, metric: pd.Series([0.7, 0.8]))
    >>> table, html = transfer(results, Needs())
    >>> table[["entry", "found_anew", "dice_mean"]].head(3)
                  entry found_anew  dice_mean
    0     transfer-none    nothing       0.75
    1  transfer-weights          ω       0.75
    2  transfer-feature     ω, α_F       0.75
    """
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
    """Seconds to register a pair, and number of parameters (Table VIII of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these methods.
    needs : Needs
        ``scores``: the methods, in the order of the rows.

    Returns
    -------
    DataFrame
        ``entry method parameters seconds_mean seconds_sd`` over pairs; no parameters where nothing is trained.
    str
        HTML.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.autoreg.figures import time_and_size
    >>> results = SimpleNamespace(
    ...     of_pairs=lambda name, metric: pd.Series([1.0, 2.0] if name == "syn" else [0.1, 0.2]),
    ...     training=lambda name: {"parameters": 32000},
    ...     plan=SimpleNamespace(entries={name: SimpleNamespace(learned=name != "syn") for name in ("syn", "autoreg")}),
    ... )
    >>> table, html = time_and_size(results, Needs(scores=["syn", "autoreg"]))
    >>> table[["method", "parameters", "seconds_mean"]]
        method  parameters  seconds_mean
    0      syn         NaN          1.50
    1  AutoReg     32000.0          0.15
    """
    rows = []
    for name in needs.scores:
        seconds = results.of_pairs(name, "seconds_compute")
        known = results.training(name)["parameters"] if results.plan.entries[name].learned else float("nan")
        row = {"entry": name, "method": _title(name), "parameters": known}
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
    """Dice and folds of all methods (Tables VI, VII and IX of [1]_), with the first start of each.

    Parameters
    ----------
    results : Results
        Of a study with these methods.
    needs : Needs
        ``scores``: the methods, in the order of the rows.

    Returns
    -------
    DataFrame
        ``entry method dice_mean dice_sd folds_mean folds_sd`` over pairs; folds are numbers of voxels.
    str
        HTML.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.autoreg.figures import all_methods
    >>> found = {"dice": [0.7, 0.8], "folds_count": [0, 5]}
    >>> results = SimpleNamespace(of_pairs=lambda name, metric="dice": pd.Series(found[metric]))
    >>> table, html = all_methods(results, Needs(scores=["autoreg"]))
    >>> table[["method", "dice_mean", "folds_mean"]]
        method  dice_mean  folds_mean
    0  AutoReg       0.75         2.5
    """
    rows = []
    for name in needs.scores:
        dice, folds = results.of_pairs(name), results.of_pairs(name, "folds_count")
        row = {"entry": name, "method": _title(name), "dice_mean": dice.mean(), "dice_sd": dice.std(ddof=1)}
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
    """Dice of each structure, left and right together (Fig. 6 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these methods.
    needs : Needs
        ``scores``: the methods, in the order of the boxes.

    Returns
    -------
    DataFrame
        ``method label mean std 25% 50% 75%`` over pairs.
    Figure

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.autoreg.figures import boxes
    >>> from regcore.reporting.figures import plt
    >>> rows = pd.DataFrame({"pair": ["a", "b"], "label": 10, "metric": "dice", "value": [0.5, 0.75]})
    >>> names = pd.DataFrame({"index": [10], "name": ["left thalamus"], "group": ["all"]})
    >>> results = SimpleNamespace(scores=lambda name: rows, labels=lambda rows: names)
    >>> table, figure = boxes(results, Needs(scores=["autoreg"]))
    >>> table[["method", "label", "mean", "50%"]]
        method  label   mean    50%
    0  AutoReg     10  0.625  0.625
    >>> plt.close(figure)
    """
    rows = pd.concat([results.scores(name).assign(method=_title(name)) for name in needs.scores], ignore_index=True)
    figure = structure_boxes(rows, results.labels(rows), [_title(name) for name in needs.scores], "dice")
    dice = rows[rows["metric"] == "dice"]
    quartiles = dice.groupby(["method", "label"], sort=False)["value"].describe()[["mean", "std", "25%", "50%", "75%"]]
    return quartiles.reset_index(), figure


# ---- searches


def cost_of_searching(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """CPU time and memory of a training, and of a search with the training of its result (Table I of [1]_).

    Memory includes the tensors of one step, and the weights with their gradients and Adam's moments.

    Parameters
    ----------
    results : Results
        Of a study with both searches and the networks trained with and without them.
    needs : Needs
        Not used: the searches are always the same.

    Returns
    -------
    DataFrame
        ``what cpu_seconds bytes cpu_seconds_ratio bytes_ratio``: a training by hand, the stages of the searches, the
        training of what they found, and the search with this training: the sum of the times, the largest memory.
        Ratios are those to the first row.
    str
        HTML.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.autoreg.figures import cost_of_searching
    >>> stage = {"cpu_seconds": 50, "step_bytes": 3e6, "parameters": 2000}
    >>> stages = {"autoreg-cells": {"feature": stage, "deformation": stage}, "autoreg": {"objective": stage}}
    >>> results = SimpleNamespace(
    ...     cell_search=lambda name: {"stages": stages[name], "training_step_bytes": 1e6},
    ...     training=lambda name: {"cpu_seconds": 100, "parameters": 1000},
    ... )
    >>> table, html = cost_of_searching(results, Needs())
    >>> table[["what", "cpu_seconds", "cpu_seconds_ratio", "bytes_ratio"]].round(2)
                          what  cpu_seconds  cpu_seconds_ratio  bytes_ratio
    0  training, Manual-Medium          100                1.0         1.00
    1          search, feature           50                0.5         2.98
    2      search, deformation           50                0.5         2.98
    3        search, objective           50                0.5         2.98
    4        training, AutoReg          100                1.0         1.00
    5        search + training          250                2.5         2.98
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
    """Cells found by gradient and by trial, at the same cost and with the same λ; the paper has no such table.

    Parameters
    ----------
    results : Results
        Of a study with these searches and the networks that they found.
    needs : Needs
        ``scores``: the networks, of every entry all that the study has.

    Returns
    -------
    DataFrame
        As from :func:`compared`, against the search by gradient; then ``search_cpu_seconds architectures_tried``, means
        over starts.
    str
        HTML.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.autoreg.figures import controls
    >>> dice = {"autoreg-cells": [0.8, 0.7], "random": [0.75, 0.7]}
    >>> tried = {"autoreg-cells": {}, "random": {"architectures": 12}}
    >>> results = SimpleNamespace(
    ...     scores=lambda name: pd.DataFrame({"pair": ["a", "b"], "label": 1, "metric": "dice", "value": dice[name]}),
    ...     of_pairs=lambda name, metric: pd.Series([0.0, 0.1]),
    ...     training=lambda name: {"parameters": 1000},
    ...     cell_search=lambda name: {"cells_cpu_seconds": 60, "stages": {"feature": tried[name]}},
    ...     experiments=ExperimentSettings.read({"autoreg": {"starts": 1}}, "experiments"),
    ... )
    >>> table, html = controls(results, Needs(scores=list(dice)))
    >>> table[["entry", "dice_mean", "search_cpu_seconds", "architectures_tried"]]
               entry  dice_mean  search_cpu_seconds  architectures_tried
    0  autoreg-cells      0.750                60.0                  1.0
    1         random      0.725                60.0                 12.0
    """
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
    """The mixtures' weights in the last epoch of each stage, with boxes around the chosen operations (Fig. 3 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with the search.
    needs : Needs
        ``architectures``: the search for cells, one.

    Returns
    -------
    DataFrame
        As from :func:`regcore.reporting.architectures.mixtures`.
    Figure

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.networks.architecture import CANDIDATES
    >>> from regcore.papers.autoreg.figures import heat_maps
    >>> from regcore.reporting.figures import plt
    >>> weights = {f"feature.{cell}.{edge}.{operation}": 0.3 if operation == "5-SConv" else 0.1
    ...            for cell in ("half", "quarter") for edge in (1, 2, 3) for operation in CANDIDATES}
    >>> trace = pd.DataFrame([{"stage": "feature", "epoch": 9, **weights}])
    >>> results = SimpleNamespace(trace=lambda name: trace)
    >>> table, figure = heat_maps(results, Needs(architectures=["autoreg-cells"]))
    >>> table[table["chosen"]][["cells", "cell", "edge", "operation", "weight"]].head(2)
          cells  cell  edge operation  weight
    4   feature  half     1   5-SConv     0.3
    12  feature  half     2   5-SConv     0.3
    >>> plt.close(figure)
    """
    table = architectures.mixtures(results.trace(*needs.architectures))
    return table, architectures.heat_maps(table)


def objective_by_epoch(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """λ and the losses over the epochs of the last stage (Fig. 4 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with the search.
    needs : Needs
        ``architectures``: the search for the objective, one.

    Returns
    -------
    DataFrame
        ``epoch``, the four λ, ``training_loss validation_loss``.
    Figure

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.autoreg.figures import objective_by_epoch
    >>> from regcore.reporting.figures import plt
    >>> trace = pd.DataFrame({"stage": "objective", "epoch": [1, 2], "lambda1": [0.5, 0.6], "training_loss": [3, 2]})
    >>> trace = trace.assign(lambda2=1.0, lambda3=1.0, lambda4=1.0, validation_loss=[0.5, 0.4])
    >>> results = SimpleNamespace(trace=lambda name: trace)
    >>> table, figure = objective_by_epoch(results, Needs(architectures=["autoreg"]))
    >>> table[["epoch", "lambda1", "validation_loss"]]
       epoch  lambda1  validation_loss
    0      1      0.5              0.5
    1      2      0.6              0.4
    >>> plt.close(figure)
    """
    trace = architectures.stage_of(results.trace(*needs.architectures), OBJECTIVE)
    return trace[["epoch", *LAMBDAS, *architectures.LOSSES]], architectures.objective_by_epoch(trace)


def side_by_side(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """The architectures found from each random start; the paper has no such figure.

    Parameters
    ----------
    results : Results
        Of a study with the searches.
    needs : Needs
        ``architectures``: the searches, one for each start.

    Returns
    -------
    DataFrame
        As from :func:`regcore.reporting.architectures.operations`.
    Figure

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments import Needs
    >>> from regcore.networks.architecture import Architecture
    >>> from regcore.papers.autoreg.figures import side_by_side
    >>> from regcore.reporting.figures import plt
    >>> found = {"autoreg": "3-Conv", "autoreg-2": "7-DConv"}
    >>> results = SimpleNamespace(
    ...     architecture=lambda name: {"architecture": Architecture.uniform(found[name]).as_json()}
    ... )
    >>> table, figure = side_by_side(results, Needs(architectures=list(found)))
    >>> table.groupby("search")["operation"].first().to_dict()
    {'start 1': '3-Conv', 'start 2': '7-DConv'}
    >>> plt.close(figure)
    """
    found = {f"start {start}": results.architecture(name) for start, name in enumerate(needs.architectures, start=1)}
    return architectures.operations(found), architectures.side_by_side(found)
