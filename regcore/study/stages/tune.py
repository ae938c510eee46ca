"""Stage: search for hyperparameters, with one training per slot, and keep the best model."""

import json
import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from regcore.errors import DivergedError, InputError
from regcore.models.model_json import read_model_json
from regcore.models.trained import copy_model
from regcore.process.files import atomic_write
from regcore.settings.fingerprint import fingerprint
from regcore.study.layout import FOUND, TRIALS
from regcore.study.plan import Plan
from regcore.study.stages.train import train, training_identity
from regcore.training.checkpoint import exclusive
from regcore.tuning.bayes import Bayes
from regcore.tuning.search import Search, settled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """The location of a search, small enough to send to another process.

    Attributes
    ----------
    folder : Path
        Folder of the journal, and of the trials' models.
    name : str
        The entry.
    search : Search
        Its search, settled.
    identity : str
        Fingerprint of everything, besides its values, that a trial's outcome depends on.
    seed : int
        The study's.

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.study.stages.tune import Store
    >>> from regcore.tuning.search import read_search
    >>> search = read_search({"tune": {"ranges": {"lambda": [0.01, 1]}}}, "voxelmorph")
    >>> print(Store(Path("tuning/voxelmorph"), "voxelmorph", search, "fingerprint", seed=1).model(slot=3))
    tuning/voxelmorph/models/003
    """

    folder: Path
    name: str
    search: Search
    identity: str
    seed: int

    def open(self) -> Bayes:
        return Bayes(self.folder, self.name, self.search, self.identity, self.seed)

    def model(self, slot: int) -> Path:
        return self.folder / "models" / f"{slot:03d}"


@dataclass(frozen=True)
class _Watch:
    """Reports each validation of a trial, and ends the trial if the pruner says so."""

    store: Store
    number: int

    @cached_property
    def _bayes(self) -> Bayes:
        return self.store.open()

    def __call__(self, look: int, dice: float) -> bool:
        end = self._bayes.report(self.number, look, dice)
        if end:
            log.info("%s: trial %d is pruned at validation %d", self.store.name, self.number, look)
        return end


def store_of(plan: Plan, name: str) -> Store:
    """The search of an entry of a study.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        The entry whose hyperparameters are searched.

    Returns
    -------
    Store
    """
    entry = plan.entries[name]
    method = entry.make()
    search = settled(entry.existing_search, method)
    identity = fingerprint(search.identity, training_identity(plan, name, method, None))
    return Store(plan.files.search(name), name, search, identity, plan.settings.seed)


def run_trial(plan: Plan, name: str, slot: int, output: Path, checkpoints: Path) -> None:
    """Train with the values that the search draws for a slot. An interrupted slot resumes.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        The entry whose hyperparameters are searched.
    slot : int
        From 0 to the number of trials minus one.
    output : Path
        JSON: the trial's values, state and Dice.
    checkpoints : Path
        Folder for the training's state.

    Raises
    ------
    InputError
        Another process works on this slot, its trainings diverged too often, the journal belongs to another search,
        or training is impossible for another reason. The slot keeps its values until that is fixed.
    """
    with exclusive(checkpoints):
        store = store_of(plan, name)
        bayes = store.open()
        while not (claim := bayes.claim(slot)).finished:
            log.info("%s: trial %d of %d with %s", name, claim.number, store.search.trials, claim.params)
            model, training = store.model(slot), checkpoints / f"trial-{claim.number}"
            if claim.fresh:  # existing files belong to a journal that is gone
                for folder in (model, training):
                    shutil.rmtree(folder, ignore_errors=True)
            try:
                plan.entries[name].make(claim.params)
            except InputError as error:  # values that do not fit together; the slot tries others
                bayes.fail(claim.number, str(error))
                continue
            try:
                if not (model / "model.json").is_file():  # otherwise the process was killed before it could record this
                    train(plan, name, model, training, claim.params, _Watch(store, claim.number))
            except DivergedError as error:
                log.warning("%s: trial %d failed: %s", name, claim.number, error)
                bayes.fail(claim.number, str(error))
                continue
            _finish(bayes, claim.number, model, training)
        best = _keep_best(store, bayes)
        if best is not None and best.number == claim.number and not (store.model(slot) / "model.json").is_file():
            log.info("%s: the best trial's model is gone; training it again", name)
            train(plan, name, store.model(slot), checkpoints / "again", claim.params)
        for left in checkpoints.glob("*/"):
            shutil.rmtree(left)
        (trial,) = [trial for trial in bayes.of_slot(slot) if trial.number == claim.number]
        with atomic_write(output) as path:
            path.write_text(json.dumps(_facts(trial, slot), indent=1))


def _finish(bayes: Bayes, number: int, model: Path, training: Path) -> None:
    """Record how a training ended: with a model, or pruned."""
    if (model / "model.json").is_file():
        facts = read_model_json(model)["training"]
        kept = {key: facts[key] for key in ("steps", "best_step", "seconds", "cpu_seconds")}
        bayes.complete(number, facts["best_validation_dice"], kept)
    else:
        last = pd.read_csv(training / "history.csv").iloc[-1]
        bayes.prune(number, {"steps": int(last["step"]), "seconds": float(last["seconds"])})


def _keep_best(store: Store, bayes: Bayes) -> FrozenTrial | None:
    """Delete the models of all finished trials but the best, and return the best."""
    with bayes.alone():  # otherwise two processes might each delete what the other keeps
        best = bayes.best()
        for slot, trial in bayes.finished().items():
            if best is not None and trial.number != best.number:
                shutil.rmtree(store.model(slot), ignore_errors=True)
    return best


def _facts(trial: FrozenTrial, slot: int) -> dict[str, Any]:
    return {
        "slot": slot,
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "params": trial.params,
        "dice_at_looks": {str(look): dice for look, dice in sorted(trial.intermediate_values.items())},
    }


def collect(plan: Plan, name: str, folder: Path) -> None:
    """Write the best trial's model, with ``trials.csv`` and ``search.json`` beside its weights.

    Parameters
    ----------
    plan : Plan
        The study, in which all trials are finished.
    name : str
        The entry whose hyperparameters are searched.
    folder : Path
        Folder for the model.

    Raises
    ------
    InputError
        A slot has no finished trial, no trial was completed, or the best model is gone.
    """
    store = store_of(plan, name)
    bayes = store.open()
    table = bayes.table()
    missing = sorted(set(range(store.search.trials)) - set(table.get("slot", [])))
    best = bayes.best()
    if missing or best is None:
        raise InputError(
            f"{store.folder}: no finished trial in slot(s) {', '.join(map(str, missing)) or '(all were pruned)'}; "
            f"delete {store.folder} to start the search again"
        )
    slot = best.user_attrs["slot"]
    model = store.model(slot)
    if not (model / "model.json").is_file():
        raise InputError(
            f"{model}: the best trial's model is gone; delete {store.folder / 'trials' / f'{slot:03d}.json'} and run "
            "the study again to train it"
        )
    log.info("%s: the best of %d trials is %s, Dice %.4f", name, len(table), best.params, best.value)
    copy_model(model, folder)
    with atomic_write(folder / TRIALS) as path:
        table.to_csv(path, index=False)
    with atomic_write(folder / FOUND) as path:
        path.write_text(json.dumps(_found(bayes, table, best), indent=1))


def _found(bayes: Bayes, table: pd.DataFrame, best: FrozenTrial) -> dict[str, Any]:
    return {
        "params": best.params,
        "dice": best.value,
        "trials": len(table),
        "pruned": int((table["state"] == "pruned").sum()),
        "failed": sum(trial.state == TrialState.FAIL for trial in bayes.trials()),
        "steps": int(table["steps"].sum()),
        "importances": bayes.importances(),
        "ranges": bayes.search.identity["ranges"],
    }
