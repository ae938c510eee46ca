"""The exceptions that a program is to catch: a mistake of the user, and a pair without a field."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave is wrong; the message names the file or key and the remedy.

    The command line and the workflow's scripts print the message alone and exit with status 2: a
    traceback would hide it.
    """


class DivergedError(InputError):
    """A training's loss became NaN or infinite: its hyperparameters are to blame, nothing around it."""


class RegistrationFailed(Exception):
    """There is no usable field for a pair; the message says why.

    It costs that pair: in a study the failure is recorded in place of the field.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, else the list of all, if any."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are: {', '.join(known)}" if known else "; there are none"
