"""Methods trained from several random starts."""

import numpy as np
import pandas as pd
import pytest

from regcore.reporting.starts import over_starts


def test_starts_are_averaged_before_they_are_compared():
    """The mean over two starts of each pair; a method of one start has no spread of starts."""
    base = np.random.default_rng(0).uniform(0.5, 0.9, 10)
    gains = {"a": 0, "b": 0.01, "b-2": 0.03}
    rows = [
        {"pair": f"p{n}", "label": label, "metric": "dice", "method": name, "value": value + gain + 0.02 * label}
        for name, gain in gains.items()
        for n, value in enumerate(base)
        for label in (-1, 1)
    ]
    table = over_starts(pd.DataFrame(rows), {"a": ["a"], "b": ["b", "b-2"]}, "a").set_index("method")
    assert table.at["b", "dice_mean"] == pytest.approx(base.mean() + 0.02)
    assert table.at["b", "dice_sd_starts"] == pytest.approx(0.02 / 2**0.5) and np.isnan(table.at["a", "dice_sd_starts"])
    assert table.at["b", "dice_sd_pairs"] == pytest.approx(base.std(ddof=1))
    assert table.at["b", "mean_difference"] == pytest.approx(0.02) and np.isnan(table.at["a", "mean_difference"])
    assert table.at["b", "p_wilcoxon"] == pytest.approx(2 / 2**10)
