"""Sampling of training pairs: the scans of each step, and their images and labels as tensors."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regcore.cohort.labels import classify
from regcore.images.volume import read_grid, read_labels, read_volume
from regcore.methods.base import as_tensor

#: Maximum of scans in memory, and of the bytes of their images.
CACHED_SCANS, CACHED_BYTES = 512, 4 << 30
#: Second word of the seed for draws that belong to no step; numbers of steps are smaller.
BESIDE_TRAINING = 2**63


class PairSampler:
    """Random pairs, drawn anew at every step.

    Draws depend only on the seed and the number of the step, so a resumed training sees exactly what an
    uninterrupted one would have seen.

    Parameters
    ----------
    pairs : sequence of (str, str)
        All (fixed, moving) scans to draw from.
    stems : mapping
        Path of each scan's prepared files without their endings: ``.nii`` and ``_labels.nii``.
    seed : int
        Seed of all draws.
    classes : mapping, optional
        Label code → class, 1 to K. If given, batches include labels.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.training.pairs import PairSampler
    >>> grid = Grid.centred((16, 16), (1, 1), (0, 0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stems = {scan: f"{folder}/{scan}" for scan in ("sub-1", "sub-2", "sub-3")}
    ...     for number, stem in enumerate(stems.values()):
    ...         Volume(np.eye(16, k=number, dtype=np.float32), grid).save(f"{stem}.nii")
    ...     pairs = [("sub-1", "sub-2"), ("sub-1", "sub-3"), ("sub-2", "sub-3")]
    ...     batch = PairSampler(pairs, stems, seed=1).batch(step=0, size=2)
    >>> {name: tuple(images.shape) for name, images in batch.items()}
    {'fixed': (2, 1, 16, 16), 'moving': (2, 1, 16, 16)}
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        stems: Mapping[str, str | Path],
        seed: int,
        classes: Mapping[int, int] | None = None,
    ):
        self.pairs, self.seed, self.classes = pairs, seed, classes
        self._stems = stems

    def batch(self, step: int, size: int, part: slice = slice(None)) -> dict[str, Any]:
        """The batch of a step, or a part of it.

        Returns
        -------
        dict
            ``fixed`` and ``moving`` images, (B, 1, *space) float32; with classes also ``fixed_labels`` and
            ``moving_labels``, int16, with 0 for no class, and ``codes``, the list 1 to K.
        """
        chosen = [self.pairs[number] for number in self._draw(step).integers(len(self.pairs), size=size)[part]]
        batch: dict[str, Any] = {}
        for place, side in enumerate(("fixed", "moving")):
            images, labels = zip(*(self._load(pair[place]) for pair in chosen), strict=True)
            batch[side] = torch.cat(images)
            if self.classes is not None:
                batch[f"{side}_labels"] = torch.cat(labels)
        if self.classes is not None:
            batch["codes"] = list(range(1, max(self.classes.values()) + 1))
        return batch

    def some(self, count: int) -> list[tuple[str, str]]:
        """``count`` different pairs, or as many as there are; they depend only on the seed."""
        several = min(4 * count, len(self.pairs))  # a sequence may contain a pair several times
        numbers = self._draw(BESIDE_TRAINING).choice(len(self.pairs), several, replace=False)
        return list(dict.fromkeys(self.pairs[number] for number in numbers))[:count]

    def _draw(self, step: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, step])

    @cached_property
    def _load(self) -> Callable[[str], tuple[Tensor, Tensor | None]]:
        """:meth:`_read` with a cache of the most recent scans."""
        one = 4 * math.prod(read_grid(f"{next(iter(self._stems.values()))}.nii").shape)
        return lru_cache(min(CACHED_SCANS, max(2, CACHED_BYTES // one)))(self._read)

    def _read(self, scan: str) -> tuple[Tensor, Tensor | None]:
        image = as_tensor(read_volume(f"{self._stems[scan]}.nii"))
        if self.classes is None:
            return image, None
        labels = classify(read_labels(f"{self._stems[scan]}_labels.nii").data, self.classes)
        return image, torch.from_numpy(labels)[None, None]
