"""The tables and figures of the TM-SPR paper, drawn from a study's scores, searches, sweeps and weight volumes."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from regcore.evaluation.statistics import paired_comparison
from regcore.experiments import Needs
from regcore.experiments import spr as paper
from regcore.papers.hypermorph import landscapes
from regcore.reporting import searches
from regcore.reporting.figures import AXES, plt
from regcore.reporting.text import html_table
from regcore.study.results import Results
from regcore.tuning.optima import curve, optimum

#: Columns of Tables 2 to 4 after Dice: metric → heading.
FOLDS = {"folds_percent": "% |J| ≤ 0", "ndv_percent": "% NDV"}
#: Marks of improvements over the backbone, by p-value.
MARKS = ((0.001, "**"), (0.01, "*"))


def _title(name: str) -> str:
    """The paper's name of an entry."""
    return paper.TITLES.get(name, name)


def _titles(names: Sequence[str]) -> dict[str, str]:
    return {name: _title(name) for name in names}


def overlap_and_folds(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Dice and folds, and a test of each pair's mean against the backbone (Tables 2 to 4 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these methods and the backbone, ``transmorph``.
    needs : Needs
        ``scores``: the methods, in the order of the rows.

    Returns
    -------
    DataFrame
        ``entry method dice_mean dice_sd`` (SD over structures and pairs), the means over pairs ``folds_percent
        ndv_percent``, and the difference of the pairs' means from the backbone's: ``points_over_backbone p_wilcoxon low
        high pairs``, in points of Dice × 100 with its 95 % interval.
    str
        HTML.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.figures import overlap_and_folds
    >>> dice = {"transmorph": [0.5, 0.7], "tm-spr-beta": [0.52, 0.74]}
    >>> def scores(name):
    ...     values = {"dice": dice[name], "folds_percent": [0, 0.1], "ndv_percent": [0, 0.02]}
    ...     return pd.DataFrame(values).melt(var_name="metric")
    >>> results = SimpleNamespace(scores=scores, of_pairs=lambda name: pd.Series(dice[name]))
    >>> table, html = overlap_and_folds(results, Needs(scores=["transmorph", "tm-spr-beta"]))
    >>> table[["method", "dice_mean", "folds_percent", "points_over_backbone"]]
              method  dice_mean  folds_percent  points_over_backbone
    0     TransMorph       0.60           0.05                   0.0
    1  TM-SPR (Beta)       0.63           0.05                   3.0
    """
    table = _beside_backbone(results, needs.scores)
    marks = [
        "" if name == paper.REFERENCE else mark(points, p)
        for name, points, p in zip(table["entry"], table["points_over_backbone"], table["p_wilcoxon"], strict=True)
    ]
    others = table["entry"] != paper.REFERENCE
    return table, html_table(
        {
            "Method": table["method"],
            "Dice": [
                f"{mean:.3f} ± {sd:.3f}{m}"
                for mean, sd, m in zip(table["dice_mean"], table["dice_sd"], marks, strict=True)
            ],
            **{heading: table[metric].map("{:.2f} %".format) for metric, heading in FOLDS.items()},
            "Over TransMorph, points (95 %)": [
                f"{p:+.2f} ({low:+.2f} to {high:+.2f})" if other else ""
                for p, low, high, other in zip(
                    table["points_over_backbone"], table["low"], table["high"], others, strict=True
                )
            ],
            "p (Wilcoxon)": table["p_wilcoxon"].map("{:.1g}".format).where(others, ""),
        }
    )


def _beside_backbone(results: Results, names: Sequence[str]) -> pd.DataFrame:
    """Dice and folds of each entry, and its difference from the backbone."""
    backbone, rows = results.of_pairs(paper.REFERENCE), []
    for name in names:
        own = results.scores(name)
        dice = own.loc[own["metric"] == "dice", "value"]
        row = {"entry": name, "method": _title(name), "dice_mean": dice.mean(), "dice_sd": dice.std(ddof=1)}
        row |= {metric: own.loc[own["metric"] == metric, "value"].mean() for metric in FOLDS}
        compared = paired_comparison(*results.of_pairs(name).align(backbone))
        row |= {"points_over_backbone": 100 * compared.mean_difference, "p_wilcoxon": compared.p_wilcoxon}
        row |= {"low": 100 * compared.ci_low, "high": 100 * compared.ci_high, "pairs": compared.n}
        rows.append(row)
    return pd.DataFrame(rows)


def mark(points: float, p: float) -> str:
    """The paper's mark of a significant improvement.

    Parameters
    ----------
    points : float
        The improvement.
    p : float
        Its p-value.

    Returns
    -------
    str
        ``**`` below 0.001, ``*`` below 0.01; nothing where there is no improvement.

    Examples
    --------
    >>> from regcore.papers.spr.figures import mark
    >>> mark(0.5, p=0.0002), mark(0.5, p=0.004), mark(-0.5, p=0.0002)
    ('**', '*', '')
    """
    return next((mark for level, mark in MARKS if points > 0 and p < level), "")


def optima(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """The best hyperparameters on the validation pairs, and the search for them (Table 5 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these searches, and with dense sweeps of these hypernetworks.
    needs : Needs
        ``models``: entries with a search, and hypernetworks.

    Returns
    -------
    DataFrame
        ``method``, a column for each hyperparameter, ``validation_dice found_by``.
    str
        HTML.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.figures import optima
    >>> sweep = pd.DataFrame({"lambda": [0.0, 0.5, 1.0], "value": [0.6, 0.8, 0.7]})
    >>> sweep = sweep.assign(split="validation", fixed="a", moving="b", label=1, metric="dice")
    >>> entries = {"tm-spr-beta": SimpleNamespace(search=SimpleNamespace(sampler="tpe"))}
    >>> results = SimpleNamespace(
    ...     plan=SimpleNamespace(entries=entries | {"hyper-transmorph": SimpleNamespace(search=None)}),
    ...     search=lambda name: {"params": {"lambda_max": 2.5}, "dice": 0.81, "trials": 50, "pruned": 30},
    ...     training=lambda name: {"tuned": {"values": {"lambda": 0.48}}},
    ...     sweep=lambda name: sweep,
    ... )
    >>> table, html = optima(results, Needs(models=["tm-spr-beta", "hyper-transmorph"]))
    >>> table[["method", "lambda_max", "lambda", "validation_dice"]]
                 method  lambda_max  lambda  validation_dice
    0     TM-SPR (Beta)         2.5     NaN             0.81
    1  Hyper-TransMorph         NaN     0.5             0.80
    >>> table["found_by"].to_list()
    ['tpe, 50 trials, 30 pruned', 'dense sweep']
    """
    rows = []
    for name in needs.models:
        search = results.plan.entries[name].search
        if search is not None:
            result = results.search(name)
            how = f"{search.sampler}, {result['trials']} trials, {result['pruned']} pruned"
            rows.append(
                {"method": _title(name), **result["params"], "validation_dice": result["dice"], "found_by": how}
            )
        else:
            best = optimum(_validation(results, name), list(results.training(name)["tuned"]["values"]))
            dice = best.score
            rows.append({"method": _title(name), **best.values, "validation_dice": dice, "found_by": "dense sweep"})
    table = pd.DataFrame(rows)
    columns = [name for name in AXES if name in table]
    return table, html_table(
        {
            "Method": table["method"],
            **{AXES[name]: table[name].map(lambda v: "" if pd.isna(v) else f"{v:.3g}") for name in columns},
            "Dice (validation)": table["validation_dice"].map("{:.4f}".format),
            "Found by": table["found_by"],
        }
    )


def amortised(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Hypernetworks and the searched network: overlap, number of trained weights, and CPU time (Table 6 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these networks, the searched one and the backbone.
    needs : Needs
        ``scores``: the backbone, the searched network and the hypernetworks.

    Returns
    -------
    DataFrame
        As from :func:`overlap_and_folds` without the backbone; then ``parameters cpu_seconds`` (of all trainings of a
        search; pruned ones have only wall-clock time) and ``points_over_search``, Dice × 100 minus the search's.
    str
        HTML.

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.figures import amortised
    >>> dice = {"transmorph": [0.5, 0.7], "tm-spr-beta": [0.55, 0.75], "hyper-tm-spr": [0.54, 0.75]}
    >>> searches = {"tm-spr-beta": "a search", "hyper-tm-spr": None}
    >>> results = SimpleNamespace(
    ...     scores=lambda name: pd.DataFrame({"metric": "dice", "value": dice[name]}),
    ...     of_pairs=lambda name: pd.Series(dice[name]),
    ...     training=lambda name: {"parameters": 5000, "cpu_seconds": 300},
    ...     trials=lambda name: pd.DataFrame({"cpu_seconds": [200, None], "seconds": [210, 40]}),
    ...     plan=SimpleNamespace(entries={name: SimpleNamespace(search=own) for name, own in searches.items()}),
    ... )
    >>> table, html = amortised(results, Needs(scores=list(dice)))
    >>> table[["method", "cpu_seconds", "points_over_search"]].round(2)
                    method  cpu_seconds  points_over_search
    0        TM-SPR (Beta)        240.0                 0.0
    1  Hyper-TM-SPR (Beta)        300.0                -0.5
    """
    table = _beside_backbone(results, needs.scores)
    table = table[table["entry"] != paper.REFERENCE].reset_index(drop=True)
    facts = [results.training(name) for name in table["entry"]]
    table["parameters"] = [fact["parameters"] for fact in facts]
    table["cpu_seconds"] = [_cpu_seconds(results, name, fact) for name, fact in zip(table["entry"], facts, strict=True)]
    searched = table.set_index("entry")["dice_mean"]["tm-spr-beta"]
    table["points_over_search"] = 100 * (table["dice_mean"] - searched)
    return table, html_table(
        {
            "Method": table["method"],
            "Dice": [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(table["dice_mean"], table["dice_sd"], strict=True)],
            **{heading: table[metric].map("{:.2f} %".format) for metric, heading in FOLDS.items()},
            "Over the search, points": table["points_over_search"].map("{:+.2f}".format),
            "Weights": table["parameters"].map("{:,}".format),
            "CPU s, all trainings": table["cpu_seconds"].map("{:.0f}".format),
        }
    )


def _cpu_seconds(results: Results, name: str, facts: dict) -> float:
    """CPU time of all trainings of an entry; pruned trials have only wall-clock time."""
    if results.plan.entries[name].search is None:
        return facts["cpu_seconds"]
    table = results.trials(name)
    return float(table["cpu_seconds"].fillna(table["seconds"]).sum())


def search_and_grid(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Cost and result of the search, and of a dense grid without pruning; the paper has no such table.

    Parameters
    ----------
    results : Results
        Of a study with these searches.
    needs : Needs
        ``models``: entries with a search; the grid comes last.

    Returns
    -------
    DataFrame
        As from :func:`regcore.reporting.searches.against_grid`.
    str
        HTML.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.figures import search_and_grid
    >>> cost = {"tm-spr-beta": (50, 30, 4000, 0.81), "tm-spr-grid": (100, 0, 20000, 0.80)}
    >>> keys = ("trials", "pruned", "steps", "dice")
    >>> results = SimpleNamespace(search=lambda name: dict(zip(keys, cost[name])) | {"params": {"lambda_max": 2.5}})
    >>> table, html = search_and_grid(results, Needs(models=list(cost)))
    >>> table[["method", "pruned_percent", "steps_ratio", "gap_points"]].round(2)
                          method  pruned_percent  steps_ratio  gap_points
    0              TM-SPR (Beta)            60.0          0.2         1.0
    1  TM-SPR (Beta), dense grid             0.0          1.0         0.0
    """
    table = searches.against_grid(results, _titles(needs.models))
    return table, html_table(
        {
            "Method": table["method"],
            "Trials": table["trials"],
            "Pruned": table["pruned_percent"].map("{:.0f} %".format),
            "Steps": table["steps"],
            "Steps / grid's": table["steps_ratio"].map("{:.2f}".format),
            "Dice (validation)": table["validation_dice"].map("{:.4f}".format),
            "Over the grid, points": table["gap_points"].map("{:+.2f}".format),
            **{AXES[name]: table[name].map("{:.3g}".format) for name in AXES if name in table},
        }
    )


def _validation(results: Results, name: str) -> pd.DataFrame:
    return landscapes.of_split(results.sweep(paper.sweep_of(name)), "validation")


def surfaces(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Validation Dice over the hyperparameters of each search (Fig. 7 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these searches.
    needs : Needs
        ``models``: entries with a search.

    Returns
    -------
    DataFrame
        As from :func:`regcore.reporting.searches.surfaces`.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.figures import surfaces
    >>> from regcore.reporting.figures import plt
    >>> trials = pd.DataFrame({"state": "complete", "lambda_max": [1, 2, 1, 2], "alpha": [0, 0, 0.1, 0.1]})
    >>> trials = trials.assign(trial=range(4), value=[0.7, 0.72, 0.8, 0.75])
    >>> best = {"params": {"lambda_max": 1.0, "alpha": 0.1}, "dice": 0.8, "importances": {"alpha": 0.9}}
    >>> ranges = {"lambda_max": {"low": 0.5, "high": 5}, "alpha": {"low": 0, "high": 0.2}}
    >>> results = SimpleNamespace(trials=lambda name: trials, search=lambda name: {**best, "ranges": ranges})
    >>> table, figure = surfaces(results, Needs(models=["tm-spr-beta"]))
    >>> figure.axes[0].get_title()
    'TM-SPR (Beta): λ_max = 1, α′ = 0.1'
    >>> plt.close(figure)
    """
    return searches.surfaces(results, _titles(needs.models))


def importances(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Importance of the hyperparameters in each search (Fig. 8 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these searches.
    needs : Needs
        ``models``: entries with a search.

    Returns
    -------
    DataFrame
        As from :func:`regcore.reporting.searches.importances`.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.figures import importances
    >>> from regcore.reporting.figures import plt
    >>> found = {"importances": {"alpha": 0.75, "lambda_max": 0.25}, "params": {"lambda_max": 2.5, "alpha": 0.1}}
    >>> results = SimpleNamespace(search=lambda name: found)
    >>> table, figure = importances(results, Needs(models=["tm-spr-beta"]))
    >>> table
             entry hyperparameter  importance
    0  tm-spr-beta     lambda_max        0.25
    1  tm-spr-beta          alpha        0.75
    >>> plt.close(figure)
    """
    return searches.importances(results, _titles(needs.models))


def landscape(results: Results, needs: Needs, name: str) -> tuple[pd.DataFrame, Figure]:
    """Validation Dice of a hypernetwork over both hyperparameters (Fig. 9 and 10 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with a dense sweep of the hypernetwork.
    needs : Needs
        Not used: ``name`` says which sweep.
    name : str
        The hypernetwork.

    Returns
    -------
    DataFrame
        A column for each hyperparameter, ``mean`` and ``sd`` over pairs.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from itertools import product
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs, Sweep
    >>> from regcore.papers.spr.figures import landscape
    >>> from regcore.reporting.figures import plt
    >>> rows = pd.DataFrame(product([0, 2.5, 5], [0, 0.1, 0.2]), columns=["lambda_max", "alpha"])
    >>> rows["value"] = 0.8 - 0.01 * (rows["lambda_max"] - 2.5) ** 2 - rows["alpha"]
    >>> rows = rows.assign(split="validation", fixed="a", moving="b", label=1, metric="dice")
    >>> sweep = Sweep("hyper-tm-spr-dense", ["hyper-tm-spr"], ["lambda_max", "alpha"], ("validation",))
    >>> plan = SimpleNamespace(sweeps={sweep.name: sweep})
    >>> table, figure = landscape(SimpleNamespace(plan=plan, sweep=lambda name: rows), Needs(), "hyper-tm-spr")
    >>> figure.axes[0].get_title()
    'Hyper-TM-SPR (Beta): λ_max = 2.5, α′ = 0'
    >>> plt.close(figure)
    """
    rows = _validation(results, name)
    across, down = results.plan.sweeps[paper.sweep_of(name)].hyperparameters
    table = curve(rows, [across, down])
    best = optimum(rows, [across, down])
    wide = table.pivot(index=down, columns=across, values="mean")
    figure, axis = plt.subplots(figsize=(6.4, 4.8))
    filled = axis.contourf(wide.columns, wide.index, wide, levels=20, cmap="viridis")
    axis.plot(best.values[across], best.values[down], **searches.CROSS, clip_on=False)
    figure.colorbar(filled, ax=axis, format="%.4f").set_label("Dice (validation pairs)")
    axis.set(xlabel=AXES[across], ylabel=AXES[down], title=f"{_title(name)}: {searches.values_text(best.values)}")
    figure.tight_layout()
    return table, figure


def dice_by_lambda(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Validation Dice of the hypernetworks over λ in steps of 0.01 (Fig. D.20 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with dense sweeps of the hypernetworks over λ.
    needs : Needs
        Not used: the hypernetworks are always the same.

    Returns
    -------
    DataFrame
        ``entry lambda mean sd`` over pairs.
    Figure

    References
    ----------
    .. [1] Chen, Wei, Liu, Bian, He, Carass, Bai and Du, "Unsupervised learning of spatially varying regularization for
       diffeomorphic image registration", arXiv:2412.17982, 2024.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.spr.figures import dice_by_lambda
    >>> from regcore.reporting.figures import plt
    >>> sweep = pd.DataFrame({"lambda": [0.0, 0.5, 1.0], "value": [0.6, 0.8, 0.7]})
    >>> sweep = sweep.assign(split="validation", fixed="a", moving="b", label=1, metric="dice")
    >>> table, figure = dice_by_lambda(SimpleNamespace(sweep=lambda name: sweep), Needs())
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['HyperMorph: λ = 0.50, Dice 0.800', 'Hyper-TransMorph: λ = 0.50, Dice 0.800']
    >>> plt.close(figure)
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    tables = []
    for name, (marker, colour) in zip(paper.OVER_LAMBDA, (("s", "#3182bd"), ("o", "black")), strict=True):
        rows = _validation(results, name)
        table, best = curve(rows, ["lambda"]), optimum(rows, ["lambda"])
        label = f"{_title(name)}: λ = {best.values['lambda']:.2f}, Dice {best.score:.3f}"
        axis.plot(table["lambda"], table["mean"], color=colour, marker=marker, markevery=10, label=label)
        axis.plot(best.values["lambda"], best.score, **searches.CROSS)
        tables.append(table.assign(entry=name))
    axis.set(xlabel="λ", ylabel="Dice (validation pairs)")
    axis.grid(linewidth=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    whole = pd.concat(tables, ignore_index=True)
    return whole[["entry", "lambda", "mean", "sd"]], figure
