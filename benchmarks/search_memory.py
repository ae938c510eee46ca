"""Memory of AutoReg's search for cells beside that of a training, with and without `checkpointing`.

    python benchmarks/search_memory.py --size 56 48 --size 192 224 --size 32 32 32 \
        --output docs/results/search-memory.csv

Counted are the bytes of the tensors that a step makes, as many of them as live at once, and of the weights with their
gradients and Adam's moments.  A search's step is one hypergradient; pairs are noise, which needs as much as anatomy.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

from regcore.autoreg.hypergradient import hypergradient
from regcore.methods import make_method
from regcore.networks.architecture import CELLS
from regcore.process.files import atomic_write
from regcore.training.memory import WEIGHT_COPIES, live_peak

RATE, EPSILON = 1e-4, 1e-4


def pair(size: list[int], seed: int) -> dict[str, torch.Tensor]:
    """A batch of one pair."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(1, 1, *size, generator=generator) for name in ("fixed", "moving")}


def training(size: list[int], architecture: str) -> dict[str, int]:
    """Bytes of a training step of a network by hand."""
    method = make_method("autoreg", {"architecture": architecture})
    network, batch = method.build(len(size)), pair(size, 0)
    peak = live_peak(lambda: method.training_step(network, batch)["total"].backward())
    return {"tensors": peak, "weights": WEIGHT_COPIES * sum(weight.nbytes for weight in network.parameters())}


def search(size: list[int], kind: str, checkpointing: bool) -> dict[str, int]:
    """Bytes of a hypergradient of one kind of cells."""
    method = make_method("autoreg", {"checkpointing": checkpointing})
    network, batches = method.super_network(len(size), (kind,)), [pair(size, seed) for seed in (0, 1)]
    weights, searched = network.weights(), list(network.mixtures.values())

    def loss(place: int) -> torch.Tensor:
        return method.training_step(network, batches[place])["total"]

    peak = live_peak(lambda: hypergradient(lambda: loss(0), lambda: loss(1), weights, searched, RATE, EPSILON))
    return {"tensors": peak, "weights": WEIGHT_COPIES * sum(weight.nbytes for weight in weights)}


def measure(size: list[int]) -> pd.DataFrame:
    """A row for the training, and one for each search."""
    cases = {("training", "manual-medium", False): lambda: training(size, "manual-medium")}
    for kind in CELLS:
        for checkpointing in (False, True):
            cases["search", kind, checkpointing] = lambda k=kind, c=checkpointing: search(size, k, c)
    rows = []
    for (what, of, checkpointing), count in cases.items():
        start = time.monotonic()
        rows.append({"what": what, "of": of, "checkpointing": checkpointing, **count()})
        print(f"{size}: {what}, {of}, checkpointing {checkpointing}: {time.monotonic() - start:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    table.insert(0, "size", " × ".join(map(str, size)))
    table["total"] = table["tensors"] + table["weights"]
    table["ratio"] = (table["total"] / table["total"].iloc[0]).round(3)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", action="append", required=True, help="voxels; may be repeated")
    parser.add_argument("--output", type=Path, required=True, help="CSV")
    arguments = parser.parse_args()
    table = pd.concat([measure(size) for size in arguments.size])
    print(table.to_string(index=False))
    with atomic_write(arguments.output) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    main()
