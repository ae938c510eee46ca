"""What a study's file says about AutoReg's search: the key ``search`` of an ``autoreg`` method.

Read without loading torch; :mod:`regcore.stages.architecture` searches.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcore.config import settings_schema, validated
from regcore.errors import InputError, did_you_mean
from regcore.methods import method_of
from regcore.networks.architecture import DEFORMATION, FEATURE, LAMBDAS, OBJECTIVE, SHARE, Architecture
from regcore.tuning.search import is_tuned

KEY = "search"
#: The stages, in their order.
STAGES = (FEATURE, DEFORMATION, OBJECTIVE)
GRADIENT, RANDOM, TPE = "gradient", "random", "tpe"
#: What a search leaves in its folder.
FOUND, FACTS, TRACE = "architecture.json", "search.json", "trace.csv"

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
    "learning_rate": {
        "description": "of Adam for the weights in a search, and of the step that a hypergradient looks ahead",
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


def has_search(values: Mapping) -> bool:
    """Whether an entry of a study asks for a search of cells or λ; ``search: null`` asks for none."""
    return values.get(KEY) is not None


def cell_search(name: str, entries: Mapping[str, Mapping]) -> CellSearch:
    """The search that an entry of a study asks for.

    Parameters
    ----------
    entries : mapping
        All entries of the study.

    Raises
    ------
    InputError
        The entry is not of AutoReg, has a search for hyperparameters as well, or names an entry that has no search.
    """
    values, where = entries[name], f"methods.{name}.{KEY}"
    if method_of(name, values) != "autoreg":
        raise InputError(f"{where}: only 'autoreg' is searched so; for hyperparameters of other methods see 'tune'")
    if is_tuned(values):
        raise InputError(f"{where}: 'tune' is set as well; leave one of the two out")
    chosen = validated(values[KEY] or {}, settings_schema(SEARCH), where)
    if chosen["start"] is not None and (given := {"architecture", *LAMBDAS} & set(values)):
        raise InputError(f"{where}.start: '{min(given)}' is set as well; leave one of the two out")
    if values.get("network") == "unet" and set(chosen["what"]) - {OBJECTIVE}:
        raise InputError(f"{where}.what: a U-Net has no cells; search for 'objective' alone")
    if (chosen["by"] != GRADIENT) != (chosen["as_long_as"] is not None):
        raise InputError(f"{where}.as_long_as: goes with 'by: random' or 'by: tpe', and these need it")
    for key in LAMBDAS if OBJECTIVE in chosen["what"] else ():
        if values.get(key) in ((0, 1) if key == SHARE else (0,)):
            inside = "inside (0, 1)" if key == SHARE else "above 0"
            raise InputError(
                f"{where}: a search for the objective begins with '{key}' {inside}, not at {values[key]:g}"
            )
    for key in ("warmup", "epochs"):
        if chosen[f"objective_{key}"] is None:
            chosen[f"objective_{key}"] = chosen[key]
    searched = [other for other, own in entries.items() if has_search(own) and other != name]
    others = [other for other in (chosen["start"], chosen["as_long_as"]) if other in searched]
    if chosen["start"] is not None and chosen["start"] not in searched:
        read_found(chosen["start"], f"{where}.start")  # raises where there is nothing to begin with
    if chosen["as_long_as"] is not None and chosen["as_long_as"] not in searched:
        raise InputError(
            f"{where}.as_long_as: no other entry with a search is called '{chosen['as_long_as']}'"
            + did_you_mean(chosen["as_long_as"], searched)
        )
    return CellSearch(tuple(stage for stage in STAGES if stage in chosen["what"]), tuple(others), chosen)


def read_found(path: str | Path, where: str) -> dict[str, Any]:
    """Settings of ``autoreg`` that a search, a trained model or an architecture file holds.

    Parameters
    ----------
    path : path
        Folder of a search or a model, or an architecture file.

    Returns
    -------
    dict
        ``architecture``, and ``lambda1`` to ``lambda4`` where they are known.

    Raises
    ------
    InputError
        There is nothing of that kind, or as for :meth:`Architecture.read`.
    """
    path = Path(path)
    if (path / "model.json").is_file():
        content = json.loads((path / "model.json").read_text())
        if content["method"] != "autoreg":
            raise InputError(f"{where}: {path} is a model of '{content['method']}', which has no cells")
        return {name: content["settings"][name] for name in ("architecture", *LAMBDAS)}
    file = path / FOUND if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{where}: '{path}' is neither an entry with a search, nor an architecture file, nor the folder of a "
            "search or an autoreg model"
        )
    found = {"architecture": Architecture.read(file).as_json()}
    return found | json.loads(file.read_text()).get(OBJECTIVE, {})
