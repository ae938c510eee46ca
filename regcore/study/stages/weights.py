"""Stage: the weight volumes of TM-SPR on a study's test pairs, measured, and one example to draw."""

import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from regcore.images.volume import read_labels
from regcore.methods.constants import PRIORS
from regcore.methods.hypertransmorph import HyperSPR
from regcore.methods.spr import SPR
from regcore.models.trained import load_model
from regcore.process.files import atomic_write
from regcore.study.plan import Plan
from regcore.study.stages.register import prepared_image
from regcore.training.checkpoint import save_tensors

log = logging.getLogger(__name__)

#: Values of each hyperparameter at which a hypernetwork's weight volumes are measured (Fig. 11).
POINTS = 4


def write_weights(plan: Plan, name: str, table: str | Path, volumes: str | Path) -> None:
    """Measure an entry's weight volumes on the test pairs, and keep those of the first pair.

    Parameters
    ----------
    plan : Plan
        The study, in which the entry is trained.
    name : str
        An entry of method spr or hyperspr. A hypernetwork is measured over its ranges.
    table : path
        CSV: ``entry row``, the prior's hyperparameters, ``pair mean_weight low_weight`` (its 5th percentile over
        labelled voxels), and over these voxels ``with_displacement with_gradient``, Pearson's correlation of the weight
        with |u| and with |∇u|; ``with_displacement_everywhere`` is that over all voxels.
    volumes : path
        Safetensors with, for each row, ``<row>.weights`` (*space) and ``<row>.displacement`` (D, *space) in voxels.
    """
    method = load_model(plan.files.model(name)).method
    assert isinstance(method, SPR | HyperSPR)  # other methods have no weight volume
    rows: list[dict[str, Any]] = []
    kept: dict[str, Tensor] = {}
    pair: Any  # its attributes are the columns of the table
    for number, pair in enumerate(plan.pairs_of("test").itertuples()):
        scans = {side: prepared_image(plan, getattr(pair, side)).to(method.device) for side in ("fixed", "moving")}
        labels = read_labels(plan.prepared(pair.fixed) + "_labels.nii").data > 0
        for row, (own, found) in enumerate(_volumes(method, **scans)):
            measured = measures(found["weights"], found["displacement"], labels)
            rows.append({"entry": name, "row": row, **own, "pair": pair.pair, **measured})
            if number == 0:
                kept |= {f"{row}.{what}": value for what, value in found.items()}
    log.info("%s: weight volumes of %d pairs", name, number + 1)
    with atomic_write(Path(table)) as path:
        pd.DataFrame(rows).to_csv(path, index=False)
    save_tensors(volumes, kept, {"pair": plan.pairs_of("test")["pair"].iloc[0]})


def measures(weights: Tensor, displacement: Tensor, inside: np.ndarray) -> dict[str, float]:
    """How a weight volume relates to its field.

    Parameters
    ----------
    weights : Tensor, shape (*space)
        w(p), relative to the largest or mean weight.
    displacement : Tensor, shape (D, *space)
        In voxels.
    inside : ndarray of bool, shape (*space)
        The voxels that count.

    Returns
    -------
    dict of str → float
        ``mean_weight``, ``low_weight`` (5th percentile), and the correlations ``with_displacement``, ``with_gradient``
        and ``with_displacement_everywhere``.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.study.stages.weights import measures
    >>> size = torch.linspace(0, 4, 64).view(8, 8).square()
    >>> found = measures(1 - size / 32, torch.stack([size, size]), np.ones((8, 8), bool))
    >>> round(found["mean_weight"], 2), round(found["with_displacement"], 2)  # smoothed less where the field is larger
    (0.83, -1.0)
    """
    w, u = weights.double().numpy(), displacement.double().numpy()
    size = np.linalg.norm(u, axis=0)
    axes = tuple(range(1, u.ndim))
    slope = np.sqrt(sum((part**2).sum(0) for part in np.gradient(u, axis=axes)))
    return {
        "mean_weight": float(w[inside].mean()),
        "low_weight": float(np.percentile(w[inside], 5)),
        "with_displacement": correlation(w[inside], size[inside]),
        "with_gradient": correlation(w[inside], slope[inside]),
        "with_displacement_everywhere": correlation(w.ravel(), size.ravel()),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; NaN if one of them varies no more than single precision does.

    Parameters
    ----------
    a, b : ndarray, same shape
        Values of one quantity each.

    Returns
    -------
    float
        -1 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.study.stages.weights import correlation
    >>> rising = np.arange(8.0)
    >>> round(correlation(rising, 3 - 2 * rising), 6), correlation(rising, np.full(8, 0.1))
    (-1.0, nan)
    """
    if any(values.std() <= 1e-6 * np.abs(values).max() for values in (a, b)):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


@torch.inference_mode()
def _volumes(
    method: SPR | HyperSPR, fixed: Tensor, moving: Tensor
) -> Iterator[tuple[Mapping[str, Any], dict[str, Tensor]]]:
    """The prior's hyperparameters, and the weights and displacement at them."""
    for at in _points(method):
        flow = at.predict(at.network, fixed, moving)
        displacement = at.displacement(flow, fixed)
        own = {name: at.settings.value(name) for name in PRIORS[at.settings.prior]}
        found = {
            "weights": at.weights(flow, fixed)[0, 0],
            "displacement": displacement[0],
        }
        yield own, {name: value.cpu() for name, value in found.items()}


def _points(method: SPR | HyperSPR) -> Iterator[SPR | HyperSPR]:
    if isinstance(method, SPR):
        yield method
        return
    lines = [np.linspace(low, high, POINTS) for low, high in method.ranges.values()]
    for values in itertools.product(*lines):
        yield method.at(dict(zip(method.ranges, map(float, values), strict=True)))
