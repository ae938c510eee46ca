"""Baselines that move nothing, or only what the affine alignment moves."""

from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.methods.base import Method, Registration


class Identity(Method):
    """No registration: the scans as their headers place them."""

    aligned = False

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        return Registration(DisplacementField.identity(fixed.grid), DisplacementField.identity(moving.grid))


class Affine(Identity):
    """The affine alignment that every other method starts from, and nothing else."""

    aligned = True
