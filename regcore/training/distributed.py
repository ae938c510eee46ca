"""Training on several GPUs or in several processes: the processes, and their communication.

``torchrun --nproc-per-node 4 script.py`` starts every process of a training; inside,
:func:`process_group` joins them.  :func:`launch` does the same for one function.  All processes draw the same
pairs.  Each computes its share of every batch, and all take the same step with the mean of their gradients.  Only
the first one validates and writes.
"""

import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from regcore.errors import DivergedError, InputError
from regcore.methods.settings.training import TrainingSettings
from regcore.process.threads import tune_process
from regcore.training.batch_division import check_division, dividing

log = logging.getLogger(__name__)

#: Environment variable for the number of training processes; default: the number of GPUs.
PROCESSES_VARIABLE = "REGCORE_PROCESSES"
#: Time that the others wait while the first process validates.
PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class Processes:
    """The processes of one training, from the view of one of them.

    By default there is one process, and nothing is exchanged.

    Parameters
    ----------
    rank, count : int
        Number of this process, and number of processes.
    local_count : int
        Number of processes on this machine.

    Examples
    --------
    >>> import torch
    >>> from regcore.training.distributed import Processes
    >>> alone = Processes()
    >>> alone.first, alone.mean(torch.tensor(0.25)).item()
    (True, 0.25)
    """

    rank: int = 0
    count: int = 1
    local_count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, module: nn.Module) -> None:
        """Replace the gradients of every process by their mean, in one exchange."""
        if self.count == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        together = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(together)
        together /= self.count
        for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a value over the processes."""
        if self.count == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.count

    def told(self, value: float, device: torch.device) -> float:
        """The first process' value; the others wait for it."""
        if self.count == 1:
            return value
        message = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(message, src=0)
        return message.item()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def launched() -> bool:
    """Whether this process was started as one of several, by torchrun or a cluster.

    Returns
    -------
    bool
        Whether the environment has a ``WORLD_SIZE`` above 1.

    Examples
    --------
    >>> from regcore.training.distributed import launched
    >>> launched()
    False
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group() -> Iterator[Processes]:
    """Join the other processes of a training that was :func:`launched`; does nothing for a single process.

    GPUs communicate by NCCL, CPUs by gloo. Afterwards only the first process logs.

    Yields
    ------
    Processes
        The processes, from the view of this one.

    Examples
    --------
    >>> from regcore.training.distributed import process_group
    >>> with process_group() as processes:
    ...     print(f"process {processes.rank + 1} of {processes.count}")
    process 1 of 1
    """
    if not launched():
        yield Processes()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    if dist.get_rank() > 0:
        logging.getLogger("regcore").setLevel(logging.WARNING)  # only the first process logs
    try:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))
        yield Processes(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()


def wanted_processes(settings: TrainingSettings, where: str = "method") -> int:
    """The number of processes for a training with these settings.

    Given by ``REGCORE_PROCESSES``; otherwise one per GPU, as far as the batch can be divided.

    Parameters
    ----------
    settings : TrainingSettings
        Its ``batch_size`` and ``accumulate`` count.
    where : str
        Name of the settings in messages.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    InputError
        The variable is not a number, or the batch cannot be divided by it.

    Examples
    --------
    >>> import os
    >>> from unittest.mock import patch
    >>> from regcore.methods import read_settings
    >>> from regcore.training.distributed import wanted_processes
    >>> with patch.dict(os.environ, REGCORE_PROCESSES="2"):
    ...     wanted_processes(read_settings("voxelmorph", {"batch_size": 4}))
    2
    """
    given = os.environ.get(PROCESSES_VARIABLE)
    if given is None:
        return dividing(settings, max(1, torch.cuda.device_count()))
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"{PROCESSES_VARIABLE}={given!r} is not a number of processes; give 1 or more")
    check_division(settings, int(given), where)
    return int(given)


def launch(processes: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call ``function(*arguments)`` in several processes on this machine, which join with :func:`process_group`.

    Log messages of the first process are logged here. Each process has its share of torch's threads.

    Parameters
    ----------
    processes : int
        How many to start.
    function : callable
        A function of a module, which the processes import; its result is dropped.
    *arguments
        Its arguments, which must pickle.

    Raises
    ------
    InputError, DivergedError
        One of the processes raised it.
    RuntimeError
        A process failed in another way.
    """
    with tempfile.TemporaryDirectory(prefix="regcore-launch-") as name:
        folder = Path(name)
        threads = max(1, torch.get_num_threads() // processes)
        (folder / "job").write_bytes(pickle.dumps((function, arguments, threads)))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m", __name__, str(folder)]
        with (
            (folder / "errors").open("w") as errors,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            ) as running,
        ):
            assert running.stdout is not None  # it is a pipe
            try:
                for line in running.stdout:
                    log.info("%s", line.rstrip("\n"))
            except BaseException:
                running.terminate()
                raise
        for kind, raised in (("mistake", InputError), ("diverged", DivergedError)):
            if mistakes := sorted(folder.glob(f"{kind}-*")):
                raise raised(mistakes[0].read_text())
        if running.returncode:
            raise RuntimeError(
                f"{processes} training processes ended with code {running.returncode}:\n"
                + (folder / "errors").read_text()[-8000:]
            )


class _Line(logging.StreamHandler):
    """Log to the process that launched this one, and exit when that one is gone."""

    def handleError(self, record):
        raise  # logging calls this while handling the error


def _work(folder: Path) -> int:
    """Main function of each process started by :func:`launch`; returns its exit code."""
    # Not a file format: launch() has just written this file, in a folder that only this user can read.
    function, arguments, threads = pickle.loads((folder / "job").read_bytes())
    tune_process(threads)
    rank = os.environ["RANK"]
    if rank == "0":
        regcore_log = logging.getLogger("regcore")
        regcore_log.setLevel(logging.INFO)
        regcore_log.addHandler(_Line(sys.stdout))
    try:
        function(*arguments)
    except InputError as error:
        kind = "diverged" if isinstance(error, DivergedError) else "mistake"
        (folder / f"{kind}-{rank}").write_text(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_work(Path(sys.argv[1])))
