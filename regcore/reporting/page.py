"""The report: one self-contained HTML file that opens offline."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from regcore.files import atomic_write
from regcore.reporting.tables import MEASURES, for_people


@dataclass(frozen=True)
class Figure:
    """A PNG with its heading and a caption that says what to see in it."""

    path: Path
    heading: str
    caption: str

    @property
    def data(self) -> str:
        return base64.b64encode(self.path.read_bytes()).decode()


def summary_html(table: pd.DataFrame) -> str:
    """The summary as an HTML table."""
    return for_people(table).rename_axis(None).to_html(border=0, classes="summary", na_rep="")


def write_report(
    path: str | Path,
    config: Mapping,
    facts: Sequence[tuple[str, str]],
    table: pd.DataFrame,
    per_label: pd.DataFrame,
    figures: Sequence[Figure],
    commands: Mapping[str, Sequence[str]],
    versions: Mapping[str, str],
) -> None:
    """Write the report.

    Parameters
    ----------
    config : mapping
        The study's configuration with all defaults.
    facts : sequence of (str, str)
        What was compared on what data.
    table, per_label : DataFrame
        From :mod:`regcore.reporting.tables`.
    commands : mapping
        Method → exact settings and calls.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regcore", "reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template("page.html.j2").render(
        config=config,
        facts=facts,
        summary=summary_html(table),
        measures=[(heading, meaning) for metric, (heading, _, meaning) in MEASURES.items() if metric in table],
        per_label=per_label.to_html(border=0, index=False, na_rep="", float_format="{:.3f}".format),
        figures=figures,
        commands=commands,
        config_text=yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True),
        versions=versions,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
