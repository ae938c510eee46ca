"""A step on one part of a batch: losses, and gradients added to those of the weights."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regcore.methods.base import LearnedMethod
from regcore.process.cuda_graph import Recording

#: Most kinds of batches (sizes of images, codes of labels) to record; each recording has its own memory.
MOST_RECORDINGS = 4


class GradientStep:
    """Computes the losses of a part of a batch, and adds gradients to ``parameter.grad``.

    Parameters
    ----------
    method : LearnedMethod
        Its ``training_step`` is called.
    module : nn.Module
        The network, on the device of the training.
    forward : callable
        Function that calls the network.
    parts : int
        Number of parts in a batch, by which the loss is divided.
    recorded : bool
        Record the step for each kind of batch as a CUDA graph, and replay it.

    Examples
    --------
    >>> import torch
    >>> from regcore.methods import make_method
    >>> from regcore.training.step import GradientStep
    >>> method = make_method("voxelmorph", {"similarity": "mse"})
    >>> network = method.build(ndim=2)
    >>> step = GradientStep(method, network, forward=network, parts=1, recorded=False)
    >>> losses = step({"fixed": torch.rand(1, 1, 32, 32), "moving": torch.rand(1, 1, 32, 32)})
    >>> sorted(losses), all(weight.grad is not None for weight in network.parameters())
    (['diffusion', 'mse', 'total'], True)
    """

    def __init__(
        self, method: LearnedMethod, module: nn.Module, forward: Callable[..., Tensor], parts: int, recorded: bool
    ):
        self.method, self.module, self.forward = method, module, forward
        self.parts, self.recorded = parts, recorded
        self._recordings: dict[tuple, tuple[dict[str, Tensor], Recording]] = {}

    def clear(self) -> None:
        """Set all gradients to zero; with recordings, in place."""
        self.module.zero_grad(set_to_none=not self.recorded)

    def __call__(self, batch: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Losses by name. The next call overwrites those of a recording."""
        if not self.recorded:
            return self._compute(batch)
        kind = tuple((name, (x.shape, x.dtype) if isinstance(x, Tensor) else repr(x)) for name, x in batch.items())
        if kind not in self._recordings:
            if len(self._recordings) >= MOST_RECORDINGS:
                return self._compute(batch)
            self._recordings[kind] = self._record(batch)
        kept, recording = self._recordings[kind]
        for name, tensor in kept.items():
            tensor.copy_(batch[name])
        return recording.replay()

    def _compute(self, batch: Mapping[str, Any]) -> Mapping[str, Tensor]:
        losses = self.method.training_step(self.forward, batch)
        (losses["total"] / self.parts).backward()
        return {name: value.detach() for name, value in losses.items()}

    def _record(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Recording]:
        kept = {name: x.clone() for name, x in batch.items() if isinstance(x, Tensor)}
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # The warm-up calls add to gradients and change the running means of normalisations.
        changed = [*gradients, *self.module.buffers()]
        before = [tensor.clone() for tensor in changed]
        recording = Recording(lambda: self._compute({**batch, **kept}))
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        return kept, recording
