"""The exceptions that a program is to catch: a mistake of the user, and a pair without a field."""

import difflib
from collections.abc import Iterable

#: How torch says that memory is lacking, on a CPU and on a GPU.
NO_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory")


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


def explained(error: BaseException) -> str | None:
    """What to tell the user about an error, without a traceback; None for a fault of the program.

    Parameters
    ----------
    error : exception

    Returns
    -------
    str or None
        The message of an :class:`InputError`; what the system said about a file; or that memory is lacking.

    Examples
    --------
    >>> from regcore.errors import explained
    >>> explained(PermissionError(13, "Permission denied", "out/warped.nii.gz"))
    'out/warped.nii.gz: Permission denied'
    >>> explained(ZeroDivisionError()) is None
    True
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_MEMORY)
    ):
        return f"not enough memory; use smaller or coarser images, fewer threads, or a larger machine ({error})"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, BrokenPipeError):
        return f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}"
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, else the list of all, if any."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are: {', '.join(known)}" if known else "; there are none"
