"""The tables of the page as HTML."""

import re

import numpy as np
import pandas as pd
from support.scored_rows import COLUMNS, ENTRIES, LABELS, METHODS

from regcore.reporting.comparisons import comparisons
from regcore.reporting.formatting import ranks
from regcore.reporting.page import summary_html
from regcore.reporting.summaries import summary


def test_the_best_is_bold_and_the_second_italic_but_never_the_truth():
    table = pd.DataFrame(
        {"dice_mean": [0.5, 0.7, 0.6, 0.9], "hd95_mm": [4.0, 2.0, 2.0, 1.0], "folds_percent": [0.0, 1.0, 2.0, 3.0]},
        pd.Index(["identity", "a", "b", "truth"], name="method"),
    ).assign(dice_sd=0.1, dice_sd_structures=0.2, hd95_mm_sd=0.5, seconds=[1.0, 2.0, 3.0, np.nan], failed=0, pairs=5)
    places = ranks(table)
    assert list(places) == ["Dice", "HD95 mm"], "doing nothing would win the others"
    assert list(places["Dice"][:3]) == [3, 1, 2] and list(places["HD95 mm"][:3]) == [2, 1, 1]
    assert places.loc["truth"].isna().all()
    cells = re.findall("<td>(.*?)</td>", summary_html(table, comparisons(pd.DataFrame(columns=COLUMNS), [], None)))
    assert [cell for cell in cells if "<b>" in cell] == ["<b>0.700 ± 0.100</b>"] + 2 * ["<b>2.00 ± 0.50</b>"]
    assert [cell for cell in cells if "<i>" in cell] == ["<i>4.00 ± 0.50</i>", "<i>0.600 ± 0.100</i>"]


def test_names_cannot_break_the_html(rows):
    groups = LABELS.assign(group=["x", "x", "a<b & c"])
    assert "Dice a&lt;b &amp; c" in summary_html(summary(rows, groups, ["syn"]), comparisons(rows, ["syn"], "syn"))


def test_the_summary_marks_what_differs_from_the_reference(study_rows):
    compared = comparisons(study_rows, list(METHODS), "syn")
    html = summary_html(summary(study_rows, LABELS, ENTRIES), compared)
    dice = dict(re.findall(r'<th>(\w+)</th>\s*<td>[^\n]*<sup class="mark">(\**)</sup>', html))
    assert dice == {"identity": "**", "syn": "", "demons": "", "broken": "", "truth": ""}
