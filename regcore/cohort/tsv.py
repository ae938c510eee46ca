"""Tab-separated tables that people write: every mistake is named with its table and line.

Spreadsheets and editors write such files in many ways.  What has only one meaning is taken: a byte order mark, Windows'
line ends, lines and columns without content, blanks around a cell, quotes.  What has not is refused: another encoding,
another separator, cells without a column.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from regcore.errors import InputError

#: Name of the index of a table: lines of the file, counted from 1.
LINE = "line"
#: What a file begins with, and what it is then.
SIGNATURES = {
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"PK\x03\x04": "a workbook of a spreadsheet",
    b"\x1f\x8b": "compressed",
}
AS_TEXT = "save it as tab-separated text in UTF-8"


def read_tsv(path: str | Path, what: str, required: Iterable[str]) -> pd.DataFrame:
    r"""Read a table whose first line names its columns.

    Parameters
    ----------
    path : path
        Tab-separated text in UTF-8.
    what : str
        What it is called in messages, such as ``cohort table``.
    required : iterable of str
        Columns that it must have.

    Returns
    -------
    DataFrame of str
        One row for each line with content, indexed by its number in the file; empty cells are ``""``.

    Raises
    ------
    InputError
        The file is missing, empty or no text in UTF-8; has other separators; lacks a column, or has one twice; or a
        line has more cells than there are columns.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.cohort.tsv import read_tsv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.tsv")
    ...     _ = path.write_bytes(b"\xef\xbb\xbfindex\tname\r\n\r\n10\tleft thalamus\t\r\n")
    ...     table = read_tsv(path, "label table", ["index", "name"])
    >>> table.to_dict("index")
    {3: {'index': '10', 'name': 'left thalamus'}}
    """
    lines = [(number, row) for number, row in _rows(_text(path, what), path) if any(row)]
    if not lines:
        raise InputError(f"{path}: the {what} is empty; its first line must name the columns")
    columns = _columns(lines[0][1], path, what, list(required))
    for number, row in lines[1:]:
        if any(row[len(columns) :]):
            raise InputError(
                f"{path}, line {number}: {len(row)} cells, but the first line names {len(columns)} columns "
                f"({', '.join(columns)}); remove the cells that are too many"
            )
    rows = [[*row, *[""] * len(columns)][: len(columns)] for _, row in lines[1:]]
    numbers = pd.Index([number for number, _ in lines[1:]], name=LINE, dtype=int)
    return pd.DataFrame(rows, columns=columns, index=numbers, dtype=str)


def lines_of(table: pd.DataFrame) -> list[int]:
    """The line of each row in its file; for a table that was not read from one, as if it had been.

    Parameters
    ----------
    table : DataFrame
        From :func:`read_tsv`, or made in memory.

    Returns
    -------
    list of int

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.tsv import lines_of
    >>> lines_of(pd.DataFrame({"name": ["a", "b"]}))
    [2, 3]
    """
    return list(table.index) if table.index.name == LINE else list(range(2, len(table) + 2))


def _text(path: str | Path, what: str) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such {what}; give the path of a tab-separated file")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read ({error.strerror})") from error
    for start, kind in SIGNATURES.items():
        if content.startswith(start):
            raise InputError(f"{path}: the {what} is {kind}; {AS_TEXT}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, wrong = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise InputError(f"{path}, line {line}: no text in UTF-8 (byte {wrong:#x}); {AS_TEXT}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: no text in UTF-8 (a zero byte); {AS_TEXT}")
    return text


def _rows(text: str, path: str | Path) -> list[tuple[int, list[str]]]:
    """The number and the cells of every line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    found, begins = [], 1
    try:
        for row in reader:
            found.append((begins, [cell.strip() for cell in row]))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {begins}: a quotation mark is not closed, or text follows it") from error
    return found


def _columns(header: list[str], path: str | Path, what: str, required: list[str]) -> list[str]:
    """The names in the first line, without empty ones at its end."""
    while header and not header[-1]:
        header = header[:-1]
    missing = [column for column in required if column not in header]
    if missing:
        other = next((name for sign, name in ((",", "commas"), (";", "semicolons")) if sign in header[0]), None)
        guess = f"; here they seem to be separated by {other}" if len(header) == 1 and other else ""
        raise InputError(
            f"{path}: the {what} lacks the column(s) {', '.join(missing)}; its first line names {', '.join(header)}. "
            f"Columns are separated by tabs{guess}"
        )
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled or "" in header:
        raise InputError(
            f"{path}: the {what} has "
            + (f"the column {', '.join(doubled)} more than once" if doubled else "a column without a name")
            + "; keep one of each, with a name"
        )
    return header
