"""What a registration costs: seconds by stage, CPU seconds, peak memory."""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

#: Seconds between two checks of the programs that a process has started.
INTERVAL = 0.1


@dataclass
class Cost:
    """The cost of a block of work: ``with cost.measured(): with cost.stage("load"): …``.

    Parameters
    ----------
    seconds : dict of str → float
        Wall-clock time by stage.
    cpu_seconds : float
        Of all threads of this process, and of the programs it ran and waited for.
    peak_memory_mb : float
        Largest resident memory of this process (Python and torch included), plus that of the programs
        it ran.
    peak_gpu_memory_mb : float
        Largest memory that torch allocated on its GPU; 0 without a GPU.

    Examples
    --------
    >>> from regcore.process.cost import Cost
    >>> cost = Cost()
    >>> with cost.measured(), cost.stage("load"):
    ...     total = sum(range(1000))
    >>> list(cost.seconds), cost.peak_memory_mb > 0
    (['load'], True)
    """

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    peak_gpu_memory_mb: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall-clock time of a block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    @contextmanager
    def measured(self, programs: bool = False, on_gpu: bool = False) -> Iterator[None]:
        """Measure CPU seconds and memory of a block.

        Parameters
        ----------
        programs : bool
            Measure the memory of the programs that the block starts as well; this takes a little time.
        on_gpu : bool
            Whether the block uses torch's GPU.
        """
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):  # only Linux can reset an earlier peak
            Path("/proc/self/clear_refs").write_text("5")
        before = _cpu_seconds()
        children = _Children() if programs else None
        try:
            yield
        finally:
            self.cpu_seconds = _cpu_seconds() - before
            self.peak_memory_mb = _own_peak() + (children.peak() if children else 0)
            if on_gpu:
                self.peak_gpu_memory_mb = torch.cuda.max_memory_allocated() / 1e6


class _Children:
    """Measures the memory of the programs that this process starts."""

    def __init__(self):
        self._peaks: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._done.wait(INTERVAL):
            with suppress(psutil.Error, OSError):
                for child in me.children(recursive=True):
                    self._peaks[child.pid] = max(self._peaks.get(child.pid, 0.0), _peak_of(child.pid))

    def peak(self) -> float:
        """Stop measuring; return the largest memory (MB) of any program."""
        self._done.set()
        self._thread.join()
        return max(self._peaks.values(), default=0.0)


def _own_peak() -> float:
    if sys.platform == "linux":
        return _peak_of(os.getpid())
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _peak_of(process: int) -> float:
    """Largest resident memory (MB) of a process so far; its current one where the peak is not available."""
    if sys.platform != "linux":
        return psutil.Process(process).memory_info().rss / 1e6
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(float(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
