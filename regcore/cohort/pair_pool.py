"""The possible pairs as sequences that are never listed: a pair is computed from its number.

Memory grows with the number of scans, not of pairs, so training can draw from millions.
:mod:`regcore.cohort.pairs` decides which scans of a study these are.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np


class NumberedPairs(Sequence[tuple[str, str]]):
    """Pairs by their number, counted from 0; negative numbers are refused."""

    @abstractmethod
    def _numbered(self, number: int) -> tuple[str, str]:
        """The pair of a number that exists."""

    @overload
    def __getitem__(self, number: int) -> tuple[str, str]: ...

    @overload
    def __getitem__(self, number: slice) -> list[tuple[str, str]]: ...

    def __getitem__(self, number: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(f"no pair {number} among {len(self)}")
        return self._numbered(int(number))


class EligiblePairs(NumberedPairs):
    """The possible (fixed, moving) pairs, as a sequence that is never listed.

    Pairs are numbered by fixed scan, then by moving scan, each in the order given.  Memory grows with the
    number of scans, not of pairs, and bisection finds a pair from its number: drawing a number uniformly
    draws a pair uniformly.

    Parameters
    ----------
    fixed, moving : sequence of str
        Names of scans.
    subject : mapping
        Scan → subject.
    kind : str
        ``within-subject``: two scans of one subject; ``atlas``: any two; otherwise of different subjects.  No
        scan is paired with itself.

    Examples
    --------
    >>> from regcore.cohort.pair_pool import EligiblePairs
    >>> subject = {"a_1_T1w": "a", "b_1_T1w": "b", "b_2_T1w": "b"}
    >>> pairs = EligiblePairs(list(subject), list(subject), subject, kind="random")
    >>> len(pairs), pairs[0]
    (4, ('a_1_T1w', 'b_1_T1w'))
    >>> len(EligiblePairs(list(subject), list(subject), subject, kind="within-subject"))
    2
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

    @property
    def different(self) -> int:
        """Number of different pairs; a sequence may hold each at several numbers."""
        return len(self)

    def _numbered(self, number: int) -> tuple[str, str]:
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
        """JSON-like; equal if and only if every number means the same pair."""
        return [self.kind, self.fixed, self.moving, [self._subject[scan] for scan in (*self.fixed, *self.moving)]]

    def _family(self, scan: str) -> str:
        """The key that two scans must share, or must not share, to form a pair."""
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
        for place in kin:  # ascending: each one at or before the partner shifts it by one
            number += place <= number
        return self.moving[number]


class PooledPairs(NumberedPairs):
    """The pairs of several such sequences, one after the other, as a sequence that is never listed.

    Parameters
    ----------
    parts : sequence of EligiblePairs or PooledPairs
        In the order of their numbers.

    Examples
    --------
    >>> from regcore.cohort.pair_pool import EligiblePairs, PooledPairs
    >>> subject = {"a_1_T1w": "a", "b_1_T1w": "b", "c_1_T2w": "c"}
    >>> t1w, t2w = ["a_1_T1w", "b_1_T1w"], ["c_1_T2w"]
    >>> pool = PooledPairs([EligiblePairs(t1w, t1w, subject, "all"), EligiblePairs(t1w, t2w, subject, "all")])
    >>> len(pool), pool[2]
    (4, ('a_1_T1w', 'c_1_T2w'))
    """

    def __init__(self, parts: Sequence["EligiblePairs | PooledPairs"]):
        self.parts = list(parts)
        self._ends = np.cumsum([0, *map(len, self.parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def different(self) -> int:
        """Number of different pairs; a sequence may hold each at several numbers."""
        return sum(part.different for part in self.parts)

    def _numbered(self, number: int) -> tuple[str, str]:
        part = int(np.searchsorted(self._ends, number, side="right")) - 1
        return self.parts[part][number - int(self._ends[part])]

    @property
    def scans(self) -> set[str]:
        """The scans that occur in a pair."""
        return set().union(*(part.scans for part in self.parts))

    @property
    def identity(self) -> list:
        """JSON-like; equal if and only if every number means the same pair."""
        return [part.identity for part in self.parts]


class BalancedPairs(PooledPairs):
    """The pairs of several tasks, each task with the same weight whatever its number of pairs.

    Every pair of a task has equally many numbers, and so has every task: drawing a number uniformly draws a task
    uniformly, and then one of its pairs.

    Parameters
    ----------
    parts : sequence of EligiblePairs or PooledPairs
        One for each task.

    Examples
    --------
    >>> from regcore.cohort.pair_pool import BalancedPairs, EligiblePairs
    >>> subject = {"a_1_T1w": "a", "b_1_T1w": "b", "b_2_T1w": "b"}
    >>> scans = list(subject)
    >>> pool = BalancedPairs([EligiblePairs(scans, scans, subject, kind) for kind in ("within-subject", "random")])
    >>> len(pool), pool.different
    (8, 6)
    """

    def __init__(self, parts: Sequence[EligiblePairs | PooledPairs]):
        super().__init__(parts)
        self._turns = math.lcm(*map(len, self.parts))

    def __len__(self) -> int:
        return len(self.parts) * self._turns

    def _numbered(self, number: int) -> tuple[str, str]:
        turn, part = divmod(number, len(self.parts))
        return self.parts[part][turn % len(self.parts[part])]

    @property
    def identity(self) -> list:
        """JSON-like; equal if and only if every number means the same pair."""
        return ["balanced", *super().identity]
