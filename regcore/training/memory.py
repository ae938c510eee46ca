"""Memory that a training step needs, and memory that is free.

The estimate is measured, not derived from the architecture, so it holds for any method. docs/training.md compares it
with the system's counts.
"""

import copy
import logging
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regcore.errors import InputError
from regcore.methods.base import LearnedMethod
from regcore.process.memory import amount, free_memory
from regcore.training.forward import forward

log = logging.getLogger(__name__)

#: Batches of small images on which a step is measured: number of images, and whether they are the larger ones.
PROBES = ((2, True), (4, True), (2, False))
#: Edge of the smaller images by number of dimensions, at least the network's stride; larger images: twice that.
SIDES = {2: 32, 3: 16}
#: Overhead over the tensors, for the workspace of kernels and gaps between tensors: on a CPU 14 to 19 % of a step of
#: VoxelMorph on 96³ voxels, as counted by the system.
OVERHEAD = 1.15
#: Copies of the weights: the weights, their gradients, and Adam's two moments.
WEIGHT_COPIES = 4


class _LivePeak(TorchDispatchMode):
    """Count the bytes of live tensors made by operators; ``peak`` is the maximum.

    The temporary workspace of kernels is not counted.
    """

    def __init__(self):
        super().__init__()
        self.peak = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return made

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._part, key)

    def _part(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def step_bytes(method: LearnedMethod, module: nn.Module, shape: Sequence[int], size: int, classes: int = 0) -> int:
    """Estimate the memory of a training step without running it at full size.

    Forward and backward pass run on the CPU, on small batches of noise.  Their peak memory has a constant part, one
    per pair (weights of its own, if a hypernetwork generates them), and one per voxel.  These are extrapolated, and
    weights, gradients and moments are added.

    Parameters
    ----------
    method : LearnedMethod
        Its ``training_step`` is measured.
    module : nn.Module
        Its network; a copy is used.
    shape : sequence of int
        Voxels of an image.
    size : int
        Pairs in memory at once.
    classes : int
        Classes of labels in a batch; 0 for no labels.

    Returns
    -------
    int
        Bytes in one process.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> from regcore.training.memory import step_bytes
    >>> method = make_method("voxelmorph", {"similarity": "mse", "architecture": "half", "width": 0.25})
    >>> needed = step_bytes(method, method.build(ndim=2), shape=(1024, 1024), size=1)
    >>> 150 < needed / 2**20 < 250  # MiB
    True
    """
    ndim, small = len(shape), copy.deepcopy(module).cpu()
    call = forward(small, torch.device("cpu"), method.settings.precision)
    small_side = max(SIDES[ndim], method.stride)
    side, (few, many) = 2 * small_side, (batch for batch, large in PROBES if large)
    peaks = [_peak(method, call, _noise(n, side if large else small_side, ndim, classes)) for n, large in PROBES]
    of_pair = (peaks[1] - peaks[0]) / (many - few)
    per_voxel = (peaks[0] - peaks[2]) / (few * (side**ndim - small_side**ndim))
    per_pair = max(0, of_pair - per_voxel * side**ndim)
    constant = max(0, peaks[0] - few * of_pair)
    weights = sum(parameter.nbytes for parameter in module.parameters())
    pairs = size * (per_pair + per_voxel * math.prod(shape))
    return round(OVERHEAD * (constant + pairs) + WEIGHT_COPIES * weights)


def live_peak(call: Callable[[], Any]) -> int:
    """Peak bytes of the live tensors that ``call`` makes; torch's random state is kept.

    The temporary workspace of kernels is not counted.

    Parameters
    ----------
    call : callable
        Takes nothing; its result is dropped.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.memory import live_peak
    >>> live_peak(lambda: torch.zeros(1000) + torch.ones(1000))  # three tensors of 4000 bytes
    12000
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _LivePeak() as live:
        call()
    return live.peak


def _peak(method: LearnedMethod, call: Callable[[Tensor], Tensor], batch: Mapping[str, Any]) -> int:
    return live_peak(lambda: method.training_step(call, batch)["total"].backward())


def _noise(size: int, side: int, ndim: int, classes: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    shape = (size, 1, *[side] * ndim)
    batch: dict[str, Any] = {name: torch.rand(shape, generator=generator) for name in ("fixed", "moving")}
    if classes:
        for name in ("fixed_labels", "moving_labels"):
            batch[name] = torch.randint(classes + 1, shape, generator=generator, dtype=torch.int16)
        batch["codes"] = list(range(1, classes + 1))
    return batch


def free_bytes(device: torch.device) -> int:
    """Free memory on a GPU, or for this process on this machine.

    Parameters
    ----------
    device : torch.device
        A GPU, or the CPU.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.memory import free_bytes
    >>> free_bytes(torch.device("cpu")) > 0
    True
    """
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def check_memory(estimate: int, device: torch.device, processes: int = 1) -> None:
    """Log an estimate, and refuse a training that does not fit.

    Parameters
    ----------
    estimate : int
        Bytes of one process' step, from :func:`step_bytes`.
    device : torch.device
        The device of the training.
    processes : int
        Number of processes that share the device.

    Raises
    ------
    InputError
        The training does not fit. The message has both numbers and remedies.

    Examples
    --------
    >>> import torch
    >>> from regcore.errors import InputError
    >>> from regcore.training.memory import check_memory
    >>> check_memory(10 << 20, torch.device("cpu"))
    >>> try:
    ...     check_memory(100 << 40, torch.device("cpu"))
    ... except InputError as error:
    ...     print(str(error).partition(",")[0])
    a training step would take about 102400.0 GiB of memory
    """
    free = free_bytes(device)
    place = "GPU" if device.type == "cuda" else "machine"
    log.info(
        "a step takes about %s of memory%s; the %s has %s free",
        amount(estimate),
        f" in each of {processes} processes" if processes > 1 else "",
        place,
        amount(free),
    )
    if estimate * processes > free:
        raise InputError(
            f"a training step would take about {amount(estimate * processes)} of memory, but the {place} has "
            f"{amount(free)} free; lower 'batch_size', raise 'accumulate', set 'precision: bfloat16', or choose a "
            "coarser 'preprocess.spacing'"
        )
