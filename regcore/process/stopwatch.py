"""Wall and CPU seconds of work that may be interrupted and go on in another process."""

import time
from collections.abc import Callable

import torch


class Stopwatch:
    """Counts on from the seconds that earlier processes took.

    Parameters
    ----------
    seconds, cpu_seconds : float
        What was counted before.
    cpu_clock : callable
        What the second number is read from; see :func:`work_clock`.

    Examples
    --------
    >>> from regcore.process.stopwatch import Stopwatch
    >>> watch = Stopwatch(seconds=60, cpu_seconds=50)
    >>> seconds, cpu_seconds = watch.read()
    >>> seconds >= 60, cpu_seconds >= 50
    (True, True)
    """

    def __init__(self, seconds: float = 0, cpu_seconds: float = 0, cpu_clock: Callable[[], float] = time.process_time):
        self._cpu_clock = cpu_clock
        self._start, self._cpu_start = time.monotonic() - seconds, cpu_clock() - cpu_seconds

    def read(self) -> tuple[float, float]:
        """Wall and CPU seconds so far."""
        return time.monotonic() - self._start, self._cpu_clock() - self._cpu_start


def work_clock(device: torch.device) -> Callable[[], float]:
    """The clock by which work is compared: the process's CPU time, or the wall clock where a GPU does the work.

    Parameters
    ----------
    device : torch.device
        Where the work is done.

    Returns
    -------
    callable
        No arguments → seconds.

    Examples
    --------
    >>> import torch
    >>> from regcore.process.stopwatch import work_clock
    >>> clock = work_clock(torch.device("cpu"))
    >>> clock() <= clock()
    True
    """
    return time.monotonic if device.type == "cuda" else time.process_time
