"""How a kernel is run: compiled by Numba and spread over threads on a CPU, launched on the right device on a GPU.

A Numba kernel is a function ``kernel(start, stop, *arrays_and_numbers)`` that does the work items ``start`` to
``stop`` and releases the interpreter lock.  Ranges of items go to a pool of Python threads of our own:
unlike Numba's ``prange`` this needs no OpenMP or TBB library, sleeps between calls instead of spinning
against torch's threads, survives a fork, and compiles several times faster.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import numba
except ImportError:  # every operator then runs as its plain-torch reference
    numba = None  # type: ignore[assignment]  # no type says that a module may be missing

#: Voxels below which a second thread costs more than it brings.
VOXELS_PER_THREAD = 8192


#: How kernels are compiled.  Multiply-add is fused; other liberties with floating point are not taken, so that NaN
#: stays NaN.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def _digest_of_sources(folder: Path) -> str:
    """What tells one version of all sources in ``folder`` and below from another: names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_SOURCES = _digest_of_sources(Path(__file__).parent)


def jit(function: Callable) -> Callable:
    """Compile ``function`` on its first call, and keep the result on disk where that is possible and safe."""
    if numba is None:
        return function
    try:
        kernel = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # no folder is writable
        return numba.njit(**OPTIONS)(function)
    return kernel if _made_stale_by_any_source(kernel) else numba.njit(**OPTIONS)(function)


def _made_stale_by_any_source(kernel: Callable) -> bool:
    """Let a change of any file of this room make the compiled ``kernel`` on disk stale; False where that fails.

    Numba itself looks at the file of the function alone.  But kernels call each other across files, and a compiled
    kernel holds what it calls.  The stamp that Numba compares is private: a version without it gets no cache on disk,
    since a cache with Numba's own stamp could give results of old code.
    """
    file = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if file is None or not hasattr(file, "_source_stamp"):
        return False
    file._source_stamp = _SOURCES
    return True


def on_its_device(function: Callable) -> Callable:
    """Let a function of tensors launch on the device of the first, whatever device is the current one."""

    @functools.wraps(function)
    def launched(*arguments):
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            return function(*arguments)

    return launched


def run(kernel: Callable, count: int, voxels: int, *arguments) -> None:
    """Call ``kernel(start, stop, *arguments)`` over all of ``range(count)``, on torch's number of threads.

    Parameters
    ----------
    voxels : int
        In all items together: small work stays on the calling thread.
    *arguments
        Tensors are handed over as NumPy arrays that share their memory; they must be contiguous.
    """
    arrays = [a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments]
    threads = min(torch.get_num_threads(), count, 1 + voxels // VOXELS_PER_THREAD)
    if threads == 1:
        kernel(0, count, *arrays)
        return
    # A few ranges for each thread, so that one that is held up does not hold up all.
    parts = min(count, 4 * threads)
    ranges = [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
    list(_pool(threads).map(lambda bounds: kernel(*bounds, *arrays), ranges))


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="regcore-kernel")


if hasattr(os, "register_at_fork"):  # threads do not live on in a forked child
    os.register_at_fork(after_in_child=_pool.cache_clear)


def as_planes(tensor: Tensor) -> Tensor:
    """View (B, C, H, W) as (B, C, H, 1, W); leave three dimensions as they are."""
    return (tensor if tensor.ndim == 5 else tensor.unsqueeze(3)).contiguous()
