"""Declarations of the papers' experiments: the variants they train, and what each table and figure needs.

Nothing here runs or draws anything.  The workflow's rules train, register and score variants like the study's methods.
The function that draws an experiment is given by name, and loaded only to draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from regcore.methods import MethodInfo


@dataclass(frozen=True)
class Needs:
    """Inputs of a table or figure, by names of the study's entries.

    Parameters
    ----------
    scores : list of str
        Entries whose test pairs must be registered and scored; for learned entries, also their models.
    models : list of str
        Entries of which only the trained models are needed (training and validation scores).
    sweeps : list of str
        Names of the paper's sweeps.
    features : list of str
        Entries for which the variation of their networks' features with contrast is shown.
    weights : list of str
        Entries for which weight volumes are shown.
    architectures : list of str
        Entries for which the search for cells and its result are shown.
    fields : list of str
        Entries for which warped images are shown.

    Examples
    --------
    >>> from regcore.experiments import Needs
    >>> needs = Needs(scores=["affine", "voxelmorph"])
    >>> needs.scores, needs.sweeps
    (['affine', 'voxelmorph'], [])
    """

    scores: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    sweeps: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    architectures: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Experiment:
    """One table or figure of a paper.

    Parameters
    ----------
    name : str
        ``table<number>`` or ``fig<number>``.
    needs : Needs
        What must be there to draw it.
    show : str
        ``module:function`` that makes it: (:class:`regcore.study.results.Results`, :class:`Needs`, options) → the
        numbers as a DataFrame, and the HTML of the table or the figure.
    options : mapping
        Further arguments of the function.

    Examples
    --------
    >>> from regcore.experiments import Experiment, Needs
    >>> Experiment("table1", Needs(scores=["affine", "syn"]), "regcore.papers.voxelmorph.figures:methods_table").file
    'table1.html'
    """

    name: str
    needs: Needs
    show: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the file that shows it. The numbers are beside it as CSV."""
        return f"{self.name}{'.html' if self.name.startswith('table') else '.png'}"


@dataclass(frozen=True)
class Sweep:
    """Entries scored together on the common grid, hypernetworks at many hyperparameters.

    Parameters
    ----------
    name : str
        Name of the sweep.
    entries : list of str
        The entries to score.
    hyperparameters : list of str
        Hyperparameters in which the networks differ.
    splits : tuple of str
        Splits of the pairs to score.

    Examples
    --------
    >>> from regcore.experiments import Sweep
    >>> Sweep("mse-hyper", ["hyper-mse"], ["lambda"]).splits
    ('validation', 'test')
    """

    name: str
    entries: list[str]
    hyperparameters: list[str]
    splits: tuple[str, ...] = ("validation", "test")


@dataclass(frozen=True)
class Paper:
    """The experiments of one paper.

    Parameters
    ----------
    variants : dict of str → dict
        Entries in addition to the study's methods: name → settings, with the key ``method``.
    experiments : list of Experiment
        Its tables and figures.
    sweeps : list of Sweep
        What they need besides single entries.

    Examples
    --------
    >>> from regcore.experiments import Experiment, Needs, Paper
    >>> table = Experiment("table1", Needs(scores=["vm"]), "my_package.figures:table")
    >>> paper = Paper({"vm": {"method": "voxelmorph", "lambda": 2}}, [table])
    >>> paper.names, paper["table1"].needs.scores
    (['table1'], ['vm'])
    """

    variants: dict[str, dict[str, Any]]
    experiments: list[Experiment]
    sweeps: list[Sweep] = field(default_factory=list)

    @cached_property
    def _by_name(self) -> dict[str, Experiment]:
        return {experiment.name: experiment for experiment in self.experiments}

    def __getitem__(self, name: str) -> Experiment:
        """One of the experiments."""
        return self._by_name[name]

    @property
    def names(self) -> list[str]:
        """The experiments, in alphabetical order."""
        return sorted(self._by_name)


class Compared(Protocol):
    """What experiments need to know about a method of the study."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def info(self) -> MethodInfo:
        """What the registry knows about it."""

    @property
    def network(self) -> str:
        """The method that trained its network."""
