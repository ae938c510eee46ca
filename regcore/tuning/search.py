"""The search for hyperparameters in a study file: the key ``tune`` of a method.

Reading it needs neither torch nor Optuna.  :mod:`regcore.tuning.bayes` runs the search.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from regcore.errors import InputError, did_you_mean
from regcore.tuning.grid import grid
from regcore.tuning.settings import GRID, Choices, Interval, SearchSettings

KEY = "tune"
#: Settings that must be the same in all trials: length of training, validations, and data.
FIXED = (
    *("steps", "validate_every", "replicate", "preset", "observed", "observed_draw"),
    *("training_subjects", "training_contrasts"),
)
#: Validations before the median pruner may end a trial, and between its decisions, as fractions of a training's
#: validations: 30 and 10 of 500 epochs in TM-SPR (Section 4.3).
WARMUP, INTERVAL = 30 / 500, 10 / 500


@dataclass(frozen=True)
class Search:
    """A search, as given in a study file.

    Attributes
    ----------
    ranges : dict of str → Interval or Choices
        Hyperparameter → its possible values.
    trials, workers, random_trials, startup_trials : int
        As in :class:`regcore.tuning.settings.SearchSettings`.
    warmup, interval : int or None
        As there; :func:`settled` fills in None.
    sampler : {"tpe", "random", "grid"}
        How values are drawn.
    pruning : bool
        Whether trials may end early.
    whole : tuple of str
        The ranges of whole numbers, found by :func:`settled`.

    Examples
    --------
    >>> from regcore.tuning.search import read_search
    >>> search = read_search({"tune": {"ranges": {"lambda": [0.01, 1], "window": [5, 9]}}}, "voxelmorph")
    >>> search.trials, search.sampler
    (50, 'tpe')
    >>> search.ends()
    [{'lambda': 0.01, 'window': 5}, {'lambda': 1, 'window': 9}]
    """

    ranges: Mapping[str, Interval | Choices]
    trials: int
    workers: int
    sampler: str
    random_trials: int
    pruning: bool
    startup_trials: int
    warmup: int | None
    interval: int | None
    whole: tuple[str, ...] = ()

    def point(self, slot: int) -> dict[str, Any]:
        """The combination of a grid's values for a slot."""
        row = self.combinations().iloc[slot]
        return {name: values[row[name]] for name, values in self._choices.items()}

    def combinations(self) -> pd.DataFrame:
        """Indices into ``choices`` of all of a grid's combinations."""
        return grid({name: range(len(values)) for name, values in self._choices.items()})

    @property
    def _choices(self) -> dict[str, list[Any]]:
        return {name: rule.choices for name, rule in self.ranges.items() if isinstance(rule, Choices)}

    def ends(self) -> list[dict[str, Any]]:
        """All hyperparameters at their first value, and all at their last."""
        return [{key: rule.samples(True)[end] for key, rule in self.ranges.items()} for end in (0, -1)]

    @property
    def identity(self) -> dict[str, Any]:
        """What all trials of a search have in common; their number, and the number at once, may change."""
        return {"ranges": {name: rule.as_dict() for name, rule in self.ranges.items()}, "sampler": self.sampler}


def read_search(values: Mapping, name: str) -> Search:
    """The search of an entry of a study, read without loading its method.

    Parameters
    ----------
    values : mapping
        The entry in the study file, with ``tune``.
    name : str
        Name of the entry.

    Returns
    -------
    Search

    Raises
    ------
    InputError
        A range is reversed; a setting has both a value and a range; a grid has ranges instead of choices, or more
        trials than combinations.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.tuning.search import read_search
    >>> read_search({"tune": {"ranges": {"lambda": {"choices": [0.1, 1]}}, "sampler": "grid"}}, "voxelmorph").trials
    2
    >>> try:
    ...     read_search({"lambda": 0.5, "tune": {"ranges": {"lambda": [0.1, 1]}}}, "voxelmorph")
    ... except InputError as error:
    ...     print(error)
    methods.voxelmorph.tune.ranges: 'lambda' is set as well; remove one of the two
    """
    where = f"methods.{name}.{KEY}"
    chosen = SearchSettings.read(values[KEY] or {}, where)
    for key, rule in chosen.rules.items():
        _check_range(key, rule, f"{where}.ranges")
        if key in values:
            raise InputError(f"{where}.ranges: '{key}' is set as well; remove one of the two")
    search = Search(
        chosen.rules,
        chosen.trials or 50,
        chosen.workers,
        chosen.sampler,
        chosen.random_trials,
        chosen.pruning,
        chosen.startup_trials,
        chosen.warmup,
        chosen.interval,
    )
    return _with_grid(search, chosen.trials, where) if search.sampler == GRID else search


def _with_grid(search: Search, trials: int | None, where: str) -> Search:
    for key, rule in search.ranges.items():
        if not isinstance(rule, Choices):
            raise InputError(f"{where}.ranges.{key}: a grid needs {{choices: […]}}")
    count = len(search.combinations())
    if trials is not None and trials > count:
        raise InputError(f"{where}.trials: {trials} is more than the {count} combinations of the grid")
    return replace(search, trials=trials or count)


def _check_range(key: str, rule: Interval | Choices, where: str) -> None:
    if key in FIXED:
        raise InputError(f"{where}: '{key}' must be the same in all trials; set it next to '{KEY}', not in it")
    if isinstance(rule, Choices):
        return
    if not rule.low < rule.high:
        raise InputError(f"{where}.{key}: [{rule.low:g}, {rule.high:g}] must ascend")
    if rule.log and rule.low <= 0:
        raise InputError(f"{where}.{key}: a logarithmic range must start above 0, not at {rule.low:g}")


def settled(search: Search, method: Any) -> Search:
    """A search completed from its method: the ranges of whole numbers, and when trials may be pruned.

    Parameters
    ----------
    search : Search
        As from :func:`read_search`.
    method : regcore.methods.base.LearnedMethod
        Tells which hyperparameters are whole numbers, and how many validations a training has.

    Returns
    -------
    Search

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> from regcore.tuning.search import read_search, settled
    >>> search = read_search({"tune": {"ranges": {"lambda": [0.01, 1], "window": [5, 9]}}}, "voxelmorph")
    >>> found = settled(search, make_method("voxelmorph", {"steps": 50000, "validate_every": 1000}))
    >>> found.whole, found.warmup, found.interval
    (('window',), 3, 1)
    """
    keys = method.settings_type.schema_of_keys()
    looks = math.ceil(method.settings.steps / method.settings.validate_every)
    shares = {"warmup": WARMUP, "interval": INTERVAL}
    filled = {key: max(1, round(share * looks)) for key, share in shares.items() if getattr(search, key) is None}
    intervals = [key for key, rule in search.ranges.items() if isinstance(rule, Interval)]
    whole = tuple(key for key in intervals if _is_whole(keys[key]))
    return replace(search, whole=whole, **filled)


def check_search(search: Search, method: Any, make: Callable[[Mapping[str, Any]], Any], where: str) -> None:
    """Check a search against its method.

    Parameters
    ----------
    search : Search
        As from :func:`read_search`.
    method : regcore.methods.base.LearnedMethod
        The method with the study's settings.
    make : callable
        Values of hyperparameters → the method with them.
    where : str
        The key to name in messages.

    Raises
    ------
    InputError
        The method has no such hyperparameter, does not use it with the other settings, or does not accept a value in
        its range.

    Examples
    --------
    >>> from functools import partial
    >>> from regcore.errors import InputError
    >>> from regcore.methods import make_method
    >>> from regcore.tuning.search import check_search, read_search
    >>> search = read_search({"tune": {"ranges": {"lamda": [0.01, 1]}}}, "voxelmorph")
    >>> try:
    ...     check_search(search, make_method("voxelmorph"), partial(make_method, "voxelmorph"), "tune.ranges")
    ... except InputError as error:
    ...     print(error)
    tune.ranges: the method has no hyperparameter 'lamda'; did you mean 'lambda'?
    """
    keys, unused = method.settings_type.schema_of_keys(), method.settings.unused
    for key, rule in search.ranges.items():
        if key not in keys:
            raise InputError(f"{where}: the method has no hyperparameter '{key}'{did_you_mean(key, keys)}")
        if key in unused:
            raise InputError(f"{where}: '{key}' has no effect with the method's other settings; remove it")
        if isinstance(rule, Interval) and "enum" in keys[key]:
            raise InputError(f"{where}.{key}: give {{choices: […]}} of {keys[key]['enum']}")
    whole = settled(search, method).whole
    first = {key: rule.samples(key in whole)[0] for key, rule in search.ranges.items()}
    for key, rule in search.ranges.items():  # raises if the method does not accept a value in a range
        for value in rule.samples(key in whole):
            make(first | {key: value})


def _is_whole(rule: Mapping[str, Any]) -> bool:
    types = rule.get("type", [])
    types = [types] if isinstance(types, str) else types
    return "integer" in types and "number" not in types
