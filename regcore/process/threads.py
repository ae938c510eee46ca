"""Thread and memory settings of the process for speed on a CPU; called by programs, never on import."""

import ctypes
import os

#: Environment variables for the number of threads of common libraries; some read them only when they are loaded.
THREADS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def thread_environment(threads: int) -> dict[str, str]:
    """This process's environment, changed so that a program started with it uses ``threads`` threads.

    Parameters
    ----------
    threads : int
        For each of the common libraries.

    Returns
    -------
    dict of str → str

    Examples
    --------
    >>> from regcore.process.threads import thread_environment
    >>> thread_environment(4)["OMP_NUM_THREADS"]
    '4'
    """
    return {**os.environ, **dict.fromkeys(THREADS_VARIABLES, str(threads))}


def tune_process(threads: int | None = None) -> None:
    """Keep freed memory instead of returning it to the system, and set torch's threads.

    By default glibc maps and unmaps every large tensor, and the page faults cost more than the
    arithmetic (a VoxelMorph step on a 160×144 slice is 1.3–2 times as fast without).  If the C library has no
    ``mallopt``, nothing is changed.

    Parameters
    ----------
    threads : int, optional
        Threads of torch; by default its own choice.
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
