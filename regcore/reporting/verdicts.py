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
        Tidy rows of all methods: ``method pair metric value``; the metrics of verdicts begin with ``verdict_``.

    Returns
    -------
    DataFrame
        Columns ``method pair level risk reasons``; without pairs that have no field, and the true field.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.verdicts import verdicts
    >>> rows = pd.DataFrame({"method": "syn", "pair": ["a", "b"], "metric": "verdict_folds_percent", "value": [0, 50]})
    >>> verdicts(rows)[["pair", "level"]]
      pair   level
    0    b  failed
    1    a      ok
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
    """Number of pairs of each level.

    Parameters
    ----------
    table : DataFrame
        As from :func:`verdicts`.

    Returns
    -------
    DataFrame of int
        One row per method; columns ``ok doubtful failed``.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.verdicts import counts
    >>> counts(pd.DataFrame({"method": "syn", "level": ["failed", "ok", "ok"]})).loc["syn"].to_dict()
    {'ok': 2, 'doubtful': 0, 'failed': 1}
    """
    by_level = table.groupby(["method", "level"]).size().unstack(fill_value=0)
    return by_level.reindex(columns=list(LEVELS), fill_value=0)


def in_question(table: pd.DataFrame) -> pd.DataFrame:
    """The registrations that are not ok.

    Parameters
    ----------
    table : DataFrame
        As from :func:`verdicts`.

    Returns
    -------
    DataFrame
        These rows of the table.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.verdicts import in_question
    >>> in_question(pd.DataFrame({"pair": ["b", "a"], "level": ["failed", "ok"]}))["pair"].tolist()
    ['b']
    """
    return table[table["level"] != OK]
