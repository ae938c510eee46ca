"""Which labels are scored, and which of them training sees, and as what."""

import numpy as np
import pandas as pd
import pytest

from regcore.cohort.labels import classify, expand_codes, observed_classes, scored_labels
from regcore.cohort.settings import LabelSettings
from regcore.errors import InputError

LABELS = pd.DataFrame(
    {
        "index": [2, 5, 30, 41],
        "name": ["Left-Pallidum", "Left-Caudate", "Right-Caudate", "Brain-Stem"],
        "group": ["basal", "basal", "basal", "other"],
    }
)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ("all", {2: 1, 5: 2, 30: 3, 41: 4}),
        ("groups", {2: 1, 5: 1, 30: 1}),
        ([41, "3-30", 99], {5: 1, 30: 2, 41: 3}),
    ],
)
def test_classes_are_numbered_without_a_gap(observed, expected):
    assert observed_classes(LABELS, observed, "here") == expected


def test_every_group_is_one_class():
    labels = LABELS.assign(group=["b", "a", "b", "c"])
    assert observed_classes(labels, "groups", "here") == {2: 2, 5: 1, 30: 2, 41: 3}


def test_nothing_to_observe_is_explained():
    with pytest.raises(InputError, match=r"methods.x.observed: none of \[7, '8-9'\] is a scored label"):
        observed_classes(LABELS, [7, "8-9"], "methods.x.observed")
    for group in ("all", "other"):
        with pytest.raises(InputError, match=r"the study has no groups; give 'labels.groups'"):
            observed_classes(LABELS.assign(group=group), "groups", "methods.x.observed")
    with pytest.raises(InputError, match="neither a label number nor a range"):
        observed_classes(LABELS, ["caudate"], "methods.x.observed")


def test_a_label_whose_cell_in_the_table_is_empty_has_no_group(tmp_path):
    table = tmp_path / "labels.tsv"
    table.write_text("index\tname\tgroup\n1\ta\tinner\n2\tb\t\n")
    labels = scored_labels({0, 1, 2}, LabelSettings(), table)
    assert list(labels["group"]) == ["inner", "other"]
    assert observed_classes(labels, "groups", "here") == {1: 1}


def test_codes_become_classes_and_all_others_zero():
    codes = np.array([[0, 2, 3], [30, 41, 70000]], dtype=np.int32)
    found = classify(codes, {30: 1, 2: 2, 41: 1})
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, [[0, 2, 0], [1, 1, 0]])


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
