"""Tidy rows with known values."""

import numpy as np
import pandas as pd
import pytest
from support.scored_rows import COLUMNS, ENTRIES, FAILED, LABELS, OFFSETS, PAIRS


@pytest.fixture
def rows():
    """Two methods, two pairs, three labels; b scores 0.5 less with the second method."""
    entries = []
    for method, offset in (("syn", 0.0), ("affine", -0.5)):
        for pair, base in (("p", 0.9), ("q", 0.7)):
            values = [(label, "dice", base + (offset if label == 3 else 0)) for label in (1, 2, 3)]
            values.append((-1, "folds_percent", 0.1 if pair == "p" else 0.3))
            values += [(-1, "seconds_compute", 2.0), (-1, "failed", 0.0)]
            entries += [(method, pair, "T1w to T1w", *value) for value in values]
    return pd.DataFrame(entries, columns=COLUMNS)


@pytest.fixture
def study_rows():
    """Fifteen pairs of two kinds; identity is worse in each, demons about as good as syn; see ``FAILED``."""
    generator = np.random.default_rng(0)
    entries = []
    for method in ENTRIES:
        for number, pair in enumerate(PAIRS):
            failed = pair in FAILED.get(method, [])
            values = [(-1, "failed", float(failed))]
            if not failed:
                dice = 0.7 + OFFSETS[method] + generator.normal(0, 0.02, len(LABELS))
                values += [(label, "dice", value) for label, value in zip(LABELS["index"], dice, strict=True)]
                values += [
                    (label, "hd95_mm", np.nan if label == 3 else 10 - 8 * dice[label - 1]) for label in (1, 2, 3)
                ]
                values += [(-1, "true_error_mm", generator.uniform(1, 2)), (-1, "ndv_percent", 0.25)]
                values += [(-1, "verdict_folds_percent", 0.0), (-1, "verdict_coverage", 1.0)]
                if method != "truth":
                    values += [(-1, "seconds_compute", 100.0 if number == 0 else 1.0 + number / 100)]
                    values += [(-1, "seconds_load", 0.5), (-1, "peak_memory_mb", 1000.0 + number)]
            kind = "T1w to T1w" if number < 5 else "T2w to T1w"
            entries += [(method, pair, kind, *value) for value in values]
    return pd.DataFrame(entries, columns=COLUMNS)
