"""Symmetric normalisation, through DIPY."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from regcore.images.volume import Volume
from regcore.methods.base import Registration
from regcore.methods.classical.external import External, failing_as_tool_error, package_version
from regcore.methods.classical.fields import from_voxels
from regcore.methods.settings.classical.dipy import DipySettings


class DipySyN(External):
    """Symmetric normalisation (Avants et al., Med. Image Anal. 12:26, 2008), as implemented in DIPY
    (Garyfallidis et al., Front. Neuroinform. 8:8, 2014), with local cross-correlation.

    See [1]_ and [2]_.  It computes in voxels and always in a single thread.

    References
    ----------
    .. [1] Avants, Epstein, Grossman and Gee, "Symmetric diffeomorphic image registration with cross-correlation:
       Evaluating automated labeling of elderly and neurodegenerative brain", Med. Image Anal. 12:26-41, 2008.
    .. [2] Garyfallidis, Brett, Amirbekian, Rokem, van der Walt, Descoteaux and Nimmo-Smith, "Dipy, a library for the
       analysis of diffusion MRI data", Front. Neuroinform. 8:8, 2014.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("dipy", {"iterations": [20, 10]})
    >>> method.threads, method.settings.iterations
    (1, [20, 10])
    """

    settings_type: ClassVar = DipySettings
    settings: DipySettings

    @property
    def shortest(self) -> int:
        """More voxels at the coarsest level than the window of the correlation has."""
        return (2 * self.settings.radius + 2) * 2 ** (len(self.settings.iterations) - 1)

    @property
    def threads(self) -> int:
        """DIPY registers in one thread."""
        return 1

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        found = self.mapping(fixed, moving)
        settings = self.settings
        return Registration(
            from_voxels(np.asarray(found.get_forward_field()), fixed.grid),
            from_voxels(np.asarray(found.get_backward_field()), moving.grid),
            [
                f"metric = CCMetric({fixed.grid.ndim}, sigma_diff={settings.sigma_diff}, radius={settings.radius})",
                f"SymmetricDiffeomorphicRegistration(metric, level_iters={settings.iterations}, "
                f"step_length={settings.step}).optimize(fixed, moving)  # threads: {self.threads}",
            ],
            package_version("dipy"),
        )

    def mapping(self, fixed: Volume, moving: Volume):
        """DIPY's result, a ``DiffeomorphicMap`` between voxels.

        The matrices of the images are not passed to DIPY: it misreads permuted and oblique ones, and the images are on
        one grid anyway.
        """
        from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
        from dipy.align.metrics import CCMetric

        settings = self.settings
        with failing_as_tool_error("DIPY"):
            metric = CCMetric(fixed.grid.ndim, sigma_diff=settings.sigma_diff, radius=settings.radius)
            search = SymmetricDiffeomorphicRegistration(
                metric, level_iters=settings.iterations, step_length=settings.step
            )
            return search.optimize(np.ascontiguousarray(fixed.data), np.ascontiguousarray(moving.data))
