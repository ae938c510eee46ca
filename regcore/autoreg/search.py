"""AutoReg's search in a study file: the key ``autosearch`` of an ``autoreg`` method.

Reading it needs no torch.  :mod:`regcore.study.stages.architecture` runs the search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcore.autoreg.settings import CellSearchSettings, NetworkPart, ObjectivePart
from regcore.errors import InputError, did_you_mean
from regcore.methods.settings.autoreg import UNET, AutoRegSettings
from regcore.models.model_json import read_model_json
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
from regcore.settings.base import Settings

KEY = "autosearch"
#: The stages, in order.
STAGES = (FEATURE, DEFORMATION, OBJECTIVE)
GRADIENT, RANDOM, TPE = "gradient", "random", "tpe"
#: Files of a search, and the file that marks a model's folder.
FOUND, FACTS, TRACE, MODEL = "architecture.json", "search.json", "trace.csv", "model.json"
#: Schemas of the parts of an architecture file besides its cells.
PARTS: dict[str, type[Settings]] = {OBJECTIVE: ObjectivePart, NETWORK: NetworkPart}


@dataclass(frozen=True)
class CellSearch:
    """A search, as given in a study file.

    Attributes
    ----------
    what : tuple of str
        Stages to run, in the order of :data:`STAGES`.
    others : tuple of str
        Entries whose searches must run first.
    settings : CellSearchSettings
        The settings, with all defaults.

    Examples
    --------
    >>> from regcore.autoreg.search import read_cell_search
    >>> search = read_cell_search("autoreg", {"autoreg": {"autosearch": {"what": ["objective", "feature"]}}})
    >>> search.what, search.others, search.settings.epoch
    (('feature', 'objective'), (), 100)
    """

    what: tuple[str, ...]
    others: tuple[str, ...]
    settings: CellSearchSettings


def read_cell_search(name: str, entries: Mapping[str, Mapping]) -> CellSearch:
    """The search of an entry with the method autoreg.

    Parameters
    ----------
    name : str
        Name of the entry.
    entries : mapping
        All entries of the study file, by name.

    Returns
    -------
    CellSearch

    Raises
    ------
    InputError
        Its start is missing, does not fit, or depends on this search, or λ cannot be searched from its start.

    Examples
    --------
    >>> from regcore.autoreg.search import read_cell_search
    >>> from regcore.errors import InputError
    >>> entries = {"first": {"autosearch": {"what": ["feature"]}}, "then": {"autosearch": {"start": "first"}}}
    >>> read_cell_search("then", entries).others
    ('first',)
    >>> try:
    ...     read_cell_search("autoreg", {"autoreg": {"network": "unet", "autosearch": {}}})
    ... except InputError as error:
    ...     print(error)
    methods.autoreg.autosearch.what: a U-Net has no cells; search only for 'objective'
    """
    values, where = entries[name], f"methods.{name}.{KEY}"
    chosen = CellSearchSettings.read(values[KEY], where).settled
    what = tuple(stage for stage in STAGES if stage in chosen.what)
    if _settings(values, f"methods.{name}").network == UNET and set(what) - {OBJECTIVE}:
        raise InputError(f"{where}.what: a U-Net has no cells; search only for 'objective'")
    others = [other for other in (chosen.start, chosen.as_long_as) if other is not None and other in entries]
    for other in others:
        if name in _needed(other, entries):
            raise InputError(f"{where}: it waits for '{other}', which waits for it; remove one of the two dependencies")
        if not _has_search(entries[other]):
            raise InputError(f"{where}: '{other}' has no '{KEY}' to start from or take the time limit from")
    _check_length(what, chosen, entries, where)
    _check_start(values, chosen, others, where)
    if OBJECTIVE in what:
        _check_weights(_first_weights(name, entries), where)
    return CellSearch(what, tuple(dict.fromkeys(others)), chosen)


def _settings(values: Mapping, where: str) -> AutoRegSettings:
    """The settings of an entry's method."""
    return AutoRegSettings.read({key: values[key] for key in AutoRegSettings.attributes() if key in values}, where)


def _has_search(values: Mapping) -> bool:
    return values.get(KEY) is not None


def _settings_of(name: str, entries: Mapping[str, Mapping]) -> CellSearchSettings | None:
    """The settings of an entry's search; None if it has none."""
    values = entries[name].get(KEY)
    return None if values is None else CellSearchSettings.read(values, f"methods.{name}.{KEY}")


def _needed(name: str, entries: Mapping[str, Mapping]) -> set[str]:
    """An entry and all entries whose searches must run before its own."""
    found, left = set(), [name]
    while left:
        other = left.pop()
        if other not in found and other in entries:
            found.add(other)
            if (search := _settings_of(other, entries)) is not None:
                left += [before for before in (search.start, search.as_long_as) if before is not None]
    return found


def _check_length(what: Sequence[str], chosen: CellSearchSettings, entries: Mapping[str, Mapping], where: str) -> None:
    """Check that a control, and only a control, has a time limit."""
    cells, other = set(what) - {OBJECTIVE}, chosen.as_long_as
    if (chosen.by == GRADIENT) != (other is None):
        raise InputError(f"{where}.as_long_as: is needed with 'by: random' or 'by: tpe', and only allowed with them")
    if other is None:
        return
    if not cells:
        raise InputError(f"{where}.by: λ is searched only by gradient; remove 'by', or search for cells")
    if other not in entries:
        known = [known for known, values in entries.items() if _has_search(values)]
        raise InputError(f"{where}.as_long_as: no entry is called '{other}'{did_you_mean(other, known)}")
    search = _settings_of(other, entries)
    if search is None or search.by != GRADIENT or not cells <= set(search.what):
        raise InputError(f"{where}.as_long_as: '{other}' must search for {', '.join(sorted(cells))} by gradient")


def _check_start(values: Mapping, chosen: CellSearchSettings, others: Sequence[str], where: str) -> None:
    """Check that the start exists and that the entry does not set the same keys."""
    if chosen.start is None:
        return
    taken = {"architecture", *LAMBDAS, *SIZES}
    if chosen.start not in others:
        taken = set(read_found(chosen.start, f"{where}.start"))  # raises if there is nothing
    if given := taken & set(values):
        raise InputError(f"{where}.start: '{min(given)}' is set as well; remove one of the two")


def _first_weights(name: str, entries: Mapping[str, Mapping]) -> Mapping[str, Any]:
    """Initial λ of an entry's search, as far as known before anything runs."""
    values = entries[name]
    search = _settings_of(name, entries)
    start = None if search is None else search.start
    if start is None:
        return values
    if start not in entries:
        return read_found(start, f"methods.{name}.{KEY}.start")
    before = _settings_of(start, entries)
    return {} if before is not None and OBJECTIVE in before.what else _first_weights(start, entries)


def _check_weights(values: Mapping[str, Any], where: str) -> None:
    for key in LAMBDAS:
        if values.get(key) in ((0, 1) if key == SHARE else (0,)):
            inside = "inside (0, 1)" if key == SHARE else "above 0"
            raise InputError(
                f"{where}: a search for the objective must start with '{key}' {inside}, not at {values[key]:g}"
            )


def read_found(path: str | Path, where: str) -> dict[str, Any]:
    """Settings of ``autoreg`` from a search, a trained model or an architecture file.

    Parameters
    ----------
    path : path
        Folder of a search or a model, or an architecture file.
    where : str
        The key to name in messages.

    Returns
    -------
    dict
        ``architecture``; also λ and the sizes of the network, if known.

    Raises
    ------
    InputError
        There is no such file or folder, or it has unknown settings; or as for :meth:`Architecture.read`.

    Examples
    --------
    >>> import json
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.autoreg.search import read_found
    >>> from regcore.networks.architecture import Architecture
    >>> content = {**Architecture.uniform("3-Conv").as_json(), "objective": {"lambda2": 1.2}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "architecture.json").write_text(json.dumps(content))
    ...     found = read_found(folder, "start")
    >>> sorted(found), found["lambda2"]
    (['architecture', 'lambda2'], 1.2)
    """
    file = file_of(path)
    if not file.is_file():
        raise InputError(
            f"{where}: '{path}' is neither an entry with '{KEY}', nor an architecture file, nor the folder of a search "
            "or an autoreg model; if another study makes it, run that study first"
        )
    if file.name == MODEL:
        content = read_model_json(file.parent)
        settings = content["settings"]
        if content["method"] != "autoreg" or _settings(settings, str(file)).network == UNET:
            raise InputError(f"{where}: {path} is a model of '{content['method']}', which has no cells")
        return {name: settings[name] for name in ("architecture", *LAMBDAS, *SIZES)}
    cells, others = parts_of(file)
    found = {"architecture": Architecture.parsed(cells, str(file)).as_json()}
    for part, values in others.items():
        found |= PARTS[part].read(values, f"{file}: {part}").as_dict()
    return found


def file_of(path: str | Path) -> Path:
    """The file that describes the folder of a model or a search; a file stands for itself.

    Parameters
    ----------
    path : path
        A folder or a file.

    Returns
    -------
    Path
        It need not exist.

    Examples
    --------
    >>> import tempfile
    >>> from regcore.autoreg.search import file_of
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file_of(folder).name
    'architecture.json'
    >>> file_of("mine.json").name
    'mine.json'
    """
    path = Path(path)
    if not path.is_dir():
        return path
    return path / MODEL if (path / MODEL).is_file() else path / FOUND
