"""Tables of results as people see them: readable headings, numbers as text, places."""

import pandas as pd

from regcore.reporting.comparisons import COMPARED
from regcore.reporting.measures import COST, QUALITY, shown_measures
from regcore.reporting.text import number_texts
from regcore.study.checks import TRUTH


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The summary with readable headings and numbers as text.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.summaries.summary`.

    Returns
    -------
    DataFrame of str
        One row per method; empty cells where there is no value.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.formatting import formatted
    >>> numbers = {"dice_mean": 0.8123, "dice_sd": 0.0214, "dice_sd_structures": 0.1, "failed": 1, "pairs": 9}
    >>> formatted(pd.DataFrame([numbers], index=["syn"])).loc["syn"].to_dict()
    {'Dice': '0.812 ± 0.021', 'Failed': '1 of 10', 'Dice SD over structures': '0.100'}
    """
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
    """The cost of registration and training as text.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.summaries.with_training`.

    Returns
    -------
    DataFrame of str
        One row per method whose cost is known.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.formatting import formatted_cost
    >>> costs = {"seconds": [2.0, float("nan")], "training_seconds": [90, float("nan")], "parameters": [1000, None]}
    >>> formatted_cost(pd.DataFrame(costs, index=["voxelmorph", "imported"])).T
                     voxelmorph
    Seconds per pair       2.00
    Training            1.5 min
    Parameters            1,000
    """
    shown = pd.DataFrame(index=table.index)
    for column, measure in COST.items():
        if column in table:
            shown[measure.heading] = number_texts(table[column], measure.number)
    if table["training_seconds"].notna().any():
        shown["Training"] = number_texts(table["training_seconds"] / 60, "{:.1f} min")
        shown["Parameters"] = number_texts(table["parameters"], "{:,.0f}")
    return shown[(shown != "").any(axis=1)]


def formatted_comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """The comparisons with readable headings and numbers as text.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.comparisons.comparisons`.

    Returns
    -------
    DataFrame of str
        One row per method and metric; empty cells where there is no value.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.comparisons import comparisons
    >>> from regcore.reporting.formatting import formatted_comparisons
    >>> dice = [("syn", "a", 0.8), ("syn", "b", 0.6), ("affine", "a", 0.5), ("affine", "b", 0.4)]
    >>> rows = pd.DataFrame(dice, columns=["method", "pair", "value"]).assign(label=1, metric="dice")
    >>> shown = formatted_comparisons(comparisons(rows, ["affine", "syn"], "syn"))
    >>> shown[["Method", "Measure", "Pairs", "Mean difference"]]
       Method Measure Pairs Mean difference
    0  affine    Dice     2         -0.2500
    """
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

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.summaries.summary`.

    Returns
    -------
    DataFrame of float
        One row per method; NaN for methods without a place.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.formatting import ranks
    >>> table = pd.DataFrame({"dice_mean": [0.5, 0.8, 0.9], "pairs": [10, 10, 2]}, index=["affine", "syn", "lucky"])
    >>> ranks(table)["Dice"].to_dict()
    {'affine': 2.0, 'syn': 1.0, 'lucky': nan}
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


def _parts_of_dice(table: pd.DataFrame) -> list[str]:
    """The columns with the Dice of one group of labels, or of the pairs of one kind."""
    return [column for column in table.columns if column.startswith("dice ")]


def _heading(column: str) -> str:
    """The heading of a column of the summary in :func:`formatted`."""
    if column in QUALITY:
        return QUALITY[column].heading
    return "Dice" if column == "dice_mean" else f"Dice {column.removeprefix('dice ')}"
