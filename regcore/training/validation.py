"""Validation: scores of a network on pairs of prepared scans with labels, in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regcore.cohort.labels import classify
from regcore.errors import InputError
from regcore.evaluation.overlap import dice
from regcore.images.volume import read_labels, read_volume
from regcore.methods.base import LearnedMethod, as_tensor
from regcore.spatial import warp


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Pairs with labels, in memory.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Fixed and moving scan.
    images : mapping of str → Tensor
        Scan → image (1, 1, *space).
    labels : mapping of str → ndarray
        Scan → labels, on the grid of the images.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.training.validation import LabelledPairs
    >>> labels = {"a": np.eye(8, dtype=np.int16), "b": np.eye(8, k=1, dtype=np.int16)}
    >>> images = {scan: torch.from_numpy(label).float()[None, None] for scan, label in labels.items()}
    >>> labelled = LabelledPairs([("a", "b")], images, labels)
    >>> right = torch.zeros(1, 2, 8, 8)
    >>> right[:, 1] = 1  # the diagonal of b lies one voxel to the right along the second axis
    >>> labelled.dice(("a", "b"), torch.zeros_like(right), [1]).tolist()
    [0.0]
    >>> labelled.dice(("a", "b"), right, [1]).round(2).tolist()  # the last voxel lies outside of b
    [0.93]
    """

    pairs: Sequence[tuple[str, str]]
    images: Mapping[str, Tensor]
    labels: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, pairs: Sequence[tuple[str, str]], stems: Mapping[str, str | Path]) -> "LabelledPairs":
        """Read prepared scans from their path stems."""
        scans = sorted({scan for pair in pairs for scan in pair})
        return cls(
            pairs,
            {scan: as_tensor(read_volume(f"{stems[scan]}.nii")) for scan in scans},
            {scan: read_labels(f"{stems[scan]}_labels.nii").data for scan in scans},
        )

    def batch(self, pair: tuple[str, str], device: torch.device, classes: Mapping[int, int] | None) -> dict[str, Any]:
        """A pair as a training batch; with labels if ``classes`` (label code → class) is given."""
        fixed, moving = pair
        batch: dict[str, Any] = {"fixed": self.images[fixed].to(device), "moving": self.images[moving].to(device)}
        if classes is not None:
            for side, scan in zip(("fixed", "moving"), pair, strict=True):
                batch[f"{side}_labels"] = torch.from_numpy(classify(self.labels[scan], classes))[None, None].to(device)
            batch["codes"] = list(range(1, max(classes.values()) + 1))
        return batch

    def dice(self, pair: tuple[str, str], displacement: Tensor, codes: Sequence[int]) -> np.ndarray:
        """Dice of every code, with labels warped by nearest neighbour; NaN for a label in neither map."""
        fixed, moving = (self.labels[scan] for scan in pair)
        moved = warp(torch.from_numpy(moving)[None, None], displacement.cpu(), mode="nearest")
        return dice(fixed, moved[0, 0].numpy(), codes)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if all are."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def validate_network(
    method: LearnedMethod,
    module: nn.Module,
    labelled: LabelledPairs,
    codes: Sequence[int],
    with_loss: bool = False,
    classes: Mapping[int, int] | None = None,
) -> dict[str, float]:
    """Score a network on pairs: mean ``dice``, and optionally the mean ``loss``.

    The network has to be in evaluation mode, and gradients off, if that is wanted.

    Parameters
    ----------
    method : LearnedMethod
        A hypernetwork without chosen values is scored at several.
    module : nn.Module
        Its network.
    labelled : LabelledPairs
        The pairs.
    codes : sequence of int
        Labels whose Dice counts.
    with_loss : bool
        Whether to compute the loss as well.
    classes : mapping, optional
        Label code → class, if the loss uses labels.

    Returns
    -------
    dict
        ``dice``: the mean over labels, then over pairs; and ``loss``.

    Raises
    ------
    InputError
        No pair has any of the labels.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.methods import make_method
    >>> from regcore.training.validation import LabelledPairs, validate_network
    >>> labels = {"a": np.tri(32, dtype=np.int16), "b": np.tri(32, k=1, dtype=np.int16)}
    >>> images = {scan: torch.from_numpy(label).float()[None, None] for scan, label in labels.items()}
    >>> labelled = LabelledPairs([("a", "b"), ("b", "a")], images, labels)
    >>> method = make_method("voxelmorph", {"similarity": "mse"})
    >>> with torch.inference_mode():
    ...     found = validate_network(method, method.build(2).eval(), labelled, [1], with_loss=True)
    >>> sorted(found), round(found["dice"], 2)  # an untrained network hardly moves anything
    (['dice', 'loss'], 0.97)
    """
    device = next(module.parameters()).device
    overlaps, losses = [], []
    for pair in labelled.pairs:
        batch = labelled.batch(pair, device, classes)
        for variant in method.variants_to_validate():
            flow = variant.predict(module, batch["fixed"], batch["moving"])
            overlaps.append(_mean(labelled.dice(pair, variant.displacement(flow, batch["fixed"]), codes)))
            if with_loss:
                losses.append(variant.losses(flow, batch)["total"].item())
    dice = _mean(overlaps)
    if not np.isfinite(dice):
        raise InputError("no validation pair has a scored label; check 'labels' and the validation pairs")
    return {"dice": dice, **({"loss": float(np.mean(losses))} if with_loss else {})}
