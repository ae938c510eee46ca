"""Reading what a study has written."""

import pandas as pd

from regcore.cohort.labels import scored_labels
from regcore.study.plan import Plan


def labels_in(plan: Plan, rows: pd.DataFrame) -> pd.DataFrame:
    """The scored labels that have Dice among the rows: ``index name group``."""
    return scored_labels(set(rows.loc[rows["metric"] == "dice", "label"]), plan.settings.labels, plan.label_table)
