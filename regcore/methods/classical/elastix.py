"""elastix, through its programs."""

from pathlib import Path
from typing import ClassVar

from regcore.images.field import read_field
from regcore.images.volume import Volume
from regcore.methods import requirements
from regcore.methods.base import Registration
from regcore.methods.classical.external import (
    FIXED,
    FIXED_MASK,
    MOVING,
    MOVING_MASK,
    External,
    ToolError,
    program_version,
    run_program,
    save_images,
    save_mask,
)
from regcore.methods.classical.fields import on_grid
from regcore.methods.settings.classical.elastix import ElastixSettings

#: elastix' names of the similarity measures.
METRICS = {"mattes": "AdvancedMattesMutualInformation", "ncc": "AdvancedNormalizedCorrelation"}

PARAMETERS, TRANSFORM = "parameters.txt", "TransformParameters.0.txt"


class Elastix(External):
    """B-spline registration with adaptive stochastic gradient descent (Klein et al., IEEE Trans. Med. Imaging 29:196,
    2010; Int. J. Comput. Vis. 81:227, 2009).

    See [1]_ and [2]_.  The recommended settings are those of elastix' default parameter map for B-splines.

    References
    ----------
    .. [1] Klein, Staring, Murphy, Viergever and Pluim, "elastix: A toolbox for intensity-based medical image
       registration", IEEE Trans. Med. Imaging 29:196-205, 2010.
    .. [2] Klein, Pluim, Staring and Viergever, "Adaptive stochastic gradient descent optimisation for image
       registration", Int. J. Comput. Vis. 81:227-239, 2009.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("elastix", {"spacing_mm": 8})
    >>> next(line for line in method.parameters(ndim=3).splitlines() if "FinalGridSpacing" in line)
    '(FinalGridSpacingInPhysicalUnits 8)'
    """

    settings_type: ClassVar = ElastixSettings
    uses_masks: ClassVar = True
    settings: ElastixSettings

    def run(
        self,
        fixed: Volume,
        moving: Volume,
        folder: Path,
        fixed_mask: Volume | None = None,
        moving_mask: Volume | None = None,
    ) -> Registration:
        missing = self.settings.missing()
        if missing:
            raise ToolError(missing)
        save_images(fixed, moving, folder)
        masks = [
            *save_mask(fixed_mask, "-fMask", FIXED_MASK, folder),
            *save_mask(moving_mask, "-mMask", MOVING_MASK, folder),
        ]
        (folder / PARAMETERS).write_text(self.parameters(fixed.grid.ndim))
        commands = [
            self.call("elastix", "-f", FIXED, "-m", MOVING, *masks, "-p", PARAMETERS, "-out", ".", folder=folder),
            self.call("transformix", "-def", "all", "-tp", TRANSFORM, "-out", ".", folder=folder),
        ]
        version = program_version(self.program("elastix"))
        field = on_grid(read_field(folder / "deformationField.nii.gz"), fixed.grid)
        return Registration(field, None, commands, version.replace(" version:", ""))

    def program(self, name: str) -> Path:
        """Path of elastix or transformix."""
        found = requirements.program(self.settings.executable or "elastix")
        if found is None:
            raise ToolError(str(self.settings.missing()))
        return found.with_name(name)

    def call(self, name: str, *arguments: str, folder: Path) -> str:
        """Run elastix or transformix with the threads of this process; return the command."""
        return run_program([str(self.program(name)), *arguments, "-threads", str(self.threads)], folder, self.threads)

    def parameters(self, ndim: int) -> str:
        """The parameter file for images of ``ndim`` dimensions."""
        settings = self.settings
        penalised = settings.bending_energy > 0
        lines = {
            "FixedInternalImagePixelType": "float",
            "MovingInternalImagePixelType": "float",
            "FixedImageDimension": ndim,
            "MovingImageDimension": ndim,
            "UseDirectionCosines": "true",
            "Registration": "MultiMetricMultiResolutionRegistration" if penalised else "MultiResolutionRegistration",
            "Metric": [METRICS[settings.similarity], *["TransformBendingEnergyPenalty"] * penalised],
            "Metric0Weight": 1.0,
            "Metric1Weight": settings.bending_energy,
            "NumberOfHistogramBins": settings.bins,
            "Transform": "BSplineTransform",
            "FinalGridSpacingInPhysicalUnits": settings.spacing_mm,
            "HowToCombineTransforms": "Compose",
            "Optimizer": "AdaptiveStochasticGradientDescent",
            "AutomaticParameterEstimation": "true",
            "MaximumNumberOfIterations": settings.iterations,
            "NumberOfResolutions": settings.levels,
            "FixedImagePyramid": "FixedSmoothingImagePyramid",
            "MovingImagePyramid": "MovingSmoothingImagePyramid",
            "Interpolator": "LinearInterpolator",
            "ImageSampler": "RandomCoordinate",
            "NumberOfSpatialSamples": settings.samples,
            "NewSamplesEveryIteration": "true",
            "RandomSeed": settings.seed,
            "ResampleInterpolator": "FinalBSplineInterpolator",
            "FinalBSplineInterpolationOrder": 1,
            "Resampler": "DefaultResampler",
            "DefaultPixelValue": 0,
            "WriteResultImage": "false",
            "ResultImagePixelType": "float",
            "ResultImageFormat": "nii.gz",
        }
        return "".join(f"({name} {_as_values(value)})\n" for name, value in lines.items())


def _as_values(value) -> str:
    values = value if isinstance(value, list) else [value]
    return " ".join(f'"{item}"' if isinstance(item, str) else str(item) for item in values)
