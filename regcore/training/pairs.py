"""Drawing training pairs: which scans meet at which step, and their images as tensors."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regcore.methods.base import as_tensor
from regcore.volume import read_volume


class PairSampler:
    """Random pairs, drawn afresh at every step.

    What is drawn depends on the seed and the number of the step alone, so a resumed training sees
    exactly what an uninterrupted one would have seen.

    Parameters
    ----------
    pairs : sequence of (str, str)
        All (fixed, moving) scans to draw from.
    images : mapping
        Path of each scan's prepared image.
    seed : int
    cached : int
        How many images to keep in memory.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], images: Mapping[str, Path], seed: int, cached: int = 512):
        self.pairs = list(pairs)
        self.seed = seed
        self._load: Callable[[str], Tensor] = lru_cache(cached)(lambda scan: as_tensor(read_volume(images[scan])))

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The ``fixed`` and ``moving`` images of a step, each (size, 1, *space)."""
        chosen = np.random.default_rng([self.seed, step]).integers(len(self.pairs), size=size)
        fixed, moving = zip(*(self.pairs[i] for i in chosen), strict=True)
        return {
            "fixed": torch.cat([self._load(scan) for scan in fixed]),
            "moving": torch.cat([self._load(scan) for scan in moving]),
        }
