"""Table 1 of the HyperMorph paper: robustness of landscapes to random starts, and their cost."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from regcore.experiments import Needs
from regcore.experiments.hypermorph import Landscape
from regcore.methods import settings_type
from regcore.methods.settings.training import TrainingSettings
from regcore.papers.hypermorph import landscapes
from regcore.reporting.text import html_table
from regcore.study.results import Results
from regcore.training.schedule import DROP

#: Columns of the table about random starts.
SPREAD = ("lambdas", "hyper_sd", "grid_sd", "sd_ratio")


def robustness_and_cost(results: Results, needs: Needs) -> tuple[pd.DataFrame, str]:
    """SD over random starts, averaged over λ, and the cost of training a grid and a hypernetwork (Table 1 of [1]_).

    Parameters
    ----------
    results : Results
        Of a study with the sweeps and all networks.
    needs : Needs
        Not used: the study's settings of the experiments say which networks there are.

    Returns
    -------
    DataFrame
        A row per landscape: ``landscape``; ``lambdas hyper_sd grid_sd sd_ratio``, points of Dice × 100, NaN without
        several starts; ``points`` of the grid; for ``seconds`` and ``cpu_seconds`` the sum over the ``grid_``, those of
        the ``hyper_`` network, their ``_mean`` and ``_sd`` over starts, and the ``_ratio`` of grid to hypernetwork;
        ``grid_steps hyper_steps device``.
    str
        HTML: two tables, and what ends a training.

    References
    ----------
    .. [1] Hoopes, Hoffmann, Fischl, Guttag and Dalca, "HyperMorph: Amortized hyperparameter learning for image
       registration", IPMI 2021.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from regcore.experiments import Needs
    >>> from regcore.experiments.settings import ExperimentSettings
    >>> from regcore.papers.hypermorph.robustness import robustness_and_cost
    >>> def training(name):
    ...     where = {"device": "cpu", "threads": 1, "processes": 1, "stopped_early": True}
    ...     return {"seconds": 150 if name == "hyper-mse" else 100, "steps": 2000, **where}
    >>> def model(name):
    ...     method = "hypermorph" if name == "hyper-mse" else "voxelmorph"
    ...     return {"method": method, "settings": {"steps": 2000}, "training": training(name)}
    >>> values = {"lambda": {"mse": [0, 0.5, 1]}, "replicates": {"lambda": {}}}
    >>> experiments = ExperimentSettings.read({"hypermorph": values}, "experiments")
    >>> results = SimpleNamespace(experiments=experiments, training=training, model=model)
    >>> table, html = robustness_and_cost(results, Needs())
    >>> table[["landscape", "points", "grid_seconds", "hyper_seconds", "seconds_ratio"]]
      landscape  points  grid_seconds  hyper_seconds  seconds_ratio
    0       mse       3           300            150            2.0
    """
    spread = {shape.name: _spread(landscapes.by_start(results, shape)) for shape in landscapes.repeated(results)}
    shapes = landscapes.planned(results)
    rows = [
        {"landscape": name, **spread.get(name, dict.fromkeys(SPREAD, math.nan)), **_cost(results, shape)}
        for name, shape in shapes.items()
    ]
    table = pd.DataFrame(rows)
    titles = table["landscape"].map({name: landscapes.title(shape) for name, shape in shapes.items()})
    robust, parts = table.dropna(subset="hyper_sd"), []
    if len(robust):
        parts.append(
            html_table(
                {
                    "SD of Dice × 100 over starts": titles[robust.index],
                    "λ values": robust["lambdas"].map("{:.0f}".format),
                    "HyperMorph": robust["hyper_sd"].map("{:.3f}".format),
                    "Networks": robust["grid_sd"].map("{:.3f}".format),
                    "Networks / HyperMorph": robust["sd_ratio"].map("{:.2f}".format),
                }
            )
        )
    columns: dict[str, pd.Series | list[str]] = {"Training": titles, "Networks of the grid": table["points"]}
    for seconds, heading in (("seconds", "s"), ("cpu_seconds", "CPU s")):
        if table[f"grid_{seconds}"].notna().any():
            columns[f"Grid, {heading}"] = _numbers(table[f"grid_{seconds}"], "{:.0f}")
            columns[f"HyperMorph, {heading}"] = _numbers(table[f"hyper_{seconds}"], "{:.0f}")
            columns[f"mean (SD) over starts, {heading}"] = [
                f"{mean:.0f} ({sd:.0f})" if not math.isnan(sd) else ""
                for mean, sd in zip(table[f"hyper_{seconds}_mean"], table[f"hyper_{seconds}_sd"], strict=True)
            ]
            columns[f"Grid / HyperMorph, {heading}"] = _numbers(table[f"{seconds}_ratio"], "{:.2f}")
    columns |= {"Grid, steps": table["grid_steps"], "HyperMorph, steps": table["hyper_steps"]}
    parts.append(html_table(columns | {"Device": table["device"]}))
    return table, "\n".join([*parts, f'<p class="note">{_what_seconds_are(results)}</p>'])


def _spread(table: pd.DataFrame) -> dict[str, float]:
    """Means over the values of λ whose networks are trained several times."""
    several = table.dropna(subset="grid_sd")
    hyper, grid = several["hyper_sd"].mean(), several["grid_sd"].mean()
    return dict(zip(SPREAD, (len(several), hyper, grid, grid / hyper), strict=True))


def _cost(results: Results, shape: Landscape) -> dict[str, Any]:
    """Cost with the first start, of the whole grid and of the hypernetwork; mean and SD over all starts."""
    grid = _trainings(results, landscapes.first_grid(shape))
    hyper = _trainings(results, shape.hypernetworks())
    row: dict[str, Any] = {"points": len(grid)}
    for what in ("seconds", "cpu_seconds"):
        row[f"grid_{what}"] = grid[what].sum(skipna=False)
        row[f"hyper_{what}"] = hyper[what].iloc[0]
        row[f"hyper_{what}_mean"], row[f"hyper_{what}_sd"] = hyper[what].mean(), hyper[what].std(ddof=1)
        row[f"{what}_ratio"] = row[f"grid_{what}"] / row[f"hyper_{what}"]
    row |= {"grid_steps": grid["steps"].sum(), "hyper_steps": hyper["steps"].iloc[0]}
    where = pd.concat([grid, hyper]).drop_duplicates(["device", "threads", "processes"])
    devices = [f"{d} ({t * p} thread{'s' if t * p > 1 else ''})" for d, t, p in _columns(where)]
    return {**row, "device": "; ".join(devices)}


def _columns(where: pd.DataFrame) -> Iterable[tuple[str, int, int]]:
    return zip(where["device"], where["threads"], where["processes"], strict=True)


def _trainings(results: Results, names: Iterable[str]) -> pd.DataFrame:
    """Cost of training each network."""
    return pd.DataFrame([{"cpu_seconds": math.nan} | results.training(name) for name in names])


def _what_seconds_are(results: Results) -> str:
    """The stopping rule of both kinds in words, and the number of trainings it did not stop."""
    shapes = landscapes.planned(results).values()
    kinds = {
        "networks": [results.model(name) for shape in shapes for name in landscapes.first_grid(shape)],
        "hypernetworks": [results.model(name) for shape in shapes for name in shape.hypernetworks()],
    }
    found = {
        kind: ", or ".join(dict.fromkeys(convergence_rule(_settings(model)) for model in models))
        for kind, models in kinds.items()
    }
    apart = len(set(found.values())) > 1
    rules = "; ".join(f"{kind}: {rule}" if apart else rule for kind, rule in list(found.items())[: 1 + apart])
    models = [model for several in kinds.values() for model in several]
    limited = [model for model in models if _settings(model).patience and not model["training"]["stopped_early"]]
    ended = f" {len(limited)} of {len(models)} trainings reached their maximum of steps first." * bool(limited)
    return (
        f"Seconds of training, with validation; {rules}.{ended} The grid: the sum over its networks, each trained once."
    )


def _settings(model: Mapping[str, Any]) -> TrainingSettings:
    """The settings with which a model was trained."""
    settings = settings_type(model["method"]).read(model["settings"], "model.json")
    if not isinstance(settings, TrainingSettings):
        raise TypeError(f"models of the method {model['method']} are not trained")
    return settings


def convergence_rule(settings: TrainingSettings) -> str:
    """A clause about when a training ends.

    Parameters
    ----------
    settings : TrainingSettings
        With which it runs.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.methods.settings.training import TrainingSettings
    >>> from regcore.papers.hypermorph.robustness import convergence_rule
    >>> convergence_rule(TrainingSettings(steps=5000, patience=None))
    'training takes 5000 steps'
    >>> rule = convergence_rule(TrainingSettings(patience=3, select="loss", validate_every=200, tolerance=0.01))
    >>> rule.partition(", ")[0]
    'training ends when none of 3 successive values of the loss of the validation pairs'
    """
    if settings.patience is None:
        return f"training takes {settings.steps} steps"
    score = {"loss": "loss", "dice": "Dice"}[settings.select] + " of the validation pairs"
    better = f"is {100 * settings.tolerance:g} % better" if settings.tolerance else "is better"
    nothing = (
        f"none of {settings.patience} successive values of the {score}, one every {settings.validate_every} steps, "
        f"{better} than the best before"
    )
    if settings.schedule != "plateau" or not settings.drops:
        return f"training ends when {nothing}"
    times = "once" if settings.drops == 1 else f"{settings.drops} times"
    return (
        f"the learning rate is multiplied by {DROP:g} when {nothing}; after this has happened {times}, training ends "
        "the next time"
    )


def _numbers(values: pd.Series, form: str) -> list[str]:
    return ["" if math.isnan(value) else form.format(value) for value in values]
