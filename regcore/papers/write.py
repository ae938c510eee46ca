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
    """The function that makes an experiment.

    Parameters
    ----------
    name : str
        ``module:function``.

    Returns
    -------
    callable
        (:class:`regcore.study.results.Results`, :class:`regcore.experiments.Needs`, options) → the numbers, and the
        HTML of the table or the figure.

    Examples
    --------
    >>> from regcore.papers.write import drawn_by
    >>> drawn_by("regcore.papers.autoreg.figures:time_and_size").__name__
    'time_and_size'
    """
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def show(results: Results, paper: str, experiment: str) -> Shown:
    """Make one experiment of a paper.

    Parameters
    ----------
    results : Results
        Of a study that planned it, with what it needs.
    paper : str
        Name of the paper.
    experiment : str
        ``table<number>`` or ``fig<number>``.

    Returns
    -------
    DataFrame
        The numbers.
    str or Figure
        The HTML of the table, or the figure.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Experiment, Needs, Paper
    >>> from regcore.papers.write import show
    >>> table9 = Experiment("table9", Needs(scores=["syn"]), "regcore.papers.autoreg.figures:all_methods")
    >>> plan = SimpleNamespace(papers={"autoreg": Paper({}, [table9])})
    >>> results = SimpleNamespace(plan=plan, of_pairs=lambda name, metric="dice": pd.Series([0.5, 1.0]))
    >>> table, html = show(results, "autoreg", "table9")
    >>> table[["method", "dice_mean"]]
      method  dice_mean
    0    syn       0.75
    """
    planned = results.plan.papers[paper][experiment]
    return drawn_by(planned.show)(results, planned.needs, **planned.options)


def write_experiment(results: Results, paper: str, experiment: str, outputs: Mapping[str, str]) -> None:
    """Make one experiment of a paper and write it.

    Parameters
    ----------
    results : Results
        Of a study that planned it, with what it needs.
    paper : str
        Name of the paper.
    experiment : str
        ``table<number>`` or ``fig<number>``.
    outputs : mapping of str → str
        Paths of the numbers, ``csv``, and of the table, ``html``, or the figure, ``png``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> from regcore.experiments import Experiment, Needs, Paper
    >>> from regcore.papers.write import write_experiment
    >>> table9 = Experiment("table9", Needs(scores=["syn"]), "regcore.papers.autoreg.figures:all_methods")
    >>> plan = SimpleNamespace(papers={"autoreg": Paper({}, [table9])})
    >>> results = SimpleNamespace(plan=plan, of_pairs=lambda name, metric="dice": pd.Series([0.5, 1.0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outputs = {kind: f"{folder}/table9.{kind}" for kind in ("csv", "html")}
    ...     write_experiment(results, "autoreg", "table9", outputs)
    ...     Path(outputs["csv"]).read_text().splitlines()
    ['entry,method,dice_mean,dice_sd,folds_mean,folds_sd', 'syn,syn,0.75,0.353553,0.75,0.353553']
    """
    table, shown = show(results, paper, experiment)
    with atomic_write(outputs["csv"]) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    if isinstance(shown, str):
        with atomic_write(outputs["html"]) as path:
            path.write_text(shown, encoding="utf-8")
    else:
        save_figure(shown, outputs["png"])
