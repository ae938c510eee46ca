"""Where regcore's log messages go."""

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
