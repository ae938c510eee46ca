"""Baselines that move nothing, or only what the affine alignment moves."""

from typing import ClassVar

from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.methods.base import Method, Registration
from regcore.methods.settings.classical import NoSettings


class Identity(Method):
    """No registration: the scans as their headers place them."""

    settings_type: ClassVar = NoSettings
    aligned: ClassVar = False

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        return Registration(DisplacementField.identity(fixed.grid), DisplacementField.identity(moving.grid))


class Affine(Identity):
    """The affine alignment that every other method starts from, and nothing else."""

    aligned: ClassVar = True
