"""The reference, the comparisons with it, and their marks, from tidy rows with known values."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.scored_rows import ENTRIES, LABELS, METHODS, PAIRS, lose, of_pairs

from regcore.reporting.comparisons import comparisons, marks, reason_for_no_comparison, reference_method
from regcore.reporting.summaries import summary


def test_the_reference_is_the_best_method_or_the_one_asked_for(study_rows):
    table = summary(study_rows, LABELS, ENTRIES)
    table.loc["identity", "dice_mean"] = 0.99
    assert (
        table["dice_mean"].idxmax() == "identity" and table.loc["demons", "dice_mean"] > table.loc["syn", "dice_mean"]
    )
    assert reference_method(table.assign(pairs=15), METHODS, None) == "demons"
    assert reference_method(table, METHODS, None) == "syn", "demons failed on a pair"
    assert reference_method(table, METHODS, "identity") == "identity"
    assert reference_method(table, {"identity": "identity", "syn": "affine"}, None) is None
    assert reference_method(table.loc[["broken", "truth"]], METHODS, None) is None


def test_comparisons_are_paired_and_corrected_by_metric(study_rows):
    table = comparisons(study_rows, list(METHODS), "syn")
    assert set(table["metric"]) == {"dice", "hd95_mm", "true_error_mm"}
    for metric, part in table.groupby("metric"):
        assert list(part["method"]) == ["identity", "demons", "broken"] and set(part["reference"]) == {"syn"}
        part, ours = part.set_index("method"), of_pairs(study_rows, metric, "syn")
        for test, expected in (("p_wilcoxon", stats.wilcoxon), ("p_t", lambda d: stats.ttest_1samp(d, 0))):
            found = {}
            for name in ("identity", "demons"):
                theirs = of_pairs(study_rows, metric, name)
                differences = np.array([theirs[pair] - ours[pair] for pair in theirs])
                found[name] = expected(differences).pvalue
                assert part.loc[name, "mean_difference"] == pytest.approx(differences.mean())
                assert part.loc[name, "ci_low"] < differences.mean() < part.loc[name, "ci_high"]
                assert part.loc[name, test] == pytest.approx(found[name])
            less, more = sorted(found, key=found.get)
            assert part.loc[less, f"{test}_holm"] == pytest.approx(min(2 * found[less], 1))
            assert part.loc[more, f"{test}_holm"] == pytest.approx(min(max(2 * found[less], found[more]), 1))
        assert list(part["n"]) == [15, 14, 0] and list(part["dropped"]) == [0, 1, 15]
        assert part.loc["broken", ["mean_difference", "p_wilcoxon", "p_wilcoxon_holm"]].isna().all()


@pytest.mark.slow
def test_distances_are_compared_over_the_labels_that_neither_method_lost(study_rows):
    """Label 2 is hard: 50 mm with the reference, and lost by demons, which is 1 mm worse on the rest."""
    of_label = {1: 5.0, 2: 50.0}
    rows = study_rows[(study_rows["metric"] != "hd95_mm") | study_rows["label"].isin(of_label)].copy()
    distances = rows["metric"] == "hd95_mm"
    rows.loc[distances, "value"] = rows.loc[distances, "label"].map(of_label)
    rows.loc[distances & (rows["method"] == "demons"), "value"] += 1
    lose(rows, "demons", PAIRS, 2)
    table = comparisons(rows, list(METHODS), "syn").set_index(["metric", "method"])
    assert table.loc[("hd95_mm", "demons"), "mean_difference"] == pytest.approx(1)
    assert table.loc[("hd95_mm", "demons"), ["n", "dropped"]].to_list() == [14, 1]
    assert table.loc[("hd95_mm", "identity"), "mean_difference"] == 0, "over both labels"
    lose(rows, "demons", PAIRS[:2], 1)
    table = comparisons(rows, list(METHODS), "syn").set_index(["metric", "method"])
    assert table.loc[("hd95_mm", "demons"), ["n", "dropped"]].to_list() == [12, 3], "no label is left of two pairs"


def test_pairs_that_both_methods_failed_are_counted_as_dropped(study_rows):
    rows = study_rows[(study_rows["pair"] != "p04") | (study_rows["metric"] == "failed")]
    assert set(comparisons(rows, ["syn", "demons"], "syn")["dropped"]) == {1}


@pytest.mark.parametrize(
    ("methods", "reference", "reason"),
    [
        (["syn"], "syn", "only method"),
        (["broken", "syn"], "broken", "broken, has registered no pair"),
        (["identity", "syn"], "missing", "missing, has registered no pair"),
        (["identity", "syn"], "greedy", "greedy, the reference, was not run: it is not installed"),
        (["identity"], None, "no reference"),
    ],
)
def test_without_a_second_method_or_a_reference_nothing_is_compared(study_rows, methods, reference, reason):
    rows = study_rows[study_rows["method"].isin([*methods, "truth"])]
    table = comparisons(rows, methods, reference)
    assert table.empty and list(table) == list(comparisons(study_rows, list(METHODS), "syn"))
    told = reason_for_no_comparison(
        summary(rows, LABELS, [*methods, "truth"]), reference, {"greedy": "it is not installed"}
    )
    assert reason in told


def test_marks_follow_the_corrected_wilcoxon_test_of_dice():
    table = pd.DataFrame(
        {"metric": "dice", "method": list("abcde"), "p_wilcoxon_holm": [9e-4, 1e-3, 9e-3, 1e-2, np.nan]}
    )
    other = pd.DataFrame({"metric": "hd95_mm", "method": list("abcde"), "p_wilcoxon_holm": 1e-9})
    assert marks(pd.concat([table, other])) == {"a": "**", "b": "*", "c": "*", "d": "", "e": ""}
