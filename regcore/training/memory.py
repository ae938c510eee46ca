"""How much memory a training step takes, and how much there is.

The estimate is measured, not derived from the architecture, so it holds for any method; docs/training.md
compares it with what the system counted.
"""

import copy
import logging
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regcore.errors import InputError
from regcore.methods.base import LearnedMethod
from regcore.training.forward import forward

log = logging.getLogger(__name__)

#: The small images that a step is measured on: batch, and whether they are the larger ones.
PROBES = ((2, True), (4, True), (2, False))
#: Sides of the smaller ones by number of dimensions, at least what a network pads images to; larger: twice that.
SIDES = {2: 32, 3: 16}
#: What kernels take for themselves, and gaps between tensors, on top of the tensors: on a CPU 14 to 19 % of a
#: step of VoxelMorph on 96³ voxels, counted by the system.
OVERHEAD = 1.15
#: Copies of the weights: themselves, their gradients, and Adam's two moments.
WEIGHT_COPIES = 4


class LivePeak(TorchDispatchMode):
    """Count the bytes of the tensors that operators make, as long as they live; ``peak`` is the most at once.

    What a kernel takes for itself while it runs is not seen.
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
    """Estimate the memory that a training step takes, without taking it.

    Forward and backward pass run on the CPU, on small batches of noise.  What they took at most has a constant
    part, one for each pair (weights of its own, where a hypernetwork makes them), and one for each voxel; so it
    is extrapolated, and the weights, gradients and moments are added.

    Parameters
    ----------
    shape : sequence of int
        Voxels of an image.
    size : int
        Pairs that are in memory together.
    classes : int
        Classes of labels in a batch; 0: no labels.
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
    """Bytes of the tensors that ``call`` makes, as many of them as live at once; torch's random state stays."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), LivePeak() as live:
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


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be had on a GPU, or for this process on the machine; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_available(Path("/proc/meminfo")), *map(_within_group, _groups())]
    return min((free for free in found if free is not None), default=None)


def _available(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _groups(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """The control groups, of both versions, whose limits hold for this process: its own and those around it."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, name in lines:
        if controllers in ("", "memory"):
            top = root / controllers
            group = top / name.lstrip("/")
            found += [place for place in (group, *group.parents) if place.is_relative_to(top)]
    return found


def _within_group(group: Path) -> int | None:
    """What a control group's limit leaves; cached files give way and do not count as used."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = int((group / limit).read_text()), int((group / used).read_text())
            facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return most - now + int(facts.get(cached, 0))
        except (OSError, ValueError):  # not of this version, or "max": no limit
            continue
    return None


def check_memory(estimate: int, device: torch.device, processes: int = 1) -> None:
    """Log an estimate, and refuse a training that cannot fit.

    Parameters
    ----------
    estimate : int
        Bytes of a step of one process, from :func:`step_bytes`.
    processes : int
        How many of them share the device.

    Raises
    ------
    InputError
        With both numbers and the remedies.
    """
    free = free_bytes(device)
    place = "GPU" if device.type == "cuda" else "machine"
    log.info(
        "a step takes about %s of memory%s%s",
        _amount(estimate),
        f" in each of {processes} processes" if processes > 1 else "",
        "" if free is None else f"; the {place} has {_amount(free)} free",
    )
    if free is not None and estimate * processes > free:
        raise InputError(
            f"a training step would take about {_amount(estimate * processes)} of memory, but the {place} has "
            f"{_amount(free)} free; lower 'batch_size', raise 'accumulate', set 'precision: bfloat16', or choose a "
            "coarser 'preprocess.spacing'"
        )


def _amount(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
