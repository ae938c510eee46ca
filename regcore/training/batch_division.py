"""Cutting a batch into equal parts, for processes side by side and for rounds one after the other; needs no torch."""

from regcore.errors import InputError
from regcore.methods.settings.training import TrainingSettings


def check_division(settings: TrainingSettings, processes: int = 1, where: str = "method") -> None:
    """Raise :class:`InputError` unless a batch can be cut into the parts that are wanted."""
    size, rounds = settings.batch_size, settings.accumulate
    if size % (rounds * processes):
        wanted = [f"'accumulate: {rounds}'"] if rounds > 1 else []
        wanted += [f"{processes} processes"] if processes > 1 else []
        raise InputError(
            f"{where}: a 'batch_size' of {size} cannot be cut into equal parts for {' and '.join(wanted)}; "
            f"choose a multiple of {rounds * processes}"
        )


def dividing(settings: TrainingSettings, processes: int) -> int:
    """The most processes, up to ``processes``, that a batch can be cut for; 1 if it can be cut for none."""
    rounds = settings.accumulate
    return max(n for n in range(1, processes + 1) if n == 1 or settings.batch_size % (n * rounds) == 0)
