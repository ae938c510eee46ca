"""The contract of a tool that is not ours: how it is run, what it says about itself, how it fails.

A study runs such a method in a process of its own (:mod:`regcore.process.isolation`), with the environment of
:func:`regcore.process.threads.thread_environment`: a tool may crash, hang or print what it likes.
"""

import importlib.metadata
import shlex
import subprocess
import sys
import tempfile
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from regcore.errors import InputError, RegistrationFailed
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.methods.base import Method, Registration
from regcore.process.threads import thread_environment

#: Last lines of a program's words that an error repeats.
LINES_KEPT = 40
#: Files of the two images in a tool's folder.
FIXED, MOVING = "fixed.nii.gz", "moving.nii.gz"


class ToolError(RegistrationFailed):
    """A tool ended without a usable field; the message holds what it said."""


class External(Method):
    """A method that calls a program or a package of others.

    Both images are on one grid, aligned already, so only the deformable stage of a tool is used.
    """

    external: ClassVar = True

    @property
    def threads(self) -> int:
        """Threads that the tool may use: those of the process."""
        return torch.get_num_threads()

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        """Run the tool in an empty folder that is removed afterwards.

        Raises
        ------
        ToolError
            The tool failed, or its field is not one on the fixed grid.
        """
        with tempfile.TemporaryDirectory(prefix="regcore-tool-") as folder:
            try:
                found = self.run(fixed, moving, Path(folder))
            except InputError as error:  # about a file that the tool wrote, or did not write
                raise ToolError(f"no usable field came from the tool: {error}") from error
        for what, field in (("field", found.field), ("inverse", found.inverse)):
            if field is not None and not bool(field.displacement.isfinite().all()):
                raise ToolError(f"the {what} of {found.tool} has NaN or infinite values")
        return found

    @abstractmethod
    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        """Run the tool, whose own files stay in ``folder``; ``tool`` and ``commands`` of the result are set."""


def run_program(command: Sequence[str], folder: Path, threads: int) -> str:
    """Run a program in ``folder`` with that many threads; what it prints goes on to standard error.

    Returns
    -------
    str
        The command as a person would type it, the program without its path.

    Raises
    ------
    ToolError
        It cannot be started, or ends with another status than 0.
    """
    typed, said = shlex.join([Path(command[0]).name, *command[1:]]), deque(maxlen=LINES_KEPT)
    try:
        running = subprocess.Popen(
            command,
            cwd=folder,
            env=thread_environment(threads),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be started ({error})") from error
    with running:
        for line in running.stdout:
            print(line, end="", file=sys.stderr, flush=True)  # seen even where the program has to be stopped
            said.append(line)
    if running.returncode:
        raise ToolError(f"'{typed}' ended with status {running.returncode}:\n{''.join(said)}")
    return typed


def program_version(program: Path) -> str:
    """What a program answers to ``--version``."""
    done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def failing_as_tool_error(tool: str) -> Iterator[None]:
    """Turn whatever a package raises, when it is called in this process, into a :class:`ToolError`."""
    try:
        yield
    except Exception as error:
        raise ToolError(f"{tool} failed: {type(error).__name__}: {error}") from error


def package_version(name: str) -> str:
    """Name and version of an installed distribution."""
    return f"{name} {importlib.metadata.version(name)}"


def save_images(fixed: Volume, moving: Volume, folder: Path) -> None:
    """Write both images, under the names ``FIXED`` and ``MOVING``, for a tool that reads files."""
    fixed.save(folder / FIXED)
    moving.save(folder / MOVING)


def on_grid(field: DisplacementField, grid: Grid) -> DisplacementField:
    """The same field under ``grid``, whose numbers a tool may have rounded.

    Raises
    ------
    ToolError
        It is another grid.
    """
    if not field.grid.same_as(grid, tolerance_mm=0.05):
        raise ToolError(f"the tool's field is on another grid than the fixed image ({field.grid.shape}, {grid.shape})")
    return DisplacementField(field.displacement, grid)


def from_voxels(displacement: np.ndarray, grid: Grid) -> DisplacementField:
    """A field from displacements (*space, D) in voxels, components in the order of the array axes."""
    _check_shape(displacement, grid)
    return DisplacementField(torch.from_numpy(np.moveaxis(displacement, -1, 0)[None].astype(np.float32)), grid)


def from_ras(displacement: np.ndarray, grid: Grid) -> DisplacementField:
    """A field from displacements (*space, D) in mm along the axes of the RAS world."""
    _check_shape(displacement, grid)
    return DisplacementField.from_world(DisplacementField.identity(grid).targets() + displacement, grid)


def _check_shape(displacement: np.ndarray, grid: Grid) -> None:
    if displacement.shape != (*grid.shape, grid.ndim):
        raise ToolError(f"the tool's field has the shape {displacement.shape}, not that of the image {grid.shape}")
