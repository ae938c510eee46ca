"""Box plots and training curves from known values."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from support.scored_rows import COLUMNS, LABELS

from regcore.reporting.figures import STYLES, save_figure, structure_boxes, training_curves


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
