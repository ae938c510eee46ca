"""The report: one self-contained HTML file that opens offline."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from regcore.process.files import atomic_write
from regcore.reporting.starts import over_starts_formatted
from regcore.reporting.tables import (
    COST,
    formatted,
    formatted_comparisons,
    formatted_cost,
    marks,
    ranks,
    reason_for_no_comparison,
    shown_measures,
)
from regcore.reporting.verdicts import counts, in_question
from regcore.study.checks import TRUTH

#: Failed pairs shown for each method; further ones are counted.
FAILURES_SHOWN = 10
#: Doubtful and failed registrations shown, the worst first; the table in the study's folder has all.
IN_QUESTION_SHOWN = 40


@dataclass(frozen=True)
class Figure:
    """A PNG with its heading and caption."""

    path: Path
    heading: str
    caption: str

    @property
    def data(self) -> str:
        return base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Failure:
    """A pair that a method could not register, the reason, and the end of the method's output."""

    pair: str
    reason: str
    output: str


@dataclass(frozen=True, eq=False)
class Report:
    """The content of a report.

    Parameters
    ----------
    config : mapping
        The study's configuration with all defaults.
    facts : sequence of (str, str)
        Methods, data and hardware.
    summary, comparisons, starts : DataFrame
        From :mod:`regcore.reporting.tables`.
    reference : str, optional
        The method that the others are compared with.
    per_label : mapping
        Heading → table of every label.
    figures : sequence of Figure
    verdicts : DataFrame
        From :func:`regcore.reporting.verdicts.verdicts`.
    unavailable : mapping
        Method that was not run → the reason, and how to install it.
    failures : mapping
        Method → its failed pairs, for methods with any.
    commands : mapping
        Method → exact settings and calls.
    versions : mapping
        Package → version.
    """

    config: Mapping
    facts: Sequence[tuple[str, str]]
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    starts: pd.DataFrame
    reference: str | None
    per_label: Mapping[str, pd.DataFrame]
    figures: Sequence[Figure]
    verdicts: pd.DataFrame
    unavailable: Mapping[str, str]
    failures: Mapping[str, Sequence[Failure]]
    commands: Mapping[str, Sequence[str]]
    versions: Mapping[str, str]


def summary_html(table: pd.DataFrame, compared: pd.DataFrame) -> str:
    """The summary as an HTML table: best values bold, second best italic, Dice with its marks.

    Parameters
    ----------
    table, compared : DataFrame
        As from :func:`regcore.reporting.tables.summary` and :func:`regcore.reporting.tables.comparisons`.
    """
    shown = formatted(table).map(escape)
    places_by_heading = ranks(table)
    for heading in places_by_heading.columns:
        places = places_by_heading[heading]
        for place, tag in ((1, "b"), (2, "i")):
            chosen = places.index[places == place]
            shown.loc[chosen, heading] = f"<{tag}>" + shown.loc[chosen, heading] + f"</{tag}>"
    marked = marks(compared)
    if marked:
        shown["Dice"] += [f'<sup class="mark">{marked.get(name, "")}</sup>' for name in shown.index]
    return _html(shown.rename(index=escape, columns=escape))


def cost_html(table: pd.DataFrame) -> str:
    """The cost of every method of the summary, as an HTML table; empty if nothing is known."""
    shown = formatted_cost(table)
    return "" if shown.empty else _html(shown.map(escape).rename(index=escape))


def write_report(path: str | Path, report: Report) -> None:
    """Write the report."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regcore", "reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    summary, compared = report.summary, report.comparisons
    text = environment.get_template("page.html.j2").render(
        report=report,
        summary=summary_html(summary, compared),
        measures=shown_measures(summary).values(),
        truth=TRUTH if TRUTH in summary.index else None,
        comparisons=formatted_comparisons(compared).to_html(border=0, index=False),
        starts=None if report.starts.empty else over_starts_formatted(report.starts).to_html(border=0, index=False),
        reason_for_no_comparison=(
            reason_for_no_comparison(summary, report.reference, report.unavailable) if compared.empty else None
        ),
        cost=cost_html(summary),
        costs=[measure for column, measure in COST.items() if column in summary],
        per_label={
            heading: table.to_html(border=0, index=False, na_rep="", float_format="{:.3f}".format)
            for heading, table in report.per_label.items()
        },
        failures_shown=FAILURES_SHOWN,
        verdict_counts=counts(report.verdicts).loc[
            lambda table: table.index.isin(in_question(report.verdicts)["method"])
        ],
        in_question=in_question(report.verdicts),
        in_question_shown=IN_QUESTION_SHOWN,
        config_text=yaml.safe_dump(json.loads(json.dumps(report.config)), sort_keys=False, allow_unicode=True),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _html(shown: pd.DataFrame) -> str:
    """A table whose cells and headings are already HTML."""
    return shown.rename_axis(None).to_html(border=0, classes="summary", escape=False)
