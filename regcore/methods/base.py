"""The contract of a method: a pair of images in, a displacement field on the fixed grid out.

From :meth:`Method.register` on nobody knows whether a classical tool, a network or an optimiser made the
field.  Learned methods add what the trainer needs: a module and a training step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from regcore.config import settings_schema, validated
from regcore.field import DisplacementField
from regcore.volume import Volume


@dataclass(frozen=True, eq=False)
class Registration:
    """What a method found.

    Parameters
    ----------
    field : DisplacementField
        Fixed world → moving world, on the fixed grid.
    inverse : DisplacementField or None
        Moving → fixed on the moving grid, where the method has one.
    commands : list of str
        The exact calls of external tools.
    """

    field: DisplacementField
    inverse: DisplacementField | None = None
    commands: list[str] = field(default_factory=list)


class Method(ABC):
    """A method with checked settings.

    ``properties`` is the JSON schema of the settings, under the names of the method's paper; every one
    has a default.  ``aligned`` says whether the affine alignment of the scans is part of the result.
    """

    properties: ClassVar[dict] = {}
    aligned: ClassVar[bool] = True

    def __init__(self, settings: Mapping, where: str = "method"):
        self.settings = validated(dict(settings), settings_schema(self.properties), where)

    @abstractmethod
    def register(self, fixed: Volume, moving: Volume) -> Registration:
        """Find the field that pulls ``moving`` onto ``fixed``; intensities are normalised (0 to 1)."""


class LearnedMethod(Method):
    """A method that is a network.

    ``module`` is made by :meth:`build` and moved, trained and loaded by the trainer.
    """

    module: nn.Module | None = None

    @abstractmethod
    def build(self, ndim: int) -> nn.Module:
        """Make the untrained network for ``ndim`` dimensions; its weights follow torch's seed."""

    @abstractmethod
    def training_step(self, module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses by name; ``total`` is what is minimised.

        Parameters
        ----------
        batch : mapping
            ``fixed`` and ``moving`` images, (B, 1, *space).
        """

    @abstractmethod
    def displacements(self, module: nn.Module, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor | None]:
        """Displacement fixed → moving, (B, D, *space) in voxels, and its inverse where there is one."""

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        if self.module is None:
            raise RuntimeError("a learned method registers only after its weights are loaded")
        device = next(self.module.parameters()).device
        with torch.inference_mode():
            images = (as_tensor(volume).to(device) for volume in (fixed, moving))
            forward, inverse = self.displacements(self.module, *images)
        return Registration(
            DisplacementField(forward.cpu().clone(), fixed.grid),
            None if inverse is None else DisplacementField(inverse.cpu().clone(), moving.grid),
        )


def as_tensor(volume: Volume) -> Tensor:
    """Image values as (1, 1, *space) float32."""
    return torch.from_numpy(volume.data.astype("float32"))[None, None]
