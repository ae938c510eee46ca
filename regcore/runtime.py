"""Settings of the whole process that make computing on a CPU faster; called by programs, never on import."""

import ctypes
import logging
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: What tells the libraries in circulation how many threads to use; some read it only when they are loaded.
THREADS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def thread_environment(threads: int) -> dict[str, str]:
    """The environment of this process, changed so that a program started with it uses that many threads."""
    return {**os.environ, **dict.fromkeys(THREADS_VARIABLES, str(threads))}


def share_cores() -> None:
    """Let waiting threads sleep instead of spinning; must be called before torch is imported.

    Where other work wants the same cores, as the jobs of one workflow do, spinning threads take them from
    those that compute.  A setting of the user's stands.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def tune_process(threads: int | None = None) -> None:
    """Keep freed memory instead of returning it to the system, and set torch's threads.

    By default glibc maps and unmaps every large tensor, and the page faults cost more than the
    arithmetic on it (a VoxelMorph step on a 160×144 slice: 1.3–2 times as fast without).  Where the C
    library has no ``mallopt`` nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        mallopt = None
    if mallopt is not None:
        m_mmap_max, m_trim_threshold, m_top_pad = -4, -1, -2
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 256 << 20)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def default_device():
    """Where networks and optimisers run: a GPU where there is one; of several the current one.

    Each process of a training that runs in several has one to itself.

    Returns
    -------
    torch.device
    """
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def gpu_count() -> int:
    """NVIDIA GPUs of this machine, found without loading torch."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def processor_name() -> str:
    """What the CPU calls itself, and how many cores of it this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or 'unknown processor'}, {cores} cores"


#: Packages whose versions are written beside every result.
PACKAGES = ("regcore", "torch", "numpy", "scipy", "nibabel", "antspyx", "nilearn", "snakemake")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def log_to(*paths: str, prefix: str = "regcore") -> None:
    """Send regcore's messages, after ``prefix``, to standard error and to the files ``paths``."""
    log = logging.getLogger("regcore")
    log.setLevel(logging.INFO)
    log.handlers.clear()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers += [logging.FileHandler(path) for path in paths]
    for handler in handlers:
        handler.setFormatter(logging.Formatter(f"%(asctime)s  {prefix}: %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
