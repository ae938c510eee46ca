"""How well finite differences stand for a hypergradient of AutoReg, by the size of ε, in single and double precision.

    python benchmarks/hypergradient.py --output docs/results/hypergradient.csv

The exact gradient is that of the validation loss after one step of the weights, by central differences over α in double
precision with a small step.  Networks of LeakyReLU on linearly interpolated images are smooth in pieces alone: a small
ε stays within one, a large one averages over many.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from regcore.autoreg.hypergradient import hypergradient
from regcore.methods import make_method
from regcore.networks.architecture import CELLS
from regcore.process.files import atomic_write
from regcore.spatial import smooth

EPSILONS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
RATE = 1e-3
#: Step over α of the exact gradient.
STEP = 1e-6


def image(seed: int, side: int) -> Tensor:
    """A smooth random image, (1, 1, side, side), float64."""
    noise = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    blurred = smooth(noise, 2.0)
    return (blurred - blurred.min()) / (blurred.max() - blurred.min())


class Case:
    """A super-network that has learned a little, and a training and a validation pair."""

    def __init__(self, kind: str, seed: int, side: int, channels: int, steps: int):
        torch.manual_seed(seed)
        self.method = make_method("autoreg", {"channels": channels})
        self.network = self.method.super_network(2, (kind,))
        pairs = [
            {name: image(4 * seed + 2 * n + m, side) for m, name in enumerate(("fixed", "moving"))} for n in range(2)
        ]
        self.pairs = pairs
        self.alpha = self.network.mixtures[kind]
        nn.init.normal_(self.alpha, std=0.1)
        optimiser = torch.optim.Adam(self.network.weights(), lr=RATE)
        for _ in range(steps):
            optimiser.zero_grad()
            self.loss(0).backward()
            optimiser.step()

    def loss(self, pair: int) -> Tensor:
        kind = next(self.network.parameters()).dtype
        batch = {name: value.to(kind) for name, value in self.pairs[pair].items()}
        flow = self.network(self.method.network_input(batch["fixed"], batch["moving"]))
        return self.method.losses(flow, batch)["total"]

    def found(self, epsilon: float) -> np.ndarray:
        """The hypergradient by differences of gradients."""
        inner, outer = (lambda: self.loss(0)), (lambda: self.loss(1))
        (slope,), _ = hypergradient(inner, outer, self.network.weights(), [self.alpha], RATE, epsilon)
        return slope.double().numpy().ravel()

    def exact(self) -> np.ndarray:
        """By central differences over α of the loss after one step; the network is in double precision."""
        return _differences(self._one_step_ahead, self.alpha)

    def direct(self) -> np.ndarray:
        """Without the second term: how the loss depends on α itself."""
        return torch.autograd.grad(self.loss(1), self.alpha)[0].double().numpy().ravel()

    def _one_step_ahead(self) -> float:
        weights = self.network.weights()
        before = [weight.detach().clone() for weight in weights]
        slopes = torch.autograd.grad(self.loss(0), weights, allow_unused=True)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight -= 0 if slope is None else RATE * slope
            loss = self.loss(1).item()
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
        return loss


def _differences(value: Callable[[], float], at: Tensor) -> np.ndarray:
    start, found = at.detach().clone(), []
    with torch.no_grad():
        for place in range(at.numel()):
            ends = []
            for sign in (1, -1):
                at.copy_(start).view(-1)[place] += sign * STEP
                with torch.enable_grad():
                    ends.append(value())
            found.append((ends[0] - ends[1]) / (2 * STEP))
        at.copy_(start)
    return np.array(found)


def measure(kind: str, seed: int, side: int, channels: int, steps: int) -> list[dict]:
    """One row for each ε and precision, and for the first term alone."""
    case = Case(kind, seed, side, channels, steps)
    single = {epsilon: case.found(epsilon) for epsilon in EPSILONS}
    case.network.double()
    exact = case.exact()
    found = {("double", epsilon): case.found(epsilon) for epsilon in EPSILONS}
    found |= {("single", epsilon): slope for epsilon, slope in single.items()}
    found["first term alone", float("nan")] = case.direct()
    return [
        {
            "cells": kind,
            "seed": seed,
            "precision": precision,
            "epsilon": epsilon,
            "relative_error": np.linalg.norm(slope - exact) / np.linalg.norm(exact),
            "cosine": slope @ exact / np.linalg.norm(slope) / np.linalg.norm(exact),
        }
        for (precision, epsilon), slope in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32, help="voxels of the images")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="training steps before the gradients are compared")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="CSV: medians over the seeds")
    arguments = parser.parse_args()
    rows = []
    for kind in CELLS:
        for seed in range(arguments.seeds):
            rows += measure(kind, seed, arguments.side, arguments.channels, arguments.steps)
            print(f"{kind}, seed {seed}", flush=True)
    keys = ["cells", "precision", "epsilon"]
    table = pd.DataFrame(rows).groupby(keys, sort=False, dropna=False)[["relative_error", "cosine"]].median()
    print(table.to_string())
    with atomic_write(arguments.output) as path:
        table.reset_index().to_csv(path, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
