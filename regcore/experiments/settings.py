"""The section ``experiments`` of a study: which experiments of a paper it repeats, and how."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from regcore.settings.base import Count, NonNegative, Positive, Section
from regcore.settings.fields import Distinct, left_out, section

#: Settings of a method; they are checked when the entries of the experiments are made.
MethodValues = dict[str, Any]
AtLeastTwo = Annotated[int, Field(ge=2)]
#: From 0 to 1.
Share = Annotated[int | float, Field(ge=0, le=1)]


class BySimilarity(Section):
    """λ by similarity; the defaults are those of the paper and its repository."""

    mse: NonNegative = Field(0.02, description="with mean squares")
    lncc: NonNegative = Field(1, description="with local correlation")


class ValuesBySimilarity(Section):
    """Values of λ by similarity."""

    mse: list[NonNegative] = Field([0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2], description="with mean squares")
    lncc: list[NonNegative] = Field([0, 0.25, 0.5, 1, 1.5, 2, 4], description="with local correlation")


class Folds(Section):
    """Numbers of random draws of the observed structures."""

    one: Count = Field(4, description="one structure")
    half: Count = Field(5, description="half the structures")

    def of(self, scenario: str) -> int:
        """Number of draws of a scenario; one if nothing is drawn."""
        return {"one": self.one, "half": self.half}.get(scenario, 1)


class VoxelMorphExperiments(Section):
    """Experiments of VoxelMorph."""

    settings: MethodValues = Field({}, description="settings of all networks that differ from the method's defaults")
    chosen_lambda: BySimilarity = section(
        BySimilarity,
        "λ of all networks but those of Fig. 7, by similarity; the defaults are those of the paper and its repository",
    )
    refine: MethodValues = Field({}, description="settings of instance-specific optimisation (method refine)")
    lambda_: ValuesBySimilarity = section(ValuesBySimilarity, "Fig. 7: values of λ, by similarity")
    training_subjects: list[AtLeastTwo] = Field(
        [5, 10, 20, 50, 100],
        description="Fig. 8: numbers of training subjects; the whole cohort is added",
    )
    gamma: list[Positive | Literal["infinity"]] = Field(
        [0.001, 0.01, 0.1, "infinity"],
        description="Fig. 9 and Table IV: values of γ above 0; 0 is added",
    )
    folds: Folds = section(
        Folds,
        "Fig. 9 and Table IV: numbers of random draws of the observed structures",
    )


class AutoRegExperiments(Section):
    """Experiments of AutoReg."""

    settings: MethodValues = Field(
        {}, description="settings of all networks under AutoReg's objective that differ from the method's defaults"
    )
    search: MethodValues = Field(
        {},
        description="keys of 'autosearch' for all searches, except those set by the experiments",
    )
    voxelmorph: MethodValues = Field({}, description="further settings of VM and VM-diff")
    starts: Count = Field(3, description="random starts of every compared network; each start has its own search")
    controls: Annotated[list[Literal["random", "tpe"]], Distinct()] = Field(
        ["random", "tpe"],
        description="controls for the search by gradient, at the same cost (Table 10): random, tpe",
    )
    transfer: str | None = Field(
        None,
        description="folder of an autoreg model of another study, whose parts are transferred one by one (Table II); "
        "null: no Table II",
    )


class SprRanges(Section):
    """Ranges of the search for TM-SPR's hyperparameters."""

    lambda_max: list[Any] = Field([0.5, 5], description="λ_max, the largest weight of smoothness")
    alpha: list[Any] = Field([0, 0.2], description="α′, how strongly weights are pulled towards the largest")
    lambda_mean: list[Any] = Field([0.5, 5], description="λ_mean, the mean weight of smoothness")
    sigma: list[Any] = Field([0, 4], description="σ′, how strongly weights are pulled towards their mean")
    lambda_: list[Any] = Field([0, 5], description="λ of TransMorph")


class SprGrid(Section):
    """A dense grid of the Beta prior's hyperparameters."""

    lambda_max: list[Any] = Field(description="values of λ_max")
    alpha: list[Any] = Field(description="values of α′")


class SprExperiments(Section):
    """Experiments of TM-SPR."""

    settings: MethodValues = Field(
        {}, description="settings of all TransMorph networks that differ from the methods' defaults"
    )
    voxelmorph: MethodValues = Field(
        {}, description="further settings of VoxelMorph and HyperMorph, which use the wide U-Net"
    )
    hypermorph: MethodValues = Field({}, description="further settings of HyperMorph")
    hypernetwork: MethodValues = Field({}, description="further settings of Hyper-TransMorph and Hyper-TM-SPR")
    search: MethodValues = Field({}, description="keys of 'tune' for all searches, except the ranges")
    ranges: SprRanges = section(
        SprRanges,
        "ranges of the searches (Table 1, brain MRI): λ_max and α′ of the Beta prior, λ_mean and σ′ of the "
        "Gaussian one, λ of TransMorph",
    )
    grid: SprGrid | None = Field(
        None,
        description="a dense grid of networks to compare with the search of the Beta prior (Table 7): values of "
        "lambda_max and alpha; null: no grid",
    )
    alphas: list[Positive] = Field(
        [],
        description="values of α′, with one network each, at the middle of the range of λ_max (Fig. 14)",
    )
    labels: bool = Field(
        False, description="also train a Hyper-TM-SPR with the overlap of labels (Section 6.2.2; Fig. 10, Table 6)"
    )
    all_weights: MethodValues | None = Field(
        None,
        description="further settings of a Hyper-TM-SPR with all weights generated (Table 6); null: it is not trained",
    )


class SynthMorphExperiments(Section):
    """Experiments of SynthMorph."""

    settings: MethodValues = Field(
        {}, description="settings of the networks in Fig. 13 and 14 that differ from the method's defaults"
    )
    kinds: Annotated[list[Literal["shapes", "cohort"]], Field(min_length=1), Distinct()] = Field(
        ["shapes", "cohort"],
        description="label maps to synthesise their images from: shapes, and the cohort's label maps",
    )
    sweeps: dict[
        Literal["b_v", "b_K", "width", "b_B", "sigma_gamma", "r_v", "r_B"],
        Annotated[list[NonNegative], Field(min_length=2), Distinct()],
    ] = Field({}, description="Fig. 13: settings of the generator, or width, and their values; one network per value")
    lambda_: Annotated[list[NonNegative], Distinct()] = Field(
        [], description="Fig. 14: values of λ; one network per value"
    )


class WindowLandscape(Section):
    """λ and the window of local correlation."""

    similarity: Literal["lncc"] = Field("lncc", description="the similarity, lncc")
    lambda_: list[Any] = Field([0, 0.25, 0.5, 0.75, 1], description="values of λ in the grid")
    window: list[Any] = Field([3, 7, 11, 15, 19], description="windows in the grid, odd numbers")
    range: list[Any] = Field([3, 19], description="range of the hypernetwork's windows")


class GammaLandscape(Section):
    """λ and γ."""

    similarity: Literal["mse", "lncc"] = Field("mse", description="the similarity")
    observed: Literal["all", "half", "one", "groups"] | Annotated[list[Any], Field(min_length=1)] = Field(
        "half",
        description="the labels used in training, like the setting 'observed' of voxelmorph; all are scored, and "
        "these apart",
    )
    lambda_: list[Any] = Field([0, 0.25, 0.5, 0.75, 1], description="values of λ in the grid")
    gamma: list[Any] = Field([0, 0.25, 0.5, 0.75, 1], description="values of γ in the grid")
    range: list[Any] = Field([0, 1], description="range of the hypernetwork's γ")


class Landscapes(Section):
    """Landscapes over λ and a second hyperparameter."""

    window: WindowLandscape | None = left_out("landscape over λ and the window of lncc")
    gamma: GammaLandscape | None = left_out("landscape over λ and γ; training scans need labels")

    @property
    def wanted(self) -> dict[str, WindowLandscape | GammaLandscape]:
        """The second hyperparameter → its landscape, for those in the study, in its order."""
        return {name: self.value(name) for name in self.as_dict()}


#: Similarities for HyperMorph's networks.
Similarity = Literal["mse", "lncc", "nmi"]


class Replicates(Section):
    """Trainings from several random starts."""

    count: AtLeastTwo = Field(4, description="number of random starts")
    lambda_: dict[Similarity, Annotated[list[Share], Field(min_length=1)]] = Field(
        {}, description="values of λ whose networks are trained several times, by similarity; {}: none"
    )


class HyperMorphExperiments(Section):
    """Experiments of HyperMorph."""

    settings: MethodValues = Field(
        {},
        description="settings of all networks that differ from the methods' defaults; architecture and image_sigma "
        "default to those of the method hypermorph",
    )
    network: MethodValues = Field({}, description="further settings of the networks in the grids (method voxelmorph)")
    hypernetwork: MethodValues = Field({}, description="further settings of the hypernetworks (method hypermorph)")
    lambda_: dict[Similarity, Annotated[list[Share], Field(min_length=2), Distinct()]] = Field(
        {"mse": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1]},
        description="Fig. 3, 5, 6, 7 and Table 1: values of λ in the grid, by similarity (mse, lncc, nmi); {}: no such "
        "landscape",
    )
    landscapes: Landscapes = section(
        Landscapes,
        "Fig. 4 and Table 1: landscapes over λ and a second hyperparameter",
    )
    replicates: Replicates = section(Replicates, "Fig. 5 and Table 1: trainings from several random starts")


class ExperimentSettings(Section):
    """The papers whose experiments a study repeats."""

    voxelmorph: VoxelMorphExperiments | None = Field(
        None,
        description="Tables I-IV and Figures 5, 7, 8, 9 of VoxelMorph (target 'voxelmorph'); {} for all defaults, "
        "null for none",
    )
    autoreg: AutoRegExperiments | None = Field(
        None,
        description="Tables I-V, VIII and IX and Figures 3, 4 and 6 of AutoReg (target 'autoreg'); {} for all "
        "defaults, null for none",
    )
    spr: SprExperiments | None = Field(
        None,
        description="Tables 2-6 and Figures 7-13 and D.20 of TM-SPR (target 'spr'); {} for all defaults, null for none",
    )
    synthmorph: SynthMorphExperiments | None = Field(
        None,
        description="Figures 6 to 8, 11 to 14 and Table III of SynthMorph (target 'synthmorph'); {} compares the "
        "study's methods and trains nothing, null for none",
    )
    hypermorph: HyperMorphExperiments | None = Field(
        None,
        description="Figures 3-7 and Table 1 of HyperMorph (target 'hypermorph'); {} for all defaults, null for none",
    )


Wanted = TypeVar("Wanted")


def asked(settings: Wanted | None) -> Wanted:
    """The settings of a paper whose experiments are planned.

    Parameters
    ----------
    settings : section or None
        The section of one paper; None only if its experiments are not planned.

    Returns
    -------
    section
        The same.

    Examples
    --------
    >>> from regcore.experiments.settings import ExperimentSettings, asked
    >>> settings = ExperimentSettings.read({"autoreg": {"starts": 2}}, "experiments")
    >>> asked(settings.autoreg).starts
    2
    """
    assert settings is not None
    return settings
