"""Division of a batch into equal parts, for parallel processes and successive rounds; needs no torch."""

from regcore.errors import InputError
from regcore.methods.settings.training import TrainingSettings


def check_division(settings: TrainingSettings, processes: int = 1, where: str = "method") -> None:
    """Raise :class:`InputError` unless a batch can be split into the requested parts."""
    size, rounds = settings.batch_size, settings.accumulate
    if size % (rounds * processes):
        wanted = [f"'accumulate: {rounds}'"] if rounds > 1 else []
        wanted += [f"{processes} processes"] if processes > 1 else []
        raise InputError(
            f"{where}: a 'batch_size' of {size} cannot be split into equal parts for {' and '.join(wanted)}; "
            f"choose a multiple of {rounds * processes}"
        )


def dividing(settings: TrainingSettings, processes: int) -> int:
    """The largest number of processes, up to ``processes``, that a batch can be split for; at least 1."""
    rounds = settings.accumulate
    return max(n for n in range(1, processes + 1) if n == 1 or settings.batch_size % (n * rounds) == 0)
