"""Tables as people see them: numbers as text, places, and only what is known."""

import pandas as pd
import pytest
from support.scored_rows import ENTRIES, LABELS, METHODS, PAIRS, lose

from regcore.reporting.comparisons import comparisons
from regcore.reporting.formatting import formatted, formatted_comparisons, formatted_cost, ranks
from regcore.reporting.page import cost_html
from regcore.reporting.summaries import summary, with_training


def test_the_labels_lost_are_shown_where_a_method_lost_one(study_rows):
    table = summary(study_rows, LABELS, ENTRIES)
    assert "Labels lost" not in formatted(table)
    lose(study_rows, "demons", PAIRS[:3], 2)
    shown = formatted(summary(study_rows, LABELS, ENTRIES))
    assert shown["Labels lost"].to_dict() == {
        "identity": "0.00",
        "syn": "0.00",
        "demons": "0.21",
        "broken": "",
        "truth": "0.00",
    }


def test_people_see_numbers_as_text_and_nothing_where_there_is_nothing(rows):
    table = with_training(summary(rows, LABELS, ["syn", "affine"]), {"syn": {"seconds": 90, "parameters": 100242}})
    shown, cost = formatted(table), formatted_cost(table)
    assert shown.loc["syn", "Dice"] == "0.800 ± 0.141"
    assert shown.loc["syn", "Dice SD over structures"] == "0.110"
    assert "Failed" not in shown
    assert cost.loc["syn"].to_dict() == {"Seconds per pair": "2.00", "Training": "1.5 min", "Parameters": "100,242"}
    assert cost.loc["affine", "Training"] == "" == cost.loc["affine", "Parameters"]


def test_costs_leave_out_what_is_not_known(study_rows):
    table = with_training(summary(study_rows, LABELS, ENTRIES), {})
    shown = formatted_cost(table)
    assert list(shown.index) == ["identity", "syn", "demons"]
    assert list(shown) == ["Loading s", "Seconds per pair", "Peak memory MB"]
    assert shown.loc["syn", "Peak memory MB"] == "1,014"
    free = study_rows[~study_rows["metric"].str.contains("seconds|memory")]
    assert cost_html(with_training(summary(free, LABELS, ENTRIES), {})) == ""


def test_only_methods_with_the_most_pairs_are_ranked(study_rows):
    table = summary(study_rows, LABELS, ENTRIES)
    table.loc["demons", ["dice_mean", "hd95_mm"]] = [0.99, 0.1]
    places = ranks(table)
    assert places.loc[["demons", "broken", "truth"]].isna().all(axis=None), "demons failed on a pair"
    assert places["Dice"].dropna().to_dict() == {"syn": 1, "identity": 2}
    table = summary(study_rows[study_rows["pair"] != "p04"], LABELS, ENTRIES)
    assert ranks(table)["Dice"].dropna().index.to_list() == ["identity", "syn", "demons"]


def test_no_correlation_is_best(study_rows):
    correlations = study_rows[study_rows["metric"] == "failed"].assign(metric="correlation", value=0.9)
    table = summary(pd.concat([study_rows, correlations]), LABELS, ENTRIES)
    assert "Correlation" in formatted(table) and "Correlation" not in ranks(table)


def test_people_see_the_sign_and_the_interval_of_a_difference(study_rows):
    compared = comparisons(study_rows, list(METHODS), "syn")
    shown = formatted_comparisons(compared)
    assert shown.loc[0, ["Method", "Measure", "Pairs", "Dropped"]].to_list() == ["identity", "Dice", "15", "0"]
    assert shown.loc[0, "Mean difference"] == f"{compared.loc[0, 'mean_difference']:.4f}" and compared.loc[0, "n"] == 15
    assert shown.loc[0, "95 % CI"] == f"{compared.loc[0, 'ci_low']:.4f} to {compared.loc[0, 'ci_high']:.4f}"
    assert float(shown.loc[0, "p Wilcoxon, Holm"]) == pytest.approx(compared.loc[0, "p_wilcoxon_holm"], rel=0.05)
    assert set(shown[shown["Method"] == "broken"].loc[2].drop(["Method", "Measure", "Pairs", "Dropped"])) == {""}
