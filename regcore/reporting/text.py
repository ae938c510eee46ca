"""Numbers and tables of results as text and HTML."""

import pandas as pd


def html_table(columns: dict) -> str:
    """A table with a row for each element of the columns.

    Parameters
    ----------
    columns : dict of str → sequence
        Heading → the column's values.

    Returns
    -------
    str
        An HTML table; empty cells where there is no value.

    Examples
    --------
    >>> from regcore.reporting.text import html_table
    >>> html = html_table({"Method": ["affine", "syn"], "Dice": ["0.5", None]})
    >>> "<th>Dice</th>" in html, "<td>0.5</td>" in html, "<td></td>" in html
    (True, True, True)
    """
    return pd.DataFrame(columns).to_html(border=0, index=False, na_rep="", classes="experiment")


def number_texts(values: pd.Series, number: str) -> "pd.Series[str]":
    """Numbers as text.

    Parameters
    ----------
    values : Series
        Numbers.
    number : str
        Format of a number, such as ``{:.2f}``.

    Returns
    -------
    Series of str
        Empty text where there is no value.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.text import number_texts
    >>> number_texts(pd.Series([0.5, None]), "{:.2f}").tolist()
    ['0.50', '']
    """
    return values.map(lambda value: "" if pd.isna(value) else number.format(value)).astype(str)
