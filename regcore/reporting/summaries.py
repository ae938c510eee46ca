"""From tidy metric rows to numbers: one row for each method, or for each label."""

from collections.abc import Mapping, Sequence

import pandas as pd

from regcore.reporting.measures import COST, LABELS_LOST, QUALITY


def summary(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """One row per method: over the pairs, the mean of each pair's mean Dice, and of every other measure.

    Parameters
    ----------
    rows : DataFrame
        Tidy rows of all methods: ``method pair contrasts label metric value``, with label -1 where a value is of a
        whole pair.
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

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.summaries import summary
    >>> dice = [("syn", "a", 0.8), ("syn", "b", 0.6), ("affine", "a", 0.5), ("affine", "b", 0.4)]
    >>> rows = pd.DataFrame(dice, columns=["method", "pair", "value"])
    >>> rows = rows.assign(contrasts="T1w to T1w", label=1, metric="dice")
    >>> labels = pd.DataFrame({"index": [1], "name": ["thalamus"], "group": ["all"]})
    >>> table = summary(rows, labels, order=["affine", "syn"])
    >>> table["dice_mean"].round(2).to_dict(), table["pairs"].to_dict()
    ({'affine': 0.45, 'syn': 0.7}, {'affine': 2, 'syn': 2})
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
    """Add the cost of training to a summary.

    Parameters
    ----------
    table : DataFrame
        As from :func:`summary`.
    trained : mapping of str → mapping
        Method → its ``seconds`` of training and its number of ``parameters``; only methods that learn.

    Returns
    -------
    DataFrame
        The table with the columns ``training_seconds`` and ``parameters``, NaN for methods without training.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.summaries import with_training
    >>> table = pd.DataFrame({"dice_mean": [0.5, 0.8]}, index=["affine", "voxelmorph"])
    >>> with_training(table, {"voxelmorph": {"seconds": 90, "parameters": 1000}})["training_seconds"].to_dict()
    {'affine': nan, 'voxelmorph': 90.0}
    """
    table = table.copy()
    table["training_seconds"] = pd.Series({name: facts["seconds"] for name, facts in trained.items()}, dtype=float)
    table["parameters"] = pd.Series({name: facts["parameters"] for name, facts in trained.items()}, dtype=float)
    return table


def means_by_label(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str], metric: str) -> pd.DataFrame:
    """Mean of a metric of labels over the pairs.

    Parameters
    ----------
    rows : DataFrame
        As for :func:`summary`.
    labels : DataFrame
        ``index name group``.
    order : sequence of str
        Methods in the order of the columns.
    metric : str
        Such as ``dice``.

    Returns
    -------
    DataFrame
        One row per label: ``index name group``, and a column for each method that has a value of the metric.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.summaries import means_by_label
    >>> rows = pd.DataFrame({"method": "syn", "label": [1, 1, 2], "metric": "dice", "value": [0.5, 0.75, 0.25]})
    >>> labels = pd.DataFrame({"index": [1, 2], "name": ["thalamus", "fornix"], "group": "all"})
    >>> means_by_label(rows, labels, ["syn"], "dice")
       index      name group    syn
    0      1  thalamus   all  0.625
    1      2    fornix   all  0.250
    """
    means = rows[rows["metric"] == metric].groupby(["label", "method"])["value"].mean().unstack()
    means = means[[name for name in order if name in means]]
    return labels.set_index("index").join(means).reset_index()


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
