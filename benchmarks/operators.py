"""Time every operator against the forms that other packages give it, and measure the memory that each needs.

    python benchmarks/operators.py --size 96 96 96 --size 160 192 224 --output docs/results/operators

writes ``operators.csv`` and ``operators.md``.  The contestants of an operator take turns within one process,
so that whatever else the machine does falls on all of them alike; memory is measured in a process of its
own for each.  benchmarks/README.md says how to read the result.
"""

import argparse
import contextlib
import csv
import ctypes
import datetime
import importlib.metadata
import json
import math
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import peers
import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.commands.doctor import entered
from regcore.process.files import atomic_write
from regcore.process.threads import tune_process
from regcore.process.versions import processor_name

NUMBA, REFERENCE = "regcore (numba)", "regcore (reference)"
FORWARD, BOTH, STEP = "forward", "forward+backward", "step"
#: Labels of the Dice operator, as many as the OASIS cohort has.
LABELS = tuple(range(1, 36))
#: A contestant whose first call takes longer than this many seconds is called fewer times.
SLOW = 60
#: Loads code, fills caches and compiles kernels before memory is measured.
WARM_UP_SHAPE = (32, 32, 32)
MEGABYTE = 1e6

Shape = tuple[int, ...]


# ---- inputs


def smooth_noise(channels: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """Noise on a coarse grid, one node for 16 voxels, interpolated: (1, channels, *shape), largest value 1."""
    nodes = [max(n // 16, 3) for n in shape]
    coarse = torch.randn(1, channels, *nodes, generator=generator)
    fine = F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    fine = F.avg_pool3d(fine, 5, stride=1, padding=2, count_include_pad=False)
    return fine / fine.abs().max()


def smooth_displacement(shape: Shape) -> Tensor:
    """A smooth field whose largest component is 6 voxels, less on grids below 48 voxels."""
    return min(6.0, min(shape) / 8) * smooth_noise(3, shape, torch.Generator().manual_seed(1))


def image_pair(shape: Shape) -> dict[str, Tensor]:
    """Two images between about 0 and 1 with structure in common, each with noise of its own."""
    generator = torch.Generator().manual_seed(2)
    structure = 0.5 + 0.4 * smooth_noise(1, shape, generator)
    return {
        name: structure
        + 0.05 * torch.randn(1, 1, *shape, generator=generator)
        + 0.1 * smooth_noise(1, shape, generator)
        for name in ("fixed", "moving")
    }


def descriptor_and_image(shape: Shape) -> dict[str, Tensor]:
    """The descriptor of the first image of :func:`image_pair`, and the second image."""
    from regcore.losses import mind_ssc_descriptor

    pair = image_pair(shape)
    return {"descriptor": mind_ssc_descriptor(pair["fixed"]), "moving": pair["moving"]}


def label_pair(shape: Shape) -> dict[str, Tensor]:
    """Two maps of blocks, half of them background; the moving one is the fixed one moved by two voxels."""
    cells = [max(n // 8, 5) for n in shape]
    codes = torch.randperm(math.prod(cells), generator=torch.Generator().manual_seed(3)) % (2 * len(LABELS) + 2)
    coarse = torch.where(codes > len(LABELS), 0, codes).view(1, 1, *cells)
    fixed = F.interpolate(coarse.float(), size=shape, mode="nearest").long()
    return {"fixed": fixed, "moving": fixed.roll((2, 2, 2), (2, 3, 4))}


def warp_inputs(shape: Shape) -> dict:
    return {"image": image_pair(shape)["moving"], "displacement": smooth_displacement(shape)}


def dice_inputs(shape: Shape) -> dict:
    return {**label_pair(shape), "displacement": smooth_displacement(shape), "labels": LABELS}


def folding_inputs(shape: Shape) -> dict:
    return {"displacement": smooth_displacement(shape), "mask": np.ones(shape, dtype=bool)}


# ---- contestants


def ours(module: str, name: str, **settings: object) -> Callable[[], Callable]:
    """Loader of a function of regcore, called with ``settings`` after the inputs."""

    def load() -> Callable:
        function = getattr(importlib.import_module(module), name, None)
        if function is None:
            raise ImportError(f"{module} has no {name}")
        return lambda *inputs: function(*inputs, **settings)

    return load


def both_of_ours(module: str, name: str, **settings: object) -> dict[str, Callable]:
    return dict.fromkeys((NUMBA, REFERENCE), ours(module, name, **settings))


def given(function: Callable) -> Callable[[], Callable]:
    """Loader of a function that is there already."""
    return lambda: function


def our_training_step(similarity: str) -> Callable[[], Callable]:
    """Loader of a factory of training steps of regcore's VoxelMorph, taken as the trainer takes them."""

    def make(fixed: Tensor, moving: Tensor) -> Callable[[], Tensor]:
        from regcore.methods.voxelmorph import VoxelMorph

        method = VoxelMorph({"lambda": 1.0, "similarity": similarity})
        module = method.build(3)
        optimiser = torch.optim.Adam(module.parameters(), lr=method.settings.learning_rate)

        def step() -> Tensor:
            losses = method.training_step(module, {"fixed": fixed, "moving": moving})
            optimiser.zero_grad(set_to_none=True)
            losses["total"].backward()
            optimiser.step()
            return losses["total"].detach()

        return step

    return given(make)


def stock_training_step(similarity: Callable[[], Callable], **settings: object) -> Callable[[], Callable]:
    """Loader of a factory of training steps of the ``voxelmorph`` package."""

    def load() -> Callable:
        import voxelmorph  # noqa: F401  so that a missing package is known before the first call

        loss = similarity()
        return lambda fixed, moving: peers.stock_training_step(fixed, moving, loss, **settings)

    return load


@dataclass(frozen=True)
class Operator:
    """What is timed.

    Parameters
    ----------
    inputs : callable
        Shape → the arguments, by name and in the order of the call.
    contestants : dict of str → callable
        Name → loader of the function, which raises ImportError where a package is missing.
    bytes_per_voxel : dict of str → float or None
        Pass → least bytes that must be read and written, in float32 and one byte for a label.
    leaf : str
        The input that the gradient is taken for.
    like : str
        The input that has the shape of the output; empty where the output is a scalar.
    """

    inputs: Callable[[Shape], dict]
    contestants: dict[str, Callable[[], Callable]]
    bytes_per_voxel: dict[str, float | None]
    leaf: str = ""
    like: str = ""


OPERATORS = {
    "warp": Operator(
        warp_inputs,
        {**both_of_ours("regcore.spatial", "warp"), "VoxelMorph form, grid_sample": given(peers.warp_grid_sample)},
        {FORWARD: 20, BOTH: 52},
        leaf="displacement",
        like="image",
    ),
    "integrate": Operator(
        lambda shape: {"velocity": smooth_displacement(shape)},
        {
            **both_of_ours("regcore.spatial", "integrate", steps=7),
            "VoxelMorph form, grid_sample": given(peers.integrate_grid_sample),
        },
        {FORWARD: 168, BOTH: 590},
        leaf="velocity",
        like="velocity",
    ),
    "lncc": Operator(
        image_pair,
        {
            **both_of_ours("regcore.losses", "lncc", window=9, variant="voxelmorph"),
            "torch, shifted slices": given(peers.lncc_shifts),
            "torch, cumulative sums": given(peers.lncc_cumsum),
            "torch, separable average pool": given(peers.lncc_avg_pool),
            "torch, separable convolution": given(peers.lncc_separable),
            "neurite (package)": peers.lncc_neurite,
            "MONAI (package)": peers.lncc_monai,
            "TransMorph form, dense convolution": given(peers.lncc_dense),
        },
        {FORWARD: 8, BOTH: 12},
        leaf="moving",
    ),
    "mind_ssc": Operator(
        image_pair,
        both_of_ours("regcore.losses", "mind_ssc"),
        {FORWARD: 8, BOTH: 12},
        leaf="moving",
    ),
    "mind_ssc-known": Operator(
        descriptor_and_image,
        both_of_ours("regcore.losses", "mind_ssc_difference"),
        {FORWARD: 52, BOTH: 56},
        leaf="moving",
    ),
    "dice": Operator(
        dice_inputs,
        {**both_of_ours("regcore.losses", "soft_dice"), "VoxelMorph form, one-hot": given(peers.dice_one_hot)},
        {FORWARD: 14, BOTH: 40},
        leaf="displacement",
    ),
    "diffusion": Operator(
        lambda shape: {"field": smooth_displacement(shape)},
        {**both_of_ours("regcore.losses", "diffusion"), "VoxelMorph form": given(peers.diffusion_stock)},
        {FORWARD: 12, BOTH: 24},
        leaf="field",
    ),
    "jacobian": Operator(
        lambda shape: {"displacement": smooth_displacement(shape)},
        {
            **both_of_ours("regcore.spatial", "jacobian_determinant"),
            "VoxelMorph form, numpy": given(peers.jacobian_determinant_numpy),
        },
        {FORWARD: 16},
    ),
    "ndv": Operator(
        folding_inputs,
        {
            **both_of_ours("regcore.evaluation", "non_diffeomorphic_volume"),
            "authors' form, scipy": given(peers.non_diffeomorphic_volume_scipy),
        },
        {FORWARD: 12},
    ),
    "training-lncc": Operator(
        image_pair,
        {
            NUMBA: our_training_step("lncc"),
            REFERENCE: our_training_step("lncc"),
            "voxelmorph (package), its own NCC": stock_training_step(peers.lncc_neurite),
            "voxelmorph (package), dense NCC": stock_training_step(given(peers.lncc_dense)),
            "voxelmorph (package) at half resolution": stock_training_step(
                given(peers.lncc_dense), half_resolution=True
            ),
        },
        {STEP: None},
    ),
    "training-mse": Operator(
        image_pair,
        {
            NUMBA: our_training_step("mse"),
            REFERENCE: our_training_step("mse"),
            "voxelmorph (package)": stock_training_step(given(F.mse_loss)),
            "voxelmorph (package) at half resolution": stock_training_step(given(F.mse_loss), half_resolution=True),
        },
        {STEP: None},
    ),
}
#: Left out by --skip-slow: (operator, contestant).
KNOWN_SLOW = {
    ("lncc", "TransMorph form, dense convolution"),
    ("training-lncc", "voxelmorph (package), dense NCC"),
    ("training-lncc", "voxelmorph (package) at half resolution"),
}


def load_contestant(operator: str, name: str) -> Callable:
    """Return the contestant's function; ImportError, with the reason, where it cannot take part."""
    if name in (NUMBA, REFERENCE):
        import regcore.kernels  # noqa: F401

        if name == NUMBA:
            import numba  # noqa: F401  without it regcore is the reference
    return OPERATORS[operator].contestants[name]()


def require_kernel(operator: str) -> None:
    """Raise ImportError where regcore does this operator without a kernel, so that no row claims one."""
    passes = list(OPERATORS[operator].bytes_per_voxel)[-1]
    if not entered(make_call(operator, NUMBA, passes, WARM_UP_SHAPE)):
        raise ImportError("regcore has no kernel for this operator, see its reference")


def make_call(operator: str, name: str, passes: str, shape: Shape) -> Callable[[], object]:
    """Return a function of nothing that does one pass of one contestant on fresh inputs."""
    return bind(operator, name, passes, load_contestant(operator, name), OPERATORS[operator].inputs(shape))


def bind(operator: str, name: str, passes: str, function: Callable, inputs: dict) -> Callable[[], object]:
    """Return a function of nothing that does one pass of one contestant on ``inputs``."""
    if passes == STEP:
        call = function(*inputs.values())
    elif passes == FORWARD:
        call = torch.no_grad()(lambda: function(*inputs.values()))
    else:
        call = with_gradient(OPERATORS[operator], function, inputs)
    if name != REFERENCE:
        return call
    from regcore.kernels import reference_only

    def call_reference() -> object:
        with reference_only():
            return call()

    return call_reference


def with_gradient(operator: Operator, function: Callable, inputs: dict) -> Callable[[], object]:
    """Return forward and backward of ``function``, the gradient of the output being dense noise or 1."""
    leaf = inputs[operator.leaf].clone().requires_grad_()
    arguments = {**inputs, operator.leaf: leaf}
    noise = torch.Generator().manual_seed(4)
    gradient = torch.randn(inputs[operator.like].shape, generator=noise) if operator.like else None
    return lambda: torch.autograd.grad(function(*arguments.values()), leaf, gradient)


# ---- measuring


@dataclass
class Row:
    """One line of the table; times in milliseconds, memory in 10⁶ bytes."""

    operator: str
    size: str
    contestant: str
    passes: str
    median_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    repeats: int = 0
    peak_mb: float | None = None
    fraction_of_copy_bandwidth: float | None = None
    speedup: float | None = None
    note: str = ""


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def take_turns(calls: dict[str, Callable], repeats: int, slow_repeats: int, label: str) -> dict[str, list[float]]:
    """Times of every call: a warm-up each, then rounds, each begun by the next contestant.

    Of a call whose warm-up takes longer than ``SLOW`` seconds the warm-up counts as the first repeat.
    """
    times: dict[str, list[float]] = {}
    wanted = {}
    for name, call in calls.items():
        first = milliseconds(call)
        report(f"{label}: warm-up, {name}: {first:.1f} ms")
        slow = first > SLOW * 1e3
        times[name] = [first] if slow else []
        wanted[name] = slow_repeats if slow else repeats
    names = list(calls)
    for turn in range(max(wanted.values(), default=0)):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            if len(times[name]) < wanted[name]:
                times[name].append(milliseconds(calls[name]))
                report(f"{label}: round {turn + 1}, {name}: {times[name][-1]:.1f} ms")
    return times


def copy_bandwidth(repeats: int = 25) -> float:
    """Bytes read and written each second by torch's fastest copy of 256 MB: what the machine can do undisturbed."""
    source = torch.rand(64_000_000)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = min(milliseconds(lambda: target.copy_(source)) for _ in range(repeats)) / 1e3
    return 2 * source.nbytes / seconds


def memory_status(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the system does not report {key}")


def peak_growth(call: Callable[[], object]) -> int:
    """Bytes that resident memory grew by, at its peak, during ``call``.

    Linux forgets the peak on request; elsewhere the peak since the start of the process stands in, which
    is too low where making the inputs took more than the call.
    """
    release_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = memory_status("VmRSS")
        call()
        return memory_status("VmHWM") - before
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit


def release_memory() -> None:
    """Hand freed memory back to the system, where the C library can."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def measure_memory(operator: str, name: str, passes: str, shape: Shape) -> None:
    """Print the peak growth of one call; run in a fresh process with the C library's default settings."""
    make_call(operator, name, passes, WARM_UP_SHAPE)()
    print(json.dumps(peak_growth(make_call(operator, name, passes, shape))))


def peak_megabytes(operator: str, name: str, passes: str, shape: Shape, threads: int) -> float | None:
    """Peak of one call in a process of its own; None where that process failed, most likely for memory."""
    options = ["--measure-memory", operator, name, passes, "--size", *map(str, shape), "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
    if done.returncode:
        reason = [f"exit status {done.returncode}", *done.stderr.strip().splitlines()][-1]
        report(f"memory of {name} was not measured: {reason}")
        return None
    return json.loads(done.stdout.splitlines()[-1]) / MEGABYTE


def compare(operator: str, shape: Shape, bandwidth: float, options: argparse.Namespace) -> list[Row]:
    """Time and measure all contestants of one operator at one size."""
    size = "x".join(map(str, shape))
    functions, rows = {}, []
    inputs = OPERATORS[operator].inputs(shape)
    for name in OPERATORS[operator].contestants:
        if options.skip_slow and (operator, name) in KNOWN_SLOW:
            continue
        try:
            functions[name] = load_contestant(operator, name)
            if name == NUMBA:
                require_kernel(operator)
        except ImportError as error:
            functions.pop(name, None)
            report(f"{operator}: {name} takes no part: {error}")
            for passes in OPERATORS[operator].bytes_per_voxel:
                rows.append(Row(operator, size, name, passes, note=f"takes no part: {error}"))
    for passes, least_bytes in OPERATORS[operator].bytes_per_voxel.items():
        calls = {name: bind(operator, name, passes, function, inputs) for name, function in functions.items()}
        times = take_turns(calls, options.repeats, options.slow_repeats, f"{operator} {size} {passes}")
        del calls
        release_memory()  # the processes that measure memory need it
        ours_ms = statistics.median(times[NUMBA]) if NUMBA in times else None
        for name, values in times.items():
            row = Row(operator, size, name, passes, statistics.median(values), min(values), max(values), len(values))
            if least_bytes is not None:
                least_seconds = least_bytes * math.prod(shape) / bandwidth
                row.fraction_of_copy_bandwidth = least_seconds / (row.median_ms / 1e3)
            if ours_ms is not None:
                row.speedup = row.median_ms / ours_ms
            if not options.no_memory:
                row.peak_mb = peak_megabytes(operator, name, passes, shape, options.threads)
                report(f"{operator} {size} {passes}: memory, {name}: {_number(row.peak_mb)} MB")
            rows.append(row)
    return rows


def report(line: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S}  {line}", file=sys.stderr, flush=True)


# ---- writing


def version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def heading(bandwidth: float, options: argparse.Namespace) -> list[str]:
    """What a reader must know of the machine and of the run."""
    packages = ("torch", "numba", "numpy", "scipy", "monai", "neurite", "voxelmorph")
    command = shlex.join(["python", "benchmarks/operators.py", *sys.argv[1:]])
    allocator = "the C library's default" if options.no_mallopt else "freed memory is kept (`tune_process`)"
    return [
        f"# Operators on {processor_name()}",
        "",
        f"- {datetime.date.today()}, {options.threads} threads, "
        f"`OMP_WAIT_POLICY` {os.environ.get('OMP_WAIT_POLICY', 'not set')}; Python {sys.version.split()[0]}, "
        + ", ".join(map(version, packages)),
        f"- command: `{command}`",
        f"- copy bandwidth of the machine: {bandwidth / 1e9:.1f} GB/s, read and written, with these threads (256 MB, "
        "`copy_`, the fastest of 25)",
        f"- allocator settings, the same for every contestant: {allocator}; memory was measured in separate processes "
        "with the C library's default settings",
        "- times are medians (minimum–maximum) of the stated repeats, after a warm-up; contestants alternated. A "
        f"contestant whose first call took longer than {SLOW} s was called {options.slow_repeats} time(s) in all",
        "- memory: peak growth of resident memory during one call, inputs excluded, result included",
        "- of copy bandwidth: bytes the operator must move at least, divided by the time and by the copy bandwidth",
        "- speedup: median of this contestant divided by that of regcore (numba)",
    ]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown lines, one table for each operator and size."""
    groups = list(dict.fromkeys((row.operator, row.size) for row in rows))
    for operator, size in groups:
        yield from ("", f"## {operator}, {size.replace('x', ' × ')}", "")
        yield "| contestant | pass | median ms (min–max) | repeats | peak MB | of copy bandwidth | speedup |"
        yield "|---|---|---|---|---|---|---|"
        for row in rows:
            if (row.operator, row.size) == (operator, size):
                yield line_of(row)


def line_of(row: Row) -> str:
    if row.note:
        return f"| {row.contestant} | {row.passes} | {row.note} | | | | |"
    times = f"{_number(row.median_ms)} ({_number(row.min_ms)}–{_number(row.max_ms)})"
    fraction = "" if row.fraction_of_copy_bandwidth is None else f"{row.fraction_of_copy_bandwidth:.2%}"
    speedup = "" if row.speedup is None else f"{_number(row.speedup)}×"
    cells = [row.contestant, row.passes, times, str(row.repeats), _number(row.peak_mb), fraction, speedup]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write(rows: Sequence[Row], lines: Sequence[str], output: Path) -> None:
    """Write ``output``.csv and ``output``.md."""
    with atomic_write(output.with_name(f"{output.name}.csv")) as path, path.open("w", newline="") as stream:
        names = {"passes": "pass"}
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([names.get(field.name, field.name) for field in fields(Row)])
        for row in rows:
            values = asdict(row).values()
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
    with atomic_write(output.with_name(f"{output.name}.md")) as path:
        path.write_text("\n".join([*lines, *table(rows)]) + "\n", encoding="utf-8")


# ---- the program


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = {"type": int, "nargs": 3, "metavar": ("D", "H", "W")}
    parser.add_argument("--size", action="append", **size, help="may be given several times; default 96 96 96")
    parser.add_argument("--training-size", default=[96, 96, 96], **size, help="of the training steps")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--slow-repeats", type=int, default=1, help=f"for contestants slower than {SLOW} s a call")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's")
    parser.add_argument("--output", type=Path, help="path of the tables, without .csv and .md; default: print only")
    parser.add_argument("--only", action="append", choices=OPERATORS, help="may be given several times")
    parser.add_argument("--skip-slow", action="store_true", help="leave out the dense convolutions")
    parser.add_argument("--no-memory", action="store_true", help="measure times only")
    parser.add_argument("--no-mallopt", action="store_true", help="leave the C library's allocator as it is")
    parser.add_argument("--measure-memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.repeats, options.slow_repeats, options.threads) < 1:
        parser.error("repeats and threads must be at least 1")
    options.size = options.size or [[96, 96, 96]]
    return options


def main() -> None:
    options = arguments()
    torch.manual_seed(0)
    if options.measure_memory:
        torch.set_num_threads(options.threads)
        measure_memory(*options.measure_memory, tuple(options.size[0]))
        return
    if options.no_mallopt:
        torch.set_num_threads(options.threads)
    else:
        tune_process(options.threads)
    bandwidth = copy_bandwidth()
    lines, rows = heading(bandwidth, options), []
    for operator in options.only or OPERATORS:
        sizes = [options.training_size] if operator.startswith("training") else options.size
        for size in sizes:
            rows += compare(operator, tuple(size), bandwidth, options)
            if options.output:  # after every operator, so that a run that is stopped leaves what it has
                write(rows, lines, options.output)
    print("\n".join([*lines, *table(rows)]))


if __name__ == "__main__":
    main()
