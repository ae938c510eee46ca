"""From tidy metric rows to the tables of a report."""

from collections.abc import Mapping, Sequence

import pandas as pd

#: Column of the summary → metric, number format, what it says.
MEASURES = {
    "folds_percent": ("Folds %", "{:.3f}", "voxels of the labelled region with det ∇φ ≤ 0"),
    "sd_log_jacobian": ("SD log|J|", "{:.2f}", "spread of the local volume change"),
    "true_error_mm": ("True error mm", "{:.2f}", "distance to the known map at random points of the brain"),
    "landmark_error_mm": ("Landmark error mm", "{:.2f}", "distance between mapped and true landmarks"),
    "seconds_register": ("Seconds per pair", "{:.2f}", "registration alone, without reading and writing"),
}


def summary(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """One row per method: means over the pairs, and the SD over the pairs of each pair's mean Dice.

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
        Indexed by method; columns ``dice_mean dice_sd``, ``dice <group>`` for each group, and the metrics
        of ``MEASURES`` that occur.
    """
    dice = rows[rows["metric"] == "dice"]
    per_pair = dice.groupby(["method", "pair"])["value"].mean().groupby("method")
    table = pd.DataFrame({"dice_mean": per_pair.mean(), "dice_sd": per_pair.std(ddof=1)})
    groups = labels.set_index("index")["group"]
    if groups.nunique() > 1:
        grouped = dice.assign(group=dice["label"].map(groups)).groupby(["method", "group"])["value"].mean().unstack()
        for group in dict.fromkeys(groups):
            table[f"dice {group}"] = grouped[group]
    for metric in MEASURES:
        values = rows[rows["metric"] == metric]
        if len(values):
            table[metric] = values.groupby("method")["value"].mean()
    table["pairs"] = dice.groupby("method")["pair"].nunique()
    return table.reindex([name for name in order if name in table.index])


def with_training(table: pd.DataFrame, trained: Mapping[str, Mapping]) -> pd.DataFrame:
    """Add what training cost: ``training_seconds`` and ``parameters``, empty for methods without one."""
    table = table.copy()
    table["training_seconds"] = pd.Series({name: facts["seconds"] for name, facts in trained.items()}, dtype=float)
    table["parameters"] = pd.Series({name: facts["parameters"] for name, facts in trained.items()}, dtype=float)
    return table


def dice_by_label(rows: pd.DataFrame, labels: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Mean Dice over the pairs: one row per label (``index name group``), one column per method."""
    dice = rows[rows["metric"] == "dice"]
    means = dice.groupby(["label", "method"])["value"].mean().unstack()
    means = means[[name for name in order if name in means]]
    return labels.set_index("index").join(means).reset_index()


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The summary with readable headings and numbers as text; nothing where a value does not exist."""
    shown = pd.DataFrame(index=table.index)
    spread = table["dice_sd"].map(lambda sd: "" if pd.isna(sd) else f" ± {sd:.3f}")
    shown["Dice"] = table["dice_mean"].map("{:.3f}".format) + spread
    for column in table:
        if column.startswith("dice "):
            shown[f"Dice {column.removeprefix('dice ')}"] = table[column].map("{:.3f}".format)
    for metric, (heading, number, _) in MEASURES.items():
        if metric in table:
            shown[heading] = [_text(value, number) for value in table[metric]]
    if "training_seconds" in table:
        shown["Training"] = [_text(value / 60, "{:.1f} min") for value in table["training_seconds"]]
        shown["Parameters"] = [_text(value, "{:,.0f}") for value in table["parameters"]]
    return shown


def _text(value: float, number: str) -> str:
    return "" if pd.isna(value) else number.format(value)
