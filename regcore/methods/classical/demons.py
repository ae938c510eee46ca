"""Demons, through SimpleITK."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from regcore.errors import InputError
from regcore.images.field import read_field
from regcore.images.volume import Volume
from regcore.methods.base import Registration
from regcore.methods.classical.external import (
    FIXED,
    MOVING,
    External,
    failing_as_tool_error,
    on_grid,
    package_version,
    save_images,
)

#: Class in SimpleITK of each kind.
FILTERS = {
    "fast_symmetric": "FastSymmetricForcesDemonsRegistrationFilter",
    "diffeomorphic": "DiffeomorphicDemonsRegistrationFilter",
}

#: Axes shorter than this are not shrunk further: the filters look at neighbours.
SHORTEST = 8


class Demons(External):
    """Demons (Thirion, Med. Image Anal. 2:243, 1998) with symmetric forces, or diffeomorphic (Vercauteren et al.,
    NeuroImage 45:S61, 2009), at several resolutions.

    Demons compares intensities, so that the moving image's histogram is first brought to that of the fixed one.
    """

    properties: ClassVar[dict] = {
        "kind": {
            "description": "fast_symmetric (adds updates) or diffeomorphic (composes their exponentials)",
            "enum": ["fast_symmetric", "diffeomorphic"],
            "default": "fast_symmetric",
        },
        "shrink": {
            "description": "by how much the images are shrunk at each resolution, coarse to fine",
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "minItems": 1,
            "default": [4, 2, 1],
        },
        "iterations": {
            "description": "iterations at each resolution, as many numbers as shrink has",
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "minItems": 1,
            "default": [100, 80, 40],
        },
        "standard_deviation": {
            "description": "Gaussian smoothing of the field after each iteration, in voxels of the resolution",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 1.5,
        },
        "match_histograms": {
            "description": "bring the moving image's histogram to that of the fixed one first; false only for equal "
            "intensities",
            "type": "boolean",
            "default": True,
        },
    }

    def __init__(self, settings: Mapping, where: str = "method"):
        super().__init__(settings, where)
        if len(self.settings["shrink"]) != len(self.settings["iterations"]):
            raise InputError(f"{where}: 'shrink' and 'iterations' must have equally many numbers")

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
        """SimpleITK's own result, an image of vectors, for two of its images."""
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(self.threads)
        if self.settings["match_histograms"]:
            moving = sitk.HistogramMatching(moving, fixed, 1024, 7, True)
        demons = getattr(sitk, FILTERS[self.settings["kind"]])()
        demons.SetStandardDeviations(self.settings["standard_deviation"])
        found = sitk.Image(fixed.GetSize(), sitk.sitkVectorFloat64)
        found.CopyInformation(fixed)
        for factor, iterations in zip(self.settings["shrink"], self.settings["iterations"], strict=True):
            small = [_shrunk(image, factor) for image in (fixed, moving)]
            demons.SetNumberOfIterations(iterations)
            found = demons.Execute(*small, _resampled(found, small[0]))
        return _resampled(found, fixed)

    def commands(self) -> list[str]:
        """The calls, those that only carry data around left out."""
        settings = self.settings
        matching = ["moving = HistogramMatching(moving, fixed, 1024, 7, True)"] if settings["match_histograms"] else []
        return [
            f"ProcessObject.SetGlobalDefaultNumberOfThreads({self.threads})",
            *matching,
            f"demons = {FILTERS[settings['kind']]}()",
            f"demons.SetStandardDeviations({settings['standard_deviation']})",
            *(
                f"demons.SetNumberOfIterations({iterations}); field = demons.Execute(fixed, moving, field)  # smoothed "
                f"and shrunk by {factor}"
                for factor, iterations in zip(settings["shrink"], settings["iterations"], strict=True)
            ),
        ]


def _shrunk(image, factor: int):
    """The image at a lower resolution, smoothed first with half a new voxel."""
    import SimpleITK as sitk

    factors = [min(factor, max(1, length // SHORTEST)) for length in image.GetSize()]
    for axis, by in enumerate(factors):
        if by > 1:
            sigma = by * image.GetSpacing()[axis] / 2
            image = sitk.RecursiveGaussian(image, sigma, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    return sitk.Shrink(image, factors)


def _resampled(field, reference):
    """A field on another grid; beyond the centres of the outer voxels the nearest vector holds."""
    import SimpleITK as sitk

    resample = sitk.ResampleImageFilter()
    resample.SetReferenceImage(reference)
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetOutputPixelType(sitk.sitkVectorFloat64)
    resample.UseNearestNeighborExtrapolatorOn()
    return resample.Execute(field)
