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


def title(name: str) -> str:
    """The paper's name of an entry."""
    return paper.TITLES.get(name, name)


def _titles(names: Sequence[str]) -> dict[str, str]:
    return {name: title(name) for name in names}


def overlap_and_folds(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Tables 2 to 4: Dice (SD over structures and pairs), folds, and a test of pairs' means against the backbone."""
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
        row = {"entry": name, "method": title(name), "dice_mean": dice.mean(), "dice_sd": dice.std(ddof=1)}
        row |= {metric: own.loc[own["metric"] == metric, "value"].mean() for metric in FOLDS}
        compared = paired_comparison(*results.of_pairs(name).align(backbone))
        row |= {"points_over_backbone": 100 * compared.mean_difference, "p_wilcoxon": compared.p_wilcoxon}
        row |= {"low": 100 * compared.ci_low, "high": 100 * compared.ci_high, "pairs": compared.n}
        rows.append(row)
    return pd.DataFrame(rows)


def mark(points: float, p: float) -> str:
    """The paper's mark of a significant improvement."""
    return next((mark for level, mark in MARKS if points > 0 and p < level), "")


def optima(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Table 5: the best hyperparameters on the validation pairs, and the search for them."""
    rows = []
    for name in needs.models:
        search = results.plan.entries[name].search
        if search is not None:
            result = results.search(name)
            how = f"{search.sampler}, {result['trials']} trials, {result['pruned']} pruned"
            rows.append({"method": title(name), **result["params"], "validation_dice": result["dice"], "found_by": how})
        else:
            best = optimum(_validation(results, name), list(results.training(name)["tuned"]["values"]))
            dice = best.score
            rows.append({"method": title(name), **best.values, "validation_dice": dice, "found_by": "dense sweep"})
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
    """Table 6: hypernetworks and the searched network; number of trained weights, and CPU time."""
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
    """Table 7 (not in the paper): cost and result of the search, and of a dense grid without pruning."""
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
    """Fig. 7: validation Dice over the hyperparameters of each search."""
    return searches.surfaces(results, _titles(needs.models))


def importances(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Fig. 8: importance of the hyperparameters in each search."""
    return searches.importances(results, _titles(needs.models))


def landscape(results: Results, needs: Needs, name: str) -> tuple[pd.DataFrame, Figure]:
    """Fig. 9 and 10: validation Dice of a hypernetwork over both hyperparameters."""
    rows = _validation(results, name)
    across, down = results.plan.sweeps[paper.sweep_of(name)].hyperparameters
    table = curve(rows, [across, down])
    best = optimum(rows, [across, down])
    wide = table.pivot(index=down, columns=across, values="mean")
    figure, axis = plt.subplots(figsize=(6.4, 4.8))
    filled = axis.contourf(wide.columns, wide.index, wide, levels=20, cmap="viridis")
    axis.plot(best.values[across], best.values[down], **searches.CROSS, clip_on=False)
    figure.colorbar(filled, ax=axis, format="%.4f").set_label("Dice (validation pairs)")
    axis.set(xlabel=AXES[across], ylabel=AXES[down], title=f"{title(name)}: {searches.values_text(best.values)}")
    figure.tight_layout()
    return table, figure


def dice_by_lambda(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Fig. D.20: validation Dice of the hypernetworks over λ in steps of 0.01."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    tables = []
    for name, (marker, colour) in zip(paper.OVER_LAMBDA, (("s", "#3182bd"), ("o", "black")), strict=True):
        rows = _validation(results, name)
        table, best = curve(rows, ["lambda"]), optimum(rows, ["lambda"])
        label = f"{title(name)}: λ = {best.values['lambda']:.2f}, Dice {best.score:.3f}"
        axis.plot(table["lambda"], table["mean"], color=colour, marker=marker, markevery=10, label=label)
        axis.plot(best.values["lambda"], best.score, **searches.CROSS)
        tables.append(table.assign(entry=name))
    axis.set(xlabel="λ", ylabel="Dice (validation pairs)")
    axis.grid(linewidth=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    whole = pd.concat(tables, ignore_index=True)
    return whole[["entry", "lambda", "mean", "sd"]], figure
