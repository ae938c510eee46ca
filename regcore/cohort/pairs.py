"""Which scans of a cohort meet: the pairs that training draws from, and the lists that are scored.

A pair is (fixed, moving): two scans of one split, or a scan and the atlas.  Training draws from the sequences of
:mod:`regcore.cohort.pair_pool`; validation and test pairs are tables.  Nothing here reads voxels.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regcore.cohort.pair_pool import BalancedPairs, EligiblePairs, PooledPairs
from regcore.cohort.settings import PairSettings
from regcore.cohort.table import Cohort
from regcore.errors import InputError

#: Columns of a table of pairs.
PAIR_COLUMNS = ["pair", "split", "fixed", "moving", "contrasts", "task", "dataset"]

#: What pairs of the kind ``mixed`` consist of, as many of the one as of the other.
MIXED = ("within-subject", "random")


def contrasts_of(fixed: str, moving: str) -> str:
    """How tables call a pairing of contrasts: ``T2w to T1w``, moving to fixed."""
    return f"{moving} to {fixed}"


def task_of(cohort: Cohort, fixed: str, moving: str) -> str:
    """``within`` one subject, or ``across`` subjects."""
    subject = cohort.table["subject"]
    return "within" if subject[fixed] == subject[moving] else "across"


def dataset_of(cohort: Cohort, fixed: str, moving: str) -> str:
    """The dataset of both scans; empty where they are of two, or of none."""
    dataset = cohort.table["dataset"]
    return dataset[fixed] if dataset[fixed] == dataset[moving] else ""


def eligible_pairs(
    cohort: Cohort, split: str, pairs: PairSettings, subjects: int | None = None, seed: int = 0, where: str = "pairs"
) -> EligiblePairs | PooledPairs:
    """The pairs that a split can make.

    Parameters
    ----------
    pairs : PairSettings
        ``atlas`` may be a subject or a scan.
    subjects : int, optional
        Only those of so many subjects, the atlas not counted.  The choice follows ``seed``, and a smaller
        number chooses among the subjects of a larger one.
    where : str
        The key that ``subjects`` came from, for messages.

    Returns
    -------
    EligiblePairs or PooledPairs
        :class:`BalancedPairs` for kind ``mixed``, whose tasks are drawn equally often.

    Raises
    ------
    InputError
        The split has no scan of a contrast, too few to make a pair, or fewer subjects than asked for.
    """
    tasks = [
        [_of_contrasts(cohort, split, pairs, kind, *pairing) for pairing in pairs.pairings] for kind in _kinds(pairs)
    ]
    if subjects is not None:
        every = [part for task in tasks for parts in task for part in parts]
        subject = cohort.table["subject"].to_dict()
        atlas = {scan for part in every for scan in part.fixed} if pairs.kind == "atlas" else set()
        usable = set().union(*(part.scans for part in every)) - atlas
        chosen = choose_subjects([subject[s] for s in cohort.table.index if s in usable], subjects, seed, where)
        kept = {scan for scan in cohort.table.index if subject[scan] in chosen}
        tasks = [[_among(parts, kept | atlas, kept, subject) for parts in task] for task in tasks]
        if not all(parts for task in tasks for parts in task):
            raise InputError(f"{where}: the {subjects} subjects drawn have no pair of kind '{pairs.kind}'; take more")
    pools = [_pooled(part for parts in task for part in parts) for task in tasks]
    return pools[0] if len(pools) == 1 else BalancedPairs(pools)


def _kinds(pairs: PairSettings) -> Sequence[str]:
    """The kinds of :class:`EligiblePairs` that the study's kind of pairs consists of."""
    return MIXED if pairs.kind == "mixed" else (pairs.kind,)


def _among(
    parts: Iterable[EligiblePairs], fixed: set[str], moving: set[str], subject: Mapping[str, str]
) -> list[EligiblePairs]:
    """The pairs of ``fixed`` and ``moving`` scans alone; parts that have none are left out."""
    kept = (
        EligiblePairs(
            [scan for scan in part.fixed if scan in fixed],
            [scan for scan in part.moving if scan in moving],
            subject,
            part.kind,
        )
        for part in parts
    )
    return [part for part in kept if len(part)]


def _pooled(parts: Iterable[EligiblePairs]) -> EligiblePairs | PooledPairs:
    parts = list(parts)
    return parts[0] if len(parts) == 1 else PooledPairs(parts)


def _of_contrasts(
    cohort: Cohort, split: str, pairs: PairSettings, kind: str, fixed_contrast: str, moving_contrast: str
) -> list[EligiblePairs]:
    """The pairs of one pairing: in one part, or for kind ``mixed`` in one part for each dataset that has such pairs."""
    fixed, moving = cohort.scans(split, fixed_contrast), cohort.scans(split, moving_contrast)
    for scans, contrast in ((fixed, fixed_contrast), (moving, moving_contrast)):
        if not scans:
            raise InputError(
                f"{cohort.path}: the split '{split}' is empty (no row with split {split} and contrast "
                f"{contrast}); name the split in the table, or the contrast under 'pairs'"
            )
    if kind == "atlas":
        fixed = [_atlas(cohort, pairs, fixed_contrast)]
    subject = cohort.table["subject"].to_dict()
    found = [EligiblePairs(fixed, moving, subject, kind)]
    if pairs.kind == "mixed":
        datasets = cohort.table["dataset"]
        groups = [set(datasets.index[datasets == name]) for name in sorted(set(datasets[[*fixed, *moving]]))]
        found = [part for scans in groups for part in _among(found, scans, scans, subject)]
    if not any(map(len, found)):
        raise InputError(
            f"{cohort.path}: the split '{split}' has too few scans for a pair of kind '{kind}'"
            + (" with both scans of one dataset, of which kind 'mixed' consists" if pairs.kind == "mixed" else "")
        )
    return found


def _atlas(cohort: Cohort, pairs: PairSettings, contrast: str) -> str:
    """The scan that is fixed in pairs of kind ``atlas``."""
    if not pairs.atlas:
        raise InputError("pairs: kind 'atlas' needs 'atlas', the subject that is the fixed image")
    scan = cohort.scan_of(pairs.atlas, contrast)
    if cohort.table.at[scan, "contrast"] != contrast:
        raise InputError(
            f"pairs.atlas: '{pairs.atlas}' has no scan of contrast {contrast}, the fixed one; name "
            "another subject, or other 'contrasts'"
        )
    return scan


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


def make_pairs(cohort: Cohort, split: str, pairs: PairSettings, seed: int) -> pd.DataFrame:
    """List the (fixed, moving) pairs of a split, or as many of them as ``pairs`` wants for it (None: all).

    Where several contrasts are paired, that many of each; the same subjects, where all have every contrast.
    With kind ``mixed`` equal shares are within a subject and across subjects, and of each share equal ones in
    every dataset that has such pairs; one that has fewer gives all.  With kind ``listed`` the test pairs are
    those of the table ``table``.

    Returns
    -------
    DataFrame
        Columns ``PAIR_COLUMNS``; the pair's name is ``fixed--moving``, see :func:`task_of` and :func:`dataset_of`.

    Raises
    ------
    InputError
        See :func:`eligible_pairs` and :func:`read_pairs`.
    """
    if pairs.kind == "listed" and split == "test":
        return _listed_pairs(cohort, pairs)
    return draw_pairs(cohort, split, pairs, pairs.count(split), seed)


def draw_pairs(cohort: Cohort, split: str, pairs: PairSettings, count: int | None, seed: int) -> pd.DataFrame:
    """As :func:`make_pairs`: ``count`` pairs of each pairing of contrasts (None: all), whatever ``pairs`` says."""
    found, kinds = [], _kinds(pairs)
    for pairing in pairs.pairings:
        for kind, share in zip(kinds, _shares(count, len(kinds)), strict=True):
            parts = _of_contrasts(cohort, split, pairs, kind, *pairing)
            for part, wanted in zip(parts, _shares(share, len(parts)), strict=True):
                found += _drawn(part, wanted, seed)
    return _table_of_pairs(cohort, split, found)


def _shares(total: int | None, count: int) -> list[int | None]:
    """``total`` in ``count`` parts that differ by one at most, the larger ones first; None is None for each."""
    if total is None:
        return [None] * count
    return [total // count + (place < total % count) for place in range(count)]


def _drawn(eligible: EligiblePairs, wanted: int | None, seed: int) -> list[tuple[str, str]]:
    """``wanted`` of the pairs (None: all), or all where there are no more, in their order."""
    numbers = range(len(eligible))
    if wanted is not None and wanted < len(eligible):
        numbers = sorted(np.random.default_rng(seed).choice(len(eligible), wanted, replace=False))
    return [eligible[number] for number in numbers]


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


def _listed_pairs(cohort: Cohort, pairs: PairSettings) -> pd.DataFrame:
    if not pairs.table:
        raise InputError("pairs: kind 'listed' needs 'table', the path of a list of test pairs")
    table = read_pairs(pairs.table, cohort)
    for line, row in enumerate(table.to_dict("records"), start=2):
        for side in ("fixed", "moving"):
            split = cohort.table.at[row[side], "split"]
            if split not in ("test", "atlas"):
                raise InputError(f"{pairs.table}, line {line}: '{row[side]}' is a {split} scan, not a test scan")
    if table.empty:
        raise InputError(f"{pairs.table}: the list has no pairs")
    return _table_of_pairs(cohort, "test", list(zip(table["fixed"], table["moving"], strict=True)))


def _table_of_pairs(cohort: Cohort, split: str, found: Sequence[tuple[str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(found, columns=["fixed", "moving"]).assign(split=split)
    table["pair"] = table["fixed"] + "--" + table["moving"]
    contrast = cohort.table["contrast"]
    table["contrasts"] = [contrasts_of(contrast[fixed], contrast[moving]) for fixed, moving in found]
    table["task"] = [task_of(cohort, *pair) for pair in found]
    table["dataset"] = [dataset_of(cohort, *pair) for pair in found]
    return table[PAIR_COLUMNS]
