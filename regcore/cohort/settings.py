"""A row of a cohort table, and the sections ``labels`` and ``pairs`` of a study."""

from typing import Annotated, Literal

from pydantic import Field

from regcore.settings.base import Count, Section, Settings
from regcore.settings.fields import Distinct, Told

Split = Literal["train", "validation", "test", "atlas"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")]
#: Label codes, one by one or as a range such as "100-207".
Codes = list[int | str]
#: The contrasts of the fixed and of the moving image.
Pairing = Annotated[list[str], Field(min_length=2, max_length=2)]
Pairings = Annotated[list[Pairing], Field(min_length=1), Distinct()]


class CohortRow(Settings):
    """One row of a cohort table.  A column that may be missing has a default."""

    subject: Name = Field(description="who was scanned: letters, digits, '-' and '.'")
    session: Name = Field(description="which visit, letters and digits; 1 where there is one")
    split: Split = Field(description="train, validation, test, or atlas for a reference that is scored nowhere")
    contrast: Name = Field(description="T1w, T2w, …: letters and digits")
    image: Annotated[str, Field(min_length=1)] = Field(description="path of the scan, relative to the table")
    labels: str = Field(
        description="path of the label map on the scan's grid, relative to the table; empty where there is none"
    )
    mask: str = Field("", description="path of a brain or organ mask on the scan's grid")
    landmarks: str = Field("", description="path of a TSV with the columns name and x y z (2-D x y), RAS millimetres")
    dataset: str = Field("", description="where the scan comes from")
    to_template: str = Field(
        "", description="path of a displacement field from the scan to a common template, for known true fields"
    )
    from_template: str = Field("", description="path of the inverse of to_template")


class LabelSettings(Section):
    """Which labels are scored, and how they are grouped."""

    table: str | None = Field(
        None,
        description="TSV with the columns index, name and optionally group; labels it does not list are not scored",
    )
    exclude: Codes = Field([], description='labels that are not scored, numbers or ranges such as "100-207"')
    groups: dict[str, Codes] = Field({}, description="groups of labels for tables: name → list of numbers or ranges")


class PairSettings(Section):
    """Which pairs of scans are registered."""

    kind: Literal["random", "all", "atlas", "within-subject", "mixed", "listed"] = Field(
        "random",
        description="random or all (different subjects), atlas (all to one fixed subject), within-subject, mixed "
        "(equally many within a subject and between subjects of one data set), listed (test pairs from 'table', others "
        "random)",
    )
    table: str | None = Field(
        None,
        description="test pairs for kind listed: TSV with the columns 'fixed moving' (scans or subjects)",
    )
    atlas: str | None = Field(None, description="the fixed subject for kind atlas")
    contrasts: Annotated[
        Pairing | Pairings, Told("give two contrasts, such as [T1w, T1w], or a list of such pairings")
    ] = Field(
        ["T1w", "T1w"],
        description="contrasts of the fixed and the moving image, or a list of such pairings; tables then also show "
        "each pairing",
    )
    validation: Count | None = Field(16, description="number of validation pairs per pairing of contrasts (null: all)")
    test: Count | None = Field(30, description="number of test pairs per pairing of contrasts (null: all)")

    @property
    def pairings(self) -> list[tuple[str, str]]:
        """The (fixed, moving) contrasts that meet."""
        if isinstance(self.contrasts[0], str):
            fixed, moving = self.contrasts
            return [(str(fixed), str(moving))]
        return [(pairing[0], pairing[1]) for pairing in self.contrasts]

    def count(self, split: str) -> int | None:
        """How many pairs of each pairing a split gives; None: all that it has."""
        return {"validation": self.validation, "test": self.test}.get(split)
