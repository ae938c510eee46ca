"""Names of a small study's methods, pairs and labels, and what its tidy rows say."""

import numpy as np
import pandas as pd

LABELS = pd.DataFrame({"index": [1, 2, 3], "name": ["left-a", "right-a", "b"], "group": ["x", "x", "y"]})
COLUMNS = ["method", "pair", "contrasts", "label", "metric", "value"]
METHODS = {"identity": "identity", "syn": "syn", "demons": "demons", "broken": "syn"}
ENTRIES = [*METHODS, "truth"]
PAIRS = [f"p{number:02d}" for number in range(1, 16)]
FAILED = {"broken": PAIRS, "demons": ["p04"]}
OFFSETS = {"identity": -0.2, "syn": 0.0, "demons": 0.002, "truth": 0.05}


def lose(rows, method, pairs, label):
    """Let a method push a label out of the image in some pairs."""
    lost = (rows["method"] == method) & rows["pair"].isin(pairs) & (rows["label"] == label)
    rows.loc[lost & (rows["metric"] == "dice"), "value"] = 0.0
    rows.loc[lost & (rows["metric"] == "hd95_mm"), "value"] = np.nan


def of_pairs(rows, metric, method):
    """Each pair's mean over labels of one method, by hand."""
    chosen = rows[(rows["metric"] == metric) & (rows["method"] == method)]
    return {pair: np.nanmean(part["value"]) for pair, part in chosen.groupby("pair")}
