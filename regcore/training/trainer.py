"""The training loop of every learned method.

State is one dictionary of tensors and one of facts; both go into one checkpoint file, which is replaced
atomically.  A training that was killed resumes from it and ends, on a CPU, with the weights that an
uninterrupted one ends with: batches, and what a method draws at random, depend on the step alone.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from regcore.checks import NotFiniteError
from regcore.errors import DivergedError
from regcore.kernels.dispatch import why_no_gpu_kernels
from regcore.methods.base import LearnedMethod
from regcore.process.devices import default_device
from regcore.process.files import atomic_write
from regcore.process.versions import processor_name
from regcore.training.batch_division import check_division
from regcore.training.checkpoint import (
    discard_torn,
    exclusive,
    load_optimiser,
    load_tensors,
    optimiser_tensors,
    save_tensors,
    section,
)
from regcore.training.distributed import Processes
from regcore.training.forward import forward
from regcore.training.memory import check_memory, step_bytes
from regcore.training.muon import Muon
from regcore.training.pairs import PairSampler
from regcore.training.step import GradientStep

log = logging.getLogger(__name__)

#: Seconds between two progress lines.
PROGRESS_EVERY = 15
#: What the learning rate is multiplied by on a plateau.
DROP = 0.2
#: What a look at the validation pairs finds, as progress calls it.
VALIDATED = {"dice": "Dice", "loss": "loss"}


@dataclass
class Trained:
    """What a training left.

    Parameters
    ----------
    weights : dict of str → Tensor
        Those with the best validation score; empty in all processes but the first.
    history : list of dict
        One row per validation: step, mean losses since the last one, validation score, seconds so far, and
        the learning rate.
    facts : dict
        Steps, seconds (of the clock, and of this process's CPU), best step and score, whether it stopped early,
        number of parameters, device, processes and threads.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Train one method.

    Parameters
    ----------
    method : LearnedMethod
        Its settings hold those of :data:`regcore.methods.base.TRAINING`.
    sampler : PairSampler
    validate : callable
        Module → what a look at the validation pairs finds: ``dice``, and ``loss`` where that is selected by.
    folder : Path
        Where the checkpoint lives; not a declared output of a workflow, which would be wiped.
    fingerprint : str
        Of everything that determines the training; a checkpoint with another one is not resumed.
    ndim, seed : int
    processes : Processes
        Those that train together.
    watch : callable, optional
        (number of the look, its Dice) → whether training should end there.

    Raises
    ------
    InputError
        The batch cannot be cut into the parts that are wanted.
    """

    def __init__(
        self,
        method: LearnedMethod,
        sampler: PairSampler,
        validate: Callable[[nn.Module], Mapping[str, float]],
        folder: Path,
        fingerprint: str,
        ndim: int,
        seed: int,
        device: str | None = None,
        processes: Processes | None = None,
        watch: Callable[[int, float], bool] | None = None,
    ):
        self.method, self.sampler, self.validate, self.watch = method, sampler, validate, watch
        self.folder, self.fingerprint, self.seed = Path(folder), fingerprint, seed
        self.device = torch.device(device) if device else default_device()
        self.processes = processes or Processes()
        settings = method.settings
        check_division(settings, self.processes.count)
        torch.manual_seed(seed)
        self.module = method.build(ndim).to(self.device)
        self.forward = forward(self.module, self.device, settings["precision"], settings["compile"])
        recorded = settings["record"] and why_no_gpu_kernels(self.device) is None
        self.gradients = GradientStep(method, self.module, self.forward, settings["accumulate"], recorded)
        self.optimiser = make_optimiser(self.module.parameters(), settings["optimiser"], settings["learning_rate"])
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.best: dict[str, Tensor] = {}
        self.best_score, self.best_step = float("-inf"), 0
        self.history: list[dict[str, float]] = []
        self.ended = False

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def run(self) -> Trained:
        """Train, from the last checkpoint if there is one, to the end.

        Raises
        ------
        DivergedError
            The loss became NaN or infinite.
        InputError
            Another process trains in the same folder, or a step does not fit into memory.
        """
        with exclusive(self.folder) if self.processes.first else nullcontext():
            self._resume()
            if self.processes.first:
                self._tell_looks()
            self.processes.wait()  # the first process may end soon, and its checkpoint with it
            if not self._finished:
                self._check_memory()
            self._loop()
        settings = self.method.settings
        log.info(
            "done: %d steps in %s, best at step %d%s",
            self.step,
            _duration(self.seconds),
            self.best_step,
            f"; stopped early, the validation {settings['select']} gets no better" if self._stopped_early else "",
        )
        return Trained(
            self.best,
            self.history,
            {
                "steps": self.step,
                "stopped_early": self._stopped_early,
                "batch_size": self.method.settings["batch_size"],
                "seconds": round(self.seconds, 1),
                "cpu_seconds": round(self.cpu_seconds, 1),
                "best_step": self.best_step,
                "best_validation_dice": self._row(self.best_step)["validation_dice"],
                "parameters": sum(p.numel() for p in self.module.parameters()),
                "device": torch.cuda.get_device_name() if self.device.type == "cuda" else processor_name(),
                "processes": self.processes.count,
                "threads": torch.get_num_threads(),
            },
        )

    def _loop(self) -> None:
        settings = self.method.settings
        started, first = time.monotonic() - self.seconds, self.step
        started_cpu = time.process_time() - self.cpu_seconds
        began, reported = time.monotonic(), time.monotonic()
        sums: dict[str, Tensor] = {}
        counted = 0
        while not self._finished:
            try:
                losses = self._train_step()
            except NotFiniteError:
                raise self._diverged() from None
            self.step += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value
            counted += settings["accumulate"]
            self.seconds = time.monotonic() - started
            if time.monotonic() - reported > PROGRESS_EVERY:
                reported = time.monotonic()
                rate = (self.step - first) / (reported - began)
                log.info("%s", self._progress({k: v.item() / counted for k, v in sums.items()}, rate))
            if self.step % settings["validate_every"] == 0 or self.step == settings["steps"]:
                self._validate({name: self.processes.mean(value).item() / counted for name, value in sums.items()})
                sums, counted = {}, 0
                self.seconds, self.cpu_seconds = time.monotonic() - started, time.process_time() - started_cpu
                if self.processes.first:
                    self._save()
                self._ask_whether_to_end()

    def _ask_whether_to_end(self) -> None:
        if self.watch is None:
            return
        end = self.processes.first and self.watch(len(self.history), self.history[-1]["validation_dice"])
        self.ended = bool(self.processes.told(float(end), self.device)) and not self._finished

    def _tell_looks(self) -> None:
        """Tell the watch of the looks of a training that is resumed: it may have been killed before it could."""
        for look, row in enumerate(self.history if self.watch else [], start=1):
            self.watch(look, row["validation_dice"])

    def _train_step(self) -> Mapping[str, Tensor]:
        """Take one step; returns the losses of this process's parts of the batch, added up."""
        settings = self.method.settings
        rounds = settings["accumulate"]
        size = settings["batch_size"] // (rounds * self.processes.count)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(self.step)
        self.gradients.clear()
        sums: dict[str, Tensor] = {}
        for part in range(self.processes.rank * rounds, (self.processes.rank + 1) * rounds):
            batch = self.sampler.batch(self.step, settings["batch_size"], slice(part * size, (part + 1) * size))
            batch = {name: x.to(self.device) if isinstance(x, Tensor) else x for name, x in batch.items()}
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.step, part]).generate_state(1)[0]))
            for name, value in self.gradients(batch).items():
                sums[name] = sums.get(name, 0) + value
        self.processes.average_gradients(self.module)
        self.optimiser.step()
        return sums

    def _learning_rate(self, step: int) -> float:
        """Of the step that follows ``step`` others."""
        settings = self.method.settings
        if settings["schedule"] == "cosine":
            return settings["learning_rate"] * 0.5 * (1 + math.cos(math.pi * step / settings["steps"]))
        if settings["schedule"] == "plateau":
            before = [row for row in self.history if row["step"] <= step]
            return settings["learning_rate"] * DROP ** self._plateaus(before)
        return settings["learning_rate"]

    @property
    def _stopped_early(self) -> bool:
        """Whether patience has come to its end as often as it may."""
        settings = self.method.settings
        if settings["patience"] is None or self.step >= settings["steps"]:
            return False
        allowed = settings["drops"] if settings["schedule"] == "plateau" else 0
        return self._plateaus(self.history) > allowed

    def _plateaus(self, rows: list[dict[str, float]]) -> int:
        settings = self.method.settings
        return plateaus(self._scores(rows), settings["patience"], settings["tolerance"])

    def _scores(self, rows: list[dict[str, float]]) -> list[float]:
        """What every look at the validation pairs found; the higher the better."""
        if self.method.settings["select"] == "loss":
            return [-row["validation_loss"] for row in rows]
        return [row["validation_dice"] for row in rows]

    def _row(self, step: int) -> dict[str, float]:
        return next(row for row in self.history if row["step"] == step)

    @property
    def _finished(self) -> bool:
        return self.ended or self.step >= self.method.settings["steps"] or self._stopped_early

    def _diverged(self) -> DivergedError:
        smoother = ", or raise 'lambda'" if "lambda" in self.method.settings else ""
        return DivergedError(f"training diverged at step {self.step}; lower 'learning_rate'{smoother}")

    def _check_memory(self) -> None:
        settings = self.method.settings
        batch = self.sampler.batch(self.step, 1)
        size = settings["batch_size"] // (settings["accumulate"] * self.processes.count)
        shape, classes = batch["fixed"].shape[2:], len(batch.get("codes", []))
        sharing = 1 if self.device.type == "cuda" else self.processes.local_count
        check_memory(step_bytes(self.method, self.module, shape, size, classes), self.device, sharing)

    def _validate(self, losses: dict[str, float]) -> None:
        if not all(map(math.isfinite, losses.values())):
            raise self._diverged()
        selected = ["dice", "loss"][: 1 + (self.method.settings["select"] == "loss")]
        found = self._look() if self.processes.first else dict.fromkeys(selected, 0.0)
        found = {name: self.processes.told(found[name], self.device) for name in selected}
        self.history.append(
            {
                "step": self.step,
                **losses,
                **{f"validation_{name}": value for name, value in found.items()},
                "seconds": round(self.seconds, 1),
                "learning_rate": self._learning_rate(self.step - 1),
            }
        )
        (score,) = self._scores(self.history[-1:])
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step
            if self.processes.first:
                self.best = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        log.info(
            "step %d/%d  validation%s%s",
            self.step,
            self.method.settings["steps"],
            "".join(f"  {VALIDATED[name]} {value:.4f}" for name, value in found.items()),
            "  (best so far)" if self.best_step == self.step else "",
        )

    def _look(self) -> Mapping[str, float]:
        self.module.eval()
        with torch.inference_mode():
            found = self.validate(self.module)
        self.module.train()
        return found

    def _progress(self, losses: Mapping[str, float], rate: float) -> str:
        total = self.method.settings["steps"]
        parts = "  ".join(f"{name} {value:.5f}" for name, value in losses.items())
        return f"step {self.step}/{total}  {parts}  {rate:.1f} steps/s  {_duration((total - self.step) / rate)} left"

    def _save(self) -> None:
        tensors = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= optimiser_tensors(self.optimiser, "optimiser.")
        facts = {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "best_step": self.best_step,
            "best_score": self.best_score,
            "history": self.history,
        }
        save_tensors(self.checkpoint, tensors, facts)
        save_history(self.folder, self.history)

    def _resume(self) -> None:
        if self.processes.first:
            discard_torn(self.checkpoint)
        if not self.checkpoint.exists():
            return
        tensors, facts = load_tensors(self.checkpoint)
        if facts["fingerprint"] != self.fingerprint:
            log.info("the checkpoint belongs to other settings or data; starting afresh")
            return
        self.module.load_state_dict(section(tensors, "model."))
        self.best = section(tensors, "best.") if self.processes.first else {}
        load_optimiser(self.optimiser, section(tensors, "optimiser."))
        self.step, self.seconds, self.cpu_seconds = facts["step"], facts["seconds"], facts["cpu_seconds"]
        self.best_step, self.best_score = facts["best_step"], facts["best_score"]
        self.history = facts["history"]
        log.info("resuming at step %d", self.step)


def make_optimiser(parameters: Iterable[nn.Parameter], name: str, learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser of a network's weights that a method's setting ``optimiser`` names."""
    if name == "muon":
        return Muon(parameters, learning_rate)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


def plateaus(scores: Sequence[float], patience: int, tolerance: float = 0) -> int:
    """How often so many scores in a row, counted anew each time, brought nothing clearly above the best before them.

    Parameters
    ----------
    tolerance : float
        Share of the best score by which a score has to be above it.
    """
    best, since, count = float("-inf"), 0, 0
    for score in scores:
        better = best == float("-inf") or score > best + tolerance * abs(best)
        since = 0 if better else since + 1
        best = score if better else best
        if since == patience:
            since, count = 0, count + 1
    return count


def save_history(folder: Path, history: list[dict[str, float]]) -> None:
    """Write the training curve as ``history.csv``."""
    with atomic_write(folder / "history.csv") as path:
        pd.DataFrame(history).to_csv(path, index=False)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
