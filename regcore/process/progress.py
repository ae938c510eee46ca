"""How far a long loop is: a line every fifteen seconds, with the time that is left.

What the line says beside that is the loop's own business; see :mod:`regcore.process.stopwatch` for time that has to
be kept over interruptions.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

log = logging.getLogger(__name__)

#: Seconds between two progress lines.
PROGRESS_EVERY = 15

Item = TypeVar("Item")


class Every:
    """Tells when so many seconds have passed.

    Parameters
    ----------
    seconds : float
        With 0 it is always time.

    Examples
    --------
    >>> from regcore.process.progress import Every
    >>> Every(seconds=0).due(), Every(seconds=3600).due()
    (True, False)
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.restart()

    def due(self) -> bool:
        """Whether they have passed; if so, counting starts again."""
        if time.monotonic() - self._since < self.seconds:
            return False
        self.restart()
        return True

    def restart(self) -> None:
        """Count from now."""
        self._since = time.monotonic()


class Progress:
    """When to report on a loop, how fast it is, and how long it will take.

    Parameters
    ----------
    total : float
        Where the loop ends, in any unit of work: steps, files, seconds that it may take.
    done : float
        Where it begins; more than 0 when it goes on after an interruption.

    Examples
    --------
    >>> from regcore.process.progress import Progress
    >>> progress = Progress(total=3)
    >>> for step in range(3):
    ...     if progress.due():
    ...         print(f"step {step}/3  {progress.left(step)}")
    """

    def __init__(self, total: float, done: float = 0):
        self.total, self._first, self._began = total, done, time.monotonic()
        self._lines = Every(PROGRESS_EVERY)

    def due(self) -> bool:
        """Whether it is time for a line."""
        return self._lines.due()

    def restart(self) -> None:
        """Wait for the next line as if one had just been written."""
        self._lines.restart()

    def rate(self, done: float) -> float:
        """Work per second since the loop began."""
        return (done - self._first) / max(time.monotonic() - self._began, 1e-9)

    def left(self, done: float) -> str:
        """The time left at this rate, such as ``4 min 10 s left``."""
        rate = self.rate(done)
        return time_left(max(0, self.total - done) / rate if rate > 0 else math.inf)


def tracked(items: Sequence[Item], what: str, name: Callable[[Item], str] = str) -> Iterator[Item]:
    """Go through items, with a line after each: ``prepared 2/9  sub-01  4.1 s  0 min 29 s left``.

    Parameters
    ----------
    items : sequence
        What the loop goes through.
    what : str
        What is done to them.
    name : callable
        Item → what it is called.

    Yields
    ------
    item
        Each of ``items``.

    Examples
    --------
    >>> from regcore.process.progress import tracked
    >>> [scan.upper() for scan in tracked(["a", "b"], "prepared")]
    ['A', 'B']
    """
    progress = Progress(len(items))
    for number, item in enumerate(items, start=1):
        started = time.monotonic()
        yield item
        took = time.monotonic() - started
        log.info("%s %d/%d  %s  %.1f s  %s", what, number, len(items), name(item), took, progress.left(number))


def duration(seconds: float) -> str:
    """Seconds for people.

    Parameters
    ----------
    seconds : float
        Rounded to whole seconds.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.process.progress import duration
    >>> duration(250), duration(7260)
    ('4 min 10 s', '2 h 01 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def time_left(seconds: float) -> str:
    """The end of a progress line.

    Parameters
    ----------
    seconds : float
        May be infinite.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.process.progress import time_left
    >>> time_left(250), time_left(float("inf"))
    ('4 min 10 s left', 'time left unknown')
    """
    return f"{duration(seconds)} left" if math.isfinite(seconds) else "time left unknown"
