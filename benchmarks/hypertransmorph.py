"""What a hypernetwork around TransMorph has to hold in memory, by what it generates; counted, without making a weight.

    python benchmarks/hypertransmorph.py --output docs/results/hypertransmorph.csv

Bytes are those of weights, gradients and Adam's two moments in single precision; activations come on top and are those
of TransMorph.  The paper's network took over 70 GB.
"""

import argparse
import itertools
from pathlib import Path

import pandas as pd
import torch

from regcore.experiments.spr import EVERYTHING
from regcore.methods import make_method
from regcore.methods.spr import SPR
from regcore.networks.hypernetwork import weights_of
from regcore.process.files import atomic_write

PAPER = [32, 64, 64, 128, 128]
#: What is compared → settings of hyperspr.
KINDS = {
    "all weights, layers as in the paper": {"generated": EVERYTHING, "hidden": PAPER},
    "all weights, last layer of 16": {"generated": EVERYTHING, "hidden": [*PAPER[:-1], 16]},
    "those after the encoder, layers as in the paper (default)": {},
    "those after the encoder, last layer of 16": {"hidden": [*PAPER[:-1], 16]},
}
#: Numbers kept for each weight: itself, its gradient, and Adam's two moments.
KEPT = 4


def count(size: str, shape: tuple[int, ...]) -> pd.DataFrame:
    """One row for each kind: weights of the network, those generated, those trained, and their memory."""
    rows = []
    for kind, settings in KINDS.items():
        method = make_method("hyperspr", {"size": size, **settings})
        method.fit_to(shape)
        with torch.device("meta"):
            network = SPR.build(method, len(shape))
        plain = sum(parameter.numel() for parameter in network.parameters())
        made = sum(weight.numel() for weight in weights_of(network, method.settings.generated).values())
        sizes = [len(method.hyperparameters), *method.settings.hidden, made]
        trained = plain - made + sum((before + 1) * after for before, after in itertools.pairwise(sizes))
        memory = 4 * (KEPT * trained + 2 * made)  # generated weights have gradients, too
        row = {"size": size, "generated": kind, "network": plain, "generated_weights": made}
        rows.append(row | {"trained_weights": trained, "gigabytes": round(memory / 1e9, 2)})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", default=[160, 192, 224])
    parser.add_argument("--output", type=Path, required=True, help="CSV")
    arguments = parser.parse_args()
    table = pd.concat([count(size, tuple(arguments.shape)) for size in ("regular", "small")], ignore_index=True)
    print(table.to_string(index=False))
    with atomic_write(arguments.output) as path:
        table.to_csv(path, index=False)


if __name__ == "__main__":
    main()
