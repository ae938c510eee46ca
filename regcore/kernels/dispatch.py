"""Chooses the implementation of an operator: the plain-torch reference, the Numba kernel or the Triton kernel.

On a GPU a kernel is used if measurements on a GPU, not only in Triton's interpreter, showed that it is faster than the
reference and agrees with it.  ``benchmarks/gpu.py`` measures this, ``docs/results/gpu`` has the results, and a test
compares the tables below with them.  On a CPU every Numba kernel is faster than its reference at every size
(``docs/results/operators.md``), so none is listed here.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from regcore.kernels import launch

#: Entries of the largest argument (a displacement has three per voxel) from which the kernel is used.  All kernels were
#: faster at 160×192×224, by factors of 11 to 350.  Smaller sizes were not timed. Launches dominate there, and a kernel
#: makes a few where the reference makes dozens.
FEWEST_ENTRIES = {
    "warp": 1,
    "integrate": 1,
    "diffusion": 1,
    "smoothing": 1,
    "lncc": 1,
    "label_places": 1,
    "label_overlaps": 1,
    "jacobian_determinant": 1,
    "digital_folds": 1,
    "joint_histogram": 1,
}

#: Triton kernels that are not used, and why.  They are in :mod:`regcore.kernels.not_validated`.
NOT_VALIDATED = {
    "weighted_diffusion": "the gradient of its weights has not been tested on a GPU",
    "mind_ssc": "its gradient was wrong on a GPU; the fix has not been tested there",
    "philox_normal": "not tested on a GPU",
    "shading": "not tested on a GPU",
    "sample_convolution": "not tested on a GPU",
}

#: Lowest compute capability on which kernels were measured or compiled.
OLDEST_GPU = (8, 0)

#: Possible types of a label map.
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

_reference_depth = 0


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Within this context every operator runs as its plain-torch reference.

    Yields
    ------
    None

    Examples
    --------
    >>> import torch
    >>> from regcore.kernels import reference_only
    >>> from regcore.kernels.warp import warp
    >>> with reference_only():
    ...     warp(torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2, 2), edge=True).sum().item()
    4.0
    """
    global _reference_depth
    _reference_depth += 1
    try:
        yield
    finally:
        _reference_depth -= 1


def has_kernel(
    *tensors: Tensor, kinds: Sequence[torch.dtype] = (torch.float32, torch.float64), operator: str = ""
) -> bool:
    """Whether a kernel can and should run on these tensors.

    On a CPU, a Numba kernel takes tensors of one type, out of ``kinds``.  On a GPU, the Triton kernel of ``operator``
    is used if :data:`FEWEST_ENTRIES` lists it as faster than the reference; the last tensor then has the type of the
    arithmetic, and others may be stored in 16 bits.
    """
    if _reference_depth:
        return False
    kind = tensors[-1].dtype
    if tensors[-1].is_cpu:
        return launch.numba is not None and kind in kinds and all(t.is_cpu and t.dtype == kind for t in tensors)
    if not tensors[-1].is_cuda or max(t.numel() for t in tensors) < FEWEST_ENTRIES.get(operator, float("inf")):
        return False
    fit = all(t.device == tensors[-1].device and t.dtype in (kind, torch.float16, torch.bfloat16) for t in tensors)
    return fit and kind in kinds and why_no_gpu_kernels(tensors[-1].device) is None


def has_gpu_kernel(*tensors: Tensor, operator: str) -> bool:
    """:func:`has_kernel` for an operator that only GPUs have."""
    return tensors[-1].is_cuda and has_kernel(*tensors, operator=operator)


@functools.cache
def why_no_gpu_kernels(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on a device; None if they can."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return "no CUDA device"
    if torch.version.hip:
        return "not an NVIDIA GPU"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_GPU:
        return f"compute capability {capability[0]}.{capability[1]} is below {OLDEST_GPU[0]}.{OLDEST_GPU[1]}"
    return None
