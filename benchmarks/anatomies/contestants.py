"""Deformable methods of regcore with settings, and their call in a worker: two images on one grid → a field.

Every contestant runs in a process of its own that may be ended (:mod:`regcore.process.isolation`), so arguments and
results are JSON, and images and the field are files of a folder.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from regcore.images.grid import Grid
from regcore.images.volume import Volume, read_volume
from regcore.methods import make_method, method_info, read_settings
from regcore.process.cost import Cost

FIXED, MOVING, MASK, FIELD = "fixed.nii", "moving.nii", "moving_mask.nii", "field.npy"
#: Edge of the images of the first call, which loads and compiles, voxels.
WARM_UP = {2: 96, 3: 40}


@dataclass(frozen=True)
class Contestant:
    """A method with settings.

    Parameters
    ----------
    method : str
        Its name in regcore.
    settings : mapping
        Those that differ from the defaults.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classical(self) -> bool:
        """Whether it is another group's tool."""
        return method_info(self.method).external

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        return read_settings(self.method, self.settings).missing()

    def registers(self, ndim: int) -> bool:
        """Whether it can register images of this many dimensions."""
        return ndim in method_info(self.method).dimensions


#: With their recommended settings, and those for other contrasts where a tool has some.
CONTESTANTS = {
    "affine": Contestant("affine"),
    "auto": Contestant("auto"),
    "instance": Contestant("instance"),
    "instance-mind": Contestant("instance", {"similarity": "mind"}),
    "instance-nmi": Contestant("instance", {"similarity": "nmi"}),
    "greedy": Contestant("greedy"),
    "greedy-nmi": Contestant("greedy", {"metric": "NMI"}),
    "syn": Contestant("syn"),
    "syn-mi": Contestant("syn", {"preset": "cross-contrast"}),
    "niftyreg": Contestant("niftyreg"),
    "niftyreg-lncc": Contestant("niftyreg", {"preset": "lncc"}),
    "elastix": Contestant("elastix"),
    "convexadam": Contestant("convexadam"),
    "dipy": Contestant("dipy"),
    "demons": Contestant("demons"),
    "deeds": Contestant("deeds"),
    "fireants": Contestant("fireants"),
}

_warm: set[tuple] = set()


def register(method: str, settings: dict, folder: str) -> dict[str, float]:
    """Register the images of a folder and leave the displacement there; runs in a worker.

    Parameters
    ----------
    method, settings
        As for :func:`regcore.methods.make_method`.
    folder : str
        With the files ``fixed.nii``, ``moving.nii`` and, of a limited field of view, ``moving_mask.nii``; gets
        ``field.npy``: float32, (D, *space), in voxels.

    Returns
    -------
    dict
        ``seconds``, ``cpu_seconds`` and ``memory_mb`` of the method alone, from images in memory to a field in memory.
    """
    place = Path(folder)
    fixed, moving = (read_volume(place / name) for name in (FIXED, MOVING))
    found = make_method(method, settings)
    masks = {}
    if found.uses_masks and (place / MASK).is_file():
        masks["moving_mask"] = read_volume(place / MASK)
    if (method, str(settings), fixed.grid.ndim) not in _warm:
        _warm.add((method, str(settings), fixed.grid.ndim))
        with suppress(Exception):  # a tool may refuse so small an image, and is loaded all the same
            found.register(middle(fixed), middle(moving))
    cost = Cost()
    with cost.measured(programs=True), cost.stage("compute"):
        registration = found.register(fixed, moving, **masks)
    np.save(place / FIELD, registration.field.displacement[0].float().numpy())
    return {
        "seconds": cost.seconds["compute"],
        "cpu_seconds": cost.cpu_seconds,
        "memory_mb": cost.peak_memory_mb,
    }


def middle(volume: Volume) -> Volume:
    """The middle of an image."""
    edge = WARM_UP[volume.grid.ndim]
    cut = tuple(slice(max((n - edge) // 2, 0), max((n - edge) // 2, 0) + edge) for n in volume.grid.shape)
    data = np.ascontiguousarray(volume.data[cut])
    affine = volume.grid.affine.copy()
    affine[:-1, -1] = volume.grid.to_world([part.start for part in cut])
    return replace(volume, data=data, grid=Grid(data.shape, affine))
