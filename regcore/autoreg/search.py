"""What a study's file says about AutoReg's search: the key ``autosearch`` of an ``autoreg`` method.

Read without loading torch; :mod:`regcore.study.stages.architecture` searches.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcore.errors import InputError, did_you_mean
from regcore.networks.architecture import (
    DEFORMATION,
    FEATURE,
    LAMBDAS,
    NETWORK,
    OBJECTIVE,
    SHARE,
    SIZES,
    Architecture,
    parts_of,
)
from regcore.settings.validation import settings_schema, validated

KEY = "autosearch"
#: The stages, in their order.
STAGES = (FEATURE, DEFORMATION, OBJECTIVE)
GRADIENT, RANDOM, TPE = "gradient", "random", "tpe"
#: What a search leaves in its folder, and what tells a folder of a model.
FOUND, FACTS, TRACE, MODEL = "architecture.json", "search.json", "trace.csv", "model.json"
#: What may stand in the parts of an architecture file beside its cells.
PARTS: dict[str, dict] = {
    OBJECTIVE: {
        name: {"type": "number", "minimum": 0, **({"maximum": 1} if name == SHARE else {})} for name in LAMBDAS
    },
    NETWORK: {
        "channels": {"type": "integer", "minimum": 1},
        "separable": {"type": "string"},
        "downsampling": {"type": "string"},
    },
}

SEARCH = {
    "what": {
        "description": "what is searched for: feature and deformation (the cells), objective (λ1 to λ4); the rest is "
        "taken from 'start'",
        "type": "array",
        "uniqueItems": True,
        "items": {"enum": list(STAGES)},
        "default": list(STAGES),
    },
    "start": {
        "description": "another entry with a search, an architecture file, or the folder of a trained autoreg model: "
        "where the search begins, and what it leaves as it is comes from; null: the method's own settings",
        "type": ["string", "null"],
        "default": None,
    },
    "by": {
        "description": "how cells are searched for: gradient (Algorithm 1), or as a control random or tpe, which try "
        "architectures with the weights of one super-network",
        "enum": [GRADIENT, RANDOM, TPE],
        "default": GRADIENT,
    },
    "as_long_as": {
        "description": "entry with a search by gradient whose CPU time the search for cells may take; with 'by: "
        "random' or 'tpe'",
        "type": ["string", "null"],
        "default": None,
    },
    "epoch": {"description": "steps of an epoch", "type": "integer", "minimum": 1, "default": 100},
    "warmup": {
        "description": "epochs that train the weights alone before cells are searched",
        "type": "integer",
        "minimum": 0,
        "default": 15,
    },
    "epochs": {
        "description": "epochs that search for cells, at most",
        "type": "integer",
        "minimum": 1,
        "default": 30,
    },
    "objective_warmup": {
        "description": "epochs that train the weights alone before λ is searched; null: as for cells",
        "type": ["integer", "null"],
        "minimum": 0,
        "default": None,
    },
    "objective_epochs": {
        "description": "epochs that search for λ, at most; null: as for cells",
        "type": ["integer", "null"],
        "minimum": 1,
        "default": None,
    },
    "stable": {
        "description": "epochs without a change of the likeliest operations, or of λ, after which a stage ends",
        "type": "integer",
        "minimum": 1,
        "default": 10,
    },
    "tolerance": {
        "description": "relative change of λ that counts as none",
        "type": "number",
        "minimum": 0,
        "default": 0.01,
    },
    "optimiser": {
        "description": "of the weights in a search, as for trainings",
        "enum": ["adam", "muon"],
        "default": "adam",
    },
    "learning_rate": {
        "description": "for the weights in a search, and of the step that a hypergradient looks ahead",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1e-4,
    },
    "architecture_rate": {
        "description": "of Adam for α",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1e-4,
    },
    "objective_rate": {
        "description": "of Adam for λ",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 4e-3,
    },
    "keep_length": {
        "description": "in the search for λ, take the length of the step that is looked ahead as given, so that λ "
        "cannot lower the loss by lengthening it; false: Algorithm 1 as printed, in which λ grow without end",
        "type": "boolean",
        "default": True,
    },
    "epsilon": {
        "description": "ε of the finite differences (the paper: its learning rate, 1e-4)",
        "type": "number",
        "exclusiveMinimum": 0,
        "default": 1e-4,
    },
}


@dataclass(frozen=True)
class CellSearch:
    """A search, as a study's file asks for it.

    Attributes
    ----------
    what : tuple of str
        Of :data:`STAGES`, in their order.
    others : tuple of str
        Entries whose searches have to be done before.
    settings : dict
        As in :data:`SEARCH`, None replaced by what it stands for.
    """

    what: tuple[str, ...]
    others: tuple[str, ...]
    settings: dict[str, Any]


def read_cell_search(name: str, entries: Mapping[str, Mapping]) -> CellSearch:
    """The search that an entry of a study, of the method autoreg, asks for.

    Parameters
    ----------
    entries : mapping
        What the study says of all its entries, by name.

    Raises
    ------
    InputError
        What it begins with is not there, does not fit, or begins with it, or λ cannot be searched from where it begins.
    """
    values, where = entries[name], f"methods.{name}.{KEY}"
    chosen = validated(values[KEY], settings_schema(SEARCH), where)
    what = tuple(stage for stage in STAGES if stage in chosen["what"])
    if values.get("network") == "unet" and set(what) - {OBJECTIVE}:
        raise InputError(f"{where}.what: a U-Net has no cells; search for 'objective' alone")
    for key in ("warmup", "epochs"):
        if chosen[f"objective_{key}"] is None:
            chosen[f"objective_{key}"] = chosen[key]
    others = [other for other in (chosen["start"], chosen["as_long_as"]) if other in entries]
    for other in others:
        if name in _needed(other, entries):
            raise InputError(f"{where}: it waits for '{other}', and that for it; let one of them begin by itself")
        if not _has_search(entries[other]):
            raise InputError(f"{where}: '{other}' has no '{KEY}' to begin from or to take as long as")
    _check_length(what, chosen, entries, where)
    _check_start(values, chosen, others, where)
    if OBJECTIVE in what:
        _check_weights(_first_weights(name, entries), where)
    return CellSearch(what, tuple(dict.fromkeys(others)), chosen)


def _has_search(values: Mapping) -> bool:
    return values.get(KEY) is not None


def _needed(name: str, entries: Mapping[str, Mapping]) -> set[str]:
    """An entry, and all whose searches have to be done before its own."""
    found, left = set(), [name]
    while left:
        other = left.pop()
        if other not in found and other in entries:
            found.add(other)
            search = entries[other].get(KEY) or {}
            left += [search[key] for key in ("start", "as_long_as") if search.get(key) is not None]
    return found


def _check_length(what: Sequence[str], chosen: Mapping[str, Any], entries: Mapping[str, Mapping], where: str) -> None:
    """Whether a control knows how long it may take, and only a control does."""
    cells, other = set(what) - {OBJECTIVE}, chosen["as_long_as"]
    if (chosen["by"] == GRADIENT) != (other is None):
        raise InputError(f"{where}.as_long_as: goes with 'by: random' or 'by: tpe', and these need it")
    if other is None:
        return
    if not cells:
        raise InputError(f"{where}.by: λ is searched by gradient alone; leave 'by' out, or search for cells")
    if other not in entries:
        known = [known for known, values in entries.items() if _has_search(values)]
        raise InputError(f"{where}.as_long_as: no entry is called '{other}'{did_you_mean(other, known)}")
    search = entries[other][KEY]
    if search.get("by", GRADIENT) != GRADIENT or not cells <= set(search.get("what", STAGES)):
        raise InputError(f"{where}.as_long_as: '{other}' must search for {', '.join(sorted(cells))} by gradient")


def _check_start(values: Mapping, chosen: Mapping[str, Any], others: Sequence[str], where: str) -> None:
    """Whether there is something to begin with, which the entry does not set itself."""
    if chosen["start"] is None:
        return
    taken = {"architecture", *LAMBDAS, *SIZES}
    if chosen["start"] not in others:
        taken = set(read_found(chosen["start"], f"{where}.start"))  # raises where there is nothing
    if given := taken & set(values):
        raise InputError(f"{where}.start: '{min(given)}' is set as well; leave one of the two out")


def _first_weights(name: str, entries: Mapping[str, Mapping]) -> Mapping[str, Any]:
    """λ that an entry's search begins with, as far as it is known before anything ran."""
    values = entries[name]
    start = (values.get(KEY) or {}).get("start")
    if start is None:
        return values
    if start not in entries:
        return read_found(start, f"methods.{name}.{KEY}.start")
    found = OBJECTIVE in entries[start][KEY].get("what", STAGES)
    return {} if found else _first_weights(start, entries)


def _check_weights(values: Mapping[str, Any], where: str) -> None:
    for key in LAMBDAS:
        if values.get(key) in ((0, 1) if key == SHARE else (0,)):
            inside = "inside (0, 1)" if key == SHARE else "above 0"
            raise InputError(
                f"{where}: a search for the objective begins with '{key}' {inside}, not at {values[key]:g}"
            )


def read_found(path: str | Path, where: str) -> dict[str, Any]:
    """Settings of ``autoreg`` that a search, a trained model or an architecture file holds.

    Parameters
    ----------
    path : path
        Folder of a search or a model, or an architecture file.

    Returns
    -------
    dict
        ``architecture``; λ and the sizes of the network where they are known.

    Raises
    ------
    InputError
        There is nothing of that kind, or it holds what is no such setting, or as for :meth:`Architecture.read`.
    """
    file = file_of(path)
    if not file.is_file():
        raise InputError(
            f"{where}: '{path}' is neither an entry with '{KEY}', nor an architecture file, nor the folder of a search "
            "or an autoreg model; if another study makes it, run that one first"
        )
    if file.name == MODEL:
        content = json.loads(file.read_text())
        settings = content["settings"]
        if content["method"] != "autoreg" or settings["network"] != "cells":
            raise InputError(f"{where}: {path} is a model of '{content['method']}' that has no cells")
        return {name: settings[name] for name in ("architecture", *LAMBDAS, *SIZES)}
    cells, others = parts_of(file)
    found = {"architecture": Architecture.parsed(cells, str(file)).as_json()}
    for part, values in others.items():
        found |= validated(values, settings_schema(PARTS[part]), f"{file}: {part}")
    return found


def file_of(path: str | Path) -> Path:
    """The file that says what the folder of a model or a search holds; a file is one itself."""
    path = Path(path)
    if not path.is_dir():
        return path
    return path / MODEL if (path / MODEL).is_file() else path / FOUND
