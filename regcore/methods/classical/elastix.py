"""elastix, through its programs."""

from pathlib import Path
from typing import ClassVar

from regcore.images.field import read_field
from regcore.images.volume import Volume
from regcore.methods import requirements
from regcore.methods.base import Registration
from regcore.methods.classical.external import (
    FIXED,
    MOVING,
    External,
    ToolError,
    on_grid,
    program_version,
    run_program,
    save_images,
)

#: Names in elastix of the similarity measures.
METRICS = {"mattes": "AdvancedMattesMutualInformation", "ncc": "AdvancedNormalizedCorrelation"}

PARAMETERS, TRANSFORM = "parameters.txt", "TransformParameters.0.txt"


class Elastix(External):
    """B-spline registration with adaptive stochastic gradient descent (Klein et al., IEEE Trans. Med. Imaging 29:196,
    2010; Int. J. Comput. Vis. 81:227, 2009).

    The recommended settings are those of elastix' own default parameter map for B-splines.
    """

    presets: ClassVar[dict[str, dict]] = {
        "recommended": {},
        "ncc": {"similarity": "ncc", "bending_energy": 0.05, "iterations": 500},
    }
    properties: ClassVar[dict] = {
        "preset": {
            "description": "recommended (mutual information, as elastix' default parameter map has it) or ncc "
            "(normalised correlation with weaker smoothing, for images of the same kind)",
            "enum": ["recommended", "ncc"],
            "default": "recommended",
        },
        "similarity": {
            "description": "mattes (mutual information) or ncc (normalised correlation of the whole images)",
            "enum": ["mattes", "ncc"],
            "default": "mattes",
        },
        "bins": {
            "description": "bins of the histograms of mattes",
            "type": "integer",
            "minimum": 4,
            "default": 32,
        },
        "bending_energy": {
            "description": "weight of the bending energy; that of the similarity is 1",
            "type": "number",
            "minimum": 0,
            "default": 1.0,
        },
        "spacing_mm": {
            "description": "distance of the control points at full resolution in mm",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 10.0,
        },
        "levels": {
            "description": "resolutions; images are smoothed twice as much, and control points twice as far apart, at "
            "each coarser one",
            "type": "integer",
            "minimum": 1,
            "default": 4,
        },
        "iterations": {
            "description": "iterations at each resolution",
            "type": "integer",
            "minimum": 1,
            "default": 256,
        },
        "samples": {
            "description": "random points at which the similarity is computed in each iteration",
            "type": "integer",
            "minimum": 100,
            "default": 2048,
        },
        "seed": {
            "description": "of the random points",
            "type": "integer",
            "minimum": 0,
            "default": 1,
        },
        "executable": {
            "description": "the program elastix, with transformix beside it: a path; null: the one on the PATH",
            "type": ["string", "null"],
            "default": None,
        },
    }

    def run(self, fixed: Volume, moving: Volume, folder: Path) -> Registration:
        missing = requirements.elastix(self.settings)
        if missing:
            raise ToolError(missing)
        save_images(fixed, moving, folder)
        (folder / PARAMETERS).write_text(self.parameters(fixed.grid.ndim))
        commands = [
            self.call("elastix", "-f", FIXED, "-m", MOVING, "-p", PARAMETERS, "-out", ".", folder=folder),
            self.call("transformix", "-def", "all", "-tp", TRANSFORM, "-out", ".", folder=folder),
        ]
        version = program_version(self.program("elastix"))
        field = on_grid(read_field(folder / "deformationField.nii.gz"), fixed.grid)
        return Registration(field, None, commands, version.replace(" version:", ""))

    def program(self, name: str) -> Path:
        """Path of elastix or transformix."""
        return requirements.program(self.settings["executable"] or "elastix").with_name(name)

    def call(self, name: str, *arguments: str, folder: Path) -> str:
        """Run elastix or transformix with the threads of this process; returns the command."""
        return run_program([str(self.program(name)), *arguments, "-threads", str(self.threads)], folder, self.threads)

    def parameters(self, ndim: int) -> str:
        """The parameter file for images of ``ndim`` dimensions."""
        settings = self.settings
        penalised = settings["bending_energy"] > 0
        lines = {
            "FixedInternalImagePixelType": "float",
            "MovingInternalImagePixelType": "float",
            "FixedImageDimension": ndim,
            "MovingImageDimension": ndim,
            "UseDirectionCosines": "true",
            "Registration": "MultiMetricMultiResolutionRegistration" if penalised else "MultiResolutionRegistration",
            "Metric": [METRICS[settings["similarity"]], *["TransformBendingEnergyPenalty"] * penalised],
            "Metric0Weight": 1.0,
            "Metric1Weight": settings["bending_energy"],
            "NumberOfHistogramBins": settings["bins"],
            "Transform": "BSplineTransform",
            "FinalGridSpacingInPhysicalUnits": settings["spacing_mm"],
            "HowToCombineTransforms": "Compose",
            "Optimizer": "AdaptiveStochasticGradientDescent",
            "AutomaticParameterEstimation": "true",
            "MaximumNumberOfIterations": settings["iterations"],
            "NumberOfResolutions": settings["levels"],
            "FixedImagePyramid": "FixedSmoothingImagePyramid",
            "MovingImagePyramid": "MovingSmoothingImagePyramid",
            "Interpolator": "LinearInterpolator",
            "ImageSampler": "RandomCoordinate",
            "NumberOfSpatialSamples": settings["samples"],
            "NewSamplesEveryIteration": "true",
            "RandomSeed": settings["seed"],
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
