"""Tables as spreadsheets and editors write them: taken where they have one meaning, explained where they have not."""

import pytest

from regcore.cohort.tsv import read_tsv
from regcore.errors import InputError

TEXT = "index\tname\n1\tthalamus\n2\tcaudate\n"


def read(folder, content):
    path = folder / "labels.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_tsv(path, "label table", ["index", "name"])


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.rstrip("\n"),
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        TEXT + "\n\t\n \n",
        TEXT.replace("\n", "\t\t\n"),
        TEXT.replace("\t", " \t "),
        TEXT.replace("thalamus", '"thalamus"'),
    ],
    ids=["plain", "no last end", "BOM", "CRLF", "CR", "blank lines", "blank columns", "blanks", "quotes"],
)
def test_what_has_one_meaning_is_taken(tmp_path, content):
    assert read(tmp_path, content).values.tolist() == [["1", "thalamus"], ["2", "caudate"]]


def test_lines_are_counted_as_an_editor_does_and_short_ones_filled(tmp_path):
    table = read(tmp_path, 'index\tname\tgroup\n\n1\t"two\nlines"\tdeep\n\n2\tcaudate\n')
    assert table.to_dict("index") == {
        3: {"index": "1", "name": "two\nlines", "group": "deep"},
        6: {"index": "2", "name": "caudate", "group": ""},
    }
    assert read(tmp_path, "index\tname\n").empty


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TEXT.encode("utf-16"), "text in UTF-16; save it as tab-separated text in UTF-8"),
        (TEXT.encode("utf-16-le"), "line 1: no text in UTF-8 \\(a zero byte\\)"),
        (TEXT.replace("caudate", "noyau caudé").encode("latin-1"), r"line 3: no text in UTF-8 \(byte 0xe9\)"),
        (b"PK\x03\x04rest", "a workbook of a spreadsheet; save it as"),
        (b"", "the label table is empty"),
        (b"\n\n\t\n", "the label table is empty"),
        (
            TEXT.replace("caudate", "caudate\tdeep"),
            "line 3: 3 cells, but the first line names 2 columns",
        ),
        (TEXT.replace("\t", ","), "separated by tabs; here they seem to be separated by commas"),
        (TEXT.replace("\t", ";"), "separated by tabs; here they seem to be separated by semicolons"),
        ("1\tthalamus\n", r"lacks the column\(s\) index, name; its first line names 1, thalamus"),
        (TEXT.replace("name", "name\tname"), "the column name more than once"),
        (TEXT.replace("\tname", "\t\tname"), "a column without a name"),
        (TEXT.replace("caudate", '"caudate'), "line 3: a quotation mark is not closed"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, content, words):
    with pytest.raises(InputError, match=rf"labels\.tsv.*{words}"):
        read(tmp_path, content)


def test_a_table_that_is_not_there_is_explained(tmp_path):
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(InputError, match=f"{path.name}: no such label table"):
            read_tsv(path, "label table", [])
