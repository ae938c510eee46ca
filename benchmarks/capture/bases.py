"""Which two scans a pair is made of, before anything is done to one of them.

Two families: ``within`` one contrast, and ``across`` contrasts, to which a brain on a whole head of another contrast
belongs.  Either both show the same anatomy, and the map between their worlds is known; or they show two subjects, and
the map is fitted to their labels.
"""

from dataclasses import dataclass

import numpy as np

from capture.kinds import Kind
from capture.sources import has, subjects

FAMILIES = ("within", "across")
#: Cohorts of whole brains in 3-D.
BRAINS = ("oasis-brains", "embedded", "mni2009c", "avg152", "colin27", "brain-scan", "brain-labels")


@dataclass(frozen=True)
class Base:
    """Two scans.

    Parameters
    ----------
    fixed, moving : str
        Names of scans.
    same : bool
        Whether both show one anatomy in one world.
    """

    fixed: str
    moving: str
    same: bool

    @property
    def cohorts(self) -> tuple[str, str]:
        return self.fixed.split(":")[0], self.moving.split(":")[0]


#: Recipes in the order in which a kind's pairs take them: (cohort of the fixed scan, of the moving scan, same anatomy).
RECIPES = {
    "within": [
        ("oasis-brains", "oasis-brains", False),
        ("oasis-brains", "oasis-brains", True),
        ("brain-slices", "brain-slices", False),
        ("embedded", "embedded", False),
        ("colin27", "colin27", True),
        ("hippocampus", "hippocampus", False),
        ("mni2009c", "mni2009c", True),
        ("brain-scan", "brain-scan", True),
        ("brain-slices", "brain-slices", True),
        ("hippocampus", "hippocampus", True),
    ],
    "across": [
        ("mni2009c", "mni2009c", True),
        ("avg152", "oasis-brains", False),
        ("embedded", "embedded", False),
        ("avg152", "avg152", True),
        ("brain-labels", "brain-labels", True),
        ("embedded", "embedded", True),
        ("brain-labels", "brain-labels", False),
        ("prostate-mr-us", "prostate-mr-us", False),
        ("oasis-brains", "avg152", False),
        ("mni2009c", "colin27", True),
    ],
}
#: The same for a kind that inverts contrast, which needs no second one.  A crop has no air that could stay dark.
INVERTED = [recipe for recipe in RECIPES["within"] if recipe[0] != "hippocampus"]
#: The same for a head on an extracted brain.
HEAD_BRAIN = {
    "within": [("colin27", "colin27", True)],
    "across": [("mni2009c", "colin27", True), ("avg152", "oasis-brains", False), ("oasis-brains", "avg152", False)],
}


def recipes(kind: Kind, family: str) -> list[tuple[str, str, bool]]:
    """The recipes that a kind can use and whose cohorts are there; none if it does not belong to the family."""
    if kind.only == "head-brain":
        found = HEAD_BRAIN[family]
    elif kind.inverted:
        found = INVERTED if family == "across" else []
    else:
        found = RECIPES[family]
    brains = kind.only == "brains"
    return [
        recipe
        for recipe in found
        if has(recipe[0]) and has(recipe[1]) and not (brains and not {recipe[0], recipe[1]} <= set(BRAINS))
    ]


def draw_base(kind: Kind, family: str, number: int, split: str, generator: np.random.Generator) -> Base | None:
    """The scans of pair ``number`` of a kind; None if the kind has none in this family."""
    possible = recipes(kind, family)
    if not possible:
        return None
    fixed, moving, same = possible[number % len(possible)]
    across = family == "across" and not kind.inverted
    return Base(*_names(fixed, moving, same, across, kind.only == "head-brain", split, generator), same)


def _names(
    fixed: str, moving: str, same: bool, across: bool, head_brain: bool, split: str, generator: np.random.Generator
) -> tuple[str, str]:
    """Draw the subjects and contrasts of a recipe; returns the names of both scans."""

    def pick(options, count=1):
        return [str(x) for x in generator.choice(options, count, replace=False)]

    def person(cohort, contrast):
        return f"{cohort}:{pick(subjects(cohort, split))[0]}:{contrast}"

    if fixed != moving:  # a brain and a whole head: templates in one space, or a subject and a template
        named = {
            "avg152": lambda: f"avg152:average:{pick(['T2w', 'PDw'])[0]}",
            "colin27": lambda: "colin27:head:T1w",
            "mni2009c": lambda: "mni2009c:template:T2w",
            "oasis-brains": lambda: person("oasis-brains", "T1w"),
        }
        return named[fixed](), named[moving]()
    if fixed == "colin27":
        parts = pick(["head", "brain"], 2) if head_brain else ["head", "head"]
        return f"colin27:{parts[0]}:T1w", f"colin27:{parts[1]}:T1w"
    if fixed == "prostate-mr-us":
        case = pick([f"case{number:06d}" for number in range(8)])[0]
        return f"{fixed}:{case}:MR", f"{fixed}:{case}:US"
    if fixed in ("mni2009c", "avg152"):
        contrasts = ["T1w", "T2w"] if fixed == "mni2009c" else ["T1w", "T2w", "PDw"]
        drawn = pick(contrasts, 2) if across else pick(contrasts) * 2
        return tuple(f"{fixed}:template:{contrast}" for contrast in drawn)
    if fixed == "brain-scan":
        return ("brain-scan:scan:T1w",) * 2
    people = pick(subjects(fixed, split)) * 2 if same else pick(subjects(fixed, split), 2)
    contrasts = ["T1w", "T1w"]
    if across:
        contrasts = pick(["T1w", "T2w", "PDw"], 2)
    if fixed == "brain-labels":
        contrasts = [f"drawn-{number}" for number in pick(range(1000), 2)]
    return tuple(f"{fixed}:{who}:{contrast}" for who, contrast in zip(people, contrasts, strict=True))
