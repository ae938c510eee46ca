"""Figures 3 to 7 and Table 1 of HyperMorph (Hoopes et al., IPMI 2021), on any cohort.

A *landscape* is Dice as a function of one or two hyperparameters.  It is measured by one hypernetwork, and by a grid of
networks with the same architecture, each trained at one point.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from regcore.errors import InputError
from regcore.experiments import Experiment, Needs, Paper, Sweep
from regcore.experiments.settings import GammaLandscape, HyperMorphExperiments
from regcore.tuning.grid import grid, names

#: The section of the study file.
WHERE = "experiments.hypermorph"
#: The package that draws the experiments.
DRAWN_BY = "regcore.papers.hypermorph"
#: Names in the paper.
SIMILARITIES = {"mse": "MSE", "lncc": "NCC", "nmi": "NMI"}
#: Default settings of both kinds of networks: the paper's architecture and its mean squares.
DEFAULTS = {"architecture": "half", "image_sigma": 0.05}
#: The landscapes with two hyperparameters, λ and another (Fig. 4).
SECOND = {"window": "local NCC window", "gamma": "segmentation supervision γ"}


@dataclass(frozen=True)
class Landscape:
    """One hypernetwork and its grid, possibly trained several times.

    Parameters
    ----------
    name : str
        Name of the landscape.
    similarity : str
        As in the networks' settings.
    prior : dict of str → list
        The range of each hyperparameter.
    points : dict of str → list
        Values of each hyperparameter in the grid.
    again : dict of str → list
        Values trained from further random starts; empty for none.
    replicates : int
        Number of trainings of each, including the first.
    observed : str, list or None
        The labels used in training; None for training without labels.

    Examples
    --------
    >>> from regcore.experiments.hypermorph import Landscape
    >>> landscape = Landscape("mse", "mse", {"lambda": [0, 1]}, {"lambda": [0.2, 0.8]}, again={}, replicates=1)
    >>> list(landscape.hypernetworks()), list(landscape.networks())
    (['hyper-mse'], ['grid-mse-lam~0.2', 'grid-mse-lam~0.8'])
    """

    name: str
    similarity: str
    prior: dict[str, list[float]]
    points: dict[str, list[float]]
    again: dict[str, list[float]]
    replicates: int
    observed: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of all of its networks."""
        seen = {} if self.observed is None else {"observed": self.observed}
        return {"similarity": self.similarity, **seen}

    @property
    def hyperparameters(self) -> list[str]:
        return list(self.prior)

    def hypernetworks(self) -> dict[str, dict[str, Any]]:
        """Name → settings."""
        return {
            self._named("hyper", replicate): {"prior": self.prior, "replicate": replicate}
            for replicate in range(1, self.replicates + 1)
        }

    def networks(self) -> dict[str, dict[str, Any]]:
        """Name → settings, for all networks of the grid."""
        found: dict[str, dict[str, Any]] = {}
        for replicate in range(1, self.replicates + 1):
            points = grid(self.points if replicate == 1 else self.again)
            for name, point in zip(names(points), points.to_dict("records"), strict=True):
                values = {str(hyperparameter): value for hyperparameter, value in point.items()}
                found[f"{self._named('grid', replicate)}-{name}"] = {**values, "replicate": replicate}
        return found

    def _named(self, kind: str, replicate: int) -> str:
        return f"{kind}-{self.name}" + (f"-{replicate}" if replicate > 1 else "")


def landscapes(settings: HyperMorphExperiments, labelled: bool) -> dict[str, Landscape]:
    """The landscapes of a study.

    Parameters
    ----------
    settings : HyperMorphExperiments
        The section ``experiments.hypermorph`` of the study.
    labelled : bool
        Whether training scans have labels, without which γ cannot be varied.

    Returns
    -------
    dict of str → Landscape
        By name.

    Raises
    ------
    InputError
        No landscape is requested, γ is requested without labels, a value is outside the hypernetwork's range, or
        replicates are requested for a similarity that is not.

    Examples
    --------
    >>> from regcore.experiments.hypermorph import landscapes
    >>> from regcore.experiments.settings import HyperMorphExperiments
    >>> values = {"lambda": {"mse": [0.2, 0.8]}, "replicates": {"lambda": {}}}
    >>> found = landscapes(HyperMorphExperiments.read(values, "experiments.hypermorph"), labelled=False)
    >>> found["mse"].points
    {'lambda': [0.2, 0.8]}
    """
    if not settings.lambda_ and not settings.landscapes.wanted:
        raise InputError(f"{WHERE}: 'lambda' and 'landscapes' are both empty; remove {WHERE}")
    found: dict[str, Landscape] = {}
    for similarity in settings.replicates.lambda_:
        if similarity not in settings.lambda_:
            raise InputError(
                f"{WHERE}.replicates.lambda: {similarity} is not among the similarities of '{WHERE}.lambda'"
            )
    for similarity, values in settings.lambda_.items():
        again = settings.replicates.lambda_.get(similarity, [])
        count = settings.replicates.count if again else 1
        points = {"lambda": sorted({*values, *again})}
        found[similarity] = Landscape(similarity, similarity, {"lambda": [0, 1]}, points, {"lambda": again}, count)
    for second, wanted in settings.landscapes.wanted.items():
        if second == "gamma" and not labelled:
            raise InputError(
                f"{WHERE}.landscapes.gamma: γ needs labels, which the training scans do not have; remove it"
            )
        low, high = wanted.range
        tried, odd_alone = wanted.value(second), second == "window"
        beyond = [value for value in tried if not low <= value <= high or (odd_alone and value % 2 != 1)]
        if beyond:
            odd = ", and windows must be odd" if odd_alone else ""
            raise InputError(f"{WHERE}.landscapes.{second}: {beyond} must lie within 'range', [{low:g}, {high:g}]{odd}")
        observed = wanted.observed if isinstance(wanted, GammaLandscape) else None
        prior = {"lambda": [0, 1], second: wanted.range}
        points = {"lambda": wanted.lambda_, second: wanted.value(second)}
        found[second] = Landscape(second, wanted.similarity, prior, points, {}, 1, observed)
    return found


def experiments(settings: HyperMorphExperiments, labelled: bool) -> Paper:
    """The networks, and the needs of each table and figure.

    Parameters
    ----------
    settings : HyperMorphExperiments
        The section ``experiments.hypermorph`` of the study.
    labelled : bool
        Whether training scans have labels.

    Returns
    -------
    Paper

    Raises
    ------
    InputError
        As for :func:`landscapes`.

    Examples
    --------
    >>> from regcore.experiments.hypermorph import experiments
    >>> from regcore.experiments.settings import HyperMorphExperiments
    >>> values = {"lambda": {"mse": [0.2, 0.8]}, "replicates": {"lambda": {}}}
    >>> paper = experiments(HyperMorphExperiments.read(values, "experiments.hypermorph"), labelled=False)
    >>> paper.names, list(paper.variants)
    (['fig3', 'fig6', 'fig7', 'table1'], ['hyper-mse', 'grid-mse-lam~0.2', 'grid-mse-lam~0.8'])
    """
    planned = landscapes(settings, labelled)
    single = [name for name in SIMILARITIES if name in planned]
    double = [name for name in SECOND if name in planned]
    repeated = [name for name in single if planned[name].replicates > 1]
    hyper = {name: list(planned[name].hypernetworks()) for name in planned}
    grids = {name: list(planned[name].networks()) for name in planned}
    every = [*single, *double]
    # Fig. 4 reads from the model which labels its training used.
    found = [
        Experiment("fig3", Needs(sweeps=_both(single)), f"{DRAWN_BY}.figures:dice_by_lambda"),
        Experiment(
            "fig4", Needs(sweeps=_both(double), models=hyper.get("gamma", [])), f"{DRAWN_BY}.figures:dice_by_two"
        ),
        Experiment("fig5", Needs(sweeps=_both(repeated)), f"{DRAWN_BY}.figures:dice_by_start"),
        Experiment("fig6", Needs(sweeps=list(map(dense, single))), f"{DRAWN_BY}.figures:lambda_by_group"),
        Experiment("fig7", Needs(sweeps=list(map(dense, single))), f"{DRAWN_BY}.figures:lambda_by_structure"),
        Experiment(
            "table1",
            Needs(sweeps=_both(every), models=[name for own in every for name in (*hyper[own], *grids[own])]),
            f"{DRAWN_BY}.robustness:robustness_and_cost",
        ),
    ]
    sweeps = [
        Sweep(sweep, entries, planned[name].hyperparameters)
        for name in planned
        for sweep, entries in ((dense(name), hyper[name]), (by_grid(name), grids[name]))
    ]
    shown = [experiment for experiment in found if experiment.needs.sweeps]
    return Paper(dict(_variants(settings, planned)), shown, sweeps)


def _both(landscapes: Iterable[str]) -> list[str]:
    """The sweeps of the hypernetworks and of the grids."""
    return [sweep(name) for name in landscapes for sweep in (dense, by_grid)]


def dense(landscape: str) -> str:
    """Name of the sweep over a landscape's hypernetworks.

    Parameters
    ----------
    landscape : str
        Name of the landscape.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.hypermorph import dense
    >>> dense("mse")
    'mse-hyper'
    """
    return f"{landscape}-hyper"


def by_grid(landscape: str) -> str:
    """Name of the sweep over a landscape's grid of networks.

    Parameters
    ----------
    landscape : str
        Name of the landscape.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.experiments.hypermorph import by_grid
    >>> by_grid("mse")
    'mse-grid'
    """
    return f"{landscape}-grid"


def _variants(
    settings: HyperMorphExperiments, planned: Mapping[str, Landscape]
) -> Iterable[tuple[str, dict[str, Any]]]:
    for shape in planned.values():
        common = {**DEFAULTS, **settings.settings, **shape.settings}
        for name, own in shape.hypernetworks().items():
            yield name, {"method": "hypermorph", **common, **settings.hypernetwork, **own}
        for name, own in shape.networks().items():
            yield name, {"method": "voxelmorph", "weighting": "convex", **common, **settings.network, **own}
