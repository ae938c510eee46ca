"""The contract of an external tool: how it runs, how it reports its version, how it fails.

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
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from regcore.errors import InputError, RegistrationFailed
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.methods.base import Channel, Method, Registration
from regcore.process.threads import thread_environment

#: Number of last lines of a program's output that an error shows.
LINES_KEPT = 40
#: File names of the two images and their masks in a tool's folder.
FIXED, MOVING = "fixed.nii.gz", "moving.nii.gz"
FIXED_MASK, MOVING_MASK = "fixed_mask.nii.gz", "moving_mask.nii.gz"


class ToolError(RegistrationFailed):
    """A tool gave no usable field; the message has its output.

    Examples
    --------
    >>> from regcore.errors import RegistrationFailed
    >>> from regcore.methods.classical.external import ToolError
    >>> try:
    ...     raise ToolError("greedy failed: not enough memory")
    ... except RegistrationFailed as error:  # it costs this pair, not the study
    ...     print(error)
    greedy failed: not enough memory
    """


class External(Method):
    """A method that calls an external program or package.

    Both images are aligned and on one grid, so only the deformable stage of a tool is used.
    """

    external: ClassVar = True

    @property
    def threads(self) -> int:
        """Number of threads for the tool: as many as the process has."""
        return torch.get_num_threads()

    @property
    def shortest(self) -> int:
        """Voxels that the tool needs along each axis: at its coarsest level, it smooths or compares neighbours."""
        return 1

    def register(
        self,
        fixed: Volume,
        moving: Volume,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
        channels: Sequence[Channel] = (),
    ) -> Registration:
        """Run the tool in an empty temporary folder, on images that are continued where they are too short for it.

        Raises
        ------
        ToolError
            The tool failed, or its field is not on the fixed grid.
        """
        images = [continued(image, self.shortest) for image in (fixed, moving)]
        masks = {"fixed_mask": fixed_mask, "moving_mask": moving_mask} if self.uses_masks else {}
        given: dict[str, Any] = {name: mask and continued(mask, self.shortest) for name, mask in masks.items()}
        if channels:
            given["channels"] = [self._continued(channel) for channel in channels]
        with tempfile.TemporaryDirectory(prefix="regcore-tool-") as folder:
            try:
                found = self.run(images[0], images[1], Path(folder), **given)
            except InputError as error:  # about a file that the tool did not write or wrote wrongly
                raise ToolError(f"the tool gave no usable field: {error}") from error
        for what, field in (("field", found.field), ("inverse", found.inverse)):
            if field is not None and not bool(field.displacement.isfinite().all()):
                raise ToolError(f"the {what} of {found.tool} has NaN or infinite values")
        return replace(
            found,
            field=cropped(found.field, fixed.grid),
            inverse=None if found.inverse is None else cropped(found.inverse, moving.grid),
        )

    def _continued(self, channel: Channel) -> Channel:
        images = [continued(image, self.shortest) for image in (channel.fixed, channel.moving)]
        return replace(channel, fixed=images[0], moving=images[1])

    @abstractmethod
    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        """Run the tool with its files in ``folder``; set ``tool`` and ``commands`` of the result.

        A tool that uses masks also takes ``fixed_mask`` and ``moving_mask``, one that uses channels ``channels``, as
        :meth:`register` does.  Tools have one mask for all channels, so those of the channels are not used.
        """


def run_program(command: Sequence[str], folder: Path, threads: int) -> str:
    """Run a program in ``folder`` with that many threads; its output goes to standard error.

    Parameters
    ----------
    command : sequence of str
        The program's path, and its arguments.
    folder : Path
        Where it runs.
    threads : int
        Set in the environment, for all libraries with threads.

    Returns
    -------
    str
        The command as one would type it, without the program's path.

    Raises
    ------
    ToolError
        The program cannot be started, or its exit status is not 0.

    Examples
    --------
    >>> import sys
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.methods.classical.external import ToolError, run_program
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     try:
    ...         run_program([sys.executable, "-c", "raise SystemExit(3)"], Path(folder), threads=1)
    ...     except ToolError as error:
    ...         print(str(error).partition("-c ")[2].splitlines()[0])
    'raise SystemExit(3)'' ended with status 3:
    """
    typed = shlex.join([Path(command[0]).name, *command[1:]])
    said: deque[str] = deque(maxlen=LINES_KEPT)
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
        assert running.stdout is not None  # it is a pipe
        for line in running.stdout:
            print(line, end="", file=sys.stderr, flush=True)  # visible even if the program must be stopped
            said.append(line)
    if running.returncode:
        raise ToolError(f"'{typed}' ended with status {running.returncode}:\n{''.join(said)}")
    return typed


def program_version(program: Path) -> str:
    """A program's answer to ``--version``.

    Parameters
    ----------
    program : Path
        The program, which must exist.

    Returns
    -------
    str
        Without white space around it.

    Examples
    --------
    >>> import sys
    >>> from pathlib import Path
    >>> from regcore.methods.classical.external import program_version
    >>> program_version(Path(sys.executable)).split()[0]
    'Python'
    """
    done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def failing_as_tool_error(tool: str) -> Iterator[None]:
    """Turn any exception of a package called in this process into a :class:`ToolError`.

    Parameters
    ----------
    tool : str
        Name of the package in the message.

    Yields
    ------
    None

    Raises
    ------
    ToolError
        The block raised an exception.

    Examples
    --------
    >>> from regcore.methods.classical.external import ToolError, failing_as_tool_error
    >>> try:
    ...     with failing_as_tool_error("DIPY"):
    ...         [].pop()
    ... except ToolError as error:
    ...     print(error)
    DIPY failed: IndexError: pop from empty list
    """
    try:
        yield
    except Exception as error:
        raise ToolError(f"{tool} failed: {type(error).__name__}: {error}") from error


def package_version(name: str) -> str:
    """Name and version of an installed distribution.

    Parameters
    ----------
    name : str
        As in ``pip install``.

    Returns
    -------
    str

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        It is not installed.

    Examples
    --------
    >>> from regcore.methods.classical.external import package_version
    >>> package_version("numpy").split()[0]
    'numpy'
    """
    return f"{name} {importlib.metadata.version(name)}"


def continued(image: Volume, shortest: int) -> Volume:
    """The image with its last slice repeated along every axis that has fewer than ``shortest`` voxels."""
    shape = image.grid.shape
    missing = [max(0, shortest - length) for length in shape]
    if not any(missing):
        return image
    data = np.pad(image.data, [(0, n) for n in missing], mode="edge")
    return Volume(data, replace(image.grid, shape=data.shape), image.path)


def cropped(field: DisplacementField, grid: Grid) -> DisplacementField:
    """The field without the voxels that :func:`continued` added to ``grid``."""
    if field.grid.shape == grid.shape:
        return field
    kept = tuple(slice(length) for length in grid.shape)
    return DisplacementField(field.displacement[(slice(None), slice(None), *kept)].contiguous(), grid)


def save_images(fixed: Volume, moving: Volume, folder: Path) -> None:
    """Write both images, as ``FIXED`` and ``MOVING``, for a tool that reads files.

    Parameters
    ----------
    fixed, moving : Volume
        On one grid.
    folder : Path
        Where to write them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.classical.external import save_images
    >>> image = Volume(np.eye(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_images(image, image, Path(folder))
    ...     sorted(file.name for file in Path(folder).iterdir())
    ['fixed.nii.gz', 'moving.nii.gz']
    """
    fixed.save(folder / FIXED)
    moving.save(folder / MOVING)


def save_mask(mask: Volume | None, option: str, name: str, folder: Path) -> list[str]:
    """Write a mask as 0 and 1, for a tool that reads files.

    Parameters
    ----------
    mask : Volume or None
        Zero where the image is ignored.
    option : str
        The tool's option for it.
    name : str
        Name of the file.
    folder : Path
        Where to write it.

    Returns
    -------
    list of str
        The option and the name; empty without a mask.

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.methods.classical.external import save_mask
    >>> save_mask(None, "-gm", "fixed_mask.nii.gz", Path("nowhere"))
    []
    """
    if mask is None:
        return []
    mask.with_data((mask.data > 0).astype(np.uint8)).save(folder / name)
    return [option, name]


def joined_mask(fixed_mask: Volume | None, moving_mask: Volume | None) -> Volume | None:
    """What both masks leave, for a tool that takes only a mask of the fixed image, or fails with one of the moving.

    The moving mask counts where the alignment puts it.

    Parameters
    ----------
    fixed_mask, moving_mask : Volume or None
        On one grid, zero where an image is ignored.

    Returns
    -------
    Volume or None

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods.classical.external import joined_mask
    >>> first = Volume(np.eye(2), Grid.centred((2, 2), spacing=(1, 1), centre=(0, 0)))
    >>> second = first.with_data(np.array([[1, 1], [0, 0]]))
    >>> joined_mask(first, second).data.tolist(), joined_mask(first, None) is first
    ([[True, False], [False, False]], True)
    """
    if fixed_mask is None or moving_mask is None:
        return fixed_mask or moving_mask
    return fixed_mask.with_data((fixed_mask.data > 0) & (moving_mask.data > 0))
