"""Which kernels run on this machine, whether they agree with their references, and how fast they are.

``regcore doctor`` prints it; ``benchmarks/gpu.py`` measures the same probes at several sizes.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regcore import losses, spatial
from regcore.kernels import jacobian, launch, philox, reference_only, sample_convolution, shading
from regcore.kernels.dispatch import NOT_VALIDATED, why_no_gpu_kernels
from regcore.process.versions import processor_name

#: Size of the volumes on which kernel and reference are compared: odd, and no multiple of a block.
CHECKED = (33, 30, 41)
#: Size of the timed volumes: a brain at 1 mm on a GPU, something quick on a CPU.
TIMED = {"cuda": (160, 192, 224), "cpu": (64, 64, 64)}
#: Kernel and reference disagree if the norm of their difference exceeds this fraction of the norm.  Single voxels may
#: differ: if rounding puts a position on the other side of a voxel, the slope of the interpolation is a different one.
TOLERANCE = 2e-3
PACKAGES = ("regcore", "torch", "triton", "numba", "numpy")


@dataclass(frozen=True)
class Probe:
    """An operator and inputs to try it on.

    Parameters
    ----------
    operator : str
        As in :data:`regcore.kernels.dispatch.FEWEST_ENTRIES`.
    function : callable
        Tensors → tensor, or several tensors, of which the first is compared.
    inputs : callable
        Shape → input tensors on the CPU.
    differentiated : tuple of int
        Indices of the inputs whose gradients are computed too.
    bytes_per_voxel : int
        Least memory traffic, forward and backward: each array once, in float32, labels in one byte.

    Examples
    --------
    >>> from regcore import losses
    >>> from regcore.commands.doctor import Probe, displacement, run
    >>> probe = Probe("diffusion", losses.diffusion, lambda shape: [displacement(shape)], (0,), 24)
    >>> tensors = probe.inputs((8, 9, 10))
    >>> value, gradient = run(probe, tensors)
    >>> value.ndim, gradient.shape == tensors[0].shape
    (0, True)
    """

    operator: str
    function: Callable
    inputs: Callable[[Sequence[int]], list[Tensor]]
    differentiated: tuple[int, ...]
    bytes_per_voxel: int


def _noise(channels: int, shape: Sequence[int], seed: int) -> Tensor:
    """Smooth noise of shape (1, channels, *shape) with maximum 1."""
    coarse = [max(n // 12, 3) for n in shape]
    fine = F.interpolate(
        torch.randn(1, channels, *coarse, generator=torch.Generator().manual_seed(seed)),
        size=tuple(shape),
        mode={2: "bilinear", 3: "trilinear"}[len(shape)],
        align_corners=True,
    )
    return fine / fine.abs().max()


def displacement(shape: Sequence[int]) -> Tensor:
    """A smooth displacement of six voxels at most along each axis.

    Parameters
    ----------
    shape : sequence of int
        Of the image, 2-D or 3-D.

    Returns
    -------
    Tensor, shape (1, D, *shape)
        Voxels; float32, the same in every call.

    Examples
    --------
    >>> from regcore.commands.doctor import displacement
    >>> field = displacement((20, 24))
    >>> tuple(field.shape), round(field.abs().max().item(), 4)
    ((1, 2, 20, 24), 6.0)
    """
    return 6 * _noise(len(shape), shape, 1)


def image(shape: Sequence[int], seed: int) -> Tensor:
    """A smooth image with texture and noise.

    Parameters
    ----------
    shape : sequence of int
        2-D or 3-D.
    seed : int
        Of texture and noise. Images of all seeds have the same smooth part, so that they are alike.

    Returns
    -------
    Tensor, shape (1, 1, *shape)
        float32, about -1 to 1.

    Examples
    --------
    >>> import torch
    >>> from regcore.commands.doctor import image
    >>> fixed, moving = image((40, 40), seed=3), image((40, 40), seed=4)
    >>> correlation = torch.corrcoef(torch.stack([fixed.flatten(), moving.flatten()]))[0, 1]
    >>> bool(0.9 < correlation < 1)
    True
    """
    rough = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed + 100))
    return _noise(1, shape, 2) + 0.1 * _noise(1, shape, seed) + 0.05 * rough


def labels(shape: Sequence[int], seed: int) -> Tensor:
    """A label map of blocks: half of the volume is background, the rest has labels from 1 to 35.

    Parameters
    ----------
    shape : sequence of int
        2-D or 3-D.
    seed : int
        Of the blocks.

    Returns
    -------
    Tensor of uint8, shape (1, 1, *shape)

    Examples
    --------
    >>> from regcore.commands.doctor import labels
    >>> blocks = labels((32, 32, 32), seed=5)
    >>> tuple(blocks.shape), blocks.dtype, blocks.max().item() <= 35
    ((1, 1, 32, 32, 32), torch.uint8, True)
    """
    cells = torch.randint(72, (1, 1, *[max(n // 8, 3) for n in shape]), generator=torch.Generator().manual_seed(seed))
    coarse = torch.where(cells > 35, 0, cells).float()
    return F.interpolate(coarse, size=tuple(shape), mode="nearest").to(torch.uint8)


def _shaded(image: Tensor, field: Tensor) -> Tensor:
    """An image with a bias field, rescaled to 0 ... 1 and raised to a power."""
    return shading.stretch(*shading.shade(image, field, 255.0), 1.2)


def _convolution_inputs(shape: Sequence[int], features: int = 16) -> list[Tensor]:
    """One sample and the weights of its layer."""
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(1, features, features, *[3] * len(shape), generator=generator)
    return [torch.randn(1, features, *shape, generator=generator), weight / (features * 3 ** len(shape)) ** 0.5]


PROBES = (
    Probe("warp", spatial.warp, lambda s: [image(s, 3), displacement(s)], (1,), 52),
    Probe("warp", spatial.warp, lambda s: [image(s, 3), displacement(s)], (0, 1), 64),
    Probe("integrate", spatial.integrate, lambda s: [displacement(s)], (0,), 590),
    Probe("diffusion", losses.diffusion, lambda s: [displacement(s)], (0,), 24),
    Probe(
        "weighted_diffusion", losses.weighted_diffusion, lambda s: [displacement(s), 1 + _noise(1, s, 4)], (0, 1), 32
    ),
    Probe("smoothing", lambda x: spatial.smooth(x, 1.0), lambda s: [displacement(s)], (), 24),
    Probe("lncc", losses.lncc, lambda s: [image(s, 3), image(s, 4)], (1,), 12),
    Probe("lncc", losses.lncc, lambda s: [image(s, 3), image(s, 4)], (0, 1), 16),
    Probe(
        "label_overlaps",
        lambda fixed, moving, field: losses.soft_dice(fixed, moving, field, range(1, 36)),
        lambda s: [labels(s, 5), labels(s, 5).roll((2, 2), (2, 3)), displacement(s)],
        (2,),
        40,
    ),
    Probe("jacobian_determinant", spatial.jacobian_determinant, lambda s: [displacement(s)], (), 16),
    Probe(
        "digital_folds",
        jacobian.digital_folds,
        lambda s: [6 * displacement(s), torch.ones(tuple(s), dtype=torch.bool)],
        (),
        13,
    ),
    Probe("mind_ssc", losses.mind_ssc, lambda s: [image(s, 3), image(s, 4)], (1,), 20),
    Probe("joint_histogram", losses.nmi, lambda s: [image(s, 3), image(s, 4)], (1,), 20),
    Probe("joint_histogram", losses.nmi, lambda s: [image(s, 3), image(s, 4)], (0, 1), 24),
    Probe(
        "philox_normal",
        lambda maps, means, spreads: philox.label_image(maps, means, spreads, seed=3, offset=5),
        lambda s: [labels(s, 5), torch.linspace(25, 225, 36), torch.linspace(5, 25, 36)],
        (),
        5,
    ),
    Probe("shading", _shaded, lambda s: [128 + 100 * image(s, 3), _noise(1, [max(2, n // 40) for n in s], 6)], (), 16),
    Probe("sample_convolution", sample_convolution.sample_convolution, _convolution_inputs, (0, 1), 3 * 128),
)


def entered(call: Callable[[], object]) -> bool:
    """Whether a call runs a Numba kernel, or a Triton kernel through its operator.

    Parameters
    ----------
    call : callable
        Without arguments.

    Returns
    -------
    bool

    Examples
    --------
    >>> from regcore import spatial
    >>> from regcore.commands.doctor import displacement, entered, image
    >>> from regcore.kernels import reference_only
    >>> moving, field = image((16, 16), seed=3), displacement((16, 16))
    >>> entered(lambda: spatial.warp(moving, field))
    True
    >>> with reference_only():
    ...     entered(lambda: spatial.warp(moving, field))
    False
    """
    watched = False

    def watch(frame, event: str, _) -> None:
        nonlocal watched
        watched |= event == "call" and frame.f_code is launch.run.__code__

    with _Operators() as operators:
        sys.setprofile(watch)
        try:
            call()
        finally:
            sys.setprofile(None)
    return watched or operators.called


class _Operators(TorchDispatchMode):
    """Records whether an operator of regcore was called."""

    called = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.called |= function.namespace == "regcore"
        return function(*args, **(kwargs or {}))


def run(probe: Probe, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The value of a probe's function, and the gradients of its sum.

    Parameters
    ----------
    probe : Probe
        The function.
    tensors : sequence of Tensor
        Its inputs, on the device where it shall run.

    Returns
    -------
    list of Tensor
        The value, then a gradient for each differentiated input.

    Examples
    --------
    >>> import torch
    >>> from regcore.commands.doctor import Probe, run
    >>> run(Probe("square", torch.square, lambda shape: [torch.ones(shape)], (0,), 8), [torch.tensor([1.0, 3.0])])
    [tensor([1., 9.]), tensor([2., 6.])]
    """
    tensors = list(tensors)
    for place in probe.differentiated:
        tensors[place] = tensors[place].detach().requires_grad_()
    leaves = [tensors[place] for place in probe.differentiated]
    with torch.set_grad_enabled(bool(leaves)):
        value = probe.function(*tensors)
    return [value.detach(), *(torch.autograd.grad(value.sum(), leaves) if leaves else ())]


def disagreement(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative difference between two results of :func:`run`: norm of the difference over the norm.

    Parameters
    ----------
    found, expected : sequence of Tensor
        Tensors of the same shapes.

    Returns
    -------
    float
        Infinite if a value is not finite.

    Examples
    --------
    >>> import torch
    >>> from regcore.commands.doctor import disagreement
    >>> expected = [torch.ones(8), torch.ones(4)]
    >>> round(disagreement([torch.ones(8), torch.full((4,), 1.25)], expected), 3)
    0.25
    >>> disagreement([torch.ones(8), torch.full((4,), torch.nan)], expected)
    inf
    """
    errors = [
        (a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)
        for a, b in zip(found, expected, strict=True)
    ]
    return max(error.item() if torch.isfinite(error) else float("inf") for error in errors)


def seconds(function: Callable[[], object], device: torch.device, budget: float = 0.5, least: int = 3) -> list[float]:
    """Times of single calls, after a warm-up call.

    Parameters
    ----------
    function : callable
        Without arguments.
    device : torch.device
        Where it runs. A GPU's own clock measures how long it is busy.
    budget : float
        Seconds after which no further call starts.
    least : int
        Calls that are timed in any case. No more than 200 are, if this is less.

    Returns
    -------
    list of float
        Seconds.

    Examples
    --------
    >>> import time
    >>> import torch
    >>> from regcore.commands.doctor import seconds
    >>> times = seconds(lambda: time.sleep(0.01), torch.device("cpu"), budget=0, least=3)
    >>> len(times), min(times) >= 0.01
    (3, True)
    """
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < least or (time.perf_counter() - began < budget and len(times) < 200):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        else:
            called = time.perf_counter()
            function()
            times.append(time.perf_counter() - called)
    return times


def copy_bandwidth(device: torch.device) -> float:
    """The speed at which a device copies a tensor that is too large for its caches.

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    float
        Bytes per second, those read and those written.

    Examples
    --------
    >>> import torch
    >>> from regcore.commands.doctor import copy_bandwidth
    >>> copy_bandwidth(torch.device("cpu")) > 1e8
    True
    """
    source = torch.randn((2**28 if device.type == "cuda" else 2**24), device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / statistics.median(seconds(lambda: target.copy_(source), device))


def runs_as(probe: Probe, tensors: Sequence[Tensor]) -> str:
    """What a probe runs as.

    Parameters
    ----------
    probe : Probe
        The operator.
    tensors : sequence of Tensor
        Its inputs, on the device where it shall run.

    Returns
    -------
    str
        "Triton", "Numba", or "reference" with the reason.

    Examples
    --------
    >>> from regcore.commands.doctor import PROBES, runs_as
    >>> named = {probe.operator: probe for probe in PROBES}
    >>> runs_as(named["warp"], named["warp"].inputs((9, 9, 9)))
    'Numba'
    >>> runs_as(named["weighted_diffusion"], named["weighted_diffusion"].inputs((9, 9, 9)))
    'reference (no kernel for CPUs)'
    """
    device = tensors[0].device
    if entered(lambda: run(probe, tensors)):
        return "Triton" if device.type == "cuda" else "Numba"
    if device.type == "cuda":
        other = NOT_VALIDATED.get(probe.operator, "no kernel for these sizes or types, or a slower one")
        return f"reference ({why_no_gpu_kernels(device) or other})"
    return f"reference ({'Numba is not installed' if launch.numba is None else 'no kernel for CPUs'})"


def _examined(probe: Probe, device: torch.device, bandwidth: float, timed: Sequence[int]) -> dict:
    """One row: what the operator runs as, its difference from the reference, and its speed."""
    tensors = [tensor.to(device) for tensor in probe.inputs(CHECKED)]
    kind = runs_as(probe, tensors)
    row = {"operator": probe.operator, "gradients": len(probe.differentiated), "runs as": kind}
    if kind.startswith("reference"):
        return row
    with reference_only():
        expected = run(probe, tensors)
    error = disagreement(run(probe, tensors), expected)
    tensors = [tensor.to(device) for tensor in probe.inputs(timed)]
    median = statistics.median(seconds(lambda: run(probe, tensors), device))
    with reference_only():
        reference = statistics.median(seconds(lambda: run(probe, tensors), device, budget=0.2, least=1))
    floor = probe.bytes_per_voxel * tensors[0][0, 0].numel() / bandwidth
    return row | {
        "error": error,
        "agrees": error <= TOLERANCE,
        "ms": 1e3 * median,
        "of reference": median / reference,
        "of copy bandwidth": floor / median,
    }


def versions() -> dict[str, str]:
    """The versions of the packages that decide which kernels there are.

    Returns
    -------
    dict of str → str
        Package → version, or "not installed".

    Examples
    --------
    >>> from regcore.commands.doctor import versions
    >>> list(versions())
    ['regcore', 'torch', 'triton', 'numba', 'numpy']
    """
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    """A device by name, for a person who compares measurements.

    Parameters
    ----------
    device : torch.device
        A CPU, or a GPU that is there.

    Returns
    -------
    str
        Of a GPU also compute capability, memory and CUDA's version.

    Examples
    --------
    >>> import torch
    >>> from regcore.commands.doctor import device_name
    >>> from regcore.process.versions import processor_name
    >>> device_name(torch.device("cpu")) == processor_name()
    True
    """
    if device.type == "cpu":
        return processor_name()
    properties = torch.cuda.get_device_properties(device)
    return (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
        f"{properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    )


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown; ``DataFrame.to_markdown`` needs a package that only comes with Snakemake.

    Parameters
    ----------
    table : DataFrame
        Its values are written as ``str`` makes them.

    Returns
    -------
    str
        Lines of the same length.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.commands.doctor import markdown
    >>> print(markdown(pd.DataFrame({"operator": ["warp", "lncc"], "ms": ["1.2", "11"]})))
    | operator | ms  |
    | -------- | --- |
    | warp     | 1.2 |
    | lncc     | 11  |
    """
    texts = table.map(str)
    columns = [[name, "", *texts[name]] for name in texts]
    widths = [max(map(len, column)) for column in columns]
    for column, width in zip(columns, widths, strict=True):
        column[1] = "-" * width
    rows = zip(*columns, strict=True)
    return "\n".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |" for row in rows
    )


def report(device: torch.device, timed: Sequence[int] | None = None) -> tuple[str, bool]:
    """The text that ``regcore doctor`` prints.

    Parameters
    ----------
    device : torch.device
        The device to examine.
    timed : sequence of int, optional
        Size of the volumes that are timed; :data:`TIMED` by default.

    Returns
    -------
    str
        Versions, the device, why no GPU kernels run, and a table with a row for each operator.
    bool
        Whether every kernel agrees with its reference.
    """
    timed = timed or TIMED[device.type]
    bandwidth = copy_bandwidth(device)
    rows = pd.DataFrame([_examined(probe, device, bandwidth, timed) for probe in PROBES])
    shown = rows.copy()
    formats = {"error": "{:.1e}", "ms": "{:.3g}", "of reference": "{:.3g}", "of copy bandwidth": "{:.0%}"}
    for column, form in formats.items():
        shown[column] = [form.format(x) if x == x else "" for x in rows.get(column, [float("nan")] * len(rows))]
    agreed: dict[object, str] = {True: "yes", False: "NO"}
    shown["agrees"] = [agreed.get(x, "") for x in rows.get("agrees", [None] * len(rows))]
    lines = [
        "  ".join(f"{name} {number}" for name, number in versions().items()),
        f"{device}: {device_name(device)}; copies {bandwidth / 1e9:.0f} GB/s",
        f"GPU kernels: {why_no_gpu_kernels(device) or 'can run'}",
        "",
        markdown(shown),
        "",
        f"Errors on {'×'.join(map(str, CHECKED))} voxels, relative to the norm; times on {'×'.join(map(str, timed))}, "
        "forward and backward where there is a gradient.",
    ]
    return "\n".join(lines), "agrees" not in rows or bool(rows["agrees"].ne(False).all())
