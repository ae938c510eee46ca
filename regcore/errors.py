"""The one exception for mistakes that a user can mend."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave is wrong; the message names the file or key and the remedy.

    The command line and the workflow's scripts print the message alone and exit with status 2: a
    traceback would hide it.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, else the list of all."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known are: {', '.join(known)}"
