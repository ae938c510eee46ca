"""Which method the others are compared with, and how much they differ from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from regcore.evaluation.statistics import PairedComparison, holm, paired_comparison
from regcore.study.checks import TRUTH

#: Methods that are the reference of the tests only if the study asks for it.
STARTING_POINTS = ("identity", "affine")

#: Corrected p-value below which a method's Dice is marked → mark, the strictest first.
MARKS = {0.001: "**", 0.01: "*"}

#: Metrics in which every method is compared with the reference → heading, number format.
COMPARED = {
    "dice": ("Dice", "{:+.4f}"),
    "hd95_mm": ("HD95 mm", "{:+.3f}"),
    "true_error_mm": ("True error mm", "{:+.3f}"),
}


def reference_method(table: pd.DataFrame, methods: Mapping[str, str], wanted: str | None) -> str | None:
    """The method that the others are tested against.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.summaries.summary`.
    methods : mapping of str → str
        Name in the study → method.
    wanted : str, optional
        The study's choice.  Default: the method with the highest mean Dice among those that registered the most pairs,
        because a mean over few pairs, and tests on them, would say little.

    Returns
    -------
    str or None
        None if only identity and affine have registered a pair.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.comparisons import reference_method
    >>> table = pd.DataFrame({"dice_mean": [0.9, 0.7, 0.8], "pairs": [2, 10, 10]}, index=["lucky", "syn", "demons"])
    >>> reference_method(table, {"lucky": "syn", "syn": "syn", "demons": "demons"}, wanted=None)
    'demons'
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
        Tidy rows of all methods: ``method pair label metric value``, with label -1 where a value is of a whole pair.
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

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.comparisons import comparisons
    >>> dice = [("syn", "a", 0.8), ("syn", "b", 0.6), ("affine", "a", 0.5), ("affine", "b", 0.4)]
    >>> rows = pd.DataFrame(dice, columns=["method", "pair", "value"]).assign(label=1, metric="dice")
    >>> comparisons(rows, ["affine", "syn"], reference="syn")[["metric", "method", "n", "mean_difference"]]
      metric  method  n  mean_difference
    0   dice  affine  2            -0.25
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
    """Why :func:`comparisons` is empty, as a sentence.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.summaries.summary`.
    reference : str, optional
        As from :func:`reference_method`.
    unavailable : mapping of str → str
        Method that was not run → the reason.

    Returns
    -------
    str

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.comparisons import reason_for_no_comparison
    >>> table = pd.DataFrame({"pairs": [0, 10]}, index=["greedy", "syn"])
    >>> reason_for_no_comparison(table, "greedy", unavailable={})
    'The reference method, greedy, has registered no pair.'
    """
    if reference is None:
        return "No method but identity and affine has registered a pair, so there is no reference to compare with."
    if reference in unavailable:
        return f"{reference}, the reference, was not run: {unavailable[reference]}"
    if reference not in table.index or not table.at[reference, "pairs"]:
        return f"The reference method, {reference}, has registered no pair."
    return f"{reference} is the only method, so there is nothing to compare it with."


def marks(compared: pd.DataFrame) -> dict[str, str]:
    """The marks of methods whose Dice differs from that of the reference.

    Parameters
    ----------
    compared : DataFrame
        As from :func:`comparisons`.

    Returns
    -------
    dict of str → str
        Method → its mark in ``MARKS``, by the corrected Wilcoxon test; empty text if it does not differ.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.comparisons import marks
    >>> tests = {"metric": "dice", "method": ["affine", "demons", "greedy"], "p_wilcoxon_holm": [1e-5, 0.004, 0.3]}
    >>> marks(pd.DataFrame(tests))
    {'affine': '**', 'demons': '*', 'greedy': ''}
    """
    of_dice = compared[compared["metric"] == "dice"]
    return {
        name: next((mark for limit, mark in MARKS.items() if p < limit), "")
        for name, p in zip(of_dice["method"], of_dice["p_wilcoxon_holm"], strict=True)
    }


def _holm(p_values: pd.Series) -> pd.Series:
    return pd.Series(holm(p_values), p_values.index)
