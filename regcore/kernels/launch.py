"""Runs kernels: compiled by Numba and split over threads on a CPU, launched on the right device on a GPU.

A Numba kernel is a function ``kernel(start, stop, *arrays_and_numbers)`` that processes the work items ``start`` to
``stop`` and releases the interpreter lock.  Ranges of items go to our own pool of Python threads.  Unlike Numba's
``prange``, it needs no OpenMP or TBB library, sleeps between calls instead of spinning against torch's threads,
survives a fork, and compiles several times faster.
"""

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef

try:
    import numba
except ImportError:  # every operator then runs as its plain-torch reference
    numba = None  # type: ignore[assignment]  # no type says that a module may be missing

#: Number of voxels below which a second thread does not pay off.
VOXELS_PER_THREAD = 8192


#: How kernels are compiled.  Multiply-add is fused; other liberties with floating point are not taken, so that NaN
#: stays NaN.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def _digest_of_sources(folder: Path) -> str:
    """A stamp of all sources in ``folder`` and below, from names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_SOURCES = _digest_of_sources(Path(__file__).parent)


def jit(function: Callable) -> Callable:
    """Compile ``function`` on its first call, and cache the result on disk if that is possible and safe.

    Two habits of our kernels save a quarter of the time to compile.  They pass ``np.int64(1)`` rather than ``1`` to
    each other, because Numba compiles the called one anew for every literal.  They copy arrays in loops, because an
    assignment from slice to slice compiles the text of an error message.
    """
    if numba is None:
        return function
    try:
        kernel = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # no folder is writable
        return numba.njit(**OPTIONS)(function)
    return kernel if _made_stale_by_any_source(kernel) else numba.njit(**OPTIONS)(function)


def _made_stale_by_any_source(kernel: Callable) -> bool:
    """Invalidate the compiled ``kernel`` on disk if any file of this package changes; False if that fails.

    Numba only checks the file of the function.  But kernels call each other across files, and a compiled kernel
    includes what it calls.  The stamp that Numba compares is private.  A version of Numba without it gets no cache on
    disk, because a cache with Numba's own stamp could give results of old code.
    """
    file = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if file is None or not hasattr(file, "_source_stamp"):
        return False
    file._source_stamp = _SOURCES
    return True


def on_its_device(function: Callable) -> Callable:
    """Make a function of tensors launch on the device of the first, whatever the current device."""

    @functools.wraps(function)
    def launched(*arguments):
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            return function(*arguments)

    return launched


def cpu_operator(name: str) -> Callable[[Callable], CustomOpDef]:
    """``torch.library.custom_op`` for CPUs, whose first call does not load torch's compiler.

    torch hides the function of an operator from its compiler, and loads the compiler to do so, which takes longer than
    most registrations of slices.  Here this waits until something else has loaded it.
    """

    def defined(function: Callable) -> CustomOpDef:
        @functools.cache
        def hidden() -> Callable:
            return torch.compiler.disable(function)

        @functools.wraps(function)
        def called(*arguments):
            return (hidden() if "torch._dynamo" in sys.modules else function)(*arguments)

        operator = torch.library.custom_op(name, function, mutates_args=(), device_types=())
        torch.library.impl(name, "cpu", called)
        return operator

    return defined


def run(kernel: Callable, count: int, voxels: int, *arguments) -> None:
    """Call ``kernel(start, stop, *arguments)`` over all of ``range(count)``, on torch's number of threads.

    Parameters
    ----------
    voxels : int
        Voxels of all items: small work stays on the calling thread.
    *arguments
        Tensors are passed as NumPy arrays that share their memory. They must be contiguous.
    """
    arrays = [a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments]
    threads = min(torch.get_num_threads(), count, 1 + voxels // VOXELS_PER_THREAD)
    if threads == 1:
        kernel(0, count, *arrays)
        return
    # A few ranges per thread, so that one slow thread does not delay the rest.
    parts = min(count, 4 * threads)
    ranges = [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
    list(_pool(threads).map(lambda bounds: kernel(*bounds, *arrays), ranges))


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="regcore-kernel")


if hasattr(os, "register_at_fork"):  # threads do not survive in a forked child
    os.register_at_fork(after_in_child=_pool.cache_clear)


def as_planes(tensor: Tensor) -> Tensor:
    """View (B, C, H, W) as (B, C, H, 1, W); three dimensions stay as they are."""
    return (tensor if tensor.ndim == 5 else tensor.unsqueeze(3)).contiguous()
