"""Tables of results as HTML."""

import pandas as pd


def html_table(columns: dict) -> str:
    """A table with a row for each element of the columns; empty cells where there is no value."""
    return pd.DataFrame(columns).to_html(border=0, index=False, na_rep="", classes="experiment")
