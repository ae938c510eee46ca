"""The file of a study as typed settings: every key, its default, range and meaning.

Sections that a lower room works with are declared there; the settings of methods are checked with the methods.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from regcore.alignment.settings import PreprocessSettings
from regcore.cohort.settings import LabelSettings, PairSettings
from regcore.experiments.settings import ExperimentSettings
from regcore.settings.base import Count, Positive, Section, Whole
from regcore.settings.fields import left_out, section
from regcore.synthesis.settings import EmbeddedSettings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
#: An entry of the study; nothing behind its name means the method of that name as it is.
Values = Annotated[dict[str, Any], BeforeValidator(lambda values: {} if values is None else values)]


class CohortSettings(Section):
    """The scans."""

    table: str | None = left_out("path of a cohort table (TSV), relative to the folder snakemake runs in")
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

    threads: Count = Field(1, description="threads for each pair; no method and no tool takes more")
    time_limit: Positive = Field(
        3600, description="seconds after which a tool that is not ours is stopped and the pair counts as failed"
    )


class EvaluationSettings(Section):
    """What is measured, and what is compared with what."""

    points: Count = Field(
        1000,
        description="random points per pair at which the true error is measured, where the true field is known",
    )
    reference: str | None = Field(
        None,
        description="the method that paired tests compare all others with; default: the one with the highest mean "
        "Dice, of those that registered the most pairs, identity and affine aside",
    )
    spotlight: list[str] | None = Field(
        None,
        description="the methods whose best, median and worst pair the report shows; default: all but identity and "
        "affine",
    )


class StudySettings(Section):
    """A regcore study."""

    study: Name = Field(description="name of the study; everything it makes is under results/<study>")
    title: str = Field("Registration methods compared", description="one line that heads the report")
    description: str = Field("", description="a paragraph under the title: what the data are, how to cite them")
    seed: Whole = Field(1, description="every random draw of the study follows from it")
    cohort: CohortSettings = Field(
        description="the scans: either 'embedded' (made from the ICBM-152 template) or 'table' (your own)"
    )
    labels: LabelSettings = section(LabelSettings, "which labels are scored, and how they are grouped")
    preprocess: PreprocessSettings = section(PreprocessSettings, "how scans are brought onto one grid")
    pairs: PairSettings = section(PairSettings, "which pairs of scans are registered")
    registration: RegistrationSettings = section(RegistrationSettings, "how test pairs are registered")
    evaluation: EvaluationSettings = section(EvaluationSettings, "what is measured, and what is compared with what")
    experiments: ExperimentSettings = section(
        ExperimentSettings,
        "the experiments of the papers, each a target of its own that trains variants of a method",
    )
    methods: Annotated[dict[Name, Values], Field(min_length=1)] = Field(
        description="what is compared: name → settings; 'method' says which method it is where the name is another, "
        "'tune' which hyperparameters are searched, 'autosearch' which cells and objective of AutoReg"
    )
