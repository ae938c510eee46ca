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
    """Write tensors, with JSON-like ``facts`` in the file's header.

    Parameters
    ----------
    path : path
        A safetensors file. It is replaced in one go, and its folder is made if it is missing.
    tensors : dict of str → Tensor
        Of any shapes and devices.
    facts : dict
        Anything that JSON can hold.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from regcore.training.checkpoint import load_tensors, save_tensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_tensors(f"{folder}/weights.safetensors", {"bias": torch.tensor([0.5, 2.0])}, {"steps": 10})
    ...     load_tensors(f"{folder}/weights.safetensors")
    ({'bias': tensor([0.5000, 2.0000])}, {'steps': 10})
    """
    with atomic_write(path) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={"facts": json.dumps(facts)},
        )


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of :func:`save_tensors`. Nothing is unpickled.

    Parameters
    ----------
    path : path
        A safetensors file.

    Returns
    -------
    tensors : dict of str → Tensor
        On the CPU.
    facts : dict
        Empty for a safetensors file of another program.

    Raises
    ------
    InputError
        The file is missing or damaged, or not a safetensors file.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from regcore.training.checkpoint import load_tensors, save_tensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_tensors(f"{folder}/weights.safetensors", {"bias": torch.zeros(3)}, {"method": "voxelmorph"})
    ...     tensors, facts = load_tensors(f"{folder}/weights.safetensors")
    >>> tensors["bias"].shape, facts["method"]
    (torch.Size([3]), 'voxelmorph')
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
        JSON-like: steps so far, seconds, scores.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.checkpoint import Saved
    >>> saved = Saved({"model.bias": torch.zeros(2), "best.bias": torch.ones(2)}, {"step": 10})
    >>> saved.section("best")
    {'bias': tensor([1., 1.])}
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
        A safetensors file.
    fingerprint : str
        Fingerprint of everything that determines the work. State with another fingerprint is not loaded.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from regcore.training.checkpoint import Checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "checkpoint.safetensors")
    ...     Checkpoint(path, fingerprint="lambda 1").save({"model": {"bias": torch.zeros(2)}}, {"step": 10})
    ...     Checkpoint(path, fingerprint="lambda 1").load().facts
    ...     Checkpoint(path, fingerprint="lambda 2").load() is None
    {'step': 10}
    True
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

    Deletes temporary files that a killed process left there. The lock ends with the process, however that ends.

    Parameters
    ----------
    folder : path
        Made if it is missing; the file ``lock`` stays in it.

    Yields
    ------
    None
        With the folder locked.

    Raises
    ------
    InputError
        Another process holds the folder.

    Examples
    --------
    >>> import tempfile
    >>> from regcore.errors import InputError
    >>> from regcore.training.checkpoint import exclusive
    >>> with tempfile.TemporaryDirectory() as folder, exclusive(folder):
    ...     try:
    ...         with exclusive(folder):
    ...             pass
    ...     except InputError as error:
    ...         print(str(error).removeprefix(folder).partition(";")[0])
    : another process is training here
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
