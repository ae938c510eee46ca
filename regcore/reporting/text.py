"""Numbers and tables of results as text and HTML."""

import pandas as pd


def html_table(columns: dict) -> str:
    """A table with a row for each element of the columns; empty cells where there is no value."""
    return pd.DataFrame(columns).to_html(border=0, index=False, na_rep="", classes="experiment")


def number_texts(values: pd.Series, number: str) -> "pd.Series[str]":
    """Numbers as text; empty where there is no value."""
    return values.map(lambda value: "" if pd.isna(value) else number.format(value)).astype(str)
