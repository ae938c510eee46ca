"""Kernels on a GPU: right, the same bits twice, and how near to what the memory allows; a step and a registration.

    python benchmarks/gpu.py --output docs/results/gpu

takes less than eight minutes.  It also tries the kernels of ``regcore/kernels/not_validated``, which are not used yet.
It writes into that folder

- ``operators.csv``: every operator at 160×192×224 beside other packages' forms,
- ``checks.csv``: the largest error against the reference on random inputs, and whether two runs give the same bits,
- ``dispatch.csv``: kernel and reference at several sizes, which ``regcore/kernels/dispatch.py`` is held to by a test,
- ``steps.csv``: whole training steps, with the memory that they take,
- ``registrations.csv``: pairs registered without training, with their Dice,
- ``measured.md``: all of it as tables.

Times are those of replayed CUDA graphs, so that no launch waits for Python, of all contestants that can be recorded; in
``dispatch.csv`` they are those of plain calls.  Contestants that are not installed are left out and named.  With
``--scans FOLDER`` (prepared scans of a study, and a table ``pairs.tsv`` of the columns fixed and moving) pairs of
anatomy are registered.
"""

import argparse
import gc
import importlib
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import peers
import torch
from torch import Tensor

from regcore import spatial
from regcore.commands import doctor
from regcore.commands.doctor import PROBES, Probe, disagreement, image, labels
from regcore.evaluation import dice, folds
from regcore.kernels import reference_only
from regcore.kernels.dispatch import FEWEST_ENTRIES, NOT_VALIDATED
from regcore.methods import make_method
from regcore.process.cuda_graph import Recording
from regcore.process.files import atomic_write
from regcore.training.forward import forward
from regcore.training.optimiser import make_optimiser
from regcore.training.step import GradientStep

SIZE = (160, 192, 224)
#: Sizes at which kernel and reference are compared for the dispatch table.
SIZES = ((48, 40), (192, 224), (8, 8, 8), (16, 16, 16), (32, 32, 32), (64, 64, 64), (96, 96, 96), SIZE)
#: Sizes of random inputs for the checks.
CHECKED = ((33, 30, 41), (17, 64, 23), (45, 38))
KERNEL, REFERENCE = "regcore (Triton)", "regcore (reference)"
DEVICE = torch.device("cuda")


def loaded(module: str, make: Callable) -> Callable[[], Callable]:
    """Loader of a contestant that needs a package."""
    return lambda: make(importlib.import_module(module))


#: Other packages' forms of what the probes do, by operator.  Each loader may raise ImportError.
CONTESTANTS: dict[str, dict[str, Callable[[], Callable]]] = {
    "warp": {"VoxelMorph form, grid_sample": lambda: peers.warp_grid_sample},
    "integrate": {"VoxelMorph form, grid_sample": lambda: peers.integrate_grid_sample},
    "diffusion": {"VoxelMorph form": lambda: peers.diffusion_stock},
    "lncc": {
        "fused_lncc (package)": loaded("fused_lncc", lambda m: lambda f, w: m.fused_lncc_loss(w, f, kernel_size=9)),
        "MONAI (package)": lambda: peers.lncc_monai(),
        "neurite (package)": lambda: peers.lncc_neurite(),
        "torch, shifted slices": lambda: peers.lncc_shifts,
        "torch, separable convolution": lambda: peers.lncc_separable,
    },
    "label_overlaps": {
        "VoxelMorph form, one-hot": lambda: lambda f, m, u: peers.dice_one_hot(f, m, u, range(1, 36)),
    },
    "joint_histogram": {
        "MONAI (package)": loaded(
            "monai.losses", lambda m: lambda f, w: m.GlobalMutualInformationLoss(num_bins=32)(w, f)
        ),
    },
}


@dataclass
class Measured:
    """Times in milliseconds of several series of calls, and the peak of memory in 10⁶ bytes beyond the inputs."""

    times: list[float]
    recorded: bool
    memory: float

    def row(self) -> dict:
        return {
            "ms": statistics.median(self.times),
            "least": min(self.times),
            "most": max(self.times),
            "recorded": self.recorded,
            "peak_mb": self.memory,
        }


def measured(call: Callable[[], object], series: int = 7, budget: float = 0.05) -> Measured:
    """Time a call: a graph of it, replayed, or the call itself where it cannot be recorded."""
    torch.cuda.empty_cache()
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    once = time.perf_counter() - started
    memory = (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        run, recorded = Recording(call).replay, True
    except (RuntimeError, AssertionError):
        torch.cuda.synchronize()
        run, recorded = call, False
    repeats = max(1, min(50, int(budget / max(once, 1e-5))))
    times = []
    for _ in range(series):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / repeats)
    return Measured(times, recorded, memory)


def on_gpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.to(DEVICE) for tensor in tensors]


def in_gpu_context(probe: Probe, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Run a probe of another package's form, whose constants are made on the device."""
    with torch.device("cuda"):
        return doctor.run(probe, tensors)


# ---- the parts


def operators(bandwidth: float) -> pd.DataFrame:
    """Every operator at full size, with forward pass alone, beside its contestants."""
    rows = []
    done: set[str] = set()
    for probe in PROBES:
        tensors = on_gpu(probe.inputs(SIZE))
        if doctor.runs_as(probe, tensors) != "Triton":
            continue
        voxels = tensors[0][0, 0].numel()
        versions: dict[str, Callable] = {KERNEL: lambda p=probe, t=tensors: doctor.run(p, t)}
        if probe.operator in FORWARD_BYTES and probe.operator not in done:
            forward_only = replace(probe, differentiated=())
            versions[f"{KERNEL}, forward"] = lambda p=forward_only, t=tensors: doctor.run(p, t)
        versions[REFERENCE] = lambda p=probe, t=tensors: as_reference(p, t)
        others = {} if probe.operator in done else CONTESTANTS.get(probe.operator, {})
        done.add(probe.operator)
        for name, load in others.items():
            try:
                other = replace(probe, function=load())
            except ImportError as error:
                note = f"not installed: {error}"
                rows.append({"operator": probe.operator, "contestant": name, "note": note})
                continue
            versions[name] = lambda p=other, t=tensors: in_gpu_context(p, t)
        ours = None
        for name, call in versions.items():
            row = {"operator": probe.operator, "gradients": len(probe.differentiated), "contestant": name}
            try:
                found = measured(call).row()
            except Exception as error:
                rows.append(row | {"note": f"failed: {str(error).splitlines()[0][:120]}"})
                torch.cuda.empty_cache()
                continue
            ours = found["ms"] if name == KERNEL else ours
            row |= found | {"ratio": found["ms"] / ours if ours and "forward" not in name else None}
            if name.startswith(KERNEL):
                least = FORWARD_BYTES[probe.operator] if name != KERNEL else probe.bytes_per_voxel
                row["gb_per_s"] = least * voxels / found["ms"] / 1e6
                row["of_floor"] = least * voxels / bandwidth / (found["ms"] / 1e3)
            rows.append(row)
            say(f"{probe.operator:22} {name:32} {row['ms']:9.4f} ms  {row.get('of_floor', float('nan')):.2f}")
        del tensors
    return pd.DataFrame(rows)


#: Bytes per voxel that the forward pass alone cannot avoid.
FORWARD_BYTES = {"warp": 20, "integrate": 168, "diffusion": 12, "lncc": 8, "label_overlaps": 14}


def as_reference(probe: Probe, tensors: Sequence[Tensor]) -> list[Tensor]:
    with reference_only():
        return doctor.run(probe, tensors)


def checks() -> pd.DataFrame:
    """Errors against the reference, and whether two runs give the same bits where torch is asked for that."""
    rows = []
    for probe in PROBES:
        for size in CHECKED:
            tensors = on_gpu(probe.inputs(size))
            row: dict = {"operator": probe.operator, "gradients": len(probe.differentiated)}
            row["size"] = "×".join(map(str, size))
            try:
                row["runs as"] = doctor.runs_as(probe, tensors)
                row["error"] = disagreement(doctor.run(probe, tensors), as_reference(probe, tensors))
                torch.use_deterministic_algorithms(True)
                first, second = doctor.run(probe, tensors), doctor.run(probe, tensors)
                row["same bits twice"] = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
            except Exception as error:  # a compiler's too: the other rows are wanted all the more
                row["note"] = str(error).splitlines()[0][:160]
            finally:
                torch.use_deterministic_algorithms(False)
            rows.append(row)
    return pd.DataFrame(rows)


def dispatch() -> pd.DataFrame:
    """Kernel and reference as they are called, forward and backward, at several sizes."""
    rows = []
    for probe in PROBES:
        for size in SIZES:
            tensors = on_gpu(probe.inputs(size))
            row = {"operator": probe.operator, "size": "×".join(map(str, size))}
            row["entries"] = max(tensor.numel() for tensor in tensors)
            try:
                if doctor.runs_as(probe, tensors) != "Triton":
                    continue
                for column, run in (("kernel_ms", doctor.run), ("reference_ms", as_reference)):
                    times = doctor.seconds(lambda r=run, p=probe, t=tensors: r(p, t), DEVICE, 0.05)
                    row[column] = 1e3 * statistics.median(times)
            except Exception as error:
                row["note"] = str(error).splitlines()[0][:160]
            rows.append(row)
    return pd.DataFrame(rows)


def our_step(settings: dict, fixed: Tensor, moving: Tensor) -> Callable[[], object]:
    """A step as the trainer takes it; what is not recorded of it is the optimiser's."""
    method = make_method("voxelmorph", {"lambda": 1.0, "similarity": "lncc", **settings})
    torch.manual_seed(0)
    module = method.build(3).to(DEVICE)
    call = forward(module, DEVICE, method.settings.precision, method.settings.compile)
    gradients = GradientStep(method, module, call, 1, method.settings.record)
    optimiser = make_optimiser(module.parameters(), "adam", 1e-4)

    def step() -> None:
        gradients.clear()
        gradients({"fixed": fixed, "moving": moving})
        optimiser.step()

    return step


def steps() -> pd.DataFrame:
    """Whole training steps with local correlation: time of a step of a series, and peak memory beyond the images."""
    fixed, moving = on_gpu([image(SIZE, 3), image(SIZE, 4)])

    def stock(similarity: Callable, precision: torch.dtype | None = None, **settings: bool) -> Callable[[], object]:
        with torch.device("cuda"):
            step = peers.stock_training_step(fixed, moving, similarity, **settings)

        def call() -> None:
            with torch.device("cuda"), torch.autocast("cuda", precision, enabled=precision is not None):
                step()

        return call

    makers = {
        "regcore, bfloat16, recorded": lambda: our_step({"precision": "bfloat16", "record": True}, fixed, moving),
        "regcore, float32, recorded": lambda: our_step({"record": True}, fixed, moving),
        "regcore, bfloat16": lambda: our_step({"precision": "bfloat16"}, fixed, moving),
        "regcore, float32": lambda: our_step({}, fixed, moving),
        "voxelmorph (package), its own NCC": lambda: stock(peers.lncc_neurite()),
        "voxelmorph (package), its own NCC, bfloat16": lambda: stock(peers.lncc_neurite(), torch.bfloat16),
        "voxelmorph (package) at half resolution, its own NCC": lambda: stock(
            peers.lncc_neurite(), half_resolution=True
        ),
    }
    rows = []
    for name, make in makers.items():
        row: dict = {"step": name}
        gc.collect()  # the step before, and what its recording holds
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            step = make()
            for _ in range(3):
                step()
            torch.cuda.synchronize()
            times = []
            for _ in range(7):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                for _ in range(5):
                    step()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end) / 5)
            row |= {"ms": statistics.median(times), "least": min(times), "most": max(times)}
            row["peak_mb"] = (torch.cuda.max_memory_allocated() - before) / 1e6
        except (ImportError, RuntimeError, TypeError) as error:
            row["note"] = str(error).splitlines()[0][:160]
        step = None
        rows.append(row)
        say(f"step  {name:50} {row.get('ms', float('nan')):.2f} ms  {row.get('peak_mb', float('nan')):.0f} MB")
    return pd.DataFrame(rows)


def registrations(scans: Path | None, settings: dict) -> pd.DataFrame:
    """Pairs registered from nothing, four times each: without, then with, kernels and recordings at hand."""
    method = make_method("instance", settings)
    rows = []
    for name, fixed, moving, label_maps in pairs(scans):
        spacing = np.ones(3)
        for turn in range(4):
            torch.cuda.synchronize()
            started = time.perf_counter()
            displacement, _ = method.optimise(fixed, moving, spacing)
            torch.cuda.synchronize()
            took = 1e3 * (time.perf_counter() - started)
            row = {"pair": name, "size": "×".join(map(str, fixed.shape[2:])), "turn": turn, "ms": took}
            if turn == 0:
                row |= scores(displacement.cpu(), *label_maps)
            rows.append(row)
        say(f"registration {name}: {took:.1f} ms  {rows[-4].get('dice', float('nan')):.4f}")
    return pd.DataFrame(rows)


def pairs(scans: Path | None):
    """Name, the two images on the GPU, and the two label maps."""
    if scans is None:
        moving, truth = image(SIZE, 3), doctor.displacement(SIZE)
        moving_labels = labels(SIZE, 5)
        fixed, fixed_labels = spatial.warp(moving, truth), spatial.warp(moving_labels, truth, mode="nearest")
        yield "made up", *on_gpu([fixed, moving]), [x[0, 0].numpy() for x in (fixed_labels, moving_labels)]
        return
    from regcore.alignment.prepared import read_prepared
    from regcore.images.volume import read_labels

    for pair in pd.read_csv(scans / "pairs.tsv", sep="\t").itertuples():
        stems = [scans / pair.fixed, scans / pair.moving]
        images = [torch.from_numpy(read_prepared(stem).image.data.astype("float32"))[None, None] for stem in stems]
        maps = [read_labels(f"{stem}_labels.nii").data for stem in stems]
        yield f"{pair.fixed}--{pair.moving}", *on_gpu(images), maps


def scores(displacement: Tensor, fixed_labels: np.ndarray, moving_labels: np.ndarray) -> dict[str, float]:
    """Mean Dice over the labels of both maps, and folds in percent of the fixed labels."""
    moving = torch.from_numpy(np.ascontiguousarray(moving_labels))[None, None]
    warped = spatial.warp(moving, displacement, mode="nearest")[0, 0].numpy()
    codes = sorted(set(np.unique(fixed_labels)) & set(np.unique(moving_labels)) - {0})
    found = dice(fixed_labels, warped, codes)
    return {"dice": float(np.nanmean(found)), "folds_percent": folds(displacement, fixed_labels > 0)}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path, help="folder of the tables")
    parser.add_argument("--scans", type=Path, help="folder of prepared scans with a table pairs.tsv")
    parser.add_argument("--only", choices=("checks", "operators", "steps", "dispatch", "registrations"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no GPU: nothing is measured")
    began = time.perf_counter()
    # Whatever the table says of sizes, and of kernels that are not used.
    FEWEST_ENTRIES.update(dict.fromkeys([*FEWEST_ENTRIES, *NOT_VALIDATED], 1))
    bandwidth = doctor.copy_bandwidth(DEVICE)
    parts = {
        "checks": checks,
        "operators": lambda: operators(bandwidth),
        "steps": steps,
        "registrations": lambda: registrations(arguments.scans, {}),
        "dispatch": dispatch,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    packages = "  ".join(f"{name} {number}" for name, number in doctor.versions().items())
    page = [
        f"`python {shlex.join(sys.argv)}`",
        f"{doctor.device_name(DEVICE)}; copies {bandwidth / 1e9:.0f} GB/s; {packages}",
    ]
    for name, part in parts.items():
        if arguments.only not in (None, name):
            continue
        started = time.perf_counter()
        with torch.device("cpu"):
            table = part()
        say(f"{name}: {time.perf_counter() - started:.0f} s")
        with atomic_write(arguments.output / f"{name}.csv") as path:
            table.to_csv(path, index=False, float_format="%.5g")
        page.append(f"## {name}\n\n{table.to_markdown(index=False, floatfmt='.4g')}")
    page.append(f"{time.perf_counter() - began:.0f} s in all.")
    with atomic_write(arguments.output / "measured.md") as path:
        path.write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


if __name__ == "__main__":
    main()
