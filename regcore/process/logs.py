"""Where regcore's log messages go."""

import functools
import logging
import sys


def log_to(*paths: str, prefix: str = "regcore") -> None:
    """Send regcore's messages, after ``prefix``, to standard error and to the files ``paths``.

    Parameters
    ----------
    *paths : str
        Files; the messages are appended.
    prefix : str
        What each message begins with, after the time.
    """
    log = logging.getLogger("regcore")
    log.setLevel(logging.INFO)
    log.handlers.clear()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers += [logging.FileHandler(path) for path in paths]
    for handler in handlers:
        handler.setFormatter(logging.Formatter(f"%(asctime)s  {prefix}: %(message)s", "%H:%M:%S"))
        log.addHandler(handler)


@functools.cache
def warn_once(log: logging.Logger, message: str) -> None:
    """Warn, unless the process has said exactly this before: a file is read many times.

    Parameters
    ----------
    log : Logger
        Of the module that warns.
    message : str
        Names the file and the remedy.

    Examples
    --------
    >>> import logging
    >>> from regcore.process.logs import warn_once
    >>> warn_once(logging.getLogger("example"), "a.nii: said once")
    """
    log.warning("%s", message)
