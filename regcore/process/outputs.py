"""Where a run writes: refused before the work if it cannot be written, and replaced as one when the work is done.

A folder of results is never a mixture of two runs.  The new results are written to a hidden folder on the same file
system, and take the place of the old ones when all are complete; until then the old ones stay whole, also if the
process is killed.  Only files that an earlier run wrote are replaced; what else is in the folder stays.
"""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regcore.errors import InputError

#: The hidden folder of new results inside the output, where none can be made beside it.
INSIDE = ".regcore"
#: In it, the old results while they are replaced one by one.
ASIDE = ".before"
#: Of Linux' renameat2: relative to the current folder, and exchange both.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def result_folder(
    output: str | Path, names: Iterable[str], record: str, room: int = 0, inputs: Iterable[str | Path] = ()
) -> Iterator[Path]:
    """Yield a new folder; if the block succeeds, its files take the place of an earlier run's, as one.

    Parameters
    ----------
    output : path
        The folder of results; made if it is missing.
    names : iterable of str
        Every file that a run may write.
    record : str
        The one of them that every run writes.  A folder without it holds no earlier results.
    room : int
        Bytes that the results may need.
    inputs : iterable of path
        Files that the run reads.

    Yields
    ------
    Path
        An empty folder on the file system of ``output``.

    Raises
    ------
    InputError
        Before the block: ``output`` is a file, cannot be written to, or has too little room; it holds a file of these
        names that no earlier run wrote, or that is one of ``inputs``; or another process is writing to it.
    ValueError
        The block wrote a file that is not among ``names``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.process.outputs import result_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("old.txt", "new.txt"):
    ...         with result_folder(Path(folder, "out"), ["old.txt", "new.txt", "run.json"], "run.json") as results:
    ...             for file in (name, "run.json"):
    ...                 _ = (results / file).write_text("done")
    ...     sorted(path.name for path in Path(folder, "out").iterdir())
    ['new.txt', 'run.json']
    """
    names, place = {*names, record}, Path(os.path.realpath(output))
    with _new_folder(place, output) as new:
        _undo_interrupted(new, place, names, record)
        _require_replaceable(place, names, record, output)
        _require_kept(inputs, place, names, output)
        _require_room(new, room, output)
        try:
            yield new
            unknown = {path.name for path in new.iterdir()} - names
            if unknown:
                raise ValueError(f"{', '.join(sorted(unknown))}: not among the files of a result folder")
            _replace(new, place, names, record)
        except OSError as error:
            raise _about(error, new, output) from error


def require_writable(path: str | Path, room: int = 0, inputs: Iterable[str | Path] = ()) -> None:
    """Raise :class:`InputError` if a file could not be written: a folder, no permission, no room, or itself an input.

    Parameters
    ----------
    path : path
        The file, which may exist; folders above it may be missing.
    room : int
        Bytes that it may need.
    inputs : iterable of path
        Files that the run reads.

    Raises
    ------
    InputError
        Names the path and the reason.

    Examples
    --------
    >>> import tempfile
    >>> from regcore.process.outputs import require_writable
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     require_writable(file.name)
    ...     require_writable(file.name + "/warped.nii.gz")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    regcore.errors.InputError: ...warped.nii.gz: cannot be written to (Not a directory); choose another output with -o
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it with -o")
    if place in {Path(os.path.realpath(file)) for file in inputs}:
        raise InputError(f"{path}: is also an input; choose another output with -o")
    try:
        above = next(folder for folder in place.parents if folder.exists())
        probe = above / f".regcore-{os.getpid()}"
        probe.touch(exist_ok=False)
        probe.unlink()
        _require_room(above, room, path)
    except OSError as error:
        raise _unwritable(error, path) from error


@contextmanager
def _new_folder(place: Path, output: str | Path) -> Iterator[Path]:
    """A hidden folder beside ``place``, or inside it where that cannot be moved; no other process has it."""
    missing: list[Path] = []
    try:
        missing += [folder for folder in place.parents if not folder.exists()]
        if place.exists() and not place.is_dir():
            raise InputError(f"{output}: is a file; name a folder with -o")
        if place.exists() and not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        new = _made(place)
        lock = os.open(new, os.O_RDONLY)
    except OSError as error:
        _remove_empty(missing)
        raise _unwritable(error, output) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise InputError(
            f"{output}: another process is writing results to it; wait, or choose another output with -o"
        ) from error
    except OSError:
        pass  # some network file systems have no locks
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        os.close(lock)
        _remove_empty(missing)


def _made(place: Path) -> Path:
    inside, beside = place / INSIDE, place.with_name(f".{place.name}{INSIDE}")
    if inside.is_dir() or (place.is_dir() and (os.path.ismount(place) or Path.cwd().is_relative_to(place))):
        inside.mkdir(exist_ok=True)  # also where a killed run left one
        return inside
    try:
        beside.mkdir(parents=True, exist_ok=True)
        return beside
    except PermissionError:
        if not place.is_dir():
            raise
        inside.mkdir(exist_ok=True)
        return inside


def _remove_empty(folders: Iterable[Path]) -> None:
    """Delete folders, the innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _undo_interrupted(new: Path, place: Path, names: set[str], record: str) -> None:
    """Clear what a killed process left, and put old results back that it was replacing one by one."""
    aside = new / ASIDE
    if aside.is_dir():
        if (aside / record).exists() or not (place / record).exists():  # all old ones are aside: these are new
            for name in names:
                (place / name).unlink(missing_ok=True)
        for path in aside.iterdir():
            os.rename(path, place / path.name)
    for path in new.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_replaceable(place: Path, names: set[str], record: str, output: str | Path) -> None:
    found = sorted(name for name in names if (place / name).exists())
    if found and record not in found:
        raise InputError(
            f"{output}: holds {', '.join(found)} but no {record}, so these may not be earlier results and are not "
            "replaced; choose another output with -o, or move them elsewhere"
        )


def _require_kept(inputs: Iterable[str | Path], place: Path, names: set[str], output: str | Path) -> None:
    for file in inputs:
        if Path(os.path.realpath(file)) in {place / name for name in names}:
            raise InputError(
                f"{output}: its earlier results would be replaced, and {file} is one of them; choose another output "
                "with -o"
            )


def _require_room(folder: Path, room: int, output: str | Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < room:
        raise InputError(
            f"{output}: too little room: the results may need {room / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free "
            "there; make room, or choose another output with -o"
        )


def _replace(new: Path, place: Path, names: set[str], record: str) -> None:
    """Let the files of ``new`` take the place of all results in ``place``."""
    others = {path.name for path in place.iterdir()} - names if place.is_dir() else set()
    if others or new.parent == place:
        _move_in(new, place, names, record)
        return
    if place.exists():
        os.chmod(new, place.stat().st_mode)
    try:
        os.rename(new, place)  # if there is no such folder, or an empty one
        return
    except OSError:
        pass
    try:
        _exchange(new, place)
    except OSError:  # no such call, or a file system that cannot do it
        _move_in(new, place, names, record)
        return
    for path in new.iterdir():  # the old folder, by now
        if path.name not in names:  # came in this moment
            os.rename(path, place / path.name)


def _exchange(first: Path, second: Path) -> None:
    """Exchange two folders in one step; raises OSError where that is impossible."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError("this system cannot exchange folders")
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _move_in(new: Path, place: Path, names: set[str], record: str) -> None:
    """Replace results one by one; all is undone if a step fails, and by the next run if the process is killed."""
    aside = new / ASIDE
    aside.mkdir()
    ordered = sorted(names, key=lambda name: (name == record, name))  # the record last: it says how far this came
    steps = [(place / name, aside / name) for name in ordered if (place / name).exists()]
    steps += [(new / name, place / name) for name in ordered if (new / name).exists()]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in steps:
            os.rename(source, target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            os.rename(target, source)
        raise


def _unwritable(error: OSError, output: str | Path) -> InputError:
    return InputError(f"{output}: cannot be written to ({error.strerror}); choose another output with -o")


def _about(error: OSError, new: Path, output: str | Path) -> OSError:
    """The error as one of the final file."""
    if error.errno is None or not isinstance(error.filename, str) or not Path(error.filename).is_relative_to(new):
        return error
    return OSError(error.errno, error.strerror, str(Path(output) / Path(error.filename).relative_to(new)))
