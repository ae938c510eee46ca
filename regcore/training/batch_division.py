"""Division of a batch into equal parts, for parallel processes and successive rounds; needs no torch."""

from regcore.errors import InputError
from regcore.methods.settings.training import TrainingSettings


def check_division(settings: TrainingSettings, processes: int = 1, where: str = "method") -> None:
    """Raise :class:`InputError` unless a batch can be split into the requested parts.

    Parameters
    ----------
    settings : TrainingSettings
        Its ``batch_size`` and ``accumulate`` count.
    processes : int
        Number of processes that share a batch.
    where : str
        Name of the settings in messages.

    Raises
    ------
    InputError
        ``batch_size`` is not a multiple of ``accumulate`` times ``processes``.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.methods import read_settings
    >>> from regcore.training.batch_division import check_division
    >>> settings = read_settings("voxelmorph", {"batch_size": 4, "accumulate": 2})
    >>> check_division(settings, processes=2)
    >>> try:
    ...     check_division(settings, processes=4)
    ... except InputError as error:
    ...     print(str(error).partition("; ")[2])
    choose a multiple of 8
    """
    size, rounds = settings.batch_size, settings.accumulate
    if size % (rounds * processes):
        wanted = [f"'accumulate: {rounds}'"] if rounds > 1 else []
        wanted += [f"{processes} processes"] if processes > 1 else []
        raise InputError(
            f"{where}: a 'batch_size' of {size} cannot be split into equal parts for {' and '.join(wanted)}; "
            f"choose a multiple of {rounds * processes}"
        )


def dividing(settings: TrainingSettings, processes: int) -> int:
    """The largest number of processes, up to ``processes``, that a batch can be split for; at least 1.

    Parameters
    ----------
    settings : TrainingSettings
        Its ``batch_size`` and ``accumulate`` count.
    processes : int
        For instance the number of GPUs; 1 or more.

    Returns
    -------
    int
        1 to ``processes``.

    Examples
    --------
    >>> from regcore.methods import read_settings
    >>> from regcore.training.batch_division import dividing
    >>> dividing(read_settings("voxelmorph", {"batch_size": 6}), processes=4)
    3
    """
    rounds = settings.accumulate
    return max(n for n in range(1, processes + 1) if n == 1 or settings.batch_size % (n * rounds) == 0)
