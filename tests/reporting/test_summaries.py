"""From tidy rows with known values to numbers, by method and by label."""

import re

import numpy as np
import pandas as pd
import pytest
from support.scored_rows import ENTRIES, LABELS, PAIRS, lose, of_pairs

from regcore.reporting.formatting import formatted
from regcore.reporting.measures import QUALITY
from regcore.reporting.summaries import means_by_label, summary, with_training


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


def test_means_by_label_keep_every_label_and_the_order_of_methods(rows, study_rows):
    table = means_by_label(rows, LABELS, ["affine", "syn"], "dice")
    assert list(table.columns) == ["index", "name", "group", "affine", "syn"]
    assert table.loc[table["index"] == 3, "affine"].item() == pytest.approx(0.3)
    distances = means_by_label(study_rows, LABELS, ENTRIES, "hd95_mm")
    assert list(distances["index"]) == [1, 2, 3] and distances.loc[2, ["syn", "demons"]].isna().all()
    expected = study_rows.query("metric == 'hd95_mm' and method == 'syn' and label == 1")["value"].mean()
    assert distances.loc[0, "syn"] == pytest.approx(expected)
    assert list(means_by_label(rows, LABELS, ["syn"], "hd95_mm")) == ["index", "name", "group"]
