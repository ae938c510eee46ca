"""State that survives a kill: tensors and facts in one safetensors file, written atomically.

Trainings and searches keep their state in a :class:`Checkpoint`, in a folder that :func:`exclusive` locks.  Nothing is
ever unpickled.
"""

import fcntl
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regcore.errors import InputError
from regcore.process.files import atomic_write, discard_torn

log = logging.getLogger(__name__)


def save_tensors(path: str | Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors, with JSON-like ``facts`` in the file's header."""
    with atomic_write(path) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={"facts": json.dumps(facts)},
        )


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of :func:`save_tensors`.

    Raises
    ------
    InputError
        The file is missing or not from :func:`save_tensors`.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (FileNotFoundError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable weights file ({error}); train the model again") from error


@dataclass(frozen=True)
class Saved:
    """The content of a checkpoint.

    Attributes
    ----------
    tensors : dict of str → Tensor
        Tensors by section and name, as in ``model.decoder.weight``.
    facts : dict
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def section(self, name: str) -> dict[str, Tensor]:
        """The tensors of a section by name; none if the section was not saved."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class Checkpoint:
    """The file from which interrupted work resumes.

    Attributes
    ----------
    path : Path
    fingerprint : str
        Fingerprint of everything that determines the work. State with another fingerprint is not loaded.
    """

    path: Path
    fingerprint: str

    def save(self, sections: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
        """Replace the saved state atomically.

        Parameters
        ----------
        sections : mapping
            Tensors by section and name: ``model``, ``best``, ``optimiser``, …
        facts : mapping
            JSON-like: steps so far, seconds, scores.
        """
        tensors = {f"{section}.{name}": value for section, named in sections.items() for name, value in named.items()}
        save_tensors(self.path, tensors, {"fingerprint": self.fingerprint, **facts})

    def load(self) -> Saved | None:
        """The saved state; None if there is none, or if it belongs to other settings or data."""
        if not self.path.exists():
            return None
        tensors, facts = load_tensors(self.path)
        if facts.pop("fingerprint", None) != self.fingerprint:
            log.info("%s belongs to other settings or data; starting from the beginning", self.path)
            return None
        return Saved(tensors, facts)

    def remove(self) -> None:
        """Delete the file; the work is done."""
        self.path.unlink()


@contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """Lock a folder for this process, because a job that outlived its workflow may still train there.

    Deletes temporary files that a killed process left there.

    Raises
    ------
    InputError
        Another process holds the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{folder}: another process is training here; wait for it, or stop it (a killed workflow can leave "
                "its job running)"
            ) from error
        discard_torn(folder)
        yield
