"""Stage: the fields of a study's test pairs, found by a method, imported, or known to be true."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from regcore.alignment.prepared import read_prepared
from regcore.cohort.table import Cohort
from regcore.errors import RegistrationFailed
from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import read_grid, read_volume
from regcore.methods import make_method
from regcore.methods.base import Method, as_tensor
from regcore.methods.registration import register_scans
from regcore.models.trained import load_model
from regcore.process.cost import Cost
from regcore.process.files import atomic_write, read_json
from regcore.process.isolation import CallFailed, Worker
from regcore.process.progress import Progress
from regcore.process.versions import processor_name, versions
from regcore.study.checks import TRUTH
from regcore.study.plan import Plan

log = logging.getLogger(__name__)


def method_to_register(plan: Plan, name: str, model: Path | None) -> Method:
    """An entry's method, ready to register: with its own weights or those of the network it refines.

    Parameters
    ----------
    plan : Plan
        The study.
    name : str
        The entry.
    model : Path or None
        Folder of the model that it needs; None if it needs none.

    Returns
    -------
    Method

    Raises
    ------
    InputError
        The folder is not a model, or the settings of a refinement do not fit its network.

    Examples
    --------
    >>> from regcore.study.plan import plan_study
    >>> from regcore.study.stages.register import method_to_register
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> plan = plan_study({"study": "small", "cohort": cohort, "methods": {"affine": {}}}, check=False)
    >>> type(method_to_register(plan, "affine", model=None)).__name__
    'Affine'
    """
    entry = plan.entries[name]
    if not (entry.learned or entry.info.refines):
        return entry.make()
    assert model is not None  # a network registers, or its field is refined
    trained = load_model(model).method
    if entry.learned:
        return trained
    method = entry.make()
    method.start_from(trained)
    return method


def prepared_image(plan: Plan, scan: str) -> torch.Tensor:
    """A prepared scan as a tensor for networks.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    scan : str
        Name of the scan.

    Returns
    -------
    Tensor of float32, shape (1, 1, *space)
        Intensities from 0 to 1 on the common grid, on the CPU.
    """
    return as_tensor(read_volume(f"{plan.prepared(scan)}.nii"))


def register_pairs(plan: Plan, name: str, pairs: Sequence[str], model: Path | None) -> None:
    """Register test pairs with one method, and write each field with a JSON report of time and memory.

    If the method finds no usable field, only the JSON is written, with the reason under ``failed``.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        The entry.
    pairs : sequence of str
        Names of test pairs.
    model : Path or None
        Folder of the model that the entry needs.
    """
    method, entry = method_to_register(plan, name, model), plan.entries[name]
    table = plan.pairs_of("test").set_index("pair")
    progress = Progress(len(pairs))
    with Worker(torch.get_num_threads()) as worker:
        for number, pair in enumerate(pairs, start=1):
            fixed, moving = (plan.prepared(str(table.at[pair, side])) for side in ("fixed", "moving"))
            path = Path(plan.field(name, pair))
            try:
                if entry.info.external:
                    job = (entry.method, method.settings.as_dict(), fixed, moving, str(path))
                    limit = plan.settings.registration.time_limit
                    took = worker.call("regcore.study.stages.register:register_external", *job, seconds=limit)
                else:
                    took = register_pair(method, fixed, moving, path)
                what = f"{took['seconds']['compute']:.2f} s"
            except (CallFailed, RegistrationFailed) as error:
                took = _unmeasured(str(error), getattr(error, "printed", ""))
                what = f"FAILED: {error}"
            write_facts(
                path,
                pair=pair,
                method=entry.method,
                settings=method.settings.as_dict(),
                threads=torch.get_num_threads(),
                processor=processor_name(),
                device=method.device.type,
                versions=versions(),
                **took,
            )
            log.info("%s %d/%d  %s  %s  %s", name, number, len(pairs), pair, what, progress.left(number))


def register_pair(method: Method, fixed: str, moving: str, path: Path, programs: bool = False) -> dict[str, Any]:
    """Register two prepared scans and write the field.

    Parameters
    ----------
    method : Method
        Ready to register.
    fixed, moving : str
        Path stems of prepared scans.
    path : Path
        Path of the field.
    programs : bool
        Whether the method may run programs, whose memory counts.

    Returns
    -------
    dict
        Time and memory, with ``failed`` None.

    Raises
    ------
    RegistrationFailed
        There is no usable field.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.prepared import Prepared, save_prepared
    >>> from regcore.images.field import read_field
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> from regcore.study.stages.register import register_pair
    >>> grid = Grid.centred((16, 16), (1, 1), (0, 0))
    >>> scan = Prepared(Volume(np.eye(16, dtype=np.float32), grid), to_native=np.eye(3), native=grid)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stem, path = f"{folder}/a_1_T1w", Path(folder, "field.nii.gz")
    ...     save_prepared(scan, Path(stem))
    ...     took = register_pair(make_method("affine"), stem, stem, path)
    ...     read_field(path).grid.shape, sorted(took["seconds"]), took["failed"]
    ((16, 16), ['compute', 'load', 'save'], None)
    """
    cost = Cost()
    with cost.measured(programs, on_gpu=method.device.type == "cuda"):
        with cost.stage("load"):
            first, second = (read_prepared(Path(stem)) for stem in (fixed, moving))
        found = register_scans(method, first, second, cost=cost, inverse=False)
        with cost.stage("save"):
            found.field.save(path)
    chosen = {"choices": found.choices} if found.choices else {}
    return {"commands": found.commands, "tool": found.tool, **chosen, "failed": None, **asdict(cost)}


def register_external(method: str, settings: Mapping, fixed: str, moving: str, path: str) -> dict[str, Any]:
    """:func:`register_pair` with a method given by name, for worker processes.

    Parameters
    ----------
    method : str
        Name of the method.
    settings : mapping
        Its settings.
    fixed, moving : str
        Path stems of prepared scans.
    path : str
        Path of the field.

    Returns
    -------
    dict
        As for :func:`register_pair`.
    """
    return register_pair(make_method(method, settings), fixed, moving, Path(path), programs=True)


def _unmeasured(failed: str | None = None, printed: str = "") -> dict[str, Any]:
    """The report of :func:`register_pair` for a pair that failed or has an imported field."""
    return {"commands": [], "tool": None, "failed": failed, "stderr": printed, **asdict(Cost())}


def import_pairs(plan: Plan, name: str, pairs: Sequence[str]) -> None:
    """Copy imported fields into the layout of a method's fields. A pair without a usable field has failed.

    Parameters
    ----------
    plan : Plan
        The study.
    name : str
        An entry of the method ``imported``.
    pairs : sequence of str
        Names of test pairs.
    """
    entry = plan.entries[name]
    method = entry.make()
    table = plan.pairs_of("test").set_index("pair")
    for pair in pairs:
        path, source = Path(plan.field(name, pair)), entry.fields.get(pair)
        images = [plan.cohort.existing(str(table.at[pair, side]), "image") for side in ("fixed", "moving")]
        try:
            method.read(source, *map(read_grid, images)).save(path)
            took = _unmeasured()
        except RegistrationFailed as error:
            took = _unmeasured(str(error))
            log.warning("%s  %s  FAILED: %s", name, pair, error)
        facts = {"method": entry.method, "settings": method.settings.as_dict(), "source": source}
        elsewhere = dict.fromkeys(("threads", "processor", "device"))
        write_facts(path, pair=pair, versions=versions(), **facts, **elsewhere, **took)


def true_field(cohort: Cohort, fixed: str, moving: str) -> DisplacementField:
    """The known map of a pair, fixed → template → moving, on the fixed scan's grid.

    Parameters
    ----------
    cohort : Cohort
        With the fields between scans and template.
    fixed, moving : str
        Names of scans.

    Returns
    -------
    DisplacementField

    Raises
    ------
    InputError
        A field cannot be read.
    """
    to_template = read_field(cohort.existing(fixed, "to_template"))
    from_template = read_field(cohort.existing(moving, "from_template"))
    grid = to_template.grid
    there = to_template.targets().reshape(-1, grid.ndim)
    return DisplacementField.from_world(from_template.at(there).reshape(*grid.shape, grid.ndim), grid)


def write_true_fields(plan: Plan, pairs: Sequence[str]) -> None:
    """Write the true field of test pairs, in the layout of a method's fields.

    Parameters
    ----------
    plan : Plan
        A study whose cohort knows them.
    pairs : sequence of str
        Names of test pairs.
    """
    table = plan.pairs_of("test").set_index("pair")
    for pair in pairs:
        path = Path(plan.field(TRUTH, pair))
        true_field(plan.cohort, str(table.at[pair, "fixed"]), str(table.at[pair, "moving"])).save(path)
        write_facts(path, pair=pair, settings={}, **_unmeasured())


def write_facts(field: Path, **facts: Any) -> None:
    """Write the JSON beside a field.

    Parameters
    ----------
    field : Path
        Path of the field.
    **facts
        Anything that JSON can hold.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.study.stages.register import read_facts, write_facts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_facts(Path(folder, "a--b.nii.gz"), pair="a--b", failed=None)
    ...     read_facts(Path(folder, "a--b.nii.gz"))
    {'pair': 'a--b', 'failed': None}
    """
    with atomic_write(facts_path(field)) as temporary:
        temporary.write_text(json.dumps(facts, indent=1))


def read_facts(field: Path) -> dict[str, Any]:
    """Read the JSON beside a field.

    Parameters
    ----------
    field : Path
        Path of the field.

    Returns
    -------
    dict
        As written by :func:`write_facts`.

    Raises
    ------
    InputError
        The JSON is missing or damaged.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.errors import InputError
    >>> from regcore.study.stages.register import read_facts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     try:
    ...         read_facts(Path(folder, "a--b.nii.gz"))
    ...     except InputError as error:
    ...         print(str(error).removeprefix(folder).partition(" (")[0])
    /a--b.json: missing or damaged
    """
    path = facts_path(field)
    return read_json(path, f"delete {path.parent} and run the study again")


def facts_path(field: Path) -> Path:
    """The path of the JSON beside a field.

    Parameters
    ----------
    field : Path
        Path of the field, which ends in ``.nii.gz``.

    Returns
    -------
    Path

    Examples
    --------
    >>> from pathlib import Path
    >>> from regcore.study.stages.register import facts_path
    >>> facts_path(Path("fields/a--b.nii.gz")).name
    'a--b.json'
    """
    return field.with_name(field.name.removesuffix(".nii.gz") + ".json")
