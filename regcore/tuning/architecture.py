"""AutoReg's search (Fan et al., TIP 2023, Section III-D, Algorithm 1): the loop of its stages.

A stage changes two things in turn: what is searched for (α, or λ), by the gradient of a loss on validation pairs
that knows how the network's weights will answer, and these weights, by the loss on training pairs.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from regcore.checks import NotFiniteError
from regcore.errors import DivergedError
from regcore.networks.architecture import LAMBDAS
from regcore.training.checkpoint import load_optimiser, load_tensors, optimiser_tensors, save_tensors, section

log = logging.getLogger(__name__)


def hypergradient(
    inner: Callable[[], Tensor],
    outer: Callable[[], Tensor],
    weights: Sequence[Tensor],
    hyper: Sequence[Tensor],
    rate: float,
    epsilon: float,
) -> tuple[list[Tensor], float]:
    """Gradient of the outer loss after one step of the weights, with respect to what is searched for.

    With ω' = ω − η dL_in/dω and v = dL_out/dω at ω'::

        dL_out(ω', α)/dα = ∂L_out(ω', α)/∂α − η (∂L_in(ω + ε v, α)/∂α − ∂L_in(ω − ε v, α)/∂α) / 2ε

    (steps 3 to 5 of Algorithm 1, which leaves η out, as if the step had length 1; the difference of gradients stands
    for the second derivative of L_in times v).

    Parameters
    ----------
    inner, outer : callable
        Losses on training and on validation pairs, scalars, at the values that the tensors have when they are called.
    weights : sequence of Tensor
        ω; they come back as they were.
    hyper : sequence of Tensor
        α or λ, on which the outer loss need not depend directly.
    rate, epsilon : float
        η and ε.

    Returns
    -------
    (list of Tensor, float)
        The gradient, and the outer loss at ω'.
    """
    before = [weight.detach().clone() for weight in weights]
    slope = torch.autograd.grad(inner(), weights, allow_unused=True)
    _move(weights, before, slope, -rate)
    loss = outer()
    slopes = torch.autograd.grad(loss, [*weights, *hyper], allow_unused=True)
    direction, direct = slopes[: len(weights)], slopes[len(weights) :]
    ends = []
    for sign in (1, -1):
        _move(weights, before, direction, sign * epsilon)
        ends.append(torch.autograd.grad(inner(), hyper, allow_unused=True))
    _move(weights, before, direction, 0)
    found = [torch.zeros_like(value) if own is None else own for value, own in zip(hyper, direct, strict=True)]
    for place, (ahead, behind) in enumerate(zip(*ends, strict=True)):
        if ahead is not None:
            found[place] = found[place] - rate * (ahead - behind) / (2 * epsilon)
    return found, loss.item()


def _move(weights: Sequence[Tensor], start: Sequence[Tensor], direction: Sequence[Tensor | None], by: float) -> None:
    """Set ``weights`` to ``start`` + ``by`` · ``direction``."""
    with torch.no_grad():
        for weight, value, step in zip(weights, start, direction, strict=True):
            weight.copy_(value if step is None else value + by * step)


class Objective(nn.Module):
    """λ of Eq. 4 and 5, kept where they are valid: λ1 in (0, 1) by a sigmoid, the others above 0 by exponentials.

    Parameters
    ----------
    start : mapping of str → float
        All four; 0 and, for λ1, 1 have no place there.
    """

    def __init__(self, start: Mapping[str, float]):
        super().__init__()
        values = torch.tensor([start[name] for name in LAMBDAS], dtype=torch.float64)
        free = torch.cat([values[:1].logit(), values[1:].log()])
        if not free.isfinite().all():
            raise ValueError(f"a search of λ begins with λ1 inside (0, 1) and the others above 0, not at {dict(start)}")
        self.free = nn.Parameter(free.float())

    def weights(self) -> dict[str, Tensor]:
        """λ as tensors that know where they are from."""
        values = torch.cat([self.free[:1].sigmoid(), self.free[1:].exp()])
        return dict(zip(LAMBDAS, values.unbind(), strict=True))

    def values(self) -> dict[str, float]:
        """λ as numbers."""
        return {name: value.item() for name, value in self.weights().items()}


@dataclass(frozen=True)
class Schedule:
    """How long a stage is, and how far its steps go.

    Attributes
    ----------
    warmup, epochs : int
        Epochs that train the weights alone, and at most so many that search as well.
    epoch : int
        Steps of an epoch.
    stable : int
        Epochs without a change after which the stage ends.
    learning_rate, search_rate : float
        Of Adam for the weights, and for what is searched; the first is also η.
    epsilon : float
        ε.
    """

    warmup: int
    epochs: int
    epoch: int
    stable: int
    learning_rate: float
    search_rate: float
    epsilon: float


@dataclass(frozen=True)
class Problem:
    """What a stage searches for.

    Attributes
    ----------
    module : nn.Module
        The network; all of it is kept in checkpoints.
    weights : sequence of Tensor
        ω.
    searched : nn.Module
        Its parameters are α or λ; a part of ``module`` or a module of its own.
    inner, outer : callable
        Number of a step → loss on the training, or validation, pairs of this step.
    values : callable
        () → what a row of the trace holds: numbers by name.
    same : callable
        (values, earlier values) → whether they say the same.
    tell : callable
        values → the line of progress on them.
    """

    module: nn.Module
    weights: Sequence[Tensor]
    searched: nn.Module
    inner: Callable[[int], Tensor]
    outer: Callable[[int], Tensor]
    values: Callable[[], dict[str, float]]
    same: Callable[[Mapping[str, float], Mapping[str, float]], bool]
    tell: Callable[[Mapping[str, float]], str]


@dataclass
class Trace:
    """How a stage went: a row to each epoch, and what it cost."""

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    stable: bool = False


class Stage:
    """One stage of the search; after ``kill -9`` it goes on from its last epoch, as if nothing had been.

    Parameters
    ----------
    name : str
        As progress calls it, and its checkpoint.
    folder : Path
        Where the checkpoint lives.
    fingerprint : str
        Of everything that determines the stage; a checkpoint with another one is not resumed.
    """

    def __init__(self, name: str, problem: Problem, schedule: Schedule, folder: Path, fingerprint: str):
        self.name, self.problem, self.schedule = name, problem, schedule
        self.checkpoint, self.fingerprint = Path(folder) / f"{name}.safetensors", fingerprint
        self.trace = Trace()
        self.optimisers = {
            "weights": torch.optim.Adam(problem.weights, lr=schedule.learning_rate),
            "searched": torch.optim.Adam(problem.searched.parameters(), lr=schedule.search_rate),
        }

    def run(self) -> Trace:
        """Search to the end.

        Raises
        ------
        DivergedError
            A loss became NaN or infinite.
        """
        self._resume()
        started, started_cpu = time.monotonic() - self.trace.seconds, time.process_time() - self.trace.cpu_seconds
        schedule = self.schedule
        while len(self.trace.rows) < schedule.warmup + schedule.epochs and not self.trace.stable:
            epoch = len(self.trace.rows)
            try:
                losses = self._epoch(epoch, searching=epoch >= schedule.warmup)
            except NotFiniteError as error:
                raise DivergedError(
                    f"the search of {self.name} diverged in epoch {epoch + 1}; lower its rates"
                ) from error
            self.trace.rows.append({"epoch": epoch + 1, **losses, **self.problem.values()})
            self.trace.stable = self._is_stable()
            self.trace.seconds, self.trace.cpu_seconds = time.monotonic() - started, time.process_time() - started_cpu
            self._save()
            self._tell()
        return self.trace

    def _epoch(self, epoch: int, searching: bool) -> dict[str, float]:
        problem, schedule = self.problem, self.schedule
        weights, searched = list(problem.weights), list(problem.searched.parameters())
        inner_sum, outer_sum = 0.0, 0.0
        for step in range(epoch * schedule.epoch, (epoch + 1) * schedule.epoch):
            if searching:
                inner_of_step, outer_of_step = partial(problem.inner, step), partial(problem.outer, step)
                rate, epsilon = schedule.learning_rate, schedule.epsilon
                slopes, outer = hypergradient(inner_of_step, outer_of_step, weights, searched, rate, epsilon)
                for value, slope in zip(searched, slopes, strict=True):
                    value.grad = slope
                self.optimisers["searched"].step()
                outer_sum += outer
            loss = problem.inner(step)
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                weight.grad = slope
            self.optimisers["weights"].step()
            inner_sum += loss.item()
        found = {"training_loss": inner_sum / schedule.epoch}
        return found | {"validation_loss": outer_sum / schedule.epoch if searching else float("nan")}

    def _is_stable(self) -> bool:
        searched = self.trace.rows[self.schedule.warmup :]
        if len(searched) <= self.schedule.stable:
            return False
        last = searched[-self.schedule.stable - 1 :]
        return all(self.problem.same(last[-1], row) for row in last[:-1])

    def _tell(self) -> None:
        total, done = self.schedule.warmup + self.schedule.epochs, len(self.trace.rows)
        row, left = self.trace.rows[-1], (total - done) * self.trace.seconds / done
        ended = "  (stable: the stage ends)" if self.trace.stable else f"  at most {left / 60:.0f} min left"
        log.info(
            "%s: epoch %d/%d  training %.5f  validation %.5f  %s%s",
            self.name,
            done,
            total,
            row["training_loss"],
            row["validation_loss"],
            self.problem.tell(row),
            ended,
        )

    def _save(self) -> None:
        tensors = {f"model.{name}": value for name, value in self.problem.module.state_dict().items()}
        # Copies, because α are a part of the network and a file holds no tensor twice.
        tensors |= {f"searched.{name}": value.clone() for name, value in self.problem.searched.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            tensors |= optimiser_tensors(optimiser, f"optimiser.{name}.")
        trace = self.trace
        facts = {"rows": trace.rows, "seconds": trace.seconds, "cpu_seconds": trace.cpu_seconds, "stable": trace.stable}
        save_tensors(self.checkpoint, tensors, {"fingerprint": self.fingerprint, **facts})

    def _resume(self) -> None:
        for torn in self.checkpoint.parent.glob(f".*.{self.checkpoint.name}"):  # the process was killed while it wrote
            torn.unlink()
        if not self.checkpoint.exists():
            return
        tensors, facts = load_tensors(self.checkpoint)
        if facts.pop("fingerprint") != self.fingerprint:
            log.info("the checkpoint belongs to other settings or data; %s starts afresh", self.name)
            return
        self.problem.module.load_state_dict(section(tensors, "model."))
        self.problem.searched.load_state_dict(section(tensors, "searched."))
        for name, optimiser in self.optimisers.items():
            load_optimiser(optimiser, section(tensors, f"optimiser.{name}."))
        self.trace = Trace(**facts)
        log.info("%s: resuming after epoch %d", self.name, len(self.trace.rows))
