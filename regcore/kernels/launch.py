"""Which kernel an operator runs as, and how a Numba kernel is compiled and run on several threads.

A Numba kernel is a function ``kernel(start, stop, *arrays_and_numbers)`` that does the work items ``start`` to
``stop`` and releases the interpreter lock.  Ranges of items go to a pool of Python threads of our own:
unlike Numba's ``prange`` this needs no OpenMP or TBB library, sleeps between calls instead of spinning
against torch's threads, survives a fork, and compiles several times faster.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from regcore.kernels.dispatch import FEWEST_ENTRIES, OLDEST_GPU

try:
    import numba
except ImportError:  # every operator then runs as its plain-torch reference
    numba = None

#: Voxels below which a second thread costs more than it brings.
VOXELS_PER_THREAD = 8192

_reference_depth = 0

#: What tells one version of this room's sources from another.
_SOURCES = tuple(
    sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in Path(__file__).parent.glob("*.py"))
)


def jit(function: Callable) -> Callable:
    """Compile ``function`` on its first call, and keep the result on disk where there is a place for it.

    Multiply-add is fused; other liberties with floating point are not taken, so that NaN stays NaN.
    """
    if numba is None:
        return function
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder is writable
        return numba.njit(**options)(function)
    # Numba takes what it keeps for stale when the function's own file changes; but kernels call each other.
    kernel._cache._cache_file._source_stamp = _SOURCES
    return kernel


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Within this context every operator runs as its plain-torch reference."""
    global _reference_depth
    _reference_depth += 1
    try:
        yield
    finally:
        _reference_depth -= 1


def has_kernel(
    *tensors: Tensor, kinds: Sequence[torch.dtype] = (torch.float32, torch.float64), operator: str = ""
) -> bool:
    """Whether a kernel can, and should, take these tensors.

    On a CPU a Numba kernel takes tensors of one type, out of ``kinds``.  On a GPU the Triton kernel of ``operator``
    does where one exists that is faster than the reference, :data:`~regcore.kernels.dispatch.FEWEST_ENTRIES`; the last
    tensor then has the type of the arithmetic, and others may be stored in 16 bits.
    """
    if _reference_depth:
        return False
    kind = tensors[-1].dtype
    if tensors[-1].is_cpu:
        return numba is not None and kind in kinds and all(t.is_cpu and t.dtype == kind for t in tensors)
    if not tensors[-1].is_cuda or max(t.numel() for t in tensors) < FEWEST_ENTRIES.get(operator, float("inf")):
        return False
    fit = all(t.device == tensors[-1].device and t.dtype in (kind, torch.float16, torch.bfloat16) for t in tensors)
    return fit and kind in kinds and why_no_gpu_kernels(tensors[-1].device) is None


def has_gpu_kernel(*tensors: Tensor, operator: str) -> bool:
    """:func:`has_kernel` for an operator that has a Triton kernel and no Numba one: on a CPU the reference runs."""
    return tensors[-1].is_cuda and has_kernel(*tensors, operator=operator)


def on_its_device(function: Callable) -> Callable:
    """Let a function of tensors launch on the device of the first, whatever device is the current one."""

    @functools.wraps(function)
    def launched(*arguments):
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            return function(*arguments)

    return launched


@functools.cache
def why_no_gpu_kernels(device: torch.device) -> str | None:
    """What keeps Triton kernels from running on a device; None where nothing does."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return "no CUDA device"
    if torch.version.hip:
        return "not a GPU of NVIDIA's"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_GPU:
        return f"compute capability {capability[0]}.{capability[1]} is below {OLDEST_GPU[0]}.{OLDEST_GPU[1]}"
    return None


def run(kernel: Callable, count: int, voxels: int, *arguments) -> None:
    """Call ``kernel(start, stop, *arguments)`` over all of ``range(count)``, on torch's number of threads.

    Parameters
    ----------
    voxels : int
        In all items together: small work stays on the calling thread.
    *arguments
        Tensors are handed over as NumPy arrays that share their memory; they must be contiguous.
    """
    arguments = [a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments]
    threads = min(torch.get_num_threads(), count, 1 + voxels // VOXELS_PER_THREAD)
    if threads == 1:
        kernel(0, count, *arguments)
        return
    # A few ranges for each thread, so that one that is held up does not hold up all.
    parts = min(count, 4 * threads)
    ranges = [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
    list(_pool(threads).map(lambda bounds: kernel(*bounds, *arguments), ranges))


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="regcore-kernel")


if hasattr(os, "register_at_fork"):  # threads do not live on in a forked child
    os.register_at_fork(after_in_child=_pool.cache_clear)
