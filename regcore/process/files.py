"""Writing files so that a half-written file never has its final name."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The temporary name keeps every suffix of the final one, because image libraries choose their format
    by suffix.  If the block raises, the temporary file is removed and ``path`` stays unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_copy(source: str | Path, path: str | Path) -> None:
    """Copy the content of a file; ``path`` is replaced in one go."""
    with atomic_write(path) as temporary:
        shutil.copyfile(source, temporary)


def discard_torn(folder: str | Path) -> None:
    """Delete what processes that were killed inside :func:`atomic_write` left in a folder.

    Only for a folder that no other process writes to: the file of a running one looks the same.
    """
    for file in Path(folder).glob(".*"):
        if re.match(r"\.\d+\.", file.name) and file.is_file():
            file.unlink()
