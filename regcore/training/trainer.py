"""The training loop of every learned method.

State is one dictionary of tensors and one of facts; both go into one checkpoint file, which is replaced
atomically.  A training that was killed resumes from it and ends, on a CPU, with the weights that an
uninterrupted one ends with: batches depend on the step alone, and nothing else is random.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regcore.checks import NotFiniteError
from regcore.errors import InputError
from regcore.methods.base import LearnedMethod
from regcore.runtime import processor_name
from regcore.training.checkpoint import exclusive, load_tensors, save_tensors
from regcore.training.pairs import PairSampler

log = logging.getLogger(__name__)

#: Seconds between two progress lines.
PROGRESS_EVERY = 15


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class Trained:
    """What a training left.

    Parameters
    ----------
    weights : dict of str → Tensor
        Those with the best validation score.
    history : list of dict
        One row per validation: step, mean losses since the last one, validation score, seconds so far.
    facts : dict
        Steps, seconds, best step and score, number of parameters, device and threads.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Train one method.

    Parameters
    ----------
    method : LearnedMethod
        Its settings give ``steps``, ``batch_size``, ``learning_rate``, ``schedule`` and
        ``validate_every``.
    sampler : PairSampler
    validate : callable
        Module → score on the validation pairs, the higher the better (mean Dice).
    folder : Path
        Where the checkpoint lives; not a declared output of a workflow, which would be wiped.
    fingerprint : str
        Of everything that determines the training; a checkpoint with another one is not resumed.
    ndim, seed : int
    """

    def __init__(
        self,
        method: LearnedMethod,
        sampler: PairSampler,
        validate: Callable[[nn.Module], float],
        folder: Path,
        fingerprint: str,
        ndim: int,
        seed: int,
        device: str | None = None,
    ):
        self.method, self.sampler, self.validate = method, sampler, validate
        self.folder, self.fingerprint = Path(folder), fingerprint
        self.device = torch.device(device) if device else default_device()
        torch.manual_seed(seed)
        self.module = method.build(ndim).to(self.device)
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=method.settings["learning_rate"])
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Tensor] = {}
        self.best_score, self.best_step = float("-inf"), 0
        self.history: list[dict[str, float]] = []

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def run(self) -> Trained:
        """Train, from the last checkpoint if there is one, to the end.

        Raises
        ------
        InputError
            The loss became NaN or infinite, or another process trains in the same folder.
        """
        with exclusive(self.folder):
            self._resume()
            self._loop()
        settings = self.method.settings
        log.info("done: %d steps in %s, best at step %d", self.step, _duration(self.seconds), self.best_step)
        return Trained(
            self.best,
            self.history,
            {
                "steps": self.step,
                "batch_size": settings["batch_size"],
                "seconds": round(self.seconds, 1),
                "best_step": self.best_step,
                "best_validation_dice": self.best_score,
                "parameters": sum(p.numel() for p in self.module.parameters()),
                "device": torch.cuda.get_device_name() if self.device.type == "cuda" else processor_name(),
                "threads": torch.get_num_threads(),
            },
        )

    def _loop(self) -> None:
        settings = self.method.settings
        total = settings["steps"]
        started, first = time.monotonic() - self.seconds, self.step
        began, reported = time.monotonic(), time.monotonic()
        sums: dict[str, Tensor] = {}
        counted = 0
        while self.step < total:
            try:
                losses = self._train_step()
            except NotFiniteError:
                raise self._diverged() from None
            self.step += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach()
            counted += 1
            self.seconds = time.monotonic() - started
            if time.monotonic() - reported > PROGRESS_EVERY:
                reported = time.monotonic()
                rate = (self.step - first) / (reported - began)
                log.info("%s", self._progress({k: v.item() / counted for k, v in sums.items()}, rate))
            if self.step % settings["validate_every"] == 0 or self.step == total:
                self._validate({name: value.item() / counted for name, value in sums.items()})
                sums, counted = {}, 0
                self.seconds = time.monotonic() - started
                self._save()

    def _train_step(self) -> Mapping[str, Tensor]:
        batch = self.sampler.batch(self.step, self.method.settings["batch_size"])
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        losses = self.method.training_step(self.module, batch)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        self.optimiser.step()
        return losses

    def _learning_rate(self) -> float:
        settings = self.method.settings
        if settings["schedule"] == "cosine":
            return settings["learning_rate"] * 0.5 * (1 + math.cos(math.pi * self.step / settings["steps"]))
        return settings["learning_rate"]

    def _diverged(self) -> InputError:
        return InputError(f"training diverged at step {self.step}; lower 'learning_rate' or raise 'lambda'")

    def _validate(self, losses: dict[str, float]) -> None:
        if not all(map(math.isfinite, losses.values())):
            raise self._diverged()
        self.module.eval()
        with torch.inference_mode():
            score = self.validate(self.module)
        self.module.train()
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step
            self.best = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        self.history.append({"step": self.step, **losses, "validation_dice": score, "seconds": round(self.seconds, 1)})
        log.info(
            "step %d/%d  validation Dice %.4f%s",
            self.step,
            self.method.settings["steps"],
            score,
            "  (best so far)" if self.best_step == self.step else "",
        )

    def _progress(self, losses: Mapping[str, float], rate: float) -> str:
        total = self.method.settings["steps"]
        parts = "  ".join(f"{name} {value:.5f}" for name, value in losses.items())
        return f"step {self.step}/{total}  {parts}  {rate:.1f} steps/s  {_duration((total - self.step) / rate)} left"

    def _save(self) -> None:
        tensors = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        facts = {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_score": self.best_score,
            "history": self.history,
        }
        save_tensors(self.checkpoint, tensors, facts)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        tensors, facts = load_tensors(self.checkpoint)
        if facts["fingerprint"] != self.fingerprint:
            log.info("the checkpoint belongs to other settings or data; starting afresh")
            return
        self.module.load_state_dict(_section(tensors, "model."))
        self.best = _section(tensors, "best.")
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in _section(tensors, "adam.").items():
            index, _, key = name.partition(".")
            adam.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": adam})
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.best_step, self.best_score = facts["best_step"], facts["best_score"]
        self.history = facts["history"]
        log.info("resuming at step %d", self.step)


def _section(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
