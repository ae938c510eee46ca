"""From tidy metric rows to the tables of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from regcore.evaluation.statistics import PairedComparison, holm, paired_comparison
from regcore.reporting.text import number_texts
from regcore.study.checks import TRUTH

#: Methods that are the reference of the tests only if the study asks for it.
STARTING_POINTS = ("identity", "affine")

#: Corrected p-value below which a method's Dice is marked → mark, the strictest first.
MARKS = {0.001: "**", 0.01: "*"}


@dataclass(frozen=True)
class Measure:
    """A metric of the tidy rows as a column of the summary.

    Parameters
    ----------
    metric : str
    over : {"mean", "median", "max"}
        How the pairs' values are summarised; a metric of labels is first averaged over the labels.
    heading, number, meaning : str
        Heading, number format and explanation for readers.
    best : {"min", "max"}, optional
        Which value is best; None for costs, and where a good registration may be worse than none.
    spread : bool
        Whether the SD over pairs is shown with the mean, as column ``<column>_sd`` of the summary.
    """

    metric: str
    over: str
    heading: str
    number: str
    meaning: str
    best: str | None = None
    spread: bool = False


#: Column of the summary → measure of quality.
QUALITY = {
    "hd95_mm": Measure(
        "hd95_mm",
        "mean",
        "HD95 mm",
        "{:.2f}",
        "95th percentile of the distances between the surfaces of a label, mean ± SD as for Dice",
        best="min",
        spread=True,
    ),
    "mean_surface_distance_mm": Measure(
        "mean_surface_distance_mm",
        "mean",
        "Surface distance mm",
        "{:.2f}",
        "mean distance between the surfaces of a label, mean ± SD as for Dice",
        best="min",
        spread=True,
    ),
    "folds_percent": Measure(
        "folds_percent", "mean", "Folds %", "{:.3f}", "voxels of the labelled region with det ∇φ ≤ 0"
    ),
    "ndv_percent": Measure(
        "ndv_percent", "mean", "NDV %", "{:.3f}", "non-diffeomorphic volume, relative to the labelled region"
    ),
    "sd_log_jacobian": Measure("sd_log_jacobian", "mean", "SD log|J|", "{:.2f}", "spread of the local volume change"),
    "correlation": Measure(
        "correlation",
        "mean",
        "Correlation",
        "{:.3f}",
        "between the fixed and the warped image; a good registration across contrasts may lower it",
    ),
    "true_error_mm": Measure(
        "true_error_mm",
        "mean",
        "True error mm",
        "{:.2f}",
        "distance to the known map at random points of the brain, mean ± SD over pairs",
        best="min",
        spread=True,
    ),
    "landmark_error_mm": Measure(
        "landmark_error_mm",
        "mean",
        "Landmark error mm",
        "{:.2f}",
        "distance between mapped and true landmarks, mean ± SD over pairs",
        best="min",
        spread=True,
    ),
}

#: Qualifies the distances, which leave out a label that one of the two maps lacks.
LABELS_LOST = Measure(
    "labels_lost",
    "mean",
    "Labels lost",
    "{:.2f}",
    "number of labels that only one of the two label maps has after warping, mean over pairs; such a label has Dice 0, "
    "and the distances leave it out",
)

#: Column of the summary → measure of cost; medians, because the first pair of a job loads kernels.
COST = {
    "seconds_load": Measure("seconds_load", "median", "Loading s", "{:.2f}", "reading the pair, median over pairs"),
    "seconds": Measure(
        "seconds_compute",
        "median",
        "Seconds per pair",
        "{:.2f}",
        "registration without reading and writing, median over pairs",
    ),
    "seconds_save": Measure("seconds_save", "median", "Saving s", "{:.2f}", "writing the field, median over pairs"),
    "cpu_seconds": Measure(
        "cpu_seconds",
        "median",
        "CPU s",
        "{:.2f}",
        "processor time of all threads, from reading to writing, median over pairs",
    ),
    "peak_memory_mb": Measure(
        "peak_memory_mb", "max", "Peak memory MB", "{:,.0f}", "from reading to writing, maximum over pairs"
    ),
}

#: Metrics in which every method is compared with the reference → heading, number format.
COMPARED = {
    "dice": ("Dice", "{:+.4f}"),
    "hd95_mm": ("HD95 mm", "{:+.3f}"),
    "true_error_mm": ("True error mm", "{:+.3f}"),
}


def summary(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """One row per method: over the pairs, the mean of each pair's mean Dice, and of every other measure.

    Parameters
    ----------
    rows : DataFrame
        Tidy rows of all methods.
    labels : DataFrame
        ``index name group``.
    order : sequence of str
        Methods in the order of the table.

    Returns
    -------
    DataFrame
        Indexed by method; columns ``dice_mean``, ``dice_sd`` (over pairs), ``dice_sd_structures`` (over all
        labels of all pairs), ``dice <group>`` for each group and ``dice <contrasts>`` for each kind of pair
        where there are several, ``labels_lost``, the columns of ``QUALITY`` and ``COST`` that have a value, and
        the number of ``failed`` and of other ``pairs``.
    """
    measured = set(rows["method"])
    table = pd.DataFrame(index=pd.Index([name for name in order if name in measured], name="method"))
    dice = rows[rows["metric"] == "dice"]
    of_pairs = _means_of_pairs(rows, "dice")
    by_method = of_pairs.groupby("method")
    table["dice_mean"], table["dice_sd"] = by_method.mean(), by_method.std(ddof=1)
    table["dice_sd_structures"] = dice.groupby("method")["value"].std(ddof=1)
    groups = labels.set_index("index")["group"]
    if groups.nunique() > 1:
        of_groups = dice.assign(group=dice["label"].map(groups)).groupby(["group", "method"])["value"].mean()
        for group in dict.fromkeys(groups):
            table[f"dice {group}"] = of_groups[group]
    contrasts = rows.drop_duplicates("pair").set_index("pair")["contrasts"]
    if contrasts.nunique() > 1:
        kinds = of_pairs.index.get_level_values("pair").map(contrasts.to_dict())
        for kind in dict.fromkeys(contrasts):
            table[f"dice {kind}"] = of_pairs[kinds == kind].groupby("method").mean()
    table["labels_lost"] = _labels_lost(rows).groupby("method").agg(LABELS_LOST.over)
    for column, measure in (QUALITY | COST).items():
        values = _means_of_pairs(rows, measure.metric)
        if values.notna().any():
            by_method = values.groupby("method")
            table[column] = by_method.agg(measure.over)
            if measure.spread:
                table[f"{column}_sd"] = by_method.std(ddof=1)
    failed = rows[rows["metric"] == "failed"].groupby("method")["value"].sum()
    for column, counts in (("failed", failed), ("pairs", dice.groupby("method")["pair"].nunique())):
        table[column] = counts.reindex(table.index, fill_value=0).astype(int)
    return table


def with_training(table: pd.DataFrame, trained: Mapping[str, Mapping]) -> pd.DataFrame:
    """Add the cost of training: ``training_seconds`` and ``parameters``, empty for methods without training."""
    table = table.copy()
    table["training_seconds"] = pd.Series({name: facts["seconds"] for name, facts in trained.items()}, dtype=float)
    table["parameters"] = pd.Series({name: facts["parameters"] for name, facts in trained.items()}, dtype=float)
    return table


def means_by_label(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str], metric: str) -> pd.DataFrame:
    """Mean of a metric over the pairs: one row per label (``index name group``), one column per method."""
    means = rows[rows["metric"] == metric].groupby(["label", "method"])["value"].mean().unstack()
    means = means[[name for name in order if name in means]]
    return labels.set_index("index").join(means).reset_index()


def reference_method(table: pd.DataFrame, methods: Mapping[str, str], wanted: str | None) -> str | None:
    """The method that the others are tested against.

    Parameters
    ----------
    table : DataFrame
        As from :func:`summary`.
    methods : mapping
        Name in the study → method.
    wanted : str, optional
        The study's choice.  Default: the method with the highest mean Dice among those that registered the most pairs,
        because a mean over few pairs, and tests on them, would say little.

    Returns
    -------
    str or None
        None if only identity and affine have registered a pair.
    """
    if wanted is not None:
        return wanted
    candidates = [name for name in table.index if methods.get(name, TRUTH) not in (*STARTING_POINTS, TRUTH)]
    found = table.loc[candidates].dropna(subset="dice_mean")
    return None if found.empty else found.loc[found["pairs"] == found["pairs"].max(), "dice_mean"].idxmax()


def comparisons(rows: pd.DataFrame, methods: Sequence[str], reference: str | None) -> pd.DataFrame:
    """Compare every method with the reference, by the pairs' means of each metric of ``COMPARED``.

    The mean of a pair is over the labels that have a value for both methods, so that a method does not benefit from
    losing a label, which then has no distance.

    Parameters
    ----------
    rows : DataFrame
        Tidy rows of all methods.
    methods : sequence of str
        In the order of the table.
    reference : str, optional
        As from :func:`reference_method`.

    Returns
    -------
    DataFrame
        ``metric method reference``, the fields of :class:`regcore.evaluation.statistics.PairedComparison`
        (differences are method minus reference; a pair that failed is dropped), and ``p_wilcoxon_holm`` and
        ``p_t_holm``, corrected over the methods of one metric.  Empty if the reference has no pair.
    """
    found = []
    for metric in COMPARED:
        values = rows[rows["metric"] == metric].pivot(index=["pair", "label"], columns="method", values="value")
        values = values.reindex(columns=list(methods))
        if reference not in values or values[reference].isna().all():
            continue
        for name in methods:
            if name != reference:
                of_both = values[[name, reference]].dropna().groupby("pair").mean().reindex(rows["pair"].unique())
                compared = paired_comparison(of_both[name], of_both[reference])
                found.append({"metric": metric, "method": name, "reference": reference} | asdict(compared))
    table = pd.DataFrame(found, columns=["metric", "method", "reference", *PairedComparison.__dataclass_fields__])
    for test in ("p_wilcoxon", "p_t"):
        table[f"{test}_holm"] = table.groupby("metric")[test].transform(_holm)
    return table


def reason_for_no_comparison(table: pd.DataFrame, reference: str | None, unavailable: Mapping[str, str]) -> str:
    """Why :func:`comparisons` is empty, as a sentence; ``unavailable``: methods that were not run, and why."""
    if reference is None:
        return "No method but identity and affine has registered a pair, so there is no reference to compare with."
    if reference in unavailable:
        return f"{reference}, the reference, was not run: {unavailable[reference]}"
    if reference not in table.index or not table.at[reference, "pairs"]:
        return f"The reference method, {reference}, has registered no pair."
    return f"{reference} is the only method, so there is nothing to compare it with."


def shown_measures(table: pd.DataFrame) -> dict[str, Measure]:
    """The measures besides Dice that :func:`formatted` shows, as far as a summary has them.

    These are the labels lost, if any method lost one, those of ``QUALITY``, and the seconds.
    """
    measures = QUALITY | {"seconds": COST["seconds"]}
    if "labels_lost" in table and (table["labels_lost"] > 0).any():
        measures = {"labels_lost": LABELS_LOST} | measures
    return {column: measure for column, measure in measures.items() if column in table}


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The summary with readable headings and numbers as text; empty where there is no value."""
    shown = pd.DataFrame(index=table.index)
    shown["Dice"] = number_texts(table["dice_mean"], "{:.3f}") + number_texts(table["dice_sd"], " ± {:.3f}")
    if table["failed"].any():
        shown["Failed"] = [
            f"{failed} of {failed + rest}" for failed, rest in zip(table["failed"], table["pairs"], strict=True)
        ]
    shown["Dice SD over structures"] = number_texts(table["dice_sd_structures"], "{:.3f}")
    for column in _parts_of_dice(table):
        shown[_heading(column)] = number_texts(table[column], "{:.3f}")
    for column, measure in shown_measures(table).items():
        shown[measure.heading] = number_texts(table[column], measure.number)
        if measure.spread:
            shown[measure.heading] += number_texts(table[f"{column}_sd"], f" ± {measure.number}")
    return shown


def formatted_cost(table: pd.DataFrame) -> pd.DataFrame:
    """The cost of registration and training as text, without methods of unknown cost."""
    shown = pd.DataFrame(index=table.index)
    for column, measure in COST.items():
        if column in table:
            shown[measure.heading] = number_texts(table[column], measure.number)
    if table["training_seconds"].notna().any():
        shown["Training"] = number_texts(table["training_seconds"] / 60, "{:.1f} min")
        shown["Parameters"] = number_texts(table["parameters"], "{:,.0f}")
    return shown[(shown != "").any(axis=1)]


def formatted_comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """The comparisons with readable headings and numbers as text."""
    shown = pd.DataFrame(index=table.index)
    shown["Method"] = table["method"]
    shown["Measure"] = [COMPARED[metric][0] for metric in table["metric"]]
    shown["Pairs"], shown["Dropped"] = table["n"].astype(str), table["dropped"].astype(str)
    numbers = [COMPARED[metric][1] for metric in table["metric"]]
    for heading, columns, form in (
        ("Mean difference", ["mean_difference"], "{}"),
        ("95 % CI", ["ci_low", "ci_high"], "{} to {}"),
    ):
        shown[heading] = [
            "" if pd.isna(values).any() else form.format(*map(number.format, values))
            for values, number in zip(table[columns].to_numpy(dtype=float), numbers, strict=True)
        ]
    for test, heading in (("p_wilcoxon", "p Wilcoxon"), ("p_t", "p t-test")):
        shown[heading] = number_texts(table[test], "{:.2g}")
        shown[f"{heading}, Holm"] = number_texts(table[f"{test}_holm"], "{:.2g}")
    return shown


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Place of every method, except the truth, in the columns of :func:`formatted` that have a best value.

    The best has place 1; equal values share a place.  Methods that registered fewer pairs than others have no place,
    because their means are over other pairs.
    """
    best = {"dice_mean": "max", **dict.fromkeys(_parts_of_dice(table), "max")}
    best |= {column: measure.best for column, measure in shown_measures(table).items() if measure.best}
    methods = table.drop(index=TRUTH, errors="ignore")
    rivals = methods[methods["pairs"] == methods["pairs"].max()]
    places = {
        _heading(column): rivals[column].rank(method="dense", ascending=which == "min")
        for column, which in best.items()
    }
    return pd.DataFrame(places).reindex(table.index)


def marks(compared: pd.DataFrame) -> dict[str, str]:
    """Method → its mark in ``MARKS``, by the corrected Wilcoxon test of its Dice against the reference."""
    of_dice = compared[compared["metric"] == "dice"]
    return {
        name: next((mark for limit, mark in MARKS.items() if p < limit), "")
        for name, p in zip(of_dice["method"], of_dice["p_wilcoxon_holm"], strict=True)
    }


def _means_of_pairs(rows: pd.DataFrame, metric: str) -> pd.Series:
    """By method and pair: the mean over labels, or the value of the pair."""
    return rows[rows["metric"] == metric].groupby(["method", "pair"])["value"].mean()


def _labels_lost(rows: pd.DataFrame) -> pd.Series:
    """By method and pair: the number of labels that one of the two label maps lacks (Dice 0, no distance)."""
    metrics = ["dice", "hd95_mm"]
    of_labels = rows[rows["metric"].isin(metrics)].pivot(
        index=["method", "pair", "label"], columns="metric", values="value"
    )
    of_labels = of_labels.reindex(columns=metrics)
    lost = (of_labels["dice"] == 0) & of_labels["hd95_mm"].isna()
    return lost.groupby(["method", "pair"]).sum()


def _holm(p_values: pd.Series) -> pd.Series:
    return pd.Series(holm(p_values), p_values.index)


def _parts_of_dice(table: pd.DataFrame) -> list[str]:
    """The columns with the Dice of one group of labels, or of the pairs of one kind."""
    return [column for column in table.columns if column.startswith("dice ")]


def _heading(column: str) -> str:
    """The heading of a column of the summary in :func:`formatted`."""
    if column in QUALITY:
        return QUALITY[column].heading
    return "Dice" if column == "dice_mean" else f"Dice {column.removeprefix('dice ')}"
