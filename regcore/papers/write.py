"""Makes and writes the tables and figures of the papers' experiments."""

import importlib
from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.figure import Figure

from regcore.process.files import atomic_write
from regcore.reporting.figures import save_figure
from regcore.study.results import Results

#: The numbers of an experiment, and the HTML of its table or its figure.
Shown = tuple[pd.DataFrame, str | Figure]


def drawn_by(name: str) -> Callable[..., Shown]:
    """The function that makes an experiment, by its name ``module:function``."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def show(results: Results, paper: str, experiment: str) -> Shown:
    """Make one experiment of a paper."""
    planned = results.plan.papers[paper][experiment]
    return drawn_by(planned.show)(results, planned.needs, **planned.options)


def write_experiment(results: Results, paper: str, experiment: str, outputs: Mapping[str, str]) -> None:
    """Make one experiment of a paper; write its numbers to ``csv`` and the table or figure to ``html`` or ``png``."""
    table, shown = show(results, paper, experiment)
    with atomic_write(outputs["csv"]) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    if isinstance(shown, str):
        with atomic_write(outputs["html"]) as path:
            path.write_text(shown, encoding="utf-8")
    else:
        save_figure(shown, outputs["png"])
