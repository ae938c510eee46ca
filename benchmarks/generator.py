"""Time SynthMorph's generator and draw a sheet of what it makes.

    python benchmarks/generator.py --repeats 7 --output docs/results/generator
    python benchmarks/generator.py --sheet docs/results/synthmorph/pairs.png

Times: one random map, one pair of images from maps that are there, and the whole training step around it (network with
32 features a layer, Dice, backward pass, optimiser), taking turns, on a GPU where there is one, else on one thread.
``share`` is what of a step goes into its pair: training draws pairs itself, so there is no queue that it could wait
for.  ``GB/s`` relates the pair to the bytes that its images and label maps have.

Sheet: 16 pairs of the default ranges, each two images of one map of shapes as a network meets them.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from regcore.methods import make_method
from regcore.process.devices import default_device
from regcore.process.files import atomic_write
from regcore.process.threads import tune_process
from regcore.process.versions import processor_name
from regcore.synthesis.intensities import ImageRanges, WarpRanges, draw_pair
from regcore.synthesis.noise import Draws
from regcore.synthesis.shapes import random_shapes
from regcore.training.optimiser import make_optimiser

SHAPES = [(96, 96), (256, 256), (64, 64, 64), (160, 160, 192)]
#: Larger volumes are not stepped on a CPU: their network alone would take minutes.
LARGEST_STEP = 64**3
SETTINGS = {"width": 0.5, "shape_maps": 1}
#: Bytes of a pair for each voxel: two float32 images and two label maps of one byte.
BYTES = 2 * 4 + 2 * 1
PAIRS = 16


def measure(repeats: int, device: torch.device) -> pd.DataFrame:
    """Milliseconds: median, minimum and maximum."""
    rows = []
    for shape in SHAPES:
        times: dict[str, list[float]] = {}
        draws = Draws(0, device)
        labels = random_shapes(shape, draws)
        calls = {
            "map": lambda shape=shape, draws=draws: random_shapes(shape, draws),
            "pair": lambda labels=labels, draws=draws: draw_pair(
                labels, labels, ImageRanges(), WarpRanges((8, 16, 32)), draws
            ),
        }
        if labels.numel() <= LARGEST_STEP or device.type == "cuda":
            calls["step"] = training_step(shape, device)
        for turn in range(repeats + 1):
            for what, call in calls.items():
                taken = timed(call, device)
                if turn:  # the first warms up
                    times.setdefault(what, []).append(taken)
        for what, taken in times.items():
            spread = {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}
            rows.append({"shape": "×".join(map(str, shape)), "voxels": labels.numel(), "what": what, **spread})
        print(f"{shape} done", flush=True)
    return pd.DataFrame(rows)


def training_step(shape: tuple[int, ...], device: torch.device):
    method = make_method("synthmorph", SETTINGS)
    module = method.build(len(shape)).to(device)
    optimiser = make_optimiser(module.parameters(), method.settings.optimiser, method.settings.learning_rate)
    batch = {"fixed": torch.zeros(1, 1, *shape, device=device)}

    def step() -> None:
        optimiser.zero_grad()
        method.training_step(module, batch)["total"].backward()
        optimiser.step()

    return step


def timed(call, device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def page(table: pd.DataFrame, repeats: int, device: torch.device) -> str:
    wide = table.pivot_table(index=["shape", "voxels"], columns="what", values="median", sort=False).reset_index()
    wide["pairs/s"] = 1000 / wide["pair"]
    wide["GB/s"] = BYTES * wide["voxels"] / wide["pair"] / 1e6
    wide["share"] = wide["pair"] / wide["step"]
    shown = wide[["shape", "map", "pair", "pairs/s", "GB/s", "step", "share"]]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"one thread of {processor_name()}"
    lines = [
        "# Pairs of images from label maps",
        "",
        f"Milliseconds, medians of {repeats} turns, {where}; torch {torch.__version__}, "
        f"Python {platform.python_version()}. Written by `python benchmarks/generator.py`, which explains the "
        "columns; the CSV has minimum and maximum.",
        "",
        shown.to_markdown(index=False, floatfmt=".3g"),
        "",
    ]
    return "\n".join(lines)


def sheet(path: Path) -> None:
    """Draw 16 pairs, and the labels of the first image of each."""
    method = make_method("synthmorph", {"shape_maps": 100})
    torch.manual_seed(0)
    figure, axes = plt.subplots(6, 8, figsize=(12, 9.2))
    for number in range(PAIRS):
        drawn = method.synthesised({"fixed": torch.zeros(1, 1, 160, 160)})
        line, column = divmod(number, 8)
        for place, name in enumerate(("moving", "fixed", "fixed_labels")):
            axis = axes[3 * line + place, column]
            colours = {"cmap": "nipy_spectral"} if name == "fixed_labels" else {"cmap": "gray", "vmin": 0, "vmax": 1}
            axis.imshow(drawn[name][0, 0], interpolation="nearest", **colours)
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(name.replace("_", " "))
    figure.tight_layout(pad=0.4)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="path without ending: .csv and .md are written")
    parser.add_argument("--sheet", type=Path, help="PNG: 16 pairs")
    arguments = parser.parse_args()
    if not (arguments.output or arguments.sheet):
        parser.error("nothing to do: give --output, --sheet or both")
    tune_process(1)
    if arguments.sheet:
        sheet(arguments.sheet)
    if arguments.output:
        torch.manual_seed(0)
        device = default_device()
        table = measure(arguments.repeats, device)
        with atomic_write(arguments.output.with_suffix(".csv")) as path:
            table.to_csv(path, index=False, float_format="%.3f")
        with atomic_write(arguments.output.with_suffix(".md")) as path:
            path.write_text(page(table, arguments.repeats, device), encoding="utf-8")


if __name__ == "__main__":
    main()
