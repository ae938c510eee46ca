"""ConvexAdam, through its Python package."""

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from regcore.images.volume import Volume
from regcore.methods.base import Registration
from regcore.methods.classical.external import External, failing_as_tool_error, package_version
from regcore.methods.classical.fields import from_voxels
from regcore.methods.settings.classical.convexadam import ConvexAdamSettings
from regcore.process.devices import default_device

#: Voxels along each cell of the grid on which Adam refines the field: the package's default.
ADAM_SPACING = 2


class ConvexAdam(External):
    """Coupled convex optimisation and Adam on MIND features (Siebert et al., IEEE Trans. Med. Imaging 44:738, 2025).

    See [1]_.  The settings have the package's names; lengths are in voxels.

    References
    ----------
    .. [1] Siebert, Großbröhmer, Hansen and Heinrich, "ConvexAdam: Self-configuring dual-optimization-based 3D multitask
       medical image registration", IEEE Trans. Med. Imaging 44:738-748, 2025.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("convexadam", {"grid_sp": 4})
    >>> method.dimensions, method.settings.grid_sp
    ((3,), 4)
    """

    settings_type: ClassVar = ConvexAdamSettings
    dimensions: ClassVar = (3,)
    gpu: ClassVar = True
    settings: ConvexAdamSettings

    @property
    def shortest(self) -> int:
        """Three cells of the coarse grid, which the package averages over."""
        return 3 * self.settings.grid_sp

    @property
    def device(self) -> torch.device:
        """The GPU if there is one."""
        return default_device()

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.settings.as_dict().items())
        return Registration(
            from_voxels(self.displacement(fixed, moving), fixed.grid),
            None,
            [
                f"OMP_NUM_THREADS={self.threads}",
                f"convex_adam_pt(fixed, moving, {arguments}, dtype=torch.float32, device='{self.device.type}')",
            ],
            package_version("convexAdam"),
        )

    def displacement(self, fixed: Volume, moving: Volume) -> np.ndarray:
        """The package's result, (*space, 3) in voxels, for images padded to a multiple of its grids.

        Without padding, the package stretches a coarse field over the remaining voxels.
        """
        from convexAdam.convex_adam_MIND import convex_adam_pt

        cell = math.lcm(self.settings.grid_sp, ADAM_SPACING)
        padding = [(0, -length % cell) for length in fixed.grid.shape]
        images = [np.pad(volume.data.astype(np.float32), padding, mode="edge") for volume in (fixed, moving)]
        with failing_as_tool_error("convexAdam"):
            found = convex_adam_pt(*images, **self.settings.as_dict(), dtype=torch.float32, device=self.device)
        return found[tuple(slice(length) for length in fixed.grid.shape)]
