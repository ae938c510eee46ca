"""The training loop of every learned method.

State is one dictionary of tensors and one of facts; both go into one checkpoint file, which is replaced atomically.  A
killed training resumes from it and, on a CPU, ends with the same weights as an uninterrupted one: batches, and what a
method draws at random, depend only on the step.
"""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regcore.checks import NotFiniteError
from regcore.errors import DivergedError
from regcore.kernels.dispatch import why_no_gpu_kernels
from regcore.methods.base import LearnedMethod
from regcore.process.devices import default_device
from regcore.process.progress import Progress, duration
from regcore.process.stopwatch import Stopwatch
from regcore.process.versions import processor_name
from regcore.training.batch_division import check_division
from regcore.training.checkpoint import Checkpoint, exclusive
from regcore.training.distributed import Processes
from regcore.training.forward import forward
from regcore.training.history import MeanLosses, save_history
from regcore.training.memory import check_memory, step_bytes
from regcore.training.optimiser import load_optimiser, make_optimiser, optimiser_state
from regcore.training.pairs import PairSampler
from regcore.training.schedule import learning_rate, score, stopped_early
from regcore.training.step import GradientStep

log = logging.getLogger(__name__)

#: Names of validation scores in progress messages.
VALIDATED = {"dice": "Dice", "loss": "loss"}
#: Attributes of the trainer that a checkpoint stores besides tensors.
KEPT = ("step", "seconds", "cpu_seconds", "best_step", "best_score", "history")


@dataclass
class Trained:
    """The result of a training.

    Parameters
    ----------
    weights : dict of str → Tensor
        Weights with the best validation score; empty in all processes but the first.
    history : list of dict
        One row per validation: step, mean losses since the last one, validation score, seconds so far, and
        the learning rate.
    facts : dict
        Steps, seconds (of the clock, and of this process's CPU), best step and score, whether it stopped early,
        number of parameters, device, processes and threads.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.trainer import Trained
    >>> history = [{"step": 10, "validation_dice": 0.61}, {"step": 20, "validation_dice": 0.58}]
    >>> trained = Trained({"bias": torch.zeros(2)}, history, {"best_step": 10})
    >>> next(row["validation_dice"] for row in trained.history if row["step"] == trained.facts["best_step"])
    0.61
    """

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Train one method.

    Parameters
    ----------
    method : LearnedMethod
        Its settings include those of :class:`regcore.methods.settings.training.TrainingSettings`.
    sampler : PairSampler
        Draws the pairs of each step.
    validate : callable
        Module → validation scores: ``dice``, and ``loss`` if weights are selected by it.
    folder : Path
        Folder of the checkpoint; not a declared output of a workflow, which would delete it.
    fingerprint : str
        Fingerprint of everything that determines the training. Other checkpoints are not resumed.
    ndim : {2, 3}
        Dimensions of the images.
    seed : int
        Seed of the initial weights, and of what the method draws.
    device : str, optional
        Name of torch's device; default: a GPU if there is one.
    processes : Processes, optional
        The processes that train together; default: this one alone.
    watch : callable, optional
        (number of the validation, its Dice) → whether to stop training.

    Raises
    ------
    InputError
        The batch cannot be split into the requested parts.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> from regcore.training.pairs import PairSampler
    >>> from regcore.training.trainer import Trainer
    >>> small = {"similarity": "mse", "architecture": "half", "width": 0.25}
    >>> method = make_method("voxelmorph", {**small, "steps": 4, "validate_every": 2})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(2):
    ...         image = np.eye(32, k=4 * number, dtype=np.float32)
    ...         Volume(image, Grid.centred((32, 32), (1, 1), (0, 0))).save(f"{folder}/{number}.nii")
    ...     sampler = PairSampler([("0", "1")], {scan: f"{folder}/{scan}" for scan in "01"}, seed=1)
    ...     trainer = Trainer(method, sampler, lambda network: {"dice": 0.5}, Path(folder), "fingerprint", 2, seed=1)
    ...     trained = trainer.run()
    >>> [(row["step"], row["validation_dice"]) for row in trained.history]
    [(2, 0.5), (4, 0.5)]
    >>> trained.facts["best_step"], trained.weights.keys() == trainer.module.state_dict().keys()
    (2, True)
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
        self.folder, self.seed = Path(folder), seed
        self.checkpoint = Checkpoint(self.folder / "checkpoint.safetensors", fingerprint)
        self.device = torch.device(device) if device else default_device()
        self.processes = processes or Processes()
        settings = method.settings
        check_division(settings, self.processes.count)
        torch.manual_seed(seed)
        self.module = method.build(ndim).to(self.device)
        self.forward = forward(self.module, self.device, settings.precision, settings.compile)
        recorded = settings.record and why_no_gpu_kernels(self.device) is None
        self.gradients = GradientStep(method, self.module, self.forward, settings.accumulate, recorded)
        self.optimiser = make_optimiser(self.module.parameters(), settings.optimiser, settings.learning_rate)
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.best: dict[str, Tensor] = {}
        self.best_score, self.best_step = float("-inf"), 0
        self.history: list[dict[str, float]] = []
        self.ended = False

    def run(self) -> Trained:
        """Train to the end, from the last checkpoint if there is one.

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
            self.processes.wait()  # the first process may finish soon and delete the checkpoint
            if not self._finished:
                self._check_memory()
            self._loop()
        settings = self.method.settings
        log.info(
            "done: %d steps in %s, best at step %d%s",
            self.step,
            duration(self.seconds),
            self.best_step,
            f"; stopped early: the validation {settings.select} no longer improves" if self._stopped_early else "",
        )
        return Trained(
            self.best,
            self.history,
            {
                "steps": self.step,
                "stopped_early": self._stopped_early,
                "batch_size": self.method.settings.batch_size,
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
        watch, progress = Stopwatch(self.seconds, self.cpu_seconds), Progress(settings.steps, self.step)
        losses = MeanLosses()
        while not self._finished:
            try:
                losses.add(self._train_step(), settings.accumulate)
            except NotFiniteError:
                raise self._diverged() from None
            self.step += 1
            self.seconds, self.cpu_seconds = watch.read()
            if progress.due():
                self._tell(losses.means(), progress)
            if self.step % settings.validate_every == 0 or self.step == settings.steps:
                self._validate(losses.means(self.processes.mean))
                losses = MeanLosses()
                self.seconds, self.cpu_seconds = watch.read()
                if self.processes.first:
                    self._save()
                self._ask_whether_to_end()

    def _ask_whether_to_end(self) -> None:
        if self.watch is None:
            return
        end = self.processes.first and self.watch(len(self.history), self.history[-1]["validation_dice"])
        self.ended = bool(self.processes.told(float(end), self.device)) and not self._finished

    def _tell_looks(self) -> None:
        """Report the earlier validations of a resumed training: it may have been killed before it could."""
        if self.watch is None:
            return
        for look, row in enumerate(self.history, start=1):
            self.watch(look, row["validation_dice"])

    def _train_step(self) -> Mapping[str, Tensor]:
        """Take one step; return the summed losses of this process' parts of the batch."""
        settings = self.method.settings
        rounds = settings.accumulate
        size = settings.batch_size // (rounds * self.processes.count)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(settings, self.step, self.history)
        self.gradients.clear()
        sums: dict[str, Tensor] = {}
        for part in range(self.processes.rank * rounds, (self.processes.rank + 1) * rounds):
            batch = self.sampler.batch(self.step, settings.batch_size, slice(part * size, (part + 1) * size))
            batch = {name: x.to(self.device) if isinstance(x, Tensor) else x for name, x in batch.items()}
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.step, part]).generate_state(1)[0]))
            for name, value in self.gradients(batch).items():
                sums[name] = sums.get(name, 0) + value
        self.processes.average_gradients(self.module)
        self.optimiser.step()
        return sums

    @property
    def _stopped_early(self) -> bool:
        return stopped_early(self.method.settings, self.step, self.history)

    def _row(self, step: int) -> dict[str, float]:
        return next(row for row in self.history if row["step"] == step)

    @property
    def _finished(self) -> bool:
        return self.ended or self.step >= self.method.settings.steps or self._stopped_early

    def _diverged(self) -> DivergedError:
        smoother = ", or raise 'lambda'" if "lambda" in self.method.settings.attributes() else ""
        return DivergedError(f"training diverged at step {self.step}; lower 'learning_rate'{smoother}")

    def _check_memory(self) -> None:
        settings = self.method.settings
        batch = self.sampler.batch(self.step, 1)
        size = settings.batch_size // (settings.accumulate * self.processes.count)
        shape, classes = batch["fixed"].shape[2:], len(batch.get("codes", []))
        sharing = 1 if self.device.type == "cuda" else self.processes.local_count
        check_memory(step_bytes(self.method, self.module, shape, size, classes), self.device, sharing)

    def _validate(self, losses: dict[str, float]) -> None:
        if not all(map(math.isfinite, losses.values())):
            raise self._diverged()
        selected = ["dice", "loss"][: 1 + (self.method.settings.select == "loss")]
        found = self._look() if self.processes.first else dict.fromkeys(selected, 0.0)
        found = {name: self.processes.told(found[name], self.device) for name in selected}
        self.history.append(
            {
                "step": self.step,
                **losses,
                **{f"validation_{name}": value for name, value in found.items()},
                "seconds": round(self.seconds, 1),
                "learning_rate": learning_rate(self.method.settings, self.step - 1, self.history),
            }
        )
        found_score = score(self.method.settings, self.history[-1])
        if found_score > self.best_score:
            self.best_score, self.best_step = found_score, self.step
            if self.processes.first:
                self.best = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        log.info(
            "step %d/%d  validation%s%s",
            self.step,
            self.method.settings.steps,
            "".join(f"  {VALIDATED[name]} {value:.4f}" for name, value in found.items()),
            "  (best so far)" if self.best_step == self.step else "",
        )

    def _look(self) -> Mapping[str, float]:
        self.module.eval()
        with torch.inference_mode():
            found = self.validate(self.module)
        self.module.train()
        return found

    def _tell(self, losses: Mapping[str, float], progress: Progress) -> None:
        log.info(
            "step %d/%d  %s  %.1f steps/s  %s",
            self.step,
            self.method.settings.steps,
            "  ".join(f"{name} {value:.5f}" for name, value in losses.items()),
            progress.rate(self.step),
            progress.left(self.step),
        )

    def _save(self) -> None:
        sections = {
            "model": self.module.state_dict(),
            "best": self.best,
            "optimiser": optimiser_state(self.optimiser),
        }
        facts = {name: getattr(self, name) for name in KEPT}
        self.checkpoint.save(sections, facts)
        save_history(self.folder, self.history)

    def _resume(self) -> None:
        saved = self.checkpoint.load()
        if saved is None:
            return
        self.module.load_state_dict(saved.section("model"))
        self.best = saved.section("best") if self.processes.first else {}
        load_optimiser(self.optimiser, saved.section("optimiser"))
        for name in KEPT:
            setattr(self, name, saved.facts[name])
        log.info("resuming at step %d", self.step)
