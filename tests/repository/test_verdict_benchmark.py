"""``benchmarks/verdict.py``: the limits of the verdict are those that the committed rows of ``train`` give."""

import importlib
import sys

import numpy as np
import pandas as pd
import pytest
from support.paths import ROOT

from regcore.evaluation.verdict import LIMITS

sys.path.append(str(ROOT / "benchmarks"))  # it is no package

benchmark = importlib.import_module("verdict")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return benchmark.with_verdicts(pd.read_csv(benchmark.OUTPUT / "registrations.csv"))


def test_the_limits_are_those_that_the_right_registrations_of_train_give(rows):
    found = benchmark.chosen(rows)
    assert {limit.measure: (limit.doubtful, limit.failed) for limit in LIMITS} == {
        measure: (limits["doubtful"], limits["failed"]) for measure, limits in found.iterrows()
    }


def test_limits_do_not_see_test_nor_wrong_registrations(rows):
    unseen = (rows["split"] == "test") | rows["wrong"]
    spoiled = rows.assign(wrong_poses_z=rows["wrong_poses_z"].where(~unseen, -100.0))
    pd.testing.assert_frame_equal(benchmark.chosen(rows), benchmark.chosen(spoiled))
    spoiled = rows.assign(wrong_poses_z=rows["wrong_poses_z"].where(unseen, -100.0))
    assert benchmark.chosen(spoiled).loc["wrong_poses_z", "doubtful"] == -100


def test_no_limit_is_nearer_to_what_is_good_than_the_least(rows):
    good = {limit.measure: limit.good for limit in LIMITS}
    untouched = rows.assign(**{measure: good[measure] for measure in benchmark.LEAST})
    found = benchmark.chosen(untouched)
    for measure, least in benchmark.LEAST.items():
        assert tuple(found.loc[measure]) == least


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.3141, 0.32), (-4.86, -4.8), (12.3, 13), (0.5, 0.5), (-0.036, -0.036)]
)
def test_rounding_is_to_two_digits_and_outwards(value, rounded):
    assert benchmark.rounded_up(value) == rounded


def test_area_under_the_curve_is_the_chance_that_a_wrong_one_has_the_higher_risk():
    risk, wrong = np.array([0.1, 0.9, 0.5, 2.0, 0.5]), np.array([False, False, False, True, True])
    assert benchmark.auc(risk, wrong) == pytest.approx((3 + 1.5) / 6)


def test_rates_count_levels():
    rows = pd.DataFrame(
        {
            "wrong": [False, False, True, True],
            "level": ["ok", "failed", "doubtful", "failed"],
            "risk": [0.2, 2.5, 1.5, 3.0],
        }
    )
    found = benchmark.rates(rows)
    assert (found["right called ok"], found["right called failed"]) == ("50.0 %", "50.0 %")
    assert (found["wrong not called ok"], found["wrong called failed"]) == ("100.0 %", "50.0 %")
    assert found["AUC"] == "0.750"
