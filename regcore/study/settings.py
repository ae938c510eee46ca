"""The study file as typed settings: every key, its default, range and meaning.

Sections used by a lower package are declared there.  The settings of methods are checked with the methods.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from regcore.alignment.settings import PreprocessSettings
from regcore.cohort.settings import LabelSettings, PairSettings
from regcore.experiments.settings import ExperimentSettings
from regcore.settings.base import Count, Positive, Section, Seed, Threads
from regcore.settings.fields import left_out, section
from regcore.synthesis.settings import EmbeddedSettings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
#: An entry of the study; no value means the method of that name with its defaults.
Values = Annotated[dict[str, Any], BeforeValidator(lambda values: {} if values is None else values)]


class CohortSettings(Section):
    """The scans."""

    table: str | None = left_out("path of a cohort table (TSV), relative to the folder that snakemake runs in")
    embedded: EmbeddedSettings | None = left_out("how to make the embedded cohort")

    @model_validator(mode="after")
    def _one_of_two(self) -> "CohortSettings":
        if (self.table is None) == (self.embedded is None):
            raise ValueError(
                "give exactly one of 'embedded' (the built-in cohort) and 'table' (path of your cohort table)"
            )
        return self


class RegistrationSettings(Section):
    """How test pairs are registered."""

    threads: Threads = Field(1, description="threads per pair, for methods and tools")
    time_limit: Positive = Field(
        3600, description="seconds after which an external tool is stopped and the pair counts as failed"
    )


class EvaluationSettings(Section):
    """What is measured and compared."""

    points: Count = Field(
        1000,
        description="random points per pair for the true error, if the true field is known",
    )
    reference: str | None = Field(
        None,
        description="method that all others are tested against (paired tests); default: the one with the highest mean "
        "Dice among those that registered the most pairs, without identity and affine",
    )
    spotlight: list[str] | None = Field(
        None,
        description="methods whose best, median and worst pairs the report shows; default: all but identity and affine",
    )


class StudySettings(Section):
    """A regcore study."""

    study: Name = Field(description="name of the study; everything it makes is under results/<study>")
    title: str = Field("Registration methods compared", description="title of the report, one line")
    description: str = Field("", description="a paragraph below the title, such as the data and how to cite them")
    seed: Seed = Field(1, description="seed of every random number in the study")
    cohort: CohortSettings = Field(
        description="the scans: 'embedded' (made from the ICBM-152 template) or 'table' (your own)"
    )
    labels: LabelSettings = section(LabelSettings, "scored labels and their groups")
    preprocess: PreprocessSettings = section(PreprocessSettings, "how scans are resampled to the common grid")
    pairs: PairSettings = section(PairSettings, "pairs of scans to register")
    registration: RegistrationSettings = section(RegistrationSettings, "how test pairs are registered")
    evaluation: EvaluationSettings = section(EvaluationSettings, "what is measured and compared")
    experiments: ExperimentSettings = section(
        ExperimentSettings,
        "experiments of the papers; each paper is a target of its own and trains variants of methods",
    )
    methods: Annotated[dict[Name, Values], Field(min_length=1)] = Field(
        description="the methods to compare: name → settings; 'method' names the method if the name is not one, "
        "'tune' searches hyperparameters, 'autosearch' searches the cells and objective of AutoReg"
    )
