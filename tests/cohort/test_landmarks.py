"""Landmark tables: read by the names of columns, and every mistake named with its line."""

import numpy as np
import pytest

from regcore.cohort.landmarks import read_landmarks
from regcore.errors import InputError


def test_landmarks_are_read_by_column_name(tmp_path):
    path = tmp_path / "points.tsv"
    path.write_text("z\tname\tx\ty\n3\tapex\t1\t2\n-6\tbase\t4\t5\n")
    table = read_landmarks(path, 3)
    assert list(table.index) == ["apex", "base"]
    np.testing.assert_array_equal(table.to_numpy(), [[1, 2, 3], [4, 5, -6]])
    assert list(read_landmarks(path, 2).columns) == ["x", "y"]
    path.write_text("name\tx\ty\napex\t1\t2\n")
    with pytest.raises(InputError, match=r"points\.tsv: .*lacks the column\(s\) z"):
        read_landmarks(path, 3)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("tip\t1\tfar\t3", r"line 2: x y z must be finite numbers .* not 1, far, 3"),
        ("tip\t1\t\t3", "line 2: x y z must be finite"),
        ("tip\t1\tinf\t3", "line 2: x y z must be finite"),
        ("tip\t1\t2\t3\n\ntip\t4\t5\t6", "line 4: 'tip' is listed twice"),
        ("\t1\t2\t3", "line 2: the name is missing"),
        ("", "has no rows"),
    ],
)
def test_a_wrong_landmark_is_named_with_its_line(tmp_path, rows, words):
    path = tmp_path / "points.tsv"
    path.write_text(f"name\tx\ty\tz\n{rows}\n")
    with pytest.raises(InputError, match=rf"points\.tsv.*{words}"):
        read_landmarks(path, 3)
