"""FireANTs, through its Python package."""

from pathlib import Path
from typing import ClassVar

import torch

from regcore.images.field import read_field
from regcore.images.volume import Volume
from regcore.methods.base import Registration
from regcore.methods.classical.external import (
    FIXED,
    MOVING,
    External,
    ToolError,
    failing_as_tool_error,
    package_version,
    save_images,
)
from regcore.methods.classical.fields import on_grid
from regcore.methods.settings.classical.fireants import FireANTsSettings
from regcore.process.devices import default_device

#: FireANTs shrinks no axis below this many voxels, and fails on smaller images.
SHORTEST = 32

#: FireANTs' class for each kind.
KINDS = {"greedy": "GreedyRegistration", "syn": "SyNRegistration"}


class FireANTs(External):
    """Riemannian adaptive optimisation of a diffeomorphism (Jena et al., Nat. Commun., arXiv:2404.01249, 2024).

    See [1]_.  The package is made for GPUs; it works without one, but slowly.  Its licence adds terms to Apache's.
    There is no inverse: FireANTs would compute it by a second search, as long as the first.

    References
    ----------
    .. [1] Jena, Chaudhari and Gee, "FireANTs: Adaptive Riemannian optimization for multi-scale diffeomorphic matching",
       arXiv:2404.01249, 2024.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("fireants", {"kind": "syn"})
    >>> method.arguments["loss_type"], method.arguments["iterations"]
    ('cc', [200, 100, 50])
    """

    settings_type: ClassVar = FireANTsSettings
    dimensions: ClassVar = (3,)
    gpu: ClassVar = True
    settings: FireANTsSettings

    @property
    def device(self) -> torch.device:
        """The GPU if there is one."""
        return default_device()

    @property
    def arguments(self) -> dict:
        """Arguments of FireANTs besides the images."""
        settings = {name: value for name, value in self.settings.as_dict().items() if name != "kind"}
        return {**settings, "loss_type": "cc", "deformation_type": "compositive", "optimizer": "Adam"}

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        missing = self.settings.missing()
        if missing:
            raise ToolError(missing)
        if min(fixed.grid.shape) < SHORTEST:
            raise ToolError(f"FireANTs needs {SHORTEST} voxels along each axis; the images have {fixed.grid.shape}")
        save_images(fixed, moving, folder)
        with failing_as_tool_error("FireANTs"):
            self.search(folder)[0].save_as_ants_transforms(str(folder / "field.nii.gz"))
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return Registration(
            on_grid(read_field(folder / "field.nii.gz"), fixed.grid),
            None,
            [
                f"OMP_NUM_THREADS={self.threads}",
                f"{KINDS[self.settings.kind]}(fixed_images=fixed, moving_images=moving, {given}).optimize()"
                f"  # on {self.device.type}",
            ],
            package_version("fireants"),
        )

    def search(self, folder: Path) -> tuple:
        """FireANTs' result, an optimised registration, and its two images."""
        import fireants.registration.greedy
        import fireants.registration.syn
        from fireants.io.image import BatchedImages, Image

        kind = getattr(getattr(fireants.registration, self.settings.kind), KINDS[self.settings.kind])
        images = [
            BatchedImages([Image.load_file(str(folder / name), device=str(self.device))]) for name in (FIXED, MOVING)
        ]
        found = kind(fixed_images=images[0], moving_images=images[1], progress_bar=False, **self.arguments)
        found.optimize()
        return found, *images
