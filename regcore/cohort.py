"""The cohort table: who, which split, which scan, which labels; and which pairs a study can make of it.

A cohort is a tab-separated table with the columns ``subject session split contrast image labels`` and
optionally ``mask landmarks dataset to_template from_template`` (others are ignored); paths are relative to
the table.  Nothing here reads voxels, and nothing draws a split: the table's split is the split.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from regcore.config import validated
from regcore.errors import InputError
from regcore.volume import read_grid

#: Columns of a table of pairs.
PAIR_COLUMNS = ["pair", "split", "fixed", "moving", "contrasts"]
SPLITS = ("train", "validation", "test", "atlas")
FILE_COLUMNS = ("image", "labels", "mask", "landmarks", "to_template", "from_template")


@dataclass(frozen=True, eq=False)
class Cohort:
    """A checked cohort.

    Parameters
    ----------
    table : DataFrame
        One row per scan, indexed by the scan's name ``subject_session_contrast``; file columns hold paths
        (relative to the working directory or absolute), empty where there is none.
    path : Path
        Where the table came from, for messages.
    """

    table: pd.DataFrame
    path: Path

    def scans(self, split: str, contrast: str | None = None) -> list[str]:
        """Names of the scans of a split, in the table's order."""
        chosen = self.table["split"] == split
        if contrast is not None:
            chosen &= self.table["contrast"] == contrast
        return list(self.table.index[chosen])

    def file(self, scan: str, column: str) -> Path | None:
        """Path of a scan's ``image``, ``labels``, …; None where the table has none."""
        value = self.table.at[scan, column]
        return Path(value) if value else None

    def files(self, scan: str) -> dict[str, str]:
        """All files of a scan by column, as plain text."""
        return {column: self.table.at[scan, column] for column in FILE_COLUMNS if self.table.at[scan, column]}

    def scan_of(self, subject: str, contrast: str | None = None) -> str:
        """The first scan of ``subject``, of that contrast where there is one, or the scan of that very name."""
        if subject in self.table.index:
            return subject
        mine = self.table[self.table["subject"] == subject]
        if mine.empty:
            raise InputError(f"{self.path}: no subject or scan is called '{subject}'")
        wanted = mine.index[mine["contrast"] == contrast]
        return wanted[0] if len(wanted) else mine.index[0]


def read_cohort(path: str | Path, row_schema: dict) -> Cohort:
    """Read a cohort table and check it row by row and as a whole.

    Raises
    ------
    InputError
        The table is missing, lacks a column, or a row does not fit ``row_schema``; a subject stands in
        two splits; a scan is listed twice; or no row is left.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such cohort table; give the path of a tab-separated file")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    missing = [column for column in row_schema["required"] if column not in table]
    if missing:
        raise InputError(
            f"{path}: the cohort table lacks the column(s) {', '.join(missing)}; it has {', '.join(table)}. "
            "Columns are separated by tabs"
        )
    return checked_cohort(table, path, row_schema)


def checked_cohort(table: pd.DataFrame, path: str | Path, row_schema: dict) -> Cohort:
    """Make a :class:`Cohort` of a raw table whose paths are relative to ``path``'s folder."""
    path = Path(path)
    table = table.copy()
    for column in row_schema["properties"]:
        if column not in table:
            table[column] = ""
    for number, row in enumerate(table.to_dict("records"), start=2):
        validated({k: v for k, v in row.items() if k in row_schema["properties"]}, row_schema, f"{path}, line {number}")
    if table.empty:
        raise InputError(f"{path}: the cohort table has no rows")
    table.index = pd.Index(table["subject"] + "_" + table["session"] + "_" + table["contrast"], name="scan")
    doubled = table.index[table.index.duplicated()].unique()
    if len(doubled):
        raise InputError(
            f"{path}: listed more than once (same subject, session and contrast): {', '.join(doubled)}; "
            "number the sessions"
        )
    splits = table.groupby("subject")["split"].unique()
    for subject, found in splits.items():
        if len(found) > 1:
            raise InputError(
                f"{path}: subject '{subject}' is in the splits {' and '.join(sorted(found))}; "
                "put every scan of a subject into one split, or test scores mean nothing"
            )
    for column in FILE_COLUMNS:
        table[column] = [os.path.normpath(path.parent / value) if value else "" for value in table[column]]
    return Cohort(table, path)


def check_files(cohort: Cohort) -> None:
    """Check, from the headers alone, that every file exists and fits its scan.

    Raises
    ------
    InputError
        A file is missing or unreadable, an image is not 2-D or 3-D or has one slice, images differ in
        their number of dimensions, or labels or a mask lie on another grid than their image.
    """
    problems, dimensions = [], {}
    for scan in cohort.table.index:
        try:
            image = cohort.file(scan, "image")
            grid = read_grid(image)
            dimensions.setdefault(grid.ndim, image)
            for column in ("labels", "mask"):
                other = cohort.file(scan, column)
                if other and not read_grid(other).same_as(grid, tolerance_mm=0.01):
                    problems.append(
                        f"{other}: the {column} are not on the grid of their image {image} (shape "
                        f"{read_grid(other).shape} and {grid.shape}, or another orientation); "
                        "resample them onto it with nearest neighbour"
                    )
            for column in ("landmarks", "to_template", "from_template"):
                other = cohort.file(scan, column)
                if other and not other.is_file():
                    problems.append(f"{other}: no such file; check the column '{column}' of {cohort.path}")
        except InputError as error:
            problems.append(str(error))
    if len(dimensions) > 1:
        problems.append(
            f"{cohort.path}: 2-D and 3-D images are mixed ({dimensions[2]}, {dimensions[3]}); make one study of each"
        )
    if problems:
        shown = "\n".join(problems[:10])
        more = f"\n… and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError(shown + more)


class EligiblePairs(Sequence[tuple[str, str]]):
    """The (fixed, moving) scans that may meet, as a sequence that lists nothing.

    Pairs are numbered by fixed scan, then by moving scan, each in the order given.  Memory grows with the
    number of scans, not of pairs, and a pair is found from its number by bisection: drawing a number
    uniformly draws a pair uniformly.

    Parameters
    ----------
    fixed, moving : sequence of str
        Names of scans.
    subject : mapping
        Scan → subject.
    kind : str
        ``within-subject``: two scans of one subject; ``atlas``: any two; else of different subjects.  No
        scan meets itself.
    """

    def __init__(self, fixed: Sequence[str], moving: Sequence[str], subject: Mapping[str, str], kind: str):
        self.fixed, self.moving, self.kind = list(fixed), list(moving), kind
        self._subject = {scan: subject[scan] for scan in (*self.fixed, *self.moving)}
        self._kin: dict[str, list[int]] = {}
        for place, scan in enumerate(self.moving):
            self._kin.setdefault(self._family(scan), []).append(place)
        self._counts = [self._count_partners(scan) for scan in self.fixed]
        self._ends = np.cumsum([0, *self._counts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> tuple[str, str]:
        if not 0 <= number < len(self):
            raise IndexError(f"no pair {number} among {len(self)}")
        row = int(np.searchsorted(self._ends, number, side="right")) - 1
        return self.fixed[row], self._partner(self.fixed[row], int(number - self._ends[row]))

    @property
    def scans(self) -> set[str]:
        """The scans that occur in a pair."""
        mirrored = EligiblePairs(self.moving, self.fixed, self._subject, self.kind)
        return {
            scan
            for side in (self, mirrored)
            for scan, partners in zip(side.fixed, side._counts, strict=True)
            if partners
        }

    @property
    def identity(self) -> list:
        """JSON-like, equal exactly where every number means the same pair."""
        return [self.kind, self.fixed, self.moving, [self._subject[scan] for scan in (*self.fixed, *self.moving)]]

    def _family(self, scan: str) -> str:
        """What decides whether two scans may meet: that they share it, or that they do not."""
        return scan if self.kind == "atlas" else self._subject[scan]

    def _count_partners(self, fixed: str) -> int:
        kin = self._kin.get(self._family(fixed), [])
        if self.kind == "within-subject":
            return sum(self.moving[place] != fixed for place in kin)
        return len(self.moving) - len(kin)

    def _partner(self, fixed: str, number: int) -> str:
        kin = self._kin.get(self._family(fixed), [])
        if self.kind == "within-subject":
            return [self.moving[place] for place in kin if self.moving[place] != fixed][number]
        for place in kin:  # ascending: each one at or before the partner moves it one further
            number += place <= number
        return self.moving[number]


class PooledPairs(Sequence[tuple[str, str]]):
    """The pairs of several :class:`EligiblePairs`, one after the other, as a sequence that lists nothing."""

    def __init__(self, parts: Sequence[EligiblePairs]):
        self.parts = list(parts)
        self._ends = np.cumsum([0, *map(len, self.parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> tuple[str, str]:
        if not 0 <= number < len(self):
            raise IndexError(f"no pair {number} among {len(self)}")
        part = int(np.searchsorted(self._ends, number, side="right")) - 1
        return self.parts[part][number - int(self._ends[part])]

    @property
    def scans(self) -> set[str]:
        """The scans that occur in a pair."""
        return set().union(*(part.scans for part in self.parts))

    @property
    def identity(self) -> list:
        """JSON-like, equal exactly where every number means the same pair."""
        return [part.identity for part in self.parts]


def pairings(pairs: Mapping) -> list[tuple[str, str]]:
    """The (fixed, moving) contrasts of a study's ``pairs`` section, which holds one such pair or a list of them."""
    contrasts = pairs["contrasts"]
    return [tuple(contrasts)] if isinstance(contrasts[0], str) else [tuple(pairing) for pairing in contrasts]


def contrasts_of(fixed: str, moving: str) -> str:
    """How tables call a pairing of contrasts: ``T2w to T1w``, moving to fixed."""
    return f"{moving} to {fixed}"


def eligible_pairs(
    cohort: Cohort, split: str, pairs: Mapping, subjects: int | None = None, seed: int = 0, where: str = "pairs"
) -> EligiblePairs | PooledPairs:
    """The pairs that a split can make.

    Parameters
    ----------
    pairs : mapping
        The study's ``pairs`` section: ``kind`` (random, all, listed, atlas or within-subject), ``contrasts``
        (fixed, moving; or several such pairings) and ``atlas`` (subject or scan; for kind ``atlas``).
    subjects : int, optional
        Only those of so many subjects, the atlas not counted.  The choice follows ``seed``, and a smaller
        number chooses among the subjects of a larger one.
    where : str
        The key that ``subjects`` came from, for messages.

    Raises
    ------
    InputError
        The split has no scan of a contrast, too few to make a pair, or fewer subjects than asked for.
    """
    parts = [_of_contrasts(cohort, split, pairs, *pairing) for pairing in pairings(pairs)]
    if subjects is not None:
        subject = cohort.table["subject"].to_dict()
        atlas = {scan for part in parts for scan in part.fixed} if pairs["kind"] == "atlas" else set()
        usable = set().union(*(part.scans for part in parts)) - atlas
        chosen = choose_subjects([subject[s] for s in cohort.table.index if s in usable], subjects, seed, where)
        parts = [
            EligiblePairs(
                [scan for scan in part.fixed if subject[scan] in chosen or scan in atlas],
                [scan for scan in part.moving if subject[scan] in chosen],
                subject,
                pairs["kind"],
            )
            for part in parts
        ]
        if not all(parts):
            raise InputError(
                f"{where}: the {subjects} subjects drawn have no pair of kind '{pairs['kind']}'; take more"
            )
    return parts[0] if len(parts) == 1 else PooledPairs(parts)


def _of_contrasts(
    cohort: Cohort, split: str, pairs: Mapping, fixed_contrast: str, moving_contrast: str
) -> EligiblePairs:
    fixed, moving = cohort.scans(split, fixed_contrast), cohort.scans(split, moving_contrast)
    for scans, contrast in ((fixed, fixed_contrast), (moving, moving_contrast)):
        if not scans:
            raise InputError(
                f"{cohort.path}: the split '{split}' is empty (no row with split {split} and contrast "
                f"{contrast}); name the split in the table, or the contrast under 'pairs'"
            )
    if pairs["kind"] == "atlas":
        if not pairs.get("atlas"):
            raise InputError("pairs: kind 'atlas' needs 'atlas', the subject that is the fixed image")
        fixed = [cohort.scan_of(pairs["atlas"], fixed_contrast)]
        if cohort.table.at[fixed[0], "contrast"] != fixed_contrast:
            raise InputError(
                f"pairs.atlas: '{pairs['atlas']}' has no scan of contrast {fixed_contrast}, the fixed one; name "
                "another subject, or other 'contrasts'"
            )
    found = EligiblePairs(fixed, moving, cohort.table["subject"].to_dict(), pairs["kind"])
    if not len(found):
        raise InputError(f"{cohort.path}: the split '{split}' has too few scans for a pair of kind '{pairs['kind']}'")
    return found


def choose_subjects(usable: Sequence[str], count: int, seed: int, where: str) -> set[str]:
    """Draw ``count`` of the subjects ``usable`` (repetitions do not count); a larger draw holds every smaller one.

    Raises
    ------
    InputError
        There are fewer.
    """
    subjects = list(dict.fromkeys(usable))
    if count > len(subjects):
        raise InputError(f"{where}: {count} subjects are wanted, but the cohort has {len(subjects)} to train on")
    order = np.random.default_rng(seed).permutation(len(subjects))
    return {subjects[i] for i in order[:count]}


def make_pairs(cohort: Cohort, split: str, pairs: Mapping, seed: int) -> pd.DataFrame:
    """List the (fixed, moving) pairs of a split, or as many of them as ``pairs`` wants for it (None: all).

    Where several contrasts are paired, that many of each; the same subjects, where all have every contrast.
    With kind ``listed`` the test pairs are those of the table ``table``.

    Returns
    -------
    DataFrame
        Columns ``PAIR_COLUMNS``; the pair's name is ``fixed--moving``.

    Raises
    ------
    InputError
        See :func:`eligible_pairs` and :func:`read_pairs`.
    """
    if pairs["kind"] == "listed" and split == "test":
        return _listed_pairs(cohort, pairs)
    wanted = pairs.get(split)
    found = []
    for pairing in pairings(pairs):
        eligible = _of_contrasts(cohort, split, pairs, *pairing)
        numbers = range(len(eligible))
        if wanted is not None and wanted < len(eligible):
            numbers = sorted(np.random.default_rng(seed).choice(len(eligible), wanted, replace=False))
        found += [eligible[number] for number in numbers]
    return _table_of_pairs(cohort, split, found)


def read_pairs(path: str | Path, cohort: Cohort, *columns: str) -> pd.DataFrame:
    """Read a list of pairs: a tab-separated table with the columns ``fixed moving`` (scans or subjects).

    Parameters
    ----------
    columns : str
        More that it must have.

    Returns
    -------
    DataFrame
        Text; ``fixed`` and ``moving`` are scans.

    Raises
    ------
    InputError
        The table is missing or lacks a column, a name is no scan of the cohort nor a subject with a single
        scan, a scan is paired with itself, or a pair is listed twice.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such list of pairs; give a tab-separated table")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    missing = [column for column in ("fixed", "moving", *columns) if column not in table]
    if missing:
        raise InputError(
            f"{path}: the list of pairs lacks the column(s) {', '.join(missing)}; it has {', '.join(table)}. "
            "Columns are separated by tabs"
        )
    for side in ("fixed", "moving"):
        table[side] = [_scan_named(name, cohort, f"{path}, line {line}") for line, name in enumerate(table[side], 2)]
    for line, row in enumerate(table.itertuples(), start=2):
        if row.fixed == row.moving:
            raise InputError(f"{path}, line {line}: '{row.fixed}' is paired with itself")
    doubled = table[table.duplicated(["fixed", "moving"])]
    if len(doubled):
        line, row = doubled.index[0] + 2, doubled.iloc[0]
        raise InputError(f"{path}, line {line}: the pair {row['fixed']}, {row['moving']} is listed twice")
    return table


def _scan_named(name: str, cohort: Cohort, where: str) -> str:
    """The scan of that name, or the only scan of the subject of that name."""
    if name in cohort.table.index:
        return name
    scans = list(cohort.table.index[cohort.table["subject"] == name])
    if not scans:
        raise InputError(f"{where}: '{name}' is no scan or subject of {cohort.path}")
    if len(scans) > 1:
        raise InputError(f"{where}: subject '{name}' has several scans; name one of them: {', '.join(scans)}")
    return scans[0]


def _listed_pairs(cohort: Cohort, pairs: Mapping) -> pd.DataFrame:
    if not pairs["table"]:
        raise InputError("pairs: kind 'listed' needs 'table', the path of a list of test pairs")
    table = read_pairs(pairs["table"], cohort)
    for line, row in enumerate(table.to_dict("records"), start=2):
        for side in ("fixed", "moving"):
            split = cohort.table.at[row[side], "split"]
            if split not in ("test", "atlas"):
                raise InputError(f"{pairs['table']}, line {line}: '{row[side]}' is a {split} scan, not a test scan")
    if table.empty:
        raise InputError(f"{pairs['table']}: the list has no pairs")
    return _table_of_pairs(cohort, "test", list(zip(table["fixed"], table["moving"], strict=True)))


def _table_of_pairs(cohort: Cohort, split: str, found: Sequence[tuple[str, str]]) -> pd.DataFrame:
    contrast = cohort.table["contrast"]
    rows = [(f"{f}--{m}", split, f, m, contrasts_of(contrast[f], contrast[m])) for f, m in found]
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)
