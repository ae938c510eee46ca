"""Control for AutoReg's search by gradient: architectures drawn at random or by TPE, scored with shared weights.

A super-network learns with one random path per step, so that every architecture can borrow its weights.  Then as many
architectures as time allows are scored on validation pairs, drawn at random or by Optuna's TPE.  The paper has no such
comparison; single-path training is that of Guo et al., ECCV 2020.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from torch import Tensor

from regcore.autoreg.search import RANDOM
from regcore.checks import NotFiniteError
from regcore.errors import DivergedError
from regcore.networks.architecture import CANDIDATES, Architecture
from regcore.networks.cells import CellNetwork
from regcore.process.progress import Every, Progress
from regcore.process.stopwatch import Stopwatch, work_clock
from regcore.training.checkpoint import Checkpoint
from regcore.training.optimiser import load_optimiser, make_optimiser, optimiser_state

log = logging.getLogger(__name__)

#: Seconds between two checkpoints.
SAVE_EVERY = 20
#: Fraction of the time for training the super-network.
TRAINING_SHARE = 0.5
TRAINING, SCORING = "training", "scoring"
#: Last words of seeds: for paths of the super-network in training, and for scored architectures.
PATHS, TRIALS = 2, 3


@dataclass
class Tried:
    """Progress of a control.

    Attributes
    ----------
    phase : str
        Training of the super-network, or scoring of architectures.
    step : int
        Training steps so far.
    trials : list of dict
        ``operations`` of the mixed edges and their ``loss``, in order.
    seconds, cpu_seconds : float
        Time so far.

    Examples
    --------
    >>> from regcore.autoreg.path_search import Tried
    >>> trials = [{"operations": ["1-Conv"], "loss": 0.4}, {"operations": ["3-Conv"], "loss": 0.3}]
    >>> Tried(phase="scoring", trials=trials).best
    ['3-Conv']
    """

    phase: str = TRAINING
    step: int = 0
    trials: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def best(self) -> list[str]:
        """Operations of the best architecture so far."""
        return min(self.trials, key=lambda trial: trial["loss"])["operations"]


class PathSearch:
    """Find cells by trying architectures. After ``kill -9`` it resumes from its last checkpoint.

    The number tried depends on the machine, so two runs may differ.

    Parameters
    ----------
    network : CellNetwork
        Its mixed kinds of cells are searched.
    inner : callable
        (number of a step, architecture) → loss on the training pairs of the step.
    score : callable
        Architecture → mean loss on validation pairs.
    by : {"random", "tpe"}
        How architectures are drawn.
    cpu_seconds : float
        Time limit.
    optimiser, learning_rate
        As in :class:`~regcore.autoreg.bilevel.Schedule`.
    seed : int
        Seed of all draws.
    folder, fingerprint
        As in :class:`~regcore.autoreg.bilevel.Stage`.
    """

    def __init__(
        self,
        network: CellNetwork,
        inner: Callable[[int, Architecture], Tensor],
        score: Callable[[Architecture], float],
        by: str,
        cpu_seconds: float,
        optimiser: str,
        learning_rate: float,
        seed: int,
        folder: Path,
        fingerprint: str,
    ):
        self.network, self.inner, self.score, self.by = network, inner, score, by
        self.allowed, self.seed = cpu_seconds, seed
        self.checkpoint = Checkpoint(Path(folder) / "paths.safetensors", fingerprint)
        self.optimiser = make_optimiser(network.weights(), optimiser, learning_rate)
        self.tried = Tried()
        self._work_clock = work_clock(next(network.parameters()).device)

    def run(self) -> Tried:
        """Search until the time is over; score at least one architecture.

        Raises
        ------
        DivergedError
            A training loss became NaN or infinite.
        """
        self._resume()
        tried = self.tried
        watch = Stopwatch(tried.seconds, tried.cpu_seconds, self._work_clock)
        progress, saves = Progress(self.allowed, tried.cpu_seconds), Every(SAVE_EVERY)
        while tried.cpu_seconds < self.allowed or not tried.trials:
            if tried.phase == TRAINING and tried.cpu_seconds > TRAINING_SHARE * self.allowed:
                tried.phase = SCORING
            self._train() if tried.phase == TRAINING else self._try()
            tried.seconds, tried.cpu_seconds = watch.read()
            if saves.due():
                self._save()
            if progress.due():
                self._tell(progress)
        self._save()
        self._tell(progress)
        return tried

    def _train(self) -> None:
        path, message = self._drawn(PATHS, self.tried.step), f"the super-network diverged at step {self.tried.step}"
        self.optimiser.zero_grad(set_to_none=True)
        try:
            loss = self.inner(self.tried.step, self.architecture(path))
        except NotFiniteError as error:
            raise DivergedError(f"{message}; lower 'learning_rate'") from error
        if not math.isfinite(loss.item()):
            raise DivergedError(f"{message}; lower 'learning_rate'")
        loss.backward()
        self.optimiser.step()
        self.tried.step += 1

    def _try(self) -> None:
        if self.by == RANDOM:
            operations = self._drawn(TRIALS, len(self.tried.trials))
        else:
            operations = list(self._study.ask(self._rules).params.values())
        try:
            loss = self.score(self.architecture(operations))
        except NotFiniteError:
            loss = math.inf
        trial = {"operations": operations, "loss": loss if math.isfinite(loss) else math.inf}
        self.tried.trials.append(trial)
        if self.by != RANDOM:
            self._study.add_trial(self._as_trial(trial))

    def _drawn(self, what: int, number: int) -> list[str]:
        """A random operation for each edge, from another random stream than the step's pairs."""
        drawn = np.random.default_rng([self.seed, number, what]).choice(list(CANDIDATES), self._edges)
        return list(map(str, drawn))

    @cached_property
    def _study(self) -> optuna.Study:
        """Optuna's study, in memory, with the trials so far."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        count = len(self.tried.trials)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=(self.seed + count) % 2**31))
        study.add_trials([self._as_trial(trial) for trial in self.tried.trials])
        return study

    @property
    def _rules(self) -> dict[str, optuna.distributions.BaseDistribution]:
        rule = optuna.distributions.CategoricalDistribution(list(CANDIDATES))
        return {f"edge{edge}": rule for edge in range(self._edges)}

    def _as_trial(self, tried: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
        params = dict(zip(self._rules, tried["operations"], strict=True))
        return optuna.trial.create_trial(params=params, distributions=self._rules, value=tried["loss"])

    @property
    def _edges(self) -> int:
        return sum(len(mixture) for mixture in self.network.mixtures.values())

    def architecture(self, operations: Sequence[str]) -> Architecture:
        """The architecture with these operations on the mixed edges."""
        found, start = self.network.architecture, 0
        for kind, mixture in self.network.mixtures.items():
            found = found.with_cells(kind, list(operations[start : start + len(mixture)]))
            start += len(mixture)
        return found

    def _tell(self, progress: Progress) -> None:
        tried = self.tried
        log.info(
            "%s: %d steps, %d architectures tried%s  %s",
            tried.phase,
            tried.step,
            len(tried.trials),
            f"  best {min(trial['loss'] for trial in tried.trials):.5f}" if tried.trials else "",
            progress.left(tried.cpu_seconds),
        )

    def _save(self) -> None:
        sections = {"model": self.network.state_dict(), "optimiser": optimiser_state(self.optimiser)}
        self.checkpoint.save(sections, vars(self.tried))

    def _resume(self) -> None:
        saved = self.checkpoint.load()
        if saved is None:
            return
        self.network.load_state_dict(saved.section("model"))
        load_optimiser(self.optimiser, saved.section("optimiser"))
        self.tried = Tried(**saved.facts)
        log.info("resuming after %d steps and %d architectures", self.tried.step, len(self.tried.trials))
