"""Stage: score many networks on the common grid, hypernetworks at many hyperparameters.

Dice is computed there, not on the native grids as :mod:`regcore.study.stages.score` does for the methods of a report.
This is the same for all networks that are compared, and cheap enough for thousands of settings.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from regcore.experiments import Sweep
from regcore.methods.base import LearnedMethod
from regcore.methods.hypernetworked import Hypernetworked
from regcore.models.trained import load_model
from regcore.process.files import atomic_write
from regcore.process.progress import tracked
from regcore.study.plan import Plan
from regcore.study.stages.train import labelled_pairs, pairs_of_split
from regcore.tuning.amortised import score, sweep, tune
from regcore.tuning.optima import optimum


def write_sweep(plan: Plan, name: str, table: str | Path, optima: str | Path) -> None:
    """Score the networks of a sweep on its pairs, and tune the hypernetworks among them.

    Parameters
    ----------
    plan : Plan
        The study, in which these networks are trained.
    name : str
        One of :attr:`Plan.sweeps`.
    table : path
        Parquet: ``entry replicate split``, the hyperparameters, ``fixed moving label metric value``.
    optima : path
        CSV: the tuned values of each hypernetwork on the validation pairs, and the time this took.
    """
    planned = plan.sweeps[name]
    pairs = {split: labelled_pairs(plan, pairs_of_split(plan, split)) for split in planned.splits}
    names = planned.entries
    frames, found = [], []
    for entry in tracked(names, f"{name}: scored"):
        method = load_model(plan.files.model(entry)).method
        for split, (labelled, codes) in pairs.items():
            tunable = method if isinstance(method, Hypernetworked) else None
            rows = sweep(tunable, labelled, codes) if tunable else score(method, labelled, codes)
            own: dict[str, Any] = {"entry": entry, "replicate": method.settings.replicate, "split": split}
            frames.append(rows.assign(**own, **_fixed_hyperparameters(method, planned)))
            if tunable and split == "validation":
                found.append({"entry": entry, **_tuning(tunable, labelled, codes, rows)})
    with atomic_write(Path(table)) as path:
        pd.concat(frames, ignore_index=True).to_parquet(path, index=False)
    with atomic_write(Path(optima)) as path:
        pd.DataFrame(found, columns=None if found else ["entry"]).to_csv(path, index=False)


def _fixed_hyperparameters(method: LearnedMethod, planned: Sweep) -> dict[str, float]:
    """The hyperparameters of a network trained at one point of a sweep's landscape."""
    return {} if method.hyperparameters else {key: method.settings.value(key) for key in planned.hyperparameters}


def _tuning(method: Hypernetworked, labelled, codes: list[int], rows: pd.DataFrame) -> dict[str, Any]:
    """The optimum by gradient, and by a dense sweep of the same pairs, for soft overlap and for Dice."""
    tuned = tune(method, labelled, codes)
    facts: dict[str, Any] = {"pairs": len(labelled.pairs), "seconds": round(tuned.seconds, 2), "overlap": tuned.overlap}
    best = {metric: optimum(rows, method.hyperparameters, metric) for metric in ("overlap", "dice")}
    for name, value in tuned.values.items():
        facts[name] = value
        for metric, at in best.items():
            facts[f"{name}_by_{metric}"] = at.values[name]
            facts[f"{name}_by_{metric}_low"], facts[f"{name}_by_{metric}_high"] = at.interval[name]
    return facts
