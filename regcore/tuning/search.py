"""What a study's file says about a search for hyperparameters: the key ``tune`` of a method.

Read without loading torch or Optuna, and checked against its method once; :mod:`regcore.tuning.bayes` searches.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from regcore.errors import InputError, did_you_mean
from regcore.settings.validation import settings_schema, validated
from regcore.tuning.grid import grid

KEY = "tune"
TPE, RANDOM, GRID = "tpe", "random", "grid"
#: What decides how long a trial trains, when it is looked at, and what it sees, which must be alike in all trials.
FIXED = (
    *("steps", "validate_every", "replicate", "preset", "observed", "observed_draw"),
    *("training_subjects", "training_contrasts"),
)
#: Looks before the median pruner may end a trial, and between two of its decisions, as shares of a training's looks:
#: 30 and 10 of 500 epochs in TM-SPR (Section 4.3).
WARMUP, INTERVAL = 30 / 500, 10 / 500

RANGE = {
    "oneOf": [
        {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
        settings_schema(
            {
                "low": {"type": "number"},
                "high": {"type": "number"},
                "log": {"type": "boolean"},
            },
            ("low", "high"),
        ),
        settings_schema(
            {"choices": {"type": "array", "minItems": 1, "items": {"type": ["number", "string", "boolean", "null"]}}},
            ("choices",),
        ),
    ],
    "errorMessage": "give [low, high], {low: …, high: …, log: true} or {choices: […]}",
}

SEARCH = {
    "ranges": {
        "description": "setting of the method → [low, high], {low: …, high: …, log: true} (drawn on a logarithmic "
        "scale) or {choices: […]}; whole numbers where the setting is one",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": RANGE,
    },
    "trials": {
        "description": "trainings; raising it later runs the further ones alone.  null: 50, or all of a grid's "
        "combinations",
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
    },
    "workers": {
        "description": "trials that may run at the same time; with 1 a search is the same each time",
        "type": "integer",
        "minimum": 1,
        "default": 4,
    },
    "sampler": {
        "description": "tpe (Bayesian optimisation by a tree-structured Parzen estimator), random, or grid (all "
        "combinations of 'choices')",
        "enum": [TPE, RANDOM, GRID],
        "default": TPE,
    },
    "random_trials": {
        "description": "trials at random before tpe begins to learn from them",
        "type": "integer",
        "minimum": 1,
        "default": 10,
    },
    "pruning": {
        "description": "end a trial whose best Dice so far is below the median of the others' at the same look",
        "type": "boolean",
        "default": True,
    },
    "startup_trials": {
        "description": "finished trials before the first is pruned",
        "type": "integer",
        "minimum": 1,
        "default": 5,
    },
    "warmup": {
        "description": "looks at the validation pairs before a trial may be pruned; null: 6 % of all looks, at least "
        "one",
        "type": ["integer", "null"],
        "minimum": 0,
        "default": None,
    },
    "interval": {
        "description": "looks between two decisions to prune; null: 2 % of a training's, at least one",
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
    },
}


@dataclass(frozen=True)
class Search:
    """A search, as a study's file asks for it.

    Attributes
    ----------
    ranges : dict of str → dict
        Either ``choices``, or ``low high log``.
    trials, workers, random_trials, startup_trials : int
    warmup, interval : int or None
        As in :data:`SEARCH`; :func:`settled` replaces None.
    sampler : str
    pruning : bool
    whole : tuple of str
        The ranges of whole numbers; :func:`settled` finds them.
    """

    ranges: dict[str, dict[str, Any]]
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
        """The combination of a grid's values that is tried in a slot."""
        row = self.combinations().iloc[slot]
        return {name: self.ranges[name]["choices"][number] for name, number in row.items()}

    def combinations(self) -> pd.DataFrame:
        """The places in ``choices`` of all of a grid's combinations."""
        return grid({name: range(len(rule["choices"])) for name, rule in self.ranges.items()})

    def ends(self) -> list[dict[str, Any]]:
        """All hyperparameters at their first, and all at their last value."""
        return [{key: _samples(rule, True)[end] for key, rule in self.ranges.items()} for end in (0, -1)]

    @property
    def identity(self) -> dict[str, Any]:
        """What trials of one search have in common; how many there are, and at once, may change."""
        return {"ranges": self.ranges, "sampler": self.sampler}


def read_search(values: Mapping, name: str) -> Search:
    """The search that an entry of a study asks for, read without loading its method.

    Parameters
    ----------
    values : mapping
        All that the study says of the entry, with ``tune``.
    name : str
        Of the entry.

    Raises
    ------
    InputError
        A range is reversed; a setting has both a value and a range; a grid has ranges instead of choices, or more
        trials than combinations.
    """
    where = f"methods.{name}.{KEY}"
    chosen = validated(values[KEY] or {}, settings_schema(SEARCH, ("ranges",)), where)
    ranges = {key: _range(key, rule, f"{where}.ranges") for key, rule in chosen.pop("ranges").items()}
    for key in ranges:
        if key in values:
            raise InputError(f"{where}.ranges: '{key}' is set as well; leave one of the two out")
    search = Search(ranges, **chosen | {"trials": chosen["trials"] or 50})
    return _with_grid(search, chosen["trials"], where) if search.sampler == GRID else search


def _with_grid(search: Search, trials: int | None, where: str) -> Search:
    for key, rule in search.ranges.items():
        if "choices" not in rule:
            raise InputError(f"{where}.ranges.{key}: a grid needs {{choices: […]}}")
    count = len(search.combinations())
    if trials is not None and trials > count:
        raise InputError(f"{where}.trials: {trials} is more than the {count} combinations of the grid")
    return replace(search, trials=trials or count)


def _range(key: str, rule: Any, where: str) -> dict[str, Any]:
    if key in FIXED:
        raise InputError(f"{where}: '{key}' must be the same in all trials; set it beside '{KEY}'")
    if isinstance(rule, Mapping) and "choices" in rule:
        return {"choices": list(rule["choices"])}
    if not isinstance(rule, Mapping):
        rule = {"low": rule[0], "high": rule[1]}
    low, high, log = rule["low"], rule["high"], rule.get("log", False)
    if not low < high:
        raise InputError(f"{where}.{key}: [{low:g}, {high:g}] must ascend")
    if log and low <= 0:
        raise InputError(f"{where}.{key}: a logarithmic range begins above 0, not at {low:g}")
    return {"low": low, "high": high, "log": log}


def settled(search: Search, method: Any) -> Search:
    """A search with what follows from its method: which ranges are whole numbers, and when trials may be pruned.

    Parameters
    ----------
    method : regcore.methods.base.LearnedMethod
    """
    looks = math.ceil(method.settings["steps"] / method.settings["validate_every"])
    shares = {"warmup": WARMUP, "interval": INTERVAL}
    filled = {key: max(1, round(share * looks)) for key, share in shares.items() if getattr(search, key) is None}
    whole = tuple(key for key, rule in search.ranges.items() if "low" in rule and _is_whole(method.properties[key]))
    return replace(search, whole=whole, **filled)


def check_search(search: Search, method: Any, make: Callable[[Mapping[str, Any]], Any], where: str) -> None:
    """Check a search against its method.

    Parameters
    ----------
    method : regcore.methods.base.LearnedMethod
    make : callable
        Values of hyperparameters → the method with them.
    where : str
        The key that messages name.

    Raises
    ------
    InputError
        The method has no such hyperparameter, does not use it with the other settings, or does not accept a value of
        its range.
    """
    for key, rule in search.ranges.items():
        if key not in method.properties:
            raise InputError(f"{where}: the method has no hyperparameter '{key}'{did_you_mean(key, method.properties)}")
        if key in method.unused:
            raise InputError(f"{where}: '{key}' changes nothing with the method's other settings; leave it out")
        if "low" in rule and "enum" in method.properties[key]:
            raise InputError(f"{where}.{key}: give {{choices: […]}} of {method.properties[key]['enum']}")
    whole = settled(search, method).whole
    first = {key: _samples(rule, key in whole)[0] for key, rule in search.ranges.items()}
    for key, rule in search.ranges.items():  # raises where the method does not accept what a range holds
        for value in _samples(rule, key in whole):
            make(first | {key: value})


def _samples(rule: Mapping[str, Any], whole: bool) -> list[Any]:
    """All choices; of a range both ends, and a number between them that is round nowhere."""
    if "choices" in rule:
        return rule["choices"]
    low, high = rule["low"], rule["high"]
    return [low, high] if whole else [low, high, low + 0.3819 * (high - low)]


def _is_whole(rule: Mapping[str, Any]) -> bool:
    types = rule.get("type", [])
    types = [types] if isinstance(types, str) else types
    return "integer" in types and "number" not in types
