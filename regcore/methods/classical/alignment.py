"""Baselines without deformation: no registration, and affine alignment."""

from typing import ClassVar

from regcore.images.field import DisplacementField
from regcore.images.volume import Volume
from regcore.methods.base import Method, Registration
from regcore.methods.settings.classical.alignment import NoSettings


class Identity(Method):
    """No registration: the scans stay where their headers place them.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> image = Volume(np.eye(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> method = make_method("identity")
    >>> method.aligned, method.register(image, image).field.displacement.abs().max().item()
    (False, 0.0)
    """

    settings_type: ClassVar = NoSettings
    aligned: ClassVar = False

    def register(self, fixed: Volume, moving: Volume) -> Registration:
        return Registration(DisplacementField.identity(fixed.grid), DisplacementField.identity(moving.grid))


class Affine(Identity):
    """Only the affine alignment from which all other methods start; masks count in it.

    The field is zero here: images on one grid are aligned before a method sees them, and
    :func:`regcore.methods.registration.register_scans` adds that alignment to the result.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> image = Volume(np.eye(8, dtype=np.float32), Grid.centred((8, 8), (1, 1), (0, 0)))
    >>> method = make_method("affine")
    >>> method.aligned, method.register(image, image).field.displacement.abs().max().item()
    (True, 0.0)
    """

    aligned: ClassVar = True
    uses_masks: ClassVar = True

    def register(
        self, fixed: Volume, moving: Volume, fixed_mask: Volume | None = None, moving_mask: Volume | None = None
    ) -> Registration:
        return super().register(fixed, moving)
