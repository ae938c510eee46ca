"""Methods trained from several random starts: how much of a difference between two trainings is chance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from regcore.evaluation.statistics import PairedComparison, paired_comparison
from regcore.reporting.text import number_texts

OVER_REFERENCE = "Points over the reference (95 % CI)"


def over_starts(rows: pd.DataFrame, groups: Mapping[str, Sequence[str]], reference: str | None) -> pd.DataFrame:
    """Dice of methods trained from several random starts, and of each pair's mean over them.

    Parameters
    ----------
    rows : DataFrame
        Tidy rows of all methods: ``method pair label metric value``.
    groups : mapping of str → sequence of str
        Name → its methods, at least one, which differ only in their random start.
    reference : str, optional
        Name that the others are compared with.

    Returns
    -------
    DataFrame
        ``method starts dice_mean dice_sd_starts dice_sd_pairs``: the SD over starts is that of each start's mean over
        pairs (NaN for one start), the SD over pairs that of each pair's mean over starts.  Then ``reference`` and the
        fields of :class:`regcore.evaluation.statistics.PairedComparison` on these means of pairs.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.starts import over_starts
    >>> dice = {"syn": (0.5, 0.6), "vm-1": (0.6, 0.8), "vm-2": (0.7, 0.9)}
    >>> rows = [(name, pair, value) for name, values in dice.items() for pair, value in zip("ab", values)]
    >>> rows = pd.DataFrame(rows, columns=["method", "pair", "value"]).assign(label=1, metric="dice")
    >>> table = over_starts(rows, {"syn": ["syn"], "vm": ["vm-1", "vm-2"]}, reference="syn")
    >>> table[["method", "starts", "dice_mean", "dice_sd_starts", "mean_difference"]].round(2)
      method  starts  dice_mean  dice_sd_starts  mean_difference
    0    syn       1       0.55             NaN              NaN
    1     vm       2       0.75            0.07              0.2
    """
    dice = rows[rows["metric"] == "dice"].pivot_table(index="pair", columns="method", values="value")
    of_pairs = {name: dice.reindex(columns=list(methods)).mean(axis=1) for name, methods in groups.items()}
    found = []
    for name, methods in groups.items():
        compared = asdict(paired_comparison(of_pairs[name], of_pairs[reference])) if reference in of_pairs else {}
        found.append(
            {
                "method": name,
                "starts": len(methods),
                "dice_mean": of_pairs[name].mean(),
                "dice_sd_starts": dice.reindex(columns=list(methods)).mean().std(ddof=1),
                "dice_sd_pairs": of_pairs[name].std(ddof=1),
                "reference": reference,
                **({} if name == reference else compared),
            }
        )
    columns = ["method", "starts", "dice_mean", "dice_sd_starts", "dice_sd_pairs", "reference"]
    return pd.DataFrame(found, columns=[*columns, *PairedComparison.__dataclass_fields__])


def over_starts_formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table of random starts with readable headings and numbers as text.

    Parameters
    ----------
    table : DataFrame
        As from :func:`over_starts`.

    Returns
    -------
    DataFrame of str
        One row per name; empty cells where there is no value.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.starts import over_starts, over_starts_formatted
    >>> dice = {"syn": (0.5, 0.6), "vm-1": (0.6, 0.8), "vm-2": (0.7, 0.9)}
    >>> rows = [(name, pair, value) for name, values in dice.items() for pair, value in zip("ab", values)]
    >>> rows = pd.DataFrame(rows, columns=["method", "pair", "value"]).assign(label=1, metric="dice")
    >>> table = over_starts(rows, {"syn": ["syn"], "vm": ["vm-1", "vm-2"]}, reference="syn")
    >>> over_starts_formatted(table)[["Method", "Starts", "Dice", "SD of starts"]].values.tolist()
    [['syn', '1', '0.5500', ''], ['vm', '2', '0.7500', '0.0707']]
    """
    points = [
        "" if pd.isna(mean) else f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
        for mean, low, high in zip(table["mean_difference"], table["ci_low"], table["ci_high"], strict=True)
    ]
    return pd.DataFrame(
        {
            "Method": table["method"],
            "Starts": table["starts"].astype(str),
            "Dice": table["dice_mean"].map("{:.4f}".format),
            "SD of starts": number_texts(table["dice_sd_starts"], "{:.4f}"),
            "SD of pairs": number_texts(table["dice_sd_pairs"], "{:.4f}"),
            OVER_REFERENCE: points,
            "p Wilcoxon": number_texts(table["p_wilcoxon"], "{:.2g}"),
        }
    )
