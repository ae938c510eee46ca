"""Writing the tables and figures of the papers' experiments."""

import importlib
from collections.abc import Mapping

from regcore.process.files import atomic_write
from regcore.reporting.figures import save_figure
from regcore.study.plan import Plan


def write_experiment(plan: Plan, paper: str, experiment: str, outputs: Mapping[str, str]) -> None:
    """Write one experiment of a paper: ``csv``, and ``html`` or ``png``.

    Parameters
    ----------
    paper : str
        Package of :mod:`regcore.papers` whose module ``figures`` has a function ``show(plan, experiment)`` that returns
        a DataFrame for the CSV and HTML text or a figure.
    """
    module = importlib.import_module(f"regcore.papers.{paper}.figures")
    table, shown = module.show(plan, experiment)
    with atomic_write(outputs["csv"]) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    if "html" in outputs:
        with atomic_write(outputs["html"]) as path:
            path.write_text(shown, encoding="utf-8")
    else:
        save_figure(shown, outputs["png"])
