"""AutoReg's search (Fan et al., TIP 2023, Section III-D, Algorithm 1): the loop of a stage.

A stage alternates two updates: of what is searched for (α or λ), by the gradient of a loss on validation pairs that
accounts for the response of the network's weights; and of these weights, by the loss on training pairs.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from regcore.autoreg.hypergradient import hypergradient
from regcore.checks import NotFiniteError
from regcore.errors import DivergedError
from regcore.networks.architecture import LAMBDAS
from regcore.process.progress import Every, Progress, time_left
from regcore.process.stopwatch import Stopwatch, work_clock
from regcore.training.checkpoint import Checkpoint
from regcore.training.memory import live_peak
from regcore.training.optimiser import load_optimiser, make_optimiser, optimiser_state

log = logging.getLogger(__name__)

#: Seconds between two checkpoints within an epoch.
SAVE_EVERY = 60


class Objective(nn.Module):
    """λ of Eq. 4 and 5 [1]_, kept valid: λ1 in (0, 1) by a sigmoid, the others above 0 by exponentials.

    Parameters
    ----------
    start : mapping of str → float
        All four. None may be 0, and λ1 may not be 1.

    Raises
    ------
    ValueError
        A value is on or beyond its limit.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023, Eq. 4 and 5.

    Examples
    --------
    >>> from regcore.autoreg.bilevel import Objective
    >>> objective = Objective({"lambda1": 0.5, "lambda2": 2, "lambda3": 0.4, "lambda4": 0.1})
    >>> {name: round(value, 3) for name, value in objective.values().items()}
    {'lambda1': 0.5, 'lambda2': 2.0, 'lambda3': 0.4, 'lambda4': 0.1}
    >>> objective.weights()["lambda2"].requires_grad
    True
    """

    def __init__(self, start: Mapping[str, float]):
        super().__init__()
        values = torch.tensor([start[name] for name in LAMBDAS], dtype=torch.float64)
        free = torch.cat([values[:1].logit(), values[1:].log()])
        if not free.isfinite().all():
            raise ValueError(f"a search of λ must start with λ1 in (0, 1) and the others above 0, not at {dict(start)}")
        self.free = nn.Parameter(free.float())

    def weights(self) -> dict[str, Tensor]:
        """λ as differentiable functions of the parameters."""
        values = torch.cat([self.free[:1].sigmoid(), self.free[1:].exp()])
        return dict(zip(LAMBDAS, values.unbind(), strict=True))

    def values(self) -> dict[str, float]:
        """λ as numbers."""
        return {name: value.item() for name, value in self.weights().items()}


@dataclass(frozen=True)
class Schedule:
    """Length and learning rates of a stage.

    Attributes
    ----------
    warmup, epochs : int
        Epochs that train only the weights, and the maximum of epochs that also search.
    epoch : int
        Steps per epoch.
    stable : int
        Epochs without a change after which the stage ends.
    learning_rate, search_rate : float
        Rate for the weights, which is also η, and Adam's rate for what is searched.
    epsilon : float
        ε.
    keep_length : bool
        As for :func:`~regcore.autoreg.hypergradient.hypergradient`.
    optimiser : str
        Optimiser of the weights, a name of :func:`~regcore.training.optimiser.make_optimiser`.

    Examples
    --------
    >>> from regcore.autoreg.bilevel import Schedule
    >>> schedule = Schedule(15, 30, 100, stable=10, learning_rate=1e-4, search_rate=1e-4, epsilon=1e-4)
    >>> (schedule.warmup + schedule.epochs) * schedule.epoch  # most steps
    4500
    """

    warmup: int
    epochs: int
    epoch: int
    stable: int
    learning_rate: float
    search_rate: float
    epsilon: float
    keep_length: bool = False
    optimiser: str = "adam"


@dataclass(frozen=True)
class Problem:
    """What a stage searches for.

    Attributes
    ----------
    module : nn.Module
        The network; checkpoints store all of it.
    weights : sequence of Parameter
        ω.
    searched : nn.Module
        Module with α or λ as parameters; part of ``module`` or separate.
    inner, outer : callable
        Number of a step → loss on its training or validation pairs.
    values : callable
        () → numbers by name for a row of the trace.
    same : callable
        (values, earlier values) → whether they are equal enough to stop.
    tell : callable
        values → text for the progress message.
    """

    module: nn.Module
    weights: Sequence[nn.Parameter]
    searched: nn.Module
    inner: Callable[[int], Tensor]
    outer: Callable[[int], Tensor]
    values: Callable[[], dict[str, float]]
    same: Callable[[Mapping[str, float], Mapping[str, float]], bool]
    tell: Callable[[Mapping[str, float]], str]


@dataclass
class Trace:
    """Record of a stage: one row per epoch, and its cost.

    Attributes
    ----------
    rows : list of dict
        ``epoch training_loss validation_loss``, and the values of what is searched for.
    step : int
        Steps so far, including those of an incomplete epoch.
    sums : list of float
        Sums of both losses in that epoch.
    seconds, cpu_seconds : float
        Seconds of the wall clock and of the :func:`~regcore.process.stopwatch.work_clock`.
    step_bytes : int
        Peak memory of the tensors of one hypergradient, without the weights.
    stable : bool
        Whether the stage ended because nothing changed any more.

    Examples
    --------
    >>> from regcore.autoreg.bilevel import Trace
    >>> Trace().rows, Trace().stable
    ([], False)
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    step_bytes: int = 0
    stable: bool = False


class Stage:
    """One stage of the search. After ``kill -9`` it resumes from its last checkpoint with the same result.

    Parameters
    ----------
    name : str
        Name in progress messages and of the checkpoint.
    problem : Problem
        What it searches for.
    schedule : Schedule
        For how long, and how fast.
    folder : Path
        Folder of the checkpoint.
    fingerprint : str
        Fingerprint of everything that determines the stage. Other checkpoints are not resumed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from regcore.autoreg.bilevel import Problem, Schedule, Stage
    >>> network, searched = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    >>> target = searched.weight  # the inner loss pulls the network's weight to it; the outer loss wants that at 3
    >>> problem = Problem(
    ...     network,
    ...     list(network.parameters()),
    ...     searched,
    ...     inner=lambda step: (network.weight - target).square().sum(),
    ...     outer=lambda step: (network.weight - 3).square().sum(),
    ...     values=lambda: {"target": target.item()},
    ...     same=lambda row, other: abs(row["target"] - other["target"]) < 1e-3,
    ...     tell=str,
    ... )
    >>> schedule = Schedule(1, 6, 10, stable=5, learning_rate=0.1, search_rate=0.1, epsilon=1e-2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = Stage("toy", problem, schedule, Path(folder), "fingerprint").run().rows
    >>> abs(rows[-1]["target"] - 3) < abs(rows[0]["target"] - 3)
    True
    """

    def __init__(self, name: str, problem: Problem, schedule: Schedule, folder: Path, fingerprint: str):
        self.name, self.problem, self.schedule = name, problem, schedule
        self.checkpoint = Checkpoint(Path(folder) / f"{name}.safetensors", fingerprint)
        self.trace = Trace()
        self.optimisers = {
            "weights": make_optimiser(problem.weights, schedule.optimiser, schedule.learning_rate),
            "searched": torch.optim.Adam(problem.searched.parameters(), lr=schedule.search_rate),
        }
        self._work_clock = work_clock(next(iter(problem.weights)).device)
        self._saves = Every(SAVE_EVERY)
        self._progress = Progress((schedule.warmup + schedule.epochs) * schedule.epoch)
        self._duration: dict[bool, float] = {}

    def run(self) -> Trace:
        """Search to the end.

        Raises
        ------
        DivergedError
            A loss became NaN or infinite.
        """
        self._resume()
        trace, schedule = self.trace, self.schedule
        if not trace.step_bytes:
            trace.step_bytes = self._measured()
        watch = Stopwatch(trace.seconds, trace.cpu_seconds, self._work_clock)
        while len(trace.rows) < schedule.warmup + schedule.epochs and not trace.stable:
            began = time.monotonic()
            searching = len(trace.rows) >= schedule.warmup
            try:
                losses = self._step(searching)
            except NotFiniteError as error:
                raise self._diverged() from error
            if not all(map(math.isfinite, losses)):
                raise self._diverged()
            self._duration[searching] = time.monotonic() - began
            trace.sums = [total + loss for total, loss in zip(trace.sums, losses, strict=True)]
            trace.step += 1
            trace.seconds, trace.cpu_seconds = watch.read()
            if trace.step % schedule.epoch == 0:
                self._end_epoch(searching)
            elif self._saves.due():
                self._save()
            if self._progress.due():
                self._tell()
        return trace

    def _step(self, searching: bool) -> tuple[float, float]:
        """Take one step; return the losses on training and validation pairs, the latter 0 before the search starts."""
        problem, schedule, step = self.problem, self.schedule, self.trace.step
        weights, searched = list(problem.weights), list(problem.searched.parameters())
        inner, outer, ahead = partial(problem.inner, step), partial(problem.outer, step), 0.0
        if searching:
            rate, epsilon, keep = schedule.learning_rate, schedule.epsilon, schedule.keep_length
            slopes, ahead = hypergradient(inner, outer, weights, searched, rate, epsilon, keep)
            for value, slope in zip(searched, slopes, strict=True):
                value.grad = slope
            self.optimisers["searched"].step()
        loss = inner()
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            weight.grad = slope
        self.optimisers["weights"].step()
        return loss.item(), ahead

    def _end_epoch(self, searching: bool) -> None:
        trace = self.trace
        training, validation = (total / self.schedule.epoch for total in trace.sums)
        losses = {"training_loss": training, "validation_loss": validation if searching else float("nan")}
        trace.rows.append({"epoch": len(trace.rows) + 1, **losses, **self.problem.values()})
        trace.sums, trace.stable = [0.0, 0.0], self._is_stable()
        self._save()
        self._tell()

    def _measured(self) -> int:
        problem, searched = self.problem, list(self.problem.searched.parameters())
        inner, outer = partial(problem.inner, 0), partial(problem.outer, 0)
        return live_peak(lambda: hypergradient(inner, outer, list(problem.weights), searched, 0, self.schedule.epsilon))

    def _diverged(self) -> DivergedError:
        return DivergedError(f"the search of {self.name} diverged in epoch {len(self.trace.rows) + 1}; lower its rates")

    def _is_stable(self) -> bool:
        searched = self.trace.rows[self.schedule.warmup :]
        if len(searched) <= self.schedule.stable:
            return False
        last = searched[-self.schedule.stable - 1 :]
        return all(self.problem.same(last[-1], row) for row in last[:-1])

    def _tell(self) -> None:
        schedule, trace = self.schedule, self.trace
        self._progress.restart()
        total, done = schedule.warmup + schedule.epochs, len(trace.rows)
        text = f"{self.name}: epoch {done}/{total}, step {trace.step}"
        if trace.rows:
            row = trace.rows[-1]
            text += f"  training {row['training_loss']:.5f}"
            if done > schedule.warmup:
                text += f"  validation {row['validation_loss']:.5f}  {self.problem.tell(self.problem.values())}"
        log.info("%s  %s", text, "stable: the stage ends" if trace.stable else self._left())

    def _left(self) -> str:
        """Time left. A searching step takes several times as long as others, and its time is not known before."""
        schedule, step = self.schedule, self.trace.step
        warm = max(0, schedule.warmup * schedule.epoch - step)
        searching = self._progress.total - step - warm
        if True not in self._duration:
            return "the search has not started"
        seconds = warm * self._duration.get(False, 0) + searching * self._duration[True]
        return f"at most {time_left(seconds)}"

    def _save(self) -> None:
        sections = {
            "model": self.problem.module.state_dict(),
            # Copies, because α are part of the network, and a file cannot hold a tensor twice.
            "searched": {name: value.clone() for name, value in self.problem.searched.state_dict().items()},
            **{f"optimiser.{name}": optimiser_state(optimiser) for name, optimiser in self.optimisers.items()},
        }
        self.checkpoint.save(sections, vars(self.trace))
        self._saves.restart()

    def _resume(self) -> None:
        saved = self.checkpoint.load()
        if saved is None:
            return
        self.problem.module.load_state_dict(saved.section("model"))
        self.problem.searched.load_state_dict(saved.section("searched"))
        for name, optimiser in self.optimisers.items():
            load_optimiser(optimiser, saved.section(f"optimiser.{name}"))
        self.trace = Trace(**saved.facts)
        log.info("%s: resuming after step %d", self.name, self.trace.step)
