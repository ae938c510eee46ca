"""Architectures and networks of AutoReg's cells."""

import torch

from regcore.networks.architecture import CANDIDATES, CELLS, Architecture

MEDIUM = Architecture.uniform("3-Conv")


def drawn(generator):
    """A random architecture."""
    found = MEDIUM
    for kind in CELLS:
        found = found.with_cells(kind, [str(name) for name in generator.choice(list(CANDIDATES), 6)])
    return found


def awake(network):
    """The network with fields that differ from zero."""
    torch.nn.init.normal_(network.head.convolution.weight, std=0.1)
    return network
