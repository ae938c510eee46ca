"""Demons, through SimpleITK."""

from pathlib import Path
from typing import ClassVar

from regcore.images.field import read_field
from regcore.images.volume import Volume
from regcore.methods.base import Registration
from regcore.methods.classical.external import (
    FIXED,
    MOVING,
    External,
    failing_as_tool_error,
    package_version,
    save_images,
)
from regcore.methods.classical.fields import on_grid
from regcore.methods.settings.classical.demons import DemonsSettings

#: SimpleITK's class for each kind.
FILTERS = {
    "fast_symmetric": "FastSymmetricForcesDemonsRegistrationFilter",
    "diffeomorphic": "DiffeomorphicDemonsRegistrationFilter",
}

#: Axes are not shrunk below this size, because the filters use neighbours.
SHORTEST = 8


class Demons(External):
    """Demons (Thirion, Med. Image Anal. 2:243, 1998) with symmetric forces, or diffeomorphic (Vercauteren et al.,
    NeuroImage 45:S61, 2009), at several resolutions.

    See [1]_ and [2]_.  Demons compares intensities, so the moving image's histogram is first matched to that of the
    fixed image.

    References
    ----------
    .. [1] Thirion, "Image matching as a diffusion process: An analogy with Maxwell's demons", Med. Image Anal.
       2:243-260, 1998.
    .. [2] Vercauteren, Pennec, Perchant and Ayache, "Diffeomorphic demons: Efficient non-parametric image
       registration", NeuroImage 45:S61-S72, 2009.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("demons", {"shrink": [2, 1], "iterations": [50, 20], "match_histograms": False})
    >>> method.commands()[-1]
    'demons.SetNumberOfIterations(20); field = demons.Execute(fixed, moving, field)  # smoothed and shrunk by 1'
    """

    settings_type: ClassVar = DemonsSettings
    settings: DemonsSettings

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        import SimpleITK as sitk

        save_images(fixed, moving, folder)
        with failing_as_tool_error("SimpleITK"):
            found = self.displacement(
                *[sitk.ReadImage(str(folder / name), sitk.sitkFloat32) for name in (FIXED, MOVING)]
            )
            sitk.WriteImage(found, str(folder / "field.nii.gz"))
        return Registration(
            on_grid(read_field(folder / "field.nii.gz"), fixed.grid),
            None,
            self.commands(),
            package_version("SimpleITK"),
        )

    def displacement(self, fixed, moving):
        """SimpleITK's result, an image of vectors, for two SimpleITK images."""
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(self.threads)
        if self.settings.match_histograms:
            moving = sitk.HistogramMatching(moving, fixed, 1024, 7, True)
        demons = getattr(sitk, FILTERS[self.settings.kind])()
        demons.SetStandardDeviations(self.settings.standard_deviation)
        found = sitk.Image(fixed.GetSize(), sitk.sitkVectorFloat64)
        found.CopyInformation(fixed)
        for factor, iterations in zip(self.settings.shrink, self.settings.iterations, strict=True):
            small = [_shrunk(image, factor) for image in (fixed, moving)]
            demons.SetNumberOfIterations(iterations)
            found = demons.Execute(*small, _resampled(found, small[0]))
        return _resampled(found, fixed)

    def commands(self) -> list[str]:
        """The calls, without those that only convert data."""
        settings = self.settings
        matching = ["moving = HistogramMatching(moving, fixed, 1024, 7, True)"] if settings.match_histograms else []
        return [
            f"ProcessObject.SetGlobalDefaultNumberOfThreads({self.threads})",
            *matching,
            f"demons = {FILTERS[settings.kind]}()",
            f"demons.SetStandardDeviations({settings.standard_deviation})",
            *(
                f"demons.SetNumberOfIterations({iterations}); field = demons.Execute(fixed, moving, field)  # smoothed "
                f"and shrunk by {factor}"
                for factor, iterations in zip(settings.shrink, settings.iterations, strict=True)
            ),
        ]


def _shrunk(image, factor: int):
    """The image at a lower resolution, first smoothed with half a new voxel."""
    import SimpleITK as sitk

    factors = [min(factor, max(1, length // SHORTEST)) for length in image.GetSize()]
    for axis, by in enumerate(factors):
        if by > 1:
            sigma = by * image.GetSpacing()[axis] / 2
            image = sitk.RecursiveGaussian(image, sigma, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    return sitk.Shrink(image, factors)


def _resampled(field, reference):
    """A field on another grid. Beyond the centres of the outer voxels, the nearest vector is repeated."""
    import SimpleITK as sitk

    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(reference)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetOutputPixelType(sitk.sitkVectorFloat64)
    resample.UseNearestNeighborExtrapolatorOn()
    return resample.Execute(field)
