"""The tables and figures of the VoxelMorph paper, drawn from the scores and models of a study's variants."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from regcore.experiments import Needs
from regcore.experiments import voxelmorph as paper
from regcore.experiments.settings import asked
from regcore.reporting.figures import CURVES, plt, structure_boxes
from regcore.reporting.text import html_table
from regcore.study.results import Results


def title(name: str) -> str:
    """The paper's name of an entry.

    Parameters
    ----------
    name : str
        The entry.

    Returns
    -------
    str
        The name itself, if the paper has no such network.

    Examples
    --------
    >>> from regcore.papers.voxelmorph.figures import title
    >>> title("vm-mse-x2-inst"), title("syn")
    ('VoxelMorph x2 (MSE) inst.', 'syn')
    """
    for similarity, loss in paper.LOSSES.items():
        for width, times in ((1, ""), (2, " x2")):
            plain = paper.base(similarity, width)
            if name == plain:
                return f"VoxelMorph{times} ({loss})"
            if name == paper.refined(plain):
                return f"VoxelMorph{times} ({loss}) inst."
    return name


def methods_table(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Dice over structures and pairs, seconds and folds of methods (Tables I to III of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with these methods.
    needs : Needs
        ``scores``: the methods, in the order of the rows.

    Returns
    -------
    DataFrame
        ``method``, then ``_mean`` and ``_sd`` of ``dice gpu_seconds cpu_seconds folds folds_percent``. Dice varies over
        structures and pairs, the others over pairs; a method has seconds only of the processor that it ran on.
    str
        HTML.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.voxelmorph.figures import methods_table
    >>> values = {"dice": [0.5, 0.75], "seconds_compute": [2, 3], "folds_count": [0, 8], "folds_percent": [0, 0.5]}
    >>> rows = pd.DataFrame(values, index=pd.Index(["a", "b"], name="pair")).melt(var_name="metric", ignore_index=False)
    >>> results = SimpleNamespace(scores=lambda name: rows.reset_index(), facts=lambda name: iter([{"device": "cpu"}]))
    >>> table, html = methods_table(results, Needs(scores=["vm-lncc-inst"]))
    >>> table[["method", "dice_mean", "cpu_seconds_mean", "folds_mean"]]
                      method  dice_mean  cpu_seconds_mean  folds_mean
    0  VoxelMorph (CC) inst.      0.625               2.5         4.0
    """
    rows = []
    for name in needs.scores:
        scores = results.scores(name)
        processor = "gpu" if _on_gpu(results, name) else "cpu"
        row = {"method": title(name), **_mean_and_sd("dice", _values(scores, "dice"))}
        row |= _mean_and_sd(f"{processor}_seconds", _values(scores, "seconds_compute"))
        row |= _mean_and_sd("folds", _values(scores, "folds_count"))
        row |= _mean_and_sd("folds_percent", _values(scores, "folds_percent"))
        rows.append(row)
    table = pd.DataFrame(rows).reindex(
        columns=["method"]
        + [
            f"{measure}_{part}"
            for measure in ("dice", "gpu_seconds", "cpu_seconds", "folds", "folds_percent")
            for part in ("mean", "sd")
        ]
    )
    return table, html_table(
        {
            "Method": table["method"],
            "Dice": _pairs_of_numbers(table, "dice", "{:.3f}"),
            "GPU s": _pairs_of_numbers(table, "gpu_seconds", "{:.2f}"),
            "CPU s": _pairs_of_numbers(table, "cpu_seconds", "{:.2f}"),
            "|J| ≤ 0": _pairs_of_numbers(table, "folds", "{:.1f}"),
            "% of |J| ≤ 0": _pairs_of_numbers(table, "folds_percent", "{:.3f}"),
        }
    )


def folds_by_gamma(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """Folds by the labels that training observed and γ (Table IV of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with the networks that are trained with labels.
    needs : Needs
        Not used: the study's settings of the experiments say which networks there are.

    Returns
    -------
    DataFrame
        ``setting gamma``, then ``_mean`` and ``_sd`` of ``folds_count folds_percent``: means over pairs and over draws
        of the labels, SD over pairs of the mean over draws. γ = 0 is the network without labels.
    str
        HTML, with a column for each γ.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.voxelmorph.figures import folds_by_gamma
    >>> def scores(name):
    ...     count = 30 if "gamma" in name else 10
    ...     rows = [("a", "folds_count", count), ("a", "folds_percent", count / 100)]
    ...     return pd.DataFrame(rows, columns=["pair", "metric", "value"])
    >>> experiments = ExperimentSettings.read({"voxelmorph": {"gamma": [0.1]}}, "experiments")
    >>> table, html = folds_by_gamma(SimpleNamespace(scores=scores, experiments=experiments), Needs())
    >>> table[["setting", "gamma", "folds_count_mean", "folds_percent_mean"]].head(2)
      setting  gamma  folds_count_mean  folds_percent_mean
    0     one    0.0              10.0                 0.1
    1     one    0.1              30.0                 0.3
    """
    rows = []
    for scenario, gamma, names in _gamma_curve(results):
        scores = [results.scores(name) for name in names]
        row = {"setting": scenario, "gamma": gamma}
        for measure in ("folds_count", "folds_percent"):
            row |= _mean_and_sd(measure, _mean_over_draws([_values(score, measure) for score in scores]))
        rows.append(row)
    table = pd.DataFrame(rows)
    shown: dict[str, list[str]] = {"Setting": [], **{_gamma_text(gamma): [] for gamma in table["gamma"].unique()}}
    for setting, part in table.groupby("setting", sort=False):
        for what, number in (("folds_count", "{:.1f}"), ("folds_percent", "{:.3f}")):
            shown["Setting"].append(f"{setting} ({'%' if what == 'folds_percent' else 'count'})")
            for gamma, text in zip(part["gamma"], _pairs_of_numbers(part, what, number), strict=True):
                shown[_gamma_text(gamma)].append(text)
    return table, html_table(shown)


def boxes_by_structure(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Dice of each structure, left and right together (Fig. 5 of [1]_).

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
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.voxelmorph.figures import boxes_by_structure
    >>> from regcore.reporting.figures import plt
    >>> rows = pd.DataFrame({"pair": ["a", "b"], "label": 10, "metric": "dice", "value": [0.5, 0.75]})
    >>> names = pd.DataFrame({"index": [10], "name": ["left thalamus"], "group": ["all"]})
    >>> results = SimpleNamespace(scores=lambda name: rows.assign(method=name), labels=lambda rows: names)
    >>> table, figure = boxes_by_structure(results, Needs(scores=["vm-mse"]))
    >>> table[["method", "label", "mean", "50%"]]
       method  label   mean    50%
    0  vm-mse     10  0.625  0.625
    >>> plt.close(figure)
    """
    order = needs.scores
    rows = pd.concat([results.scores(name) for name in order], ignore_index=True)
    labels = results.labels(rows)
    titled = rows.assign(method=rows["method"].map(title))
    figure = structure_boxes(titled, labels, [title(name) for name in order], "dice")
    dice = rows[rows["metric"] == "dice"]
    quartiles = dice.groupby(["method", "label"], sort=False)["value"].describe()[["mean", "std", "25%", "50%", "75%"]]
    return quartiles.reset_index(), figure


def dice_by_lambda(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Validation Dice against λ (Fig. 7 of [1]_), one panel per similarity, because their scales of λ differ.

    Parameters
    ----------
    results : Results
        Of a study with a network for each λ.
    needs : Needs
        Not used: the study's settings of the experiments say which λ there are.

    Returns
    -------
    DataFrame
        ``similarity lambda validation_dice``.
    Figure

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.voxelmorph.figures import dice_by_lambda
    >>> from regcore.reporting.figures import plt
    >>> values = {"lambda": {"mse": [0.01, 0.02], "lncc": [1, 2]}}
    >>> experiments = ExperimentSettings.read({"voxelmorph": values}, "experiments")
    >>> dice = {"vm-mse-lambda-0.01": 0.7, "vm-mse-lambda-0.02": 0.8, "vm-lncc-lambda-1": 0.8, "vm-lncc-lambda-2": 0.6}
    >>> training = lambda name: {"best_validation_dice": dice[name]}
    >>> table, figure = dice_by_lambda(SimpleNamespace(training=training, experiments=experiments), Needs())
    >>> [axis.get_title() for axis in figure.axes]
    ['VoxelMorph (MSE); circled: λ = 0.02', 'VoxelMorph (CC); circled: λ = 1']
    >>> plt.close(figure)
    """
    values = asked(results.experiments.voxelmorph).lambda_
    rows = [
        {"similarity": similarity, "lambda": value, "validation_dice": training["best_validation_dice"]}
        for similarity in paper.LOSSES
        for value in sorted(values.value(similarity))
        for training in [results.training(paper.with_lambda(similarity, value))]
    ]
    table = pd.DataFrame(rows)
    figure, axes = plt.subplots(1, len(paper.LOSSES), figsize=(10, 3.6), sharey=True)
    for axis, (similarity, loss), style in zip(axes, paper.LOSSES.items(), CURVES, strict=False):
        part = table[table["similarity"] == similarity]
        marker, line, colour = style
        axis.plot(part["lambda"], part["validation_dice"], line, marker=marker, color=colour)
        best = part.iloc[int(part["validation_dice"].argmax())]
        axis.plot(best["lambda"], best["validation_dice"], "o", ms=13, mfc="none", color=colour)
        axis.set(xlabel="λ", title=f"VoxelMorph ({loss}); circled: λ = {best['lambda']:g}")
        axis.grid(linewidth=0.3)
    axes[0].set_ylabel("Dice (validation pairs)")
    figure.tight_layout()
    return table, figure


def dice_by_subjects(results: Results, needs: Needs) -> tuple[pd.DataFrame, Figure]:
    """Dice against the number of training subjects (Fig. 8 of [1]_), with and without instance optimisation.

    Parameters
    ----------
    results : Results
        Of a study with a network for each number, and each refined on every pair.
    needs : Needs
        ``models``: the networks.

    Returns
    -------
    DataFrame
        ``subjects train_dice``, then ``_mean`` and ``_sd`` over test pairs of ``test_dice test_inst_dice``.
    Figure

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.papers.voxelmorph.figures import dice_by_subjects
    >>> from regcore.reporting.figures import plt
    >>> dice = {"vm-mse-n10": 0.6, "vm-mse-n10-inst": 0.7, "vm-mse": 0.8, "vm-mse-inst": 0.8}
    >>> results = SimpleNamespace(
    ...     training=lambda name: {"subjects": 10 if "n10" in name else 100, "training_dice": 0.9},
    ...     scores=lambda name: pd.DataFrame({"pair": ["a"], "metric": "dice", "value": dice[name]}),
    ... )
    >>> table, figure = dice_by_subjects(results, Needs(models=["vm-mse-n10", "vm-mse"]))
    >>> table[["subjects", "train_dice", "test_dice_mean", "test_inst_dice_mean"]]
       subjects  train_dice  test_dice_mean  test_inst_dice_mean
    0        10         0.9             0.6                  0.7
    1       100         0.9             0.8                  0.8
    >>> plt.close(figure)
    """
    rows = []
    for name in needs.models:
        training = results.training(name)
        row = {"subjects": training["subjects"], "train_dice": training.get("training_dice")}
        row |= _mean_and_sd("test_dice", _dice_of_pairs(results, name))
        row |= _mean_and_sd("test_inst_dice", _dice_of_pairs(results, paper.refined(name)))
        rows.append(row)
    table = pd.DataFrame(rows)
    figure, axis = plt.subplots(figsize=(6.5, 4))
    curves = (("train_dice", "train"), ("test_dice_mean", "test"), ("test_inst_dice_mean", "test, instance-optimised"))
    for (column, label), (marker, line, colour) in zip(curves, CURVES, strict=False):
        if table[column].notna().any():
            axis.plot(table["subjects"], table[column], line, marker=marker, color=colour, label=label)
    axis.set(xlabel="training subjects", ylabel="Dice", xscale="log")
    axis.set_xticks(table["subjects"], [str(count) for count in table["subjects"]])
    axis.minorticks_off()
    axis.grid(linewidth=0.3)
    axis.legend()
    figure.tight_layout()
    return table, figure


def dice_by_gamma(results: Results, needs: Needs, references: Sequence[str]) -> tuple[pd.DataFrame, Figure]:
    """Dice of observed and unobserved labels against γ (Fig. 9 of [1]_), one panel per choice of labels.

    Parameters
    ----------
    results : Results
        Of a study with the networks that are trained with labels.
    needs : Needs
        Not used: the study's settings of the experiments say which networks there are.
    references : sequence of str
        The study's classical methods, as dashed lines.

    Returns
    -------
    DataFrame
        ``setting labels gamma dice_mean dice_sd``: means over draws of the labels and pairs, SD over pairs of the mean
        over draws. γ = 0 is the network without labels; no row where no label is of that kind.
    Figure

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.voxelmorph.figures import dice_by_gamma
    >>> from regcore.reporting.figures import plt
    >>> def scores(name):  # labels that training observes gain a tenth
    ...     dice = [0.7, 0.6] if "gamma" in name else [0.6, 0.6]
    ...     return pd.DataFrame({"pair": "a", "label": [1, 2], "metric": "dice", "value": dice})
    >>> experiments = ExperimentSettings.read({"voxelmorph": {"gamma": [0.1]}}, "experiments")
    >>> results = SimpleNamespace(scores=scores, training=lambda name: {"observed": [1]}, experiments=experiments)
    >>> table, figure = dice_by_gamma(results, Needs(), references=["syn"])
    >>> table.loc[table["setting"] == "half", ["labels", "gamma", "dice_mean"]]
           labels  gamma  dice_mean
    4    observed    0.0        0.6
    5  unobserved    0.0        0.6
    6    observed    0.1        0.7
    7  unobserved    0.1        0.6
    >>> plt.close(figure)
    """
    rows = []
    for scenario, gamma, names in _gamma_curve(results):
        for seen in ("observed", "unobserved"):
            curves = [_dice_of_pairs(results, name, codes) for name, codes in _codes(results, scenario, names, seen)]
            over_draws = _mean_over_draws(curves).dropna()  # a pair may not have the one structure of a draw
            if len(over_draws):
                spread = _mean_and_sd("dice", over_draws)
                rows.append({"setting": scenario, "labels": seen, "gamma": gamma, **spread})
    table = pd.DataFrame(rows)
    figure, axes = plt.subplots(1, len(paper.SCENARIOS), figsize=(4 * len(paper.SCENARIOS), 3.8), sharey=True)
    ticks = {gamma: place for place, gamma in enumerate(table["gamma"].unique())}
    for axis, (scenario, heading) in zip(axes, paper.SCENARIOS.items(), strict=True):
        for seen, (marker, line, colour) in zip(("observed", "unobserved"), CURVES, strict=False):
            part = table[(table["setting"] == scenario) & (table["labels"] == seen)]
            if len(part):
                places = [ticks[gamma] for gamma in part["gamma"]]
                style = {"marker": marker, "color": colour, "linestyle": line, "capsize": 3}
                axis.errorbar(places, part["dice_mean"], part["dice_sd"], label=f"{seen} labels", **style)
        for name, grey in zip(references, ("0.7", "0.4", "0.0"), strict=False):
            axis.axhline(_dice_of_pairs(results, name).mean(), color=grey, linestyle=(0, (5, 5)), label=name)
        axis.set_xticks(list(ticks.values()), [_gamma_text(gamma) for gamma in ticks])
        axis.set(xlabel="γ", title=heading)
        axis.grid(linewidth=0.3)
    axes[0].set_ylabel("Dice (test pairs)")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return table, figure


def _gamma_curve(results: Results) -> Sequence[tuple[str, float | str, list[str]]]:
    """Scenario, γ, and the networks of all draws; γ = 0 is the network without labels."""
    settings = asked(results.experiments.voxelmorph)
    return [
        (scenario, gamma, [paper.with_gamma(scenario, fold, gamma) for fold in paper.folds_of(settings, scenario)])
        if gamma
        else (scenario, 0, [paper.base("mse")])
        for scenario in paper.SCENARIOS
        for gamma in (0, *settings.gamma)
    ]


def _codes(results: Results, scenario: str, names: Sequence[str], seen: str) -> Sequence[tuple[str, set[int]]]:
    """Each network of one γ with the labels its training observed, or did not observe.

    The network without labels is compared on the labels of every draw.
    """
    settings = asked(results.experiments.voxelmorph)
    draws = [paper.with_gamma(scenario, fold, settings.gamma[0]) for fold in paper.folds_of(settings, scenario)]
    if len(names) < len(draws):
        names = [names[0]] * len(draws)
    found = []
    for name, draw in zip(names, draws, strict=True):
        observed = set(results.training(draw)["observed"])
        everything = set(_values(results.scores(name), "dice", by="label").index)
        found.append((name, observed if seen == "observed" else everything - observed))
    return found


def _values(rows: pd.DataFrame, metric: str, by: str = "pair") -> pd.Series:
    """Values of a metric by pair or label: none for failed pairs, several per pair for Dice."""
    return rows[rows["metric"] == metric].dropna(subset="value").set_index(by)["value"]


def _dice_of_pairs(results: Results, name: str, codes: set[int] | None = None) -> pd.Series:
    """Mean Dice of every test pair that has one, over all or some labels."""
    rows = results.scores(name)
    if codes is not None:
        rows = rows[rows["label"].isin(codes)]
    return _values(rows, "dice").groupby("pair").mean()


def _mean_over_draws(curves: Sequence[pd.Series]) -> pd.Series:
    """Mean by pair over the draws that have a value for it."""
    return pd.DataFrame(curves).mean()


def _on_gpu(results: Results, name: str) -> bool:
    return next(results.facts(name))["device"] != "cpu"


def _mean_and_sd(name: str, values: pd.Series) -> dict[str, float]:
    """Mean and SD; both NaN if there is no value."""
    return {f"{name}_mean": float(values.mean()), f"{name}_sd": float(values.std(ddof=1))}


def _pairs_of_numbers(table: pd.DataFrame, measure: str, number: str) -> list[str]:
    """ "mean (SD)" for every row; empty if there is no value."""
    return [
        "".join(form.format(value) for form, value in ((number, mean), (f" ({number})", sd)) if not pd.isna(value))
        for mean, sd in zip(table[f"{measure}_mean"], table[f"{measure}_sd"], strict=True)
    ]


def _gamma_text(gamma: float | str) -> str:
    return "∞" if gamma == paper.LABELS_ALONE else f"{gamma:g}"
