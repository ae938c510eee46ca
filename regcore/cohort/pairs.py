"""Pairs of scans: the pairs that training draws from, and the lists that are scored.

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
from regcore.cohort.tsv import read_tsv
from regcore.errors import InputError

#: Columns of a table of pairs.
PAIR_COLUMNS = ["pair", "split", "fixed", "moving", "contrasts", "task", "dataset"]

#: The kinds that pairs of the kind ``mixed`` consist of, in equal numbers.
MIXED = ("within-subject", "random")


def contrasts_of(fixed: str, moving: str) -> str:
    """Name of a pairing of contrasts in tables: ``T2w to T1w``, moving to fixed."""
    return f"{moving} to {fixed}"


def task_of(cohort: Cohort, fixed: str, moving: str) -> str:
    """``within`` one subject, or ``across`` subjects."""
    subject = cohort.table["subject"]
    return "within" if subject[fixed] == subject[moving] else "across"


def dataset_of(cohort: Cohort, fixed: str, moving: str) -> str:
    """The dataset of both scans; empty if they are from different ones, or from none."""
    dataset = cohort.table["dataset"]
    return dataset[fixed] if dataset[fixed] == dataset[moving] else ""


def eligible_pairs(
    cohort: Cohort, split: str, pairs: PairSettings, subjects: int | None = None, seed: int = 0, where: str = "pairs"
) -> EligiblePairs | PooledPairs:
    """The possible pairs of a split.

    Parameters
    ----------
    cohort : Cohort
        Where the scans are listed.
    split : {"train", "validation", "test"}
        Whose scans are paired.
    pairs : PairSettings
        ``atlas`` may be a subject or a scan.
    subjects : int, optional
        Use only this many subjects, not counting the atlas.  ``seed`` decides the choice; a smaller number
        chooses among the subjects of a larger one.
    seed : int
        Of the choice of subjects.
    where : str
        The key that ``subjects`` came from, for error messages.

    Returns
    -------
    EligiblePairs or PooledPairs
        :class:`BalancedPairs` for kind ``mixed``, whose tasks are drawn equally often.

    Raises
    ------
    InputError
        The split has no scan of a contrast, too few scans for a pair, or fewer subjects than requested.

    Examples
    --------
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from regcore.cohort.pairs import eligible_pairs
    >>> from regcore.cohort.settings import PairSettings
    >>> from regcore.cohort.table import Cohort
    >>> table = pd.DataFrame({"subject": ["a", "b", "c"], "split": "train", "contrast": "T1w"})
    >>> cohort = Cohort(table.set_index(table["subject"] + "_1_T1w"), Path("cohort.tsv"))
    >>> pairs = PairSettings(kind="random", contrasts=["T1w", "T1w"])
    >>> len(eligible_pairs(cohort, "train", pairs)), len(eligible_pairs(cohort, "train", pairs, subjects=2))
    (6, 2)
    """
    tasks = [
        [_of_contrasts(cohort, split, pairs, kind, *pairing) for pairing in pairs.pairings] for kind in _kinds(pairs)
    ]
    if subjects is not None:
        every = [part for task in tasks for parts in task for part in parts]
        subject = cohort.subjects()
        atlas = {scan for part in every for scan in part.fixed} if pairs.kind == "atlas" else set()
        usable = set().union(*(part.scans for part in every)) - atlas
        chosen = choose_subjects([subject[s] for s in cohort.table.index if s in usable], subjects, seed, where)
        kept = {scan for scan in cohort.table.index if subject[scan] in chosen}
        tasks = [[_among(parts, kept | atlas, kept, subject) for parts in task] for task in tasks]
        if not all(parts for task in tasks for parts in task):
            raise InputError(
                f"{where}: the {subjects} subjects drawn have no pair of kind '{pairs.kind}'; use more subjects"
            )
    pools = [_pooled(part for parts in task for part in parts) for task in tasks]
    return pools[0] if len(pools) == 1 else BalancedPairs(pools)


def _kinds(pairs: PairSettings) -> Sequence[str]:
    """The kinds of :class:`EligiblePairs` that the study's kind of pairs consists of."""
    return MIXED if pairs.kind == "mixed" else (pairs.kind,)


def _among(
    parts: Iterable[EligiblePairs], fixed: set[str], moving: set[str], subject: Mapping[str, str]
) -> list[EligiblePairs]:
    """Only the pairs of ``fixed`` and ``moving`` scans; parts without any are left out."""
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
    """The pairs of one pairing: one part, or for kind ``mixed`` one for each dataset that has such pairs."""
    fixed, moving = cohort.scans(split, fixed_contrast), cohort.scans(split, moving_contrast)
    for scans, contrast in ((fixed, fixed_contrast), (moving, moving_contrast)):
        if not scans:
            raise InputError(
                f"{cohort.path}: the split '{split}' is empty (no row with split {split} and contrast "
                f"{contrast}); name the split in the table, or the contrast under 'pairs'"
            )
    if kind == "atlas":
        fixed = [_atlas(cohort, pairs, fixed_contrast)]
    subject = cohort.subjects()
    found = [EligiblePairs(fixed, moving, subject, kind)]
    if pairs.kind == "mixed":
        datasets = cohort.table["dataset"]
        groups = [set(datasets.index[datasets == name]) for name in sorted(set(datasets[[*fixed, *moving]]))]
        found = [part for scans in groups for part in _among(found, scans, scans, subject)]
    if not any(map(len, found)):
        raise InputError(
            f"{cohort.path}: the split '{split}' has too few scans for a pair of kind '{kind}'"
            + (" with both scans from one dataset, as kind 'mixed' requires" if pairs.kind == "mixed" else "")
        )
    return found


def _atlas(cohort: Cohort, pairs: PairSettings, contrast: str) -> str:
    """The scan that is fixed in pairs of kind ``atlas``."""
    if not pairs.atlas:
        raise InputError("pairs: kind 'atlas' needs 'atlas', the subject of the fixed image")
    scan = cohort.scan_of(pairs.atlas, contrast)
    if cohort.table.at[scan, "contrast"] != contrast:
        raise InputError(
            f"pairs.atlas: '{pairs.atlas}' has no scan of the fixed contrast {contrast}; name "
            "another subject, or other 'contrasts'"
        )
    return scan


def choose_subjects(usable: Sequence[str], count: int, seed: int, where: str) -> set[str]:
    """Draw ``count`` of the subjects ``usable`` (repetitions ignored); a larger draw contains every smaller one.

    Raises
    ------
    InputError
        There are fewer.
    """
    subjects = list(dict.fromkeys(usable))
    if count > len(subjects):
        raise InputError(f"{where}: {count} subjects are requested, but the cohort has {len(subjects)} for training")
    order = np.random.default_rng(seed).permutation(len(subjects))
    return {subjects[i] for i in order[:count]}


def make_pairs(cohort: Cohort, split: str, pairs: PairSettings, seed: int) -> pd.DataFrame:
    """List the (fixed, moving) pairs of a split, or as many of them as ``pairs`` asks for (None: all).

    With several pairings of contrasts, that many of each, with the same subjects if all have every contrast.
    With kind ``mixed``, half of the pairs are within a subject and half across subjects, and each half is divided
    equally between the datasets that have such pairs; a dataset that has fewer gives all.  With kind ``listed`` the
    test pairs are those of the table ``table``.

    Parameters
    ----------
    cohort : Cohort
        Where the scans are listed.
    split : {"train", "validation", "test"}
        Whose scans are paired.
    pairs : PairSettings
        Which pairs, and how many of each split.
    seed : int
        Of the draw, if there are more pairs than asked for.

    Returns
    -------
    DataFrame
        Columns ``PAIR_COLUMNS``; the pair's name is ``fixed--moving``, see :func:`task_of` and :func:`dataset_of`.

    Raises
    ------
    InputError
        See :func:`eligible_pairs` and :func:`read_pairs`.

    Examples
    --------
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from regcore.cohort.pairs import make_pairs
    >>> from regcore.cohort.settings import PairSettings
    >>> from regcore.cohort.table import Cohort
    >>> table = pd.DataFrame({"subject": ["a", "b"], "split": "test", "contrast": "T1w", "dataset": "OASIS"})
    >>> cohort = Cohort(table.set_index(table["subject"] + "_1_T1w"), Path("cohort.tsv"))
    >>> found = make_pairs(cohort, "test", PairSettings(kind="random", test=None), seed=0)
    >>> found[["pair", "contrasts", "task", "dataset"]].values.tolist()
    [['a_1_T1w--b_1_T1w', 'T1w to T1w', 'across', 'OASIS'], ['b_1_T1w--a_1_T1w', 'T1w to T1w', 'across', 'OASIS']]
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
    """Divide ``total`` into ``count`` parts that differ by at most one, the larger ones first; None gives None."""
    if total is None:
        return [None] * count
    return [total // count + (place < total % count) for place in range(count)]


def _drawn(eligible: EligiblePairs, wanted: int | None, seed: int) -> list[tuple[str, str]]:
    """Draw ``wanted`` of the pairs, in their order; all if there are no more, or for None."""
    numbers: Sequence[int] = range(len(eligible))
    if wanted is not None and wanted < len(eligible):
        numbers = sorted(np.random.default_rng(seed).choice(len(eligible), wanted, replace=False))
    return [eligible[number] for number in numbers]


def read_pairs(path: str | Path, cohort: Cohort, *columns: str) -> pd.DataFrame:
    r"""Read a list of pairs: a tab-separated table with the columns ``fixed moving`` (scans or subjects).

    Parameters
    ----------
    path : path
        The list.
    cohort : Cohort
        Where the scans are listed.
    *columns : str
        Further columns that it must have.

    Returns
    -------
    DataFrame
        All columns are text; ``fixed`` and ``moving`` are scans.

    Raises
    ------
    InputError
        As for :func:`regcore.cohort.tsv.read_tsv`; a name is neither a scan of the cohort nor a subject with a single
        scan; a scan is paired with itself; or a pair is listed twice.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from regcore.cohort.pairs import read_pairs
    >>> from regcore.cohort.table import Cohort
    >>> table = pd.DataFrame({"subject": ["a", "b"]}, index=["a_1_T1w", "b_1_T1w"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "pairs.tsv").write_text("fixed\tmoving\na\tb\n")
    ...     read_pairs(Path(folder, "pairs.tsv"), Cohort(table, Path("cohort.tsv"))).values.tolist()
    [['a_1_T1w', 'b_1_T1w']]
    """
    table = read_tsv(path, "list of pairs", ("fixed", "moving", *columns))
    for side in ("fixed", "moving"):
        table[side] = [_scan_named(name, cohort, f"{path}, line {line}") for line, name in table[side].items()]
    found = set()
    for line, fixed, moving in table[["fixed", "moving"]].itertuples():
        if fixed == moving:
            raise InputError(f"{path}, line {line}: '{fixed}' is paired with itself")
    for line, *names in table[["fixed", "moving"]].itertuples():
        pair = tuple(names)
        if pair in found:
            raise InputError(f"{path}, line {line}: the pair {', '.join(pair)} is listed twice")
        found.add(pair)
    return table


def _scan_named(name: str, cohort: Cohort, where: str) -> str:
    """The scan with this name, or the only scan of the subject with this name."""
    if name in cohort.table.index:
        return name
    scans = list(cohort.table.index[cohort.table["subject"] == name])
    if not scans:
        raise InputError(f"{where}: '{name}' is not a scan or subject of {cohort.path}")
    if len(scans) > 1:
        raise InputError(f"{where}: subject '{name}' has several scans; name one of them: {', '.join(scans)}")
    return scans[0]


def _listed_pairs(cohort: Cohort, pairs: PairSettings) -> pd.DataFrame:
    if not pairs.table:
        raise InputError("pairs: kind 'listed' needs 'table', the path of a list of test pairs")
    table = read_pairs(pairs.table, cohort)
    for line, row in table.to_dict("index").items():
        for side in ("fixed", "moving"):
            split = str(cohort.table.at[row[side], "split"])
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
