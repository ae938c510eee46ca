"""The rows of the portfolio: declarations, and how a pair of a row is made."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from capture.sources import has

from anatomies.cohorts import (
    Between,
    between_people,
    deformed_template,
    embedded,
    onto_average,
    prostate_ultrasound,
    prostates,
    rescans,
)
from anatomies.made import ANATOMIES, make
from anatomies.pair import Pair


@dataclass(frozen=True)
class Row:
    """Pairs of one anatomy.

    Parameters
    ----------
    says : str
        For the page.
    make : callable
        Name, number, split and random generator to a pair; None if there is none.
    cohorts : tuple of str
        What has to be there.
    ndim : {2, 3}
        Dimensions of its images.
    """

    says: str
    make: Callable[[str, int, str, np.random.Generator], Pair | None]
    cohorts: tuple[str, ...] = ()
    ndim: int = 3

    @property
    def here(self) -> bool:
        """Whether its cohorts are there."""
        return all(has(cohort) for cohort in self.cohorts)


def _made(kind: str) -> Callable:
    return lambda name, number, split, generator: make(ANATOMIES[kind](generator), name, generator)


OASIS, AVERAGE = ("oasis-brains",), ("oasis-brains", "avg152")
ROWS = {
    "oasis-2mm": Row("T1 brains of two people, 2 mm", between_people("oasis-brains", Between(spacing=None)), OASIS),
    "oasis-1mm": Row("T1 brains of two people, 1 mm", between_people("oasis-brains", Between(spacing=1.0)), OASIS),
    "oasis-rescan": Row("T1 brain, scanned twice, 2 mm", rescans, OASIS),
    "slices": Row("T1 slices of two people", between_people("brain-slices", Between()), ("brain-slices",), 2),
    "hippocampus": Row(
        "hippocampus crops of two people", between_people("hippocampus", Between("aligner", own_grid=True, cut=True)),
        ("hippocampus",),
    ),
    "prostate-mr": Row("prostate MR of two patients", prostates, ("prostate-mr-us",)),
    "prostate-us": Row("prostate MR onto ultrasound, one patient", prostate_ultrasound, ("prostate-mr-us",)),
    "t2-brain": Row("T1 brain onto average T2 brain", onto_average("T2w", head=False), AVERAGE),
    "t2-head": Row("T1 brain onto average T2 head", onto_average("T2w", head=True), AVERAGE),
    "pd-brain": Row("T1 brain onto average PD brain", onto_average("PDw", head=False), AVERAGE),
    "pd-head": Row("T1 brain onto average PD head", onto_average("PDw", head=True), AVERAGE),
    "mni-t2": Row("T2 template, deformed, onto T1 template", deformed_template, ("mni2009c",)),
    "embedded-t1": Row("embedded brains, T1 onto T1", embedded("T1w"), ("embedded",)),
    "embedded-t2": Row("embedded brains, T1 onto T2", embedded("T2w"), ("embedded",)),
    "embedded-pd": Row("embedded brains, T1 onto PD", embedded("PDw"), ("embedded",)),
    "sliding": Row("made: tissue slides along a wall", _made("sliding")),
    "stiff": Row("made: a rigid ball in soft tissue", _made("stiff")),
    "contraction": Row("made: a chamber contracts by 30 %", _made("contraction")),
}  # fmt: skip


def make_pair(row: str, number: int, split: str) -> Pair | None:
    """Pair ``number`` of a row, the same on every machine; None if the row has no such pair in this split."""
    generator = np.random.default_rng(zlib.crc32(f"{row} {number} {split}".encode()))
    return ROWS[row].make(f"{row}-{number:03d}", number, split, generator)
