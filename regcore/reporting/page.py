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
from regcore.reporting.comparisons import marks, reason_for_no_comparison
from regcore.reporting.formatting import formatted, formatted_comparisons, formatted_cost, ranks
from regcore.reporting.measures import COST, shown_measures
from regcore.reporting.starts import over_starts_formatted
from regcore.reporting.verdicts import counts, in_question
from regcore.study.checks import TRUTH

#: Failed pairs shown for each method; further ones are counted.
FAILURES_SHOWN = 10
#: Doubtful and failed registrations shown, the worst first; the table in the study's folder has all.
IN_QUESTION_SHOWN = 40


@dataclass(frozen=True)
class Figure:
    """A PNG with its heading and caption.

    Parameters
    ----------
    path : Path
        The PNG.
    heading, caption : str
        What is written above and below it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.reporting.page import Figure
    >>> Figure(Path("figures/training_curves.png"), "Training", "Dice on the validation pairs.").heading
    'Training'
    """

    path: Path
    heading: str
    caption: str

    @property
    def data(self) -> str:
        """The PNG as base64, for a page that needs no other file."""
        return base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Failure:
    """A pair that a method could not register.

    Parameters
    ----------
    pair : str
        Name of the pair.
    reason : str
        Why it failed.
    output : str
        The end of the method's output; may be empty.

    Examples
    --------
    >>> from regcore.reporting.page import Failure
    >>> Failure("a--b", "greedy ended with status 1", output="").reason
    'greedy ended with status 1'
    """

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
    summary : DataFrame
        As from :func:`regcore.reporting.summaries.with_training`.
    comparisons : DataFrame
        As from :func:`regcore.reporting.comparisons.comparisons`.
    starts : DataFrame
        As from :func:`regcore.reporting.starts.over_starts`.
    reference : str, optional
        The method that the others are compared with.
    per_label : mapping
        Heading → table of every label.
    figures : sequence of Figure
        In the order of the page.
    verdicts : DataFrame
        As from :func:`regcore.reporting.verdicts.verdicts`.
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
    table : DataFrame
        As from :func:`regcore.reporting.summaries.summary`.
    compared : DataFrame
        As from :func:`regcore.reporting.comparisons.comparisons`.

    Returns
    -------
    str

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.comparisons import comparisons
    >>> from regcore.reporting.page import summary_html
    >>> from regcore.reporting.summaries import summary
    >>> dice = [("syn", "a", 0.8), ("syn", "b", 0.6), ("affine", "a", 0.5), ("affine", "b", 0.4)]
    >>> rows = pd.DataFrame(dice, columns=["method", "pair", "value"])
    >>> rows = rows.assign(contrasts="T1w to T1w", label=1, metric="dice")
    >>> labels = pd.DataFrame({"index": [1], "name": ["thalamus"], "group": ["all"]})
    >>> html = summary_html(summary(rows, labels, ["syn"]), comparisons(rows, ["syn"], "syn"))
    >>> "<b>0.700 ± 0.141</b>" in html
    True
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
    """The cost of every method of the summary, as an HTML table.

    Parameters
    ----------
    table : DataFrame
        As from :func:`regcore.reporting.summaries.with_training`.

    Returns
    -------
    str
        Empty if nothing is known.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.reporting.page import cost_html
    >>> table = pd.DataFrame({"seconds": [2.0], "training_seconds": [90], "parameters": [1000]}, index=["voxelmorph"])
    >>> "<td>1.5 min</td>" in cost_html(table)
    True
    """
    shown = formatted_cost(table)
    return "" if shown.empty else _html(shown.map(escape).rename(index=escape))


def write_report(path: str | Path, report: Report) -> None:
    """Write the report.

    Parameters
    ----------
    path : path
        The HTML file; figures are inside it.
    report : Report
        Its content.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from regcore.reporting.comparisons import comparisons
    >>> from regcore.reporting.page import Report, write_report
    >>> from regcore.reporting.starts import over_starts
    >>> from regcore.reporting.summaries import summary, with_training
    >>> from regcore.reporting.verdicts import verdicts
    >>> dice = [("syn", "a", 0.8), ("syn", "b", 0.6), ("affine", "a", 0.5), ("affine", "b", 0.4)]
    >>> rows = pd.DataFrame(dice, columns=["method", "pair", "value"])
    >>> rows = rows.assign(contrasts="T1w to T1w", label=1, metric="dice")
    >>> labels = pd.DataFrame({"index": [1], "name": ["thalamus"], "group": ["all"]})
    >>> tables = {"summary": with_training(summary(rows, labels, ["syn"]), trained={}), "verdicts": verdicts(rows)}
    >>> tables |= {"comparisons": comparisons(rows, ["syn"], "syn"), "starts": over_starts(rows, {}, None)}
    >>> empty = dict.fromkeys(("per_label", "unavailable", "failures", "commands", "versions"), {})
    >>> config = {"study": "small", "title": "A small study", "description": "Two pairs."}
    >>> report = Report(config, facts=[("Subjects", "4 test")], reference="syn", figures=[], **tables, **empty)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(Path(folder) / "report.html", report)
    ...     page = (Path(folder) / "report.html").read_text(encoding="utf-8")
    >>> "<h1>A small study</h1>" in page, "syn is the only method" in page
    (True, True)
    """
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
