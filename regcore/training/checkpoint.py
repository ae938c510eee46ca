"""Tensors and facts in one safetensors file, written whole or not at all; nothing is ever unpickled."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regcore.errors import InputError
from regcore.process.files import atomic_write


def save_tensors(path: str | Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors, with JSON-like ``facts`` in the file's header."""
    with atomic_write(path) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={"facts": json.dumps(facts)},
        )


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises
    ------
    InputError
        The file is missing or not one of ours.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (FileNotFoundError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable weights file ({error}); train the model again") from error


def discard_torn(path: Path) -> None:
    """Delete what a process that was killed while it wrote ``path`` has left."""
    for torn in path.parent.glob(f".*.{path.name}"):
        torn.unlink()


def section(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of an optimiser as tensors by name; :func:`load_optimiser` takes them without the prefix."""
    return {
        f"{prefix}{index}.{name}": torch.as_tensor(value)
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser of the same parameters back its state."""
    states: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        # Fused Adam goes through memory: a moment has to lie there in the order of its weight.
        laid_out = torch.empty_like(parameters[int(index)]).copy_(value) if value.ndim else value
        states.setdefault(int(index), {})[key] = laid_out
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})


@contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process; a job that outlived its workflow may still be training there.

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
                f"{folder}: another process is training here; wait for it, or end it (a killed workflow can leave "
                "its job running)"
            ) from error
        yield
