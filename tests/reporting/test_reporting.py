"""Tables, figures and the page from tidy rows with known values."""

import json
import re
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import stats

from regcore.cohort.labels import expand_codes, scored_labels
from regcore.cohort.settings import LabelSettings
from regcore.errors import InputError
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.reporting import study_report
from regcore.reporting.figures import (
    STYLES,
    ShownPair,
    View,
    pair_panels,
    save_figure,
    structure_boxes,
    training_curves,
)
from regcore.reporting.page import FAILURES_SHOWN, cost_html, summary_html
from regcore.reporting.starts import over_starts
from regcore.reporting.tables import (
    QUALITY,
    comparisons,
    formatted,
    formatted_comparisons,
    formatted_cost,
    marks,
    means_by_label,
    ranks,
    reason_for_no_comparison,
    reference_method,
    summary,
    with_training,
)
from regcore.study.results import Results
from regcore.study.settings import StudySettings

LABELS = pd.DataFrame({"index": [1, 2, 3], "name": ["left-a", "right-a", "b"], "group": ["x", "x", "y"]})
COLUMNS = ["method", "pair", "contrasts", "label", "metric", "value"]
METHODS = {"identity": "identity", "syn": "syn", "demons": "demons", "broken": "syn"}
ENTRIES = [*METHODS, "truth"]
PAIRS = [f"p{number:02d}" for number in range(1, 16)]
FAILED = {"broken": PAIRS, "demons": ["p04"]}
OFFSETS = {"identity": -0.2, "syn": 0.0, "demons": 0.002, "truth": 0.05}


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


def lose(rows, method, pairs, label):
    """Let a method push a label out of the image in some pairs."""
    lost = (rows["method"] == method) & rows["pair"].isin(pairs) & (rows["label"] == label)
    rows.loc[lost & (rows["metric"] == "dice"), "value"] = 0.0
    rows.loc[lost & (rows["metric"] == "hd95_mm"), "value"] = np.nan


def of_pairs(rows, metric, method):
    """Each pair's mean over labels of one method, by hand."""
    chosen = rows[(rows["metric"] == metric) & (rows["method"] == method)]
    return {pair: np.nanmean(part["value"]) for pair, part in chosen.groupby("pair")}


# ---- the summary


def test_the_summary_averages_over_labels_then_over_pairs(rows):
    table = summary(rows, LABELS, ["affine", "syn", "absent"])
    assert list(table.index) == ["affine", "syn"]
    assert table.loc["syn", "dice_mean"] == pytest.approx(0.8)
    assert table.loc["syn", "dice_sd"] == pytest.approx(np.std([0.9, 0.7], ddof=1))
    assert table.loc["affine", "dice_mean"] == pytest.approx(0.8 - 0.5 / 3)
    assert table.loc["affine", "dice_sd_structures"] == pytest.approx(np.std([0.9, 0.9, 0.4, 0.7, 0.7, 0.2], ddof=1))
    assert table.loc["affine", "dice y"] == pytest.approx(0.3)
    assert table.loc["affine", "dice x"] == pytest.approx(0.8)
    assert table.loc["syn", "folds_percent"] == pytest.approx(0.2)
    assert not {"true_error_mm", "hd95_mm", "dice T1w to T1w"} & set(table)
    assert list(table["failed"]) == [0, 0] and list(table["pairs"]) == [2, 2]


def test_labels_absent_from_both_images_do_not_count(rows):
    rows.loc[(rows["method"] == "syn") & (rows["label"] == 3), "value"] = np.nan
    assert summary(rows, LABELS, ["syn"]).loc["syn", "dice_mean"] == pytest.approx(0.8)


def test_distances_are_means_of_the_means_of_pairs(study_rows):
    study_rows.loc[(study_rows["pair"] == "p01") & (study_rows["label"] == 2), "value"] = np.nan
    table = summary(study_rows, LABELS, ENTRIES)
    distances = of_pairs(study_rows, "hd95_mm", "syn")
    pooled = study_rows.query("metric == 'hd95_mm' and method == 'syn'")["value"].mean()
    assert table.loc["syn", "hd95_mm"] == pytest.approx(np.mean(list(distances.values())), rel=1e-12)
    assert table.loc["syn", "hd95_mm"] != pytest.approx(pooled, rel=1e-6), "the pairs have different numbers of labels"
    assert table.loc["syn", "ndv_percent"] == 0.25


def test_distances_and_errors_have_their_spread_over_pairs(study_rows):
    table = summary(study_rows, LABELS, ENTRIES)
    for measure in ("hd95_mm", "true_error_mm"):
        expected = np.std(list(of_pairs(study_rows, measure, "demons").values()), ddof=1)
        assert table.loc["demons", f"{measure}_sd"] == pytest.approx(expected)
    spread = {column for column, measure in QUALITY.items() if measure.spread}
    assert spread == {"hd95_mm", "mean_surface_distance_mm", "true_error_mm", "landmark_error_mm"}
    assert "ndv_percent_sd" not in table
    shown, row = formatted(table), table.loc["syn"]
    assert shown.loc["syn", "HD95 mm"] == f"{row['hd95_mm']:.2f} ± {row['hd95_mm_sd']:.2f}"
    assert shown.loc["syn", "NDV %"] == "0.250"
    one_pair = formatted(summary(study_rows[study_rows["pair"] == "p01"], LABELS, ENTRIES))
    assert re.fullmatch(r"\d\.\d\d", one_pair.loc["syn", "HD95 mm"])


def test_labels_that_one_of_two_maps_lacks_are_counted_by_pair(study_rows):
    assert (summary(study_rows, LABELS, ENTRIES)["labels_lost"].drop("broken") == 0).all(), "Dice is never 0"
    lose(study_rows, "demons", PAIRS[:3], 2)
    where = {"metric": "dice", "method": "syn", "pair": "p01", "label": 1}
    apart = (study_rows[list(where)] == pd.Series(where)).all(axis=1)
    study_rows.loc[apart, "value"] = 0.0
    table = summary(study_rows, LABELS, ENTRIES)
    assert table.loc["demons", "labels_lost"] == pytest.approx(3 / 14)
    assert table.loc["syn", "labels_lost"] == 0, "two surfaces that do not meet are both there"
    assert np.isnan(table.loc["broken", "labels_lost"])


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


def test_dice_is_split_by_the_contrasts_of_the_pairs(study_rows):
    table = summary(study_rows, LABELS, ENTRIES)
    dice = of_pairs(study_rows, "dice", "demons")
    first = [dice[pair] for pair in PAIRS[:5] if pair != "p04"]
    assert table.loc["demons", "dice T1w to T1w"] == pytest.approx(np.mean(first))
    assert table.loc["demons", "dice T2w to T1w"] == pytest.approx(np.mean([dice[pair] for pair in PAIRS[5:]]))


def test_seconds_are_the_median_and_memory_is_the_largest(study_rows):
    table = summary(study_rows, LABELS, ENTRIES)
    assert table.loc["syn", "seconds"] == pytest.approx(np.median([100, *(1 + np.arange(1, 15) / 100)]))
    assert table.loc["syn", "peak_memory_mb"] == 1014
    assert np.isnan(table.loc["truth", "seconds"])


def test_a_method_that_failed_on_every_pair_has_a_row(study_rows):
    table = summary(study_rows, LABELS, ENTRIES)
    assert list(table.index) == ENTRIES
    assert table.loc["broken", ["failed", "pairs"]].to_list() == [15, 0]
    assert table.loc["demons", ["failed", "pairs"]].to_list() == [1, 14]
    assert table.loc["broken"].drop(["failed", "pairs"]).isna().all()
    shown = formatted(with_training(table, {}))
    assert set(shown.loc["broken"].drop("Failed")) == {""}
    assert list(shown["Failed"]) == ["0 of 15", "0 of 15", "1 of 15", "15 of 15", "0 of 15"]


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


def test_the_best_is_bold_and_the_second_italic_but_never_the_truth():
    table = pd.DataFrame(
        {"dice_mean": [0.5, 0.7, 0.6, 0.9], "hd95_mm": [4.0, 2.0, 2.0, 1.0], "folds_percent": [0.0, 1.0, 2.0, 3.0]},
        pd.Index(["identity", "a", "b", "truth"], name="method"),
    ).assign(dice_sd=0.1, dice_sd_structures=0.2, hd95_mm_sd=0.5, seconds=[1.0, 2.0, 3.0, np.nan], failed=0, pairs=5)
    places = ranks(table)
    assert list(places) == ["Dice", "HD95 mm"], "doing nothing would win the others"
    assert list(places["Dice"][:3]) == [3, 1, 2] and list(places["HD95 mm"][:3]) == [2, 1, 1]
    assert places.loc["truth"].isna().all()
    cells = re.findall("<td>(.*?)</td>", summary_html(table, comparisons(_no_rows(), [], None)))
    assert [cell for cell in cells if "<b>" in cell] == ["<b>0.700 ± 0.100</b>"] + 2 * ["<b>2.00 ± 0.50</b>"]
    assert [cell for cell in cells if "<i>" in cell] == ["<i>4.00 ± 0.50</i>", "<i>0.600 ± 0.100</i>"]


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


def test_names_cannot_break_the_html(rows):
    groups = LABELS.assign(group=["x", "x", "a<b & c"])
    assert "Dice a&lt;b &amp; c" in summary_html(summary(rows, groups, ["syn"]), comparisons(rows, ["syn"], "syn"))


# ---- comparisons


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


@pytest.mark.slow
def test_a_report_shows_random_starts_where_there_are_any(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    assert "Random starts" not in headings(study.report())
    study.plan.starts = {"syn": ["syn", "demons"]}
    page = study.report()
    assert "Random starts" in headings(page)
    assert list(pd.read_csv(tmp_path / "tables" / "starts.csv")["starts"]) == [2]


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


def test_the_summary_marks_what_differs_from_the_reference(study_rows):
    compared = comparisons(study_rows, list(METHODS), "syn")
    html = summary_html(summary(study_rows, LABELS, ENTRIES), compared)
    dice = dict(re.findall(r'<th>(\w+)</th>\s*<td>[^\n]*<sup class="mark">(\**)</sup>', html))
    assert dice == {"identity": "**", "syn": "", "demons": "", "broken": "", "truth": ""}


def test_people_see_the_sign_and_the_interval_of_a_difference(study_rows):
    compared = comparisons(study_rows, list(METHODS), "syn")
    shown = formatted_comparisons(compared)
    assert shown.loc[0, ["Method", "Measure", "Pairs", "Dropped"]].to_list() == ["identity", "Dice", "15", "0"]
    assert shown.loc[0, "Mean difference"] == f"{compared.loc[0, 'mean_difference']:.4f}" and compared.loc[0, "n"] == 15
    assert shown.loc[0, "95 % CI"] == f"{compared.loc[0, 'ci_low']:.4f} to {compared.loc[0, 'ci_high']:.4f}"
    assert float(shown.loc[0, "p Wilcoxon, Holm"]) == pytest.approx(compared.loc[0, "p_wilcoxon_holm"], rel=0.05)
    assert set(shown[shown["Method"] == "broken"].loc[2].drop(["Method", "Measure", "Pairs", "Dropped"])) == {""}


def _no_rows():
    return pd.DataFrame(columns=COLUMNS)


# ---- labels


def test_means_by_label_keep_every_label_and_the_order_of_methods(rows, study_rows):
    table = means_by_label(rows, LABELS, ["affine", "syn"], "dice")
    assert list(table.columns) == ["index", "name", "group", "affine", "syn"]
    assert table.loc[table["index"] == 3, "affine"].item() == pytest.approx(0.3)
    distances = means_by_label(study_rows, LABELS, ENTRIES, "hd95_mm")
    assert list(distances["index"]) == [1, 2, 3] and distances.loc[2, ["syn", "demons"]].isna().all()
    expected = study_rows.query("metric == 'hd95_mm' and method == 'syn' and label == 1")["value"].mean()
    assert distances.loc[0, "syn"] == pytest.approx(expected)
    assert list(means_by_label(rows, LABELS, ["syn"], "hd95_mm")) == ["index", "name", "group"]


def test_boxes_pool_left_and_right_and_show_every_method(rows):
    figure = structure_boxes(rows, LABELS, ["affine", "syn"], "dice")
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["a", "b"]
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["affine", "syn"]
    assert axis.get_ylabel() == "Dice"


def test_boxes_of_distances_begin_with_the_smallest(rows):
    distances = rows[rows["metric"] == "dice"].assign(metric="hd95_mm")
    axis = structure_boxes(distances, LABELS, ["affine", "syn"], "hd95_mm").axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["b", "a"]
    assert axis.get_ylabel() == "HD95 (mm)"


def test_a_figure_without_distances_says_so(rows):
    rows.loc[rows["metric"] == "dice", "metric"] = "hd95_mm"
    rows["value"] = np.nan
    (text,) = structure_boxes(rows, LABELS, ["affine", "syn"], "hd95_mm").axes[0].texts
    assert "No label" in text.get_text() and "HD95" in text.get_text()


@pytest.mark.slow
def test_many_methods_are_told_apart_in_greyscale_and_their_boxes_stay_wide():
    methods = [f"m{number}" for number in range(len(STYLES))]
    labels = pd.DataFrame({"index": range(1, 13), "name": [f"s{code:02d}" for code in range(1, 13)], "group": "all"})
    entries = [(name, "p", "x", code, "dice", code / 20) for name in methods for code in labels["index"]]
    figure = structure_boxes(pd.DataFrame(entries, columns=COLUMNS), labels, methods, "dice")
    assert [len(axis.get_xticklabels()) for axis in figure.axes] == [6, 6]
    patches = figure.axes[0].get_legend().get_patches()
    figure.canvas.draw()
    assert figure.axes[0].get_legend().get_window_extent().width < figure.axes[0].get_window_extent().width
    looks = [(patch.get_hatch(), np.dot(to_rgb(patch.get_facecolor()), (0.3, 0.59, 0.11))) for patch in patches]
    assert len(looks) >= 14
    for number, (hatch, grey) in enumerate(looks):
        assert all(hatch != other or abs(grey - shade) > 0.1 for other, shade in looks[:number])


def test_curves_mark_the_weights_that_were_kept(tmp_path):
    history = pd.DataFrame({"step": [1, 2, 3], "total": [3, 2, 1], "validation_dice": [0.1, 0.3, 0.2], "seconds": 1})
    figure = training_curves({"voxelmorph": history})
    circle = figure.axes[1].lines[1]
    assert list(circle.get_xdata()) == [2] and list(circle.get_ydata()) == [0.3]
    save_figure(figure, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_view_turns_any_orientation_to_the_same_picture():
    data = np.random.default_rng(0).random((6, 7, 8)).astype("f4")
    ras = Volume(data, Grid.centred(data.shape, (1, 1, 1), (0, 0, 0)))
    affine = np.array([[0, 0, -1.0, 2.5], [-1.0, 0, 0, 3], [0, 1.0, 0, -3.5], [0, 0, 0, 1]])
    turned = Volume(np.ascontiguousarray(data[::-1, ::-1].transpose(1, 2, 0)), Grid((7, 8, 6), affine))
    np.testing.assert_allclose(turned.grid.to_world([0, 0, 0]), ras.grid.to_world([5, 6, 0]))
    np.testing.assert_array_equal(View(ras).slice(ras.data), View(turned).slice(turned.data))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20, 24), (14, 16, 12)])
def test_pair_panels_show_six_views_of_every_pair(shape, tmp_path):
    grid = Grid.centred(shape, [2] * len(shape), [0] * len(shape))
    image = Volume(np.random.default_rng(0).random(shape).astype("f4"), grid)
    field = DisplacementField(0.3 * torch.randn(1, len(shape), *shape), grid)
    figure = pair_panels([ShownPair("best", "a", "b", image, image, field)] * 2)
    titles = [axis.get_title() for axis in figure.axes[:6]]
    assert titles == ["fixed", "moving", "warped", "fixed − warped", "warped grid", "displacement (mm)"]
    save_figure(figure, tmp_path / "pairs.png")


def test_label_codes_come_as_numbers_and_ranges():
    assert expand_codes([3, "5-7"], "x") == {3, 5, 6, 7}
    with pytest.raises(InputError, match=r"labels\.exclude: 'a-b'"):
        expand_codes(["a-b"], "labels.exclude")


def test_scored_labels_follow_table_groups_and_exclusions(tmp_path):
    path = tmp_path / "labels.tsv"
    pd.DataFrame({"index": [1, 2, 3], "name": ["one", "two", "three"]}).to_csv(path, sep="\t", index=False)
    table = scored_labels({0, 1, 2, 3, 9}, LabelSettings(exclude=[2], groups={"odd": ["3-5"]}), path)
    assert table.to_dict("list") == {"index": [1, 3], "name": ["one", "three"], "group": ["other", "odd"]}
    with pytest.raises(InputError, match="no label is left"):
        scored_labels({0, 2}, LabelSettings(exclude=[2]), None)
    path.write_text("code\tname\n1\tone\n")
    with pytest.raises(InputError, match=r"labels\.tsv.*index"):
        scored_labels({1}, LabelSettings(), path)


# ---- a whole study


class Study:
    """The files that the report of a study reads, and a plan that knows where they are."""

    def __init__(self, folder, rows, unavailable):
        self.folder = folder
        failures = rows[(rows["metric"] == "failed") & (rows["value"] == 1)]
        self.failed = set(zip(failures["method"], failures["pair"], strict=True))
        for name in ("metrics", "tables", "figures"):
            (folder / name).mkdir()
        for name, part in rows.groupby("method"):
            part.to_parquet(folder / "metrics" / f"{name}.parquet")
        for name in METHODS:
            (folder / "fields" / name).mkdir(parents=True)
            for pair in PAIRS:
                (folder / "fields" / name / f"{pair}.json").write_text(json.dumps(self.facts(name, pair)))
        (folder / "scan.json").write_text(json.dumps({"common_shape": [8, 8], "common_spacing": [1, 1]}))
        self.plan = SimpleNamespace(
            folder=folder,
            settings=StudySettings.read(
                {
                    "study": "tiny",
                    "title": "A study",
                    "description": "Made up.",
                    "cohort": {"table": "cohort.tsv"},
                    "pairs": {"contrasts": ["T1w", "T2w"], "kind": "within-subject"},
                    "preprocess": {"affine": "rigid"},
                    "evaluation": {"reference": "syn"},
                    "methods": dict.fromkeys(METHODS),
                },
                "configuration",
            ),
            cohort=SimpleNamespace(table=pd.DataFrame({"split": ["test"], "subject": ["s"]})),
            scans=["scan"],
            reference="scan",
            embedded=None,
            knows_truth=True,
            label_table=None,
            methods=METHODS,
            starts={},
            spotlight=[],
            searched_methods=[],
            cell_searched_methods=[],
            unavailable=unavailable,
            entries=dict.fromkeys([*METHODS, "1", "2", "NA"], SimpleNamespace(learned=False)),
            prepared=lambda scan: str(folder / scan),
            pairs_of=lambda split: pd.DataFrame({"pair": PAIRS, "contrasts": "T1w to T1w"}),
            field=lambda name, pair: str(folder / "fields" / name / f"{pair}.nii.gz"),
        )

    def facts(self, name, pair):
        facts = {"pair": pair, "settings": {"speed": 3}, "commands": [f"{name} --register {pair}"], "failed": None}
        facts |= {"tool": "antspyx 1.2" if name == "syn" else None, "threads": 2, "processor": "Fast CPU"}
        if name == "demons":  # made elsewhere
            facts |= {"threads": None, "processor": None}
        if (name, pair) in self.failed:
            lines = "\n".join(f"line {number} <b>" for number in range(100))
            facts |= {"failed": f"{name} ended with status 1", "stderr": lines}
        return facts

    def outputs(self):
        names = {"summary": "summary.csv", "summary_html": "summary.html", "comparisons": "comparisons.csv"}
        names |= {"starts": "starts.csv", "verdicts": "verdicts.csv"}
        names |= {f"{name}_labels": f"{name}_by_label.csv" for name in ("dice", "hd95")}
        found = {key: self.folder / "tables" / name for key, name in names.items()}
        return found | {f"{name}_boxes": self.folder / "figures" / f"{name}_by_label.png" for name in ("dice", "hd95")}

    def report(self, entries=ENTRIES, boxes=False):
        """Make the tables, then the page; drawing the boxes takes longer than all the rest, so they may stay blank."""
        scored = [name for name in entries if (self.folder / "metrics" / f"{name}.parquet").exists()]
        blank = patch.object(study_report, "structure_boxes", lambda *_: Figure(figsize=(1, 1)))
        with nullcontext() if boxes else blank:
            study_report.write_tables(Results(self.plan), scored, self.outputs())
        study_report.write_page(Results(self.plan), self.folder / "report.html")
        return (self.folder / "report.html").read_text()


def headings(page):
    return re.findall("<h2.*?>(.*?)</h2>", page)


@pytest.mark.slow
def test_a_report_tells_what_failed_and_what_was_not_run(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {"greedy": "greedy is not installed: pip install picsl-greedy"})
    page = study.report(boxes=True)
    assert all(path.stat().st_size for path in study.outputs().values())
    assert {"Not run", "Failed pairs", "Comparisons with the reference", "HD95 by structure", "Cost"} < set(
        headings(page)
    )
    assert "<th>greedy</th><td>greedy is not installed: pip install picsl-greedy</td>" in page
    assert page.count("broken ended with status 1") == FAILURES_SHOWN == 10
    assert "and 5 more" in page
    assert page.count("demons ended with status 1") == 1
    assert "line 99 &lt;b&gt;" in page and "line 85 " in page and "line 84 " not in page
    assert "reference,\n<b>syn</b>, in either direction" in page
    compared = pd.read_csv(study.outputs()["comparisons"])
    pd.testing.assert_frame_equal(compared, comparisons(study_rows, list(METHODS), "syn"))


def judged(rows, method, pair, **measures):
    """Give one registration other measures for its verdict."""
    rows = rows.copy()
    mine = (rows["method"] == method) & (rows["pair"] == pair)
    for name, value in measures.items():
        rows.loc[mine & (rows["metric"] == f"verdict_{name}"), "value"] = value
    return rows


def test_doubtful_and_failed_registrations_come_first_with_their_reasons(study_rows, tmp_path):
    rows = judged(study_rows, "demons", "p07", coverage=0.1)
    rows = judged(rows, "syn", "p03", folds_percent=50.0)
    rows = judged(rows, "truth", "p03", folds_percent=50.0)  # is no registration
    rows = judged(rows, "syn", "p05", coverage=0.5)  # worth a note, but ok
    page = Study(tmp_path, rows, {}).report()
    assert headings(page)[:3] == ["Methods and data", "Doubtful and failed registrations", "Summary"]
    section = page[page.index('<h2 id="verdicts">') : page.index('<h2 id="summary">')]
    failed, doubtful = section.index("<td>failed</td><td>syn</td><td>p03</td>"), section.index("<td>doubtful</td>")
    assert failed < doubtful
    assert "the field folds 50.0 % of the content" in section and "covers only 10% of the fixed" in section
    assert "<td>syn</td><td>1</td><td>0</td><td>14</td>" in section
    assert "<td>demons</td><td>0</td><td>1</td><td>13</td>" in section
    assert "identity" not in section and "truth" not in section and "p05" not in section
    table = pd.read_csv(tmp_path / "tables" / "verdicts.csv")
    assert len(table) == len(PAIRS) * 2 + 14 and list(table["level"][:3]) == ["failed", "doubtful", "ok"]
    assert table.set_index(["method", "pair"]).at[("syn", "p05"), "reasons"].startswith("the moving image covers 50%")


def test_a_report_names_only_the_worst_of_many(study_rows, tmp_path, monkeypatch):
    monkeypatch.setattr("regcore.reporting.page.IN_QUESTION_SHOWN", 2)
    rows = study_rows
    for pair in PAIRS[:3]:
        rows = judged(rows, "syn", pair, folds_percent=50.0)
    page = Study(tmp_path, rows, {}).report()
    assert page.count("<td>failed</td><td>syn</td>") == 2 and "and 1 more: tables/verdicts.csv" in page


def test_a_report_without_failures_has_no_section_of_them(study_rows, tmp_path):
    rows = study_rows[study_rows["method"] != "broken"].query("pair != 'p04'")
    study = Study(tmp_path, rows, {})
    study.plan.methods = {name: method for name, method in METHODS.items() if name != "broken"}
    page = study.report()
    assert not {"Not run", "Failed pairs"} & set(headings(page))
    assert 'href="#failures"' not in page and 'href="#unavailable"' not in page and 'href="#verdicts"' not in page
    assert "Failed" not in page


def test_a_report_says_why_nothing_is_compared(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    study.plan.settings.evaluation.reference = "broken"
    page = study.report()
    assert "The reference method, broken, has registered no pair." in page
    assert "Wilcoxon" not in page and 'class="mark"' not in page


def test_a_report_says_that_the_reference_was_not_run(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {"greedy": "it is not installed"})
    study.plan.settings.evaluation.reference = "greedy"
    assert "<p>greedy, the reference, was not run: it is not installed</p>" in study.report()


def test_a_report_explains_lost_labels_where_there_are_any(study_rows, tmp_path):
    (tmp_path / "none").mkdir()
    assert "Labels lost" not in Study(tmp_path / "none", study_rows, {}).report()
    lose(study_rows, "demons", PAIRS, 2)
    (tmp_path / "some").mkdir()
    page = Study(tmp_path / "some", study_rows, {}).report()
    assert "<th>Labels lost</th>" in page and "Labels lost: number of labels that only one of the two" in page
    assert "the distances leave it out" in page


def test_a_report_shows_the_pictures_of_the_spotlight_alone(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    for name in ("pairs_syn", "pairs_demons", "training_curves"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"of an earlier run")
    study.plan.spotlight = ["demons"]
    found = headings(study.report())
    assert "Pairs: demons" in found and "Pairs: syn" not in found
    assert "Training" not in found, "no method of the study learns"


def test_a_report_shows_the_searches_for_hyperparameters(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    (tmp_path / "figures" / "search_syn.png").write_bytes(b"rings")
    study.plan.searched_methods = ["syn"]
    assert "Search: syn" in headings(study.report())


def test_names_that_look_like_numbers_or_nothing_stay_names(study_rows, tmp_path):
    names = {"syn": "1", "demons": "NA", "broken": "2"}
    rows = study_rows.replace({"method": names})
    study = Study(tmp_path, study_rows, {})
    for path in (tmp_path / "metrics").iterdir():
        path.unlink()
    for name, part in rows.groupby("method"):
        part.to_parquet(tmp_path / "metrics" / f"{name}.parquet")
    folders = {new: old for old, new in names.items()}
    study.plan.methods = {names.get(name, name): method for name, method in METHODS.items()}
    study.plan.field = lambda name, pair: str(tmp_path / "fields" / folders.get(name, name) / f"{pair}.nii.gz")
    study.plan.settings.labels.groups = {"NA": [1], "2": [2, 3]}
    study.plan.settings.evaluation.reference = "1"
    entries = [names.get(name, name) for name in ENTRIES]
    page = study.report(entries)
    table = page[page.index('class="dataframe summary"') :]
    assert re.findall(r"<th>([^<]*)</th>\s*<td>", table)[:5] == entries
    assert '<sup class="mark">**</sup>' in page
    assert "<td>NA</td>\n      <td>HD95 mm</td>" in page
    assert "<td>15 of 15</td>" in page and "<td>NA</td>\n      <td>0." in page
    assert not re.search(r"\bnan\b", table[: table.index("How this was made")], flags=re.IGNORECASE)


def test_fields_from_elsewhere_need_no_prepared_scan(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    assert "<th>Common grid</th><td>8 × 8 voxels of 1 × 1 mm; affine step: rigid</td>" in study.report()
    (tmp_path / "scan.json").unlink()
    study.plan.methods = dict.fromkeys(METHODS, "imported")
    page = study.report()
    assert "Common grid" not in page and "<th>Reference image</th>" in page


def test_missing_facts_of_a_field_are_an_error_with_a_remedy(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    (tmp_path / "fields" / "syn" / "p01.json").unlink()
    with pytest.raises(InputError, match=r"p01\.json: missing or damaged.*run the study again"):
        study.report()


def test_a_failure_without_words_is_shown(study_rows, tmp_path):
    study = Study(tmp_path, study_rows, {})
    for path in (tmp_path / "fields" / "broken").iterdir():
        facts = json.loads(path.read_text())
        del facts["stderr"]
        path.write_text(json.dumps(facts))
    assert study.report().count("broken ended with status 1") == FAILURES_SHOWN


def test_the_configuration_is_printed_without_what_is_missing_here(study_rows, tmp_path):
    page = Study(tmp_path, study_rows, {"greedy": "a secret of this machine"}).report()
    assert "unavailable:" not in page and page.count("a secret of this machine") == 1
    assert "kind: within-subject" in page


def test_a_report_is_written_though_every_pair_failed(study_rows, tmp_path):
    failed = study_rows[study_rows["metric"] == "failed"].query("method != 'truth'").assign(value=1.0)
    page = Study(tmp_path, failed, {}).report()
    assert "Failed pairs" in headings(page) and "Cost" not in headings(page)
    assert "15 of 15" in page


def test_methods_are_described_by_the_first_pair_that_did_not_fail(study_rows, tmp_path):
    failed = (study_rows["method"] == "syn") & (study_rows["pair"] == "p01")
    rows = study_rows[~failed | (study_rows["metric"] == "failed")].copy()
    rows.loc[failed & (rows["metric"] == "failed"), "value"] = 1.0
    lines = study_report._commands(Results(Study(tmp_path, rows, {}).plan))
    assert lines["syn"] == ['method syn, settings {"speed": 3}', "tool antspyx 1.2", "threads 2", "syn --register p02"]
    assert lines["demons"] == ['method demons, settings {"speed": 3}', "demons --register p01"]
    assert lines["broken"][-1] == "broken --register p01"


def test_the_hardware_of_imported_fields_is_not_known(study_rows, tmp_path):
    plan = Study(tmp_path, study_rows, {}).plan
    expected = "pairs registered on Fast CPU, 2 thread(s); not known for demons, registered elsewhere"
    assert study_report._hardware(Results(plan)) == expected
    plan.methods = {"demons": "imported"}
    assert study_report._hardware(Results(plan)) == "not known for demons, registered elsewhere"


def test_pairs_are_drawn_of_those_that_succeeded(study_rows, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(study_report, "save_figure", lambda figure, output: drawn.append(figure))
    monkeypatch.setattr(study_report, "pair_panels", lambda shown: [pair.title for pair in shown])
    monkeypatch.setattr(Results, "normalised", lambda results, scan: None)
    monkeypatch.setattr(Results, "field", lambda results, name, pair: None)
    plan = Study(tmp_path, study_rows, {}).plan
    plan.pairs_of = lambda split: pd.DataFrame({"pair": PAIRS, "fixed": "a", "moving": "b"})
    for name in ("demons", "broken"):
        study_report.draw_pairs(Results(plan), name, tmp_path / "x.png")
    dice = sorted(of_pairs(study_rows, "dice", "demons").values())
    assert drawn[0] == [f"best: Dice {dice[-1]:.3f}", f"median: Dice {dice[6]:.3f}", f"worst: Dice {dice[0]:.3f}"]
    assert drawn[1].axes[0].texts[0].get_text() == "broken registered none of the test pairs."
