"""The verdicts on a study's registrations, from its tidy rows."""

import pandas as pd

from regcore.evaluation.evaluate import VERDICT
from regcore.evaluation.verdict import LEVELS, OK, judge
from regcore.study.checks import TRUTH

COLUMNS = ["method", "pair", "level", "risk", "reasons"]


def verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    """The verdict on each registration, the worst first.

    Parameters
    ----------
    rows : DataFrame
        Tidy rows of all methods.

    Returns
    -------
    DataFrame
        Columns ``method pair level risk reasons``; without pairs that have no field, and the true field.
    """
    measures = rows[rows["metric"].str.startswith(VERDICT) & (rows["method"] != TRUTH)]
    measures = measures.assign(metric=measures["metric"].str.removeprefix(VERDICT))
    found = []
    for (method, pair), values in measures.groupby(["method", "pair"], sort=False):
        verdict = judge(dict(zip(values["metric"], values["value"], strict=True)))
        found.append((method, pair, verdict.level, verdict.risk, "; ".join(verdict.reasons)))
    table = pd.DataFrame(found, columns=COLUMNS)
    return table.sort_values("risk", ascending=False, kind="stable", ignore_index=True)


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Number of pairs of each level, by method, in the order of the methods in a table of :func:`verdicts`."""
    by_level = table.groupby(["method", "level"]).size().unstack(fill_value=0)
    return by_level.reindex(columns=list(LEVELS), fill_value=0)


def in_question(table: pd.DataFrame) -> pd.DataFrame:
    """The registrations that are not ok, of a table of :func:`verdicts`."""
    return table[table["level"] != OK]
