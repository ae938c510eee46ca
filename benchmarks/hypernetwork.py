"""Time a HyperMorph step that meets several hyperparameters: samples one after the other, or in grouped convolutions.

    python benchmarks/hypernetwork.py --repeats 15 --output docs/results/hypernetwork

Contestants take turns in one process; forward and backward pass of the network and the whole training step (loss and
optimiser too), on a GPU where there is one, else on one thread.  ``plain`` is VoxelMorph with the same network and
batch, ``shared`` a hypernetwork whose samples have one row of hyperparameters in common.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from regcore.methods import make_method
from regcore.methods.base import LearnedMethod
from regcore.networks.hypernetwork import all_at_once, each_alone
from regcore.process.devices import default_device
from regcore.process.files import atomic_write
from regcore.process.threads import tune_process
from regcore.process.versions import processor_name

SHAPES = [(64, 48), (128, 112), (32, 48, 32), (64, 80, 64)]
BATCHES = (1, 2, 4)
SETTINGS = {"architecture": "half", "weighting": "convex", "image_sigma": 0.05}
#: Forms of a hypernetwork's batch: how rows of weights meet samples.
FORMS = {"one after the other": each_alone, "grouped": all_at_once}


class Contestant:
    """A method with its network and optimiser, and the batch that it is timed on."""

    def __init__(self, method: LearnedMethod, module: nn.Module, batch: dict[str, torch.Tensor]):
        self.method, self.module, self.batch = method, module, batch
        self.optimiser = torch.optim.Adam(module.parameters(), lr=1e-5, fused=True)

    def step(self) -> None:
        self.optimiser.zero_grad()
        self.method.training_step(self.call, self.batch)["total"].backward()
        self.optimiser.step()

    def network(self) -> None:
        self.optimiser.zero_grad()
        pair = torch.cat([self.batch["moving"], self.batch["fixed"]], 1)
        rows = torch.rand(len(pair), 1, device=pair.device)
        inputs = (pair, rows) if self.method.hyperparameters else (pair,)
        self.call(*inputs).square().mean().backward()

    def call(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.module(*inputs)


class Batched(Contestant):
    """A hypernetwork whose rows meet their samples in one of :data:`FORMS`."""

    def __init__(self, *made, form: Callable):
        super().__init__(*made)
        self.form = form

    def call(self, pair: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self.form(self.module.network, self.module.generate(rows), pair)


class Shared(Contestant):
    """A hypernetwork that gives all samples of a batch the weights of the first row."""

    def call(self, pair: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self.module(pair, rows[:1])


def contestants(shape: tuple[int, ...], size: int, device: torch.device) -> dict[str, Contestant]:
    batch = {side: torch.rand(size, 1, *shape, device=device) for side in ("fixed", "moving")}
    plain = make_method("voxelmorph", SETTINGS | {"lambda": 0.5})
    hyper = make_method("hypermorph", SETTINGS)
    found: dict[str, Contestant] = {"plain": Contestant(plain, plain.build(len(shape)).to(device), batch)}
    module = hyper.build(len(shape)).to(device)
    found["shared"] = Shared(hyper, module, batch)
    for name, form in FORMS.items():
        found[name] = Batched(hyper, module, batch, form=form)
    return found


def timed(call: Callable[[], None], device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def measure(repeats: int, device: torch.device) -> pd.DataFrame:
    """Milliseconds: median, minimum and maximum."""
    rows = []
    for shape in SHAPES:
        for size in BATCHES:
            found = contestants(shape, size, device)
            for what in ("network", "step"):
                times: dict[str, list[float]] = {name: [] for name in found}
                for turn in range(repeats + 1):
                    for name, contestant in found.items():
                        taken = timed(getattr(contestant, what), device)
                        if turn:  # the first warms up
                            times[name].append(taken)
                for name, taken in times.items():
                    spread = {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}
                    rows.append(
                        {"shape": "×".join(map(str, shape)), "batch": size, "what": what, "form": name, **spread}
                    )
            print(f"{shape} batch {size} done", flush=True)
    return pd.DataFrame(rows)


def page(table: pd.DataFrame, repeats: int, device: torch.device) -> str:
    wide = table.pivot_table(index=["shape", "batch", "what"], columns="form", values="median", sort=False)
    wide["grouped / one after the other"] = wide["grouped"] / wide["one after the other"]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"one thread of {processor_name()}"
    lines = [
        "# Several hyperparameters in one step",
        "",
        f"Milliseconds, medians of {repeats} turns, {where}; torch {torch.__version__}, "
        f"Python {platform.python_version()}. Written by `python benchmarks/hypernetwork.py`, which explains the "
        "columns; the CSV has minimum and maximum.",
        "",
        wide.reset_index().to_markdown(index=False, floatfmt=".2f"),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, required=True, help="path without ending: .csv and .md are written")
    arguments = parser.parse_args()
    tune_process(1)
    torch.manual_seed(0)
    device = default_device()
    table = measure(arguments.repeats, device)
    with atomic_write(arguments.output.with_suffix(".csv")) as path:
        table.to_csv(path, index=False, float_format="%.3f")
    with atomic_write(arguments.output.with_suffix(".md")) as path:
        path.write_text(page(table, arguments.repeats, device), encoding="utf-8")


if __name__ == "__main__":
    main()
