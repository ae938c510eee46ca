"""Bayesian optimisation of hyperparameters: Section 3.7 of TM-SPR, for any trained method.

A search is an Optuna study in a journal file, which many processes on one or several machines may share and which
``optuna-dashboard`` opens.  Every training has a *slot*, a number that is stored in its trial.  A killed job finds its
trial again and resumes it, so a search always ends with one finished trial per slot.
"""

import fcntl
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from regcore.errors import InputError
from regcore.tuning.search import Search
from regcore.tuning.settings import GRID, RANDOM, Choices, Interval

log = logging.getLogger(__name__)

JOURNAL = "study.journal"
SLOT, IDENTITY, FACTS, REASON = "slot", "identity", "facts", "reason"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
#: Trainings of a slot, each with other values, that may diverge before the search gives up.
ATTEMPTS = 3

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Claim:
    """A slot's trial: newly drawn, started earlier, or finished.

    Attributes
    ----------
    number : int
        Number of the trial in the Optuna study.
    params : dict
        The drawn values.
    finished : bool
        Whether there is nothing left to train.
    fresh : bool
        Whether the values were drawn just now.

    Examples
    --------
    >>> from regcore.tuning.bayes import Claim
    >>> claim = Claim(number=3, params={"lambda": 0.2}, fresh=True)
    >>> claim.finished, claim.params["lambda"]
    (False, 0.2)
    """

    number: int
    params: dict[str, Any]
    finished: bool = False
    fresh: bool = False


class Bayes:
    """A search, stored in a folder.

    Parameters
    ----------
    folder : Path
        Folder of ``study.journal``.
    name : str
        Name of the search.
    search : Search
        The search, :func:`settled <regcore.tuning.search.settled>`.
    identity : str
        Fingerprint of everything, besides its values, that a trial's outcome depends on.
    seed : int
        Seed of the sampler; each slot draws with its own.

    Raises
    ------
    InputError
        The folder's journal belongs to another search.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.methods import make_method
    >>> from regcore.tuning.bayes import Bayes
    >>> from regcore.tuning.search import read_search, settled
    >>> values = {"tune": {"ranges": {"lambda": {"choices": [0.1, 1]}}, "sampler": "grid"}}
    >>> search = settled(read_search(values, "voxelmorph"), make_method("voxelmorph"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bayes = Bayes(Path(folder), "voxelmorph", search, identity="fingerprint", seed=1)
    ...     for slot in range(search.trials):
    ...         claim = bayes.claim(slot)  # a job trains with claim.params, then tells how good that was
    ...         bayes.complete(claim.number, dice=0.7 - 0.1 * slot, facts={"steps": 100})
    ...     print(bayes.table()[["slot", "state", "value", "lambda"]])
    ...     bayes.best().params
       slot     state  value  lambda
    0     0  complete    0.7     0.1
    1     1  complete    0.6     1.0
    {'lambda': 0.1}
    """

    def __init__(self, folder: Path, name: str, search: Search, identity: str, seed: int):
        self.folder, self.search, self.seed = Path(folder), search, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / JOURNAL
        # An absolute path: the backend's lock is a symbolic link to the file, and a relative link would not resolve.
        self.storage = optuna.storages.JournalStorage(JournalFileBackend(str(path.resolve())))
        with self.alone():
            others = [known for known in optuna.get_all_study_names(self.storage) if known != name]
            if others:
                raise InputError(f"{path}: belongs to the search '{others[0]}', not '{name}'; move the file away")
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, direction="maximize", load_if_exists=True, pruner=_pruner(search)
            )
            known = self.study.user_attrs.get(IDENTITY)
            if known is None:
                self.study.set_user_attr(IDENTITY, identity)
            elif known != identity:
                raise InputError(
                    f"{path}: its trials were made with other ranges, settings or scans; to start again, delete "
                    f"or rename the folder {self.folder}"
                )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from starting a trial."""
        with open(self.folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def of_slot(self, slot: int) -> list[FrozenTrial]:
        return [trial for trial in self.trials() if trial.user_attrs.get(SLOT) == slot]

    def finished(self) -> dict[int, FrozenTrial]:
        """Slot → its finished trial, for the search's present slots."""
        found = {trial.user_attrs[SLOT]: trial for trial in self.trials() if self._is_finished(trial)}
        return {slot: found[slot] for slot in sorted(found) if slot < self.search.trials}

    def _is_finished(self, trial: FrozenTrial) -> bool:
        """A grid has no other values to try if training diverges."""
        failed = trial.state == TrialState.FAIL and SLOT in trial.user_attrs and self.search.sampler == GRID
        return trial.state in FINISHED or failed

    def claim(self, slot: int) -> Claim:
        """Resume a slot's trial, or draw the values of a new one.

        The caller must hold the slot, so that no other process works on it.

        Raises
        ------
        InputError
            The slot's trainings failed too often.
        """
        with self.alone():
            for trial in self.trials():  # a process was killed before it stored its slot
                if trial.state == TrialState.RUNNING and SLOT not in trial.user_attrs:
                    self.study.tell(trial.number, state=TrialState.FAIL)
            own = self.of_slot(slot)
            for trial in own:
                if self._is_finished(trial) or trial.state == TrialState.RUNNING:
                    return Claim(trial.number, trial.params, finished=self._is_finished(trial))
            if len(own) >= ATTEMPTS:
                raise InputError(
                    f"{self.folder / JOURNAL}: {len(own)} trainings of slot {slot} failed, the last with "
                    f"{own[-1].params} ({own[-1].user_attrs.get(REASON)}); narrow the ranges, and delete "
                    f"{self.folder} to start the search again"
                )
            self.study.sampler = self._sampler(slot, len(own))
            begun = self.study.ask(_distributions(self.search))
            begun.set_user_attr(SLOT, slot)
            return Claim(begun.number, begun.params, fresh=True)

    def report(self, number: int, look: int, dice: float) -> bool:
        """Record the result of a validation; return whether the trial should end."""
        trial = self._running(number)
        if look not in self._frozen(number).intermediate_values:
            trial.report(dice, look)
        return trial.should_prune()

    def complete(self, number: int, dice: float, facts: Mapping[str, Any]) -> None:
        self._note(number, facts)
        self.study.tell(number, dice)

    def prune(self, number: int, facts: Mapping[str, Any]) -> None:
        self._note(number, facts)
        self.study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        self._running(number).set_user_attr(REASON, reason)
        self.study.tell(number, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """The completed trial with the highest value, among the search's present slots."""
        return max(self._completed(), key=_value, default=None)

    def table(self) -> pd.DataFrame:
        """One row per finished slot: ``slot trial state value looks``, the values, and the trial's facts."""
        rows = [
            {
                "slot": slot,
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "looks": len(trial.intermediate_values),
                **trial.params,
                **trial.user_attrs.get(FACTS, {}),
            }
            for slot, trial in self.finished().items()
        ]
        return pd.DataFrame(rows)

    def importances(self) -> dict[str, float]:
        """Share of each hyperparameter in the variance of Dice (functional ANOVA, Section 6.1.3).

        From completed trials; empty if there are too few, or if they are all alike.
        """
        done = self._completed()
        if len(self.search.ranges) < 2 or len({round(_value(trial), 6) for trial in done}) < 2:
            return {}
        only = optuna.create_study(direction="maximize")
        only.add_trials(done)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            found = optuna.importance.get_param_importances(only, evaluator=evaluator)
        except RuntimeError:  # no tree of the forest has a variance to explain
            return {}
        return {name: float(share) for name, share in found.items()}

    def _completed(self) -> list[FrozenTrial]:
        return [trial for trial in self.finished().values() if trial.state == TrialState.COMPLETE]

    def _running(self, number: int) -> Trial:
        return Trial(self.study, self._frozen(number)._trial_id)  # the only way back to a trial of another process

    def _frozen(self, number: int) -> FrozenTrial:
        return next(trial for trial in self.trials() if trial.number == number)

    def _note(self, number: int, facts: Mapping[str, Any]) -> None:
        self._running(number).set_user_attr(FACTS, dict(facts))

    def _sampler(self, slot: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, slot, attempt]).generate_state(1)[0])
        if self.search.sampler == GRID:
            return _AtPoint(self.search.point(slot))
        if self.search.sampler == RANDOM:
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(n_startup_trials=self.search.random_trials, seed=seed)


class _AtPoint(optuna.samplers.BaseSampler):
    """A sampler that draws given values."""

    def __init__(self, point: Mapping[str, Any]):
        self.point = point

    def infer_relative_search_space(self, study, trial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study, trial, search_space) -> dict[str, Any]:
        return {}

    def sample_independent(self, study, trial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.point[param_name]


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None  # of a completed trial
    return trial.value


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if not search.pruning:
        return optuna.pruners.NopPruner()
    assert search.warmup is not None and search.interval is not None  # the search is settled
    return optuna.pruners.MedianPruner(search.startup_trials, search.warmup, search.interval)


def _distributions(search: Search) -> dict[str, BaseDistribution]:
    return {name: _distribution(rule, name in search.whole) for name, rule in search.ranges.items()}


def _distribution(rule: Interval | Choices, whole: bool) -> BaseDistribution:
    if isinstance(rule, Choices):
        return CategoricalDistribution(rule.choices)
    if whole:
        return IntDistribution(int(rule.low), int(rule.high), log=rule.log)
    return FloatDistribution(rule.low, rule.high, log=rule.log)
