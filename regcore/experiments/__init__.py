"""The experiments of the papers, declared: which variants of a method they train, what each table and figure needs.

Nothing here runs or draws anything.  The workflow's rules train, register and score variants like the methods of the
study; the function that draws an experiment is named, and loaded when it draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from regcore.methods import MethodInfo


@dataclass(frozen=True)
class Needs:
    """What has to be there before a table or figure can be made, by names of the study's entries.

    Parameters
    ----------
    scores : list of str
        Entries whose test pairs are registered and scored; where these are learned, their models too.
    models : list of str
        Entries whose trained models alone are needed (training and validation scores).
    sweeps : list of str
        Names of the paper's sweeps.
    features : list of str
        Entries of whose networks is shown how much their features vary with contrast.
    weights : list of str
        Entries of whose networks the weight volumes are shown.
    architectures : list of str
        Entries of whose searches for cells is shown what they found, and how.
    fields : list of str
        Entries of whose fields is shown what they do to images.
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
    show : str
        ``module:function`` that makes it: (:class:`regcore.study.results.Results`, :class:`Needs`, options) → the
        numbers as a DataFrame, and HTML of the table or the figure.
    options : mapping
        Further arguments of the function.
    """

    name: str
    needs: Needs
    show: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the file that shows it; the numbers lie beside it as CSV."""
        return f"{self.name}{'.html' if self.name.startswith('table') else '.png'}"


@dataclass(frozen=True)
class Sweep:
    """Entries that are scored together on the common grid, hypernetworks at many hyperparameters.

    Parameters
    ----------
    name : str
    entries : list of str
    hyperparameters : list of str
        What its networks differ in.
    splits : tuple of str
        Pairs that are scored.
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
        What is trained or registered with beside the study's methods: name → settings, with the key ``method``.
    experiments : list of Experiment
    sweeps : list of Sweep
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
    """What experiments ask of a method of the study."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def info(self) -> MethodInfo:
        """What the registry knows of it."""

    @property
    def network(self) -> str:
        """The method that its network was trained by."""
