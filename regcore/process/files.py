"""Writing files so that a half-written file never has its final name, and reading what was written so."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regcore.errors import InputError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The temporary name keeps every suffix of the final one, because image libraries choose their format
    by suffix.  If the block raises, the temporary file is removed and ``path`` stays unchanged.

    Parameters
    ----------
    path : path
        The final name; its folder is made if it is missing.

    Yields
    ------
    Path
        The temporary name.

    Raises
    ------
    OSError
        The block's, with ``path`` as its file where it named the temporary one or, as for a full disk, none.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.process.files import atomic_write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder, "result.txt")) as temporary:
    ...         _ = temporary.write_text("done")
    ...     [file.name for file in Path(folder).iterdir()]
    ['result.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_copy(source: str | Path, path: str | Path) -> None:
    """Copy the content of a file; ``path`` is replaced in one go.

    Parameters
    ----------
    source : path
        The file to copy.
    path : path
        The copy; its folder is made if it is missing.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.process.files import atomic_copy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("done")
    ...     atomic_copy(Path(folder, "a.txt"), Path(folder, "copies", "b.txt"))
    ...     Path(folder, "copies", "b.txt").read_text()
    'done'
    """
    with atomic_write(path) as temporary:
        shutil.copyfile(source, temporary)


def discard_torn(folder: str | Path) -> None:
    """Delete what processes that were killed inside :func:`atomic_write` left in a folder.

    Parameters
    ----------
    folder : path
        A folder that no other process writes to: the file of a running one looks the same.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.process.files import discard_torn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, ".123.scan.nii").write_text("half")
    ...     discard_torn(folder)
    ...     list(Path(folder).iterdir())
    []
    """
    for file in Path(folder).glob(".*"):
        if re.match(r"\.\d+\.", file.name) and file.is_file():
            file.unlink()


def read_json(path: str | Path, remedy: str = "make it again, or copy it again") -> Any:
    """Read a JSON file that regcore wrote.

    Parameters
    ----------
    path : path
        The file.
    remedy : str
        What the reader should do if it is damaged.

    Returns
    -------
    object
        What it holds.

    Raises
    ------
    InputError
        The file cannot be read, or is not JSON.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.errors import InputError
    >>> from regcore.process.files import read_json
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "model.json").write_text('{"method": "voxelm')
    ...     try:
    ...         read_json(Path(folder, "model.json"), "train it again")
    ...     except InputError as error:
    ...         print(str(error).removeprefix(folder).partition(" (")[0], str(error).rpartition("; ")[2])
    /model.json: missing or damaged train it again
    """
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:  # of bytes that are no text, too
        raise InputError(f"{path}: missing or damaged ({error}); {remedy}") from error
