"""Baselines without deformation: no registration, and affine alignment."""

from typing import ClassVar

from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.methods.base import Method, Registration
from regcore.methods.settings.classical.alignment import NoSettings


class Identity(Method):
    """No registration: the scans stay where their headers place them."""

    settings_type: ClassVar = NoSettings
    aligned: ClassVar = False

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        return Registration(DisplacementField.identity(fixed.grid), DisplacementField.identity(moving.grid))


class Affine(Identity):
    """Only the affine alignment from which all other methods start; masks count in it."""

    aligned: ClassVar = True
    uses_masks: ClassVar = True

    def register(
        self, fixed: Volume, moving: Volume, fixed_mask: Volume | None = None, moving_mask: Volume | None = None
    ) -> Registration:
        return super().register(fixed, moving)
