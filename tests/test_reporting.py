"""Tables and figures from tidy rows with known values."""

import numpy as np
import pandas as pd
import pytest
import torch

from regcore.errors import InputError
from regcore.field import DisplacementField
from regcore.labels import expand_codes, scored_labels
from regcore.reporting.figures import ShownPair, _View, dice_boxes, pair_panels, save_figure, training_curves
from regcore.reporting.tables import dice_by_label, for_people, summary, with_training
from regcore.volume import Grid, Volume

LABELS = pd.DataFrame({"index": [1, 2, 3], "name": ["left-a", "right-a", "b"], "group": ["x", "x", "y"]})


@pytest.fixture
def rows():
    """Two methods, two pairs, three labels; b scores 0.5 less with the second method."""
    entries = []
    for method, offset in (("syn", 0.0), ("affine", -0.5)):
        for pair, base in (("p", 0.9), ("q", 0.7)):
            entries += [(method, pair, label, "dice", base + (offset if label == 3 else 0)) for label in (1, 2, 3)]
            entries.append((method, pair, -1, "folds_percent", 0.1 if pair == "p" else 0.3))
            entries.append((method, pair, -1, "seconds_register", 2.0))
    return pd.DataFrame(entries, columns=["method", "pair", "label", "metric", "value"])


def test_the_summary_averages_over_labels_then_over_pairs(rows):
    table = summary(rows, LABELS, ["affine", "syn", "absent"])
    assert list(table.index) == ["affine", "syn"]
    assert table.loc["syn", "dice_mean"] == pytest.approx(0.8)
    assert table.loc["syn", "dice_sd"] == pytest.approx(np.std([0.9, 0.7], ddof=1))
    assert table.loc["affine", "dice_mean"] == pytest.approx(0.8 - 0.5 / 3)
    assert table.loc["affine", "dice y"] == pytest.approx(0.3)
    assert table.loc["affine", "dice x"] == pytest.approx(0.8)
    assert table.loc["syn", "folds_percent"] == pytest.approx(0.2)
    assert "true_error_mm" not in table


def test_labels_absent_from_both_images_do_not_count(rows):
    rows.loc[(rows["method"] == "syn") & (rows["label"] == 3), "value"] = np.nan
    assert summary(rows, LABELS, ["syn"]).loc["syn", "dice_mean"] == pytest.approx(0.8)


def test_people_see_numbers_as_text_and_nothing_where_there_is_nothing(rows):
    table = with_training(summary(rows, LABELS, ["syn", "affine"]), {"syn": {"seconds": 90, "parameters": 100242}})
    shown = for_people(table)
    assert shown.loc["syn", "Dice"] == "0.800 ± 0.141"
    assert shown.loc["syn", "Training"] == "1.5 min"
    assert shown.loc["syn", "Parameters"] == "100,242"
    assert shown.loc["affine", "Training"] == "" == shown.loc["affine", "Parameters"]


def test_dice_by_label_keeps_every_label_and_the_order_of_methods(rows):
    table = dice_by_label(rows, LABELS, ["affine", "syn"])
    assert list(table.columns) == ["index", "name", "group", "affine", "syn"]
    assert table.loc[table["index"] == 3, "affine"].item() == pytest.approx(0.3)


def test_boxes_pool_left_and_right_and_show_every_method(rows):
    figure = dice_boxes(rows, LABELS, ["affine", "syn"])
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["a", "b"]
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["affine", "syn"]
    assert axis.get_ylabel() == "Dice"


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
    np.testing.assert_array_equal(_View(ras).slice(ras.data), _View(turned).slice(turned.data))


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
    table = scored_labels({0, 1, 2, 3, 9}, {"exclude": [2], "groups": {"odd": ["3-5"]}}, path)
    assert table.to_dict("list") == {"index": [1, 3], "name": ["one", "three"], "group": ["other", "odd"]}
    with pytest.raises(InputError, match="no label is left"):
        scored_labels({0, 2}, {"exclude": [2], "groups": {}}, None)
    path.write_text("code\tname\n1\tone\n")
    with pytest.raises(InputError, match=r"labels\.tsv.*index"):
        scored_labels({1}, {"exclude": [], "groups": {}}, path)
