"""The search for AutoReg's cells and objective (Algorithm 1), before the resulting network is trained."""

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from regcore.alignment.preprocess import common_grid
from regcore.autoreg.bilevel import Objective, Problem, Schedule, Stage
from regcore.autoreg.path_search import PathSearch
from regcore.autoreg.search import FACTS, FOUND, GRADIENT, TRACE, CellSearch, read_found
from regcore.errors import InputError
from regcore.losses import soft_dice
from regcore.methods.autoreg import AutoReg
from regcore.networks.architecture import CANDIDATES, DEFORMATION, FEATURE, NETWORK, OBJECTIVE, SIZES, Architecture
from regcore.process.devices import default_device
from regcore.process.files import atomic_write, read_json
from regcore.process.versions import processor_name
from regcore.settings.fingerprint import fingerprint
from regcore.study.plan import Plan
from regcore.study.stages.prepare import reference_image
from regcore.study.stages.train import training_identity, training_seed, validation_pairs
from regcore.study.versions import stage_version
from regcore.training.checkpoint import exclusive
from regcore.training.memory import check_memory, live_peak, step_bytes
from regcore.training.pairs import PairSampler

log = logging.getLogger(__name__)

CELLS = (FEATURE, DEFORMATION)


def search_architecture(plan: Plan, name: str, folder: Path, checkpoints: Path) -> None:
    """Run the search of an entry's ``autosearch``.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        The entry.
    folder : Path
        Folder for ``architecture.json`` (which may be edited by hand), ``search.json`` and ``trace.csv``.
    checkpoints : Path
        Folder for the state of the stages, from which they resume.

    Raises
    ------
    InputError
        Another process runs this search, a loss diverged, or λ cannot be searched from its start.
    """
    search = plan.entries[name].existing_cell_search
    with exclusive(checkpoints):
        start = _start(plan, search)
        data = _Data(plan, name, plan.entries[name].make(start))
        if OBJECTIVE in search.what:
            _objective_of(data, data.method)  # raises if λ cannot be searched from its start
        memory = _training_bytes(data)
        stages: dict[str, Any] = {}
        rows: list[pd.DataFrame] = []
        method = data.method
        for stage in _stages(search):
            method, facts, trace = stage(data, method, search, checkpoints)
            stages |= facts
            rows.append(trace)
            log.info("found %s", json.dumps({"architecture": method.settings.architecture, **method.weights}))
        _write(folder, search, method, {"training_step_bytes": memory, "stages": stages}, rows)
        for left in checkpoints.glob("*.safetensors"):
            left.unlink()


def found_values(plan: Plan, name: str) -> dict[str, Any]:
    """The settings found by an entry's search; none if it has no search.

    Parameters
    ----------
    plan : Plan
        The study, in which the search is finished.
    name : str
        The entry.

    Returns
    -------
    dict of str → value
        ``architecture``, the λ and the sizes, as in ``architecture.json``.

    Raises
    ------
    InputError
        That file is missing or damaged.

    Examples
    --------
    >>> from regcore.study.plan import plan_study
    >>> from regcore.study.stages.architecture import found_values
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> plan = plan_study({"study": "small", "cohort": cohort, "methods": {"autoreg": {}}}, check=False)
    >>> found_values(plan, "autoreg")  # its cells are chosen by hand
    {}
    """
    entry = plan.entries[name]
    return {} if entry.cell_search is None else read_found(plan.files.architecture(name), entry.where)


def _start(plan: Plan, search: CellSearch) -> dict[str, Any]:
    start = search.settings.start
    if start is None:
        return {}
    return read_found(plan.files.architecture(start) if start in search.others else start, "start")


class _Data:
    """The data of a search."""

    def __init__(self, plan: Plan, name: str, method: AutoReg):
        self.plan, self.name, self.method = plan, name, method
        self.seed = training_seed(plan.settings.seed, method.settings.replicate)
        self.grid = common_grid(reference_image(plan), plan.settings.preprocess)
        self.device = default_device()
        pairs = plan.entries[name].existing_training_pairs
        self.sampler = PairSampler(pairs, {scan: plan.prepared(scan) for scan in pairs.scans}, self.seed)
        self.labelled, codes = validation_pairs(plan, name)
        self.classes = {code: place for place, code in enumerate(codes, start=1)}
        version = stage_version("architecture", "autoreg")
        self.identity = fingerprint(version, training_identity(plan, name, method, self.classes))

    def training(self, step: int) -> dict[str, Any]:
        """The batch of training pairs of a step."""
        batch = self.sampler.batch(step, self.method.settings.batch_size)
        return {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in batch.items()}

    def validation(self, step: int, labels: bool = False) -> dict[str, Any]:
        """The validation pair of a step."""
        pairs = self.labelled.pairs
        # One word more than the sampler's seed: with the same seed the training pair would determine this pair.
        number = np.random.default_rng([self.seed, step, 1]).integers(len(pairs))
        return self.labelled.batch(pairs[int(number)], self.device, self.classes if labels else None)

    def stage_seed(self, stage: str) -> int:
        """Seed of a stage's initial weights."""
        return int(np.random.SeedSequence([self.seed, *stage.encode()]).generate_state(1)[0])


_Outcome = tuple[AutoReg, dict[str, Any], pd.DataFrame]


def _stages(search: CellSearch) -> list[Callable[..., _Outcome]]:
    cells = tuple(stage for stage in search.what if stage in CELLS)
    if search.settings.by == GRADIENT:
        found: list[Callable[..., _Outcome]] = [partial(_cells_by_gradient, kind=kind) for kind in cells]
    else:
        found = [partial(_cells_by_trying, kinds=cells)] if cells else []
    return [*found, *([_objective] if OBJECTIVE in search.what else [])]


def _cells_by_gradient(data: _Data, method: AutoReg, search: CellSearch, checkpoints: Path, kind: str) -> _Outcome:
    """Stages 1 and 2: search α of one kind of cells by the loss on validation pairs."""
    torch.manual_seed(data.stage_seed(kind))
    network = method.super_network(data.grid.ndim, (kind,)).to(data.device)

    def loss(batch: Mapping[str, Any]) -> Tensor:
        return method.training_step(network, batch)["total"]

    def values() -> dict[str, float]:
        mixture = network.mixtures[kind].detach().softmax(1).tolist()
        return {
            f"{kind}.{cell}.{edge + 1}.{operation}": weight
            for (cell, edge, _), weights in zip(network.architecture.edges(kind), mixture, strict=True)
            for operation, weight in zip(CANDIDATES, weights, strict=True)
        }

    problem = Problem(
        network,
        network.weights(),
        network.mixtures,
        lambda step: loss(data.training(step)),
        lambda step: loss(data.validation(step)),
        values,
        lambda row, other: _likeliest(row, kind) == _likeliest(other, kind),
        lambda row: "  ".join(f"{name} {weight:.3f}" for name, weight in _likeliest(row, kind, weighed=True)),
    )
    facts, trace = _run(kind, problem, data, method, search, checkpoints)
    return _with(data, method, {"architecture": network.chosen().as_json()}), facts, trace


def _likeliest(row: Mapping[str, float], kind: str, weighed: bool = False) -> list[Any]:
    """The operation with the largest weight on each edge, optionally with that weight."""
    edges: dict[str, dict[str, float]] = {}
    for name, weight in row.items():
        if name.startswith(f"{kind}."):
            edge, operation = name.rsplit(".", 1)
            edges.setdefault(edge, {})[operation] = weight
    best = [max(weights, key=weights.__getitem__) for weights in edges.values()]
    if not weighed:
        return best
    return [(name, weights[name]) for name, weights in zip(best, edges.values(), strict=True)]


def _cells_by_trying(
    data: _Data, method: AutoReg, search: CellSearch, checkpoints: Path, kinds: tuple[str, ...]
) -> _Outcome:
    """The control: try architectures with all kinds of cells, for as long as the other search took."""
    settings = search.settings
    allowed = _facts_of(data.plan, str(settings.as_long_as))["cells_cpu_seconds"]
    torch.manual_seed(data.stage_seed(settings.by))
    network = method.super_network(data.grid.ndim, kinds).to(data.device)

    def loss(batch: Mapping[str, Any], path: Architecture) -> Tensor:
        return method.training_step(partial(network, path=path), batch)["total"]

    def score(path: Architecture) -> float:
        batches = (data.labelled.batch(pair, data.device, None) for pair in data.labelled.pairs)
        with torch.inference_mode():
            return float(np.mean([loss(batch, path).item() for batch in batches]))

    identity = fingerprint(data.identity, settings.as_dict(), allowed)
    found = PathSearch(
        network,
        lambda step, path: loss(data.training(step), path),
        score,
        settings.by,
        allowed,
        settings.optimiser,
        settings.learning_rate,
        data.seed,
        checkpoints,
        identity,
    )
    tried = found.run()
    facts = {
        "steps": tried.step,
        "architectures": len(tried.trials),
        "seconds": tried.seconds,
        "cpu_seconds": tried.cpu_seconds,
        "parameters": sum(weight.numel() for weight in network.weights()),
    }
    trace = pd.DataFrame({"stage": settings.by, "validation_loss": [trial["loss"] for trial in tried.trials]})
    best = found.architecture(tried.best)
    return _with(data, method, {"architecture": best.as_json()}), {settings.by: facts}, trace


def _objective(data: _Data, method: AutoReg, search: CellSearch, checkpoints: Path) -> _Outcome:
    """Stage 3: search λ by the overlap of labels on validation pairs, after a warm-up of the weights."""
    torch.manual_seed(data.stage_seed(OBJECTIVE))
    network, objective = method.build(data.grid.ndim).to(data.device), _objective_of(data, method)

    def flow(batch: Mapping[str, Any]) -> Tensor:
        return method.predict(network, batch["fixed"], batch["moving"])

    def inner(step: int) -> Tensor:
        batch = data.training(step)
        return method.weighed_losses(flow(batch), batch, objective.weights())["total"]

    def outer(step: int) -> Tensor:
        batch = data.validation(step, labels=True)
        displacement = method.displacement(flow(batch), batch["fixed"])
        return soft_dice(batch["fixed_labels"], batch["moving_labels"], displacement, batch["codes"])

    tolerance = search.settings.tolerance

    def same(row: Mapping[str, float], other: Mapping[str, float]) -> bool:
        return all(abs(row[name] - other[name]) <= tolerance * abs(other[name]) for name in objective.values())

    problem = Problem(
        network,
        list(network.parameters()),
        objective,
        inner,
        outer,
        objective.values,
        same,
        lambda row: "  ".join(f"{name} {row[name]:.4f}" for name in objective.values()),
    )
    facts, trace = _run(OBJECTIVE, problem, data, method, search, checkpoints)
    return _with(data, method, objective.values()), facts, trace


def _run(
    stage: str, problem: Problem, data: _Data, method: AutoReg, search: CellSearch, checkpoints: Path
) -> tuple[dict[str, Any], pd.DataFrame]:
    settings, own = search.settings, stage == OBJECTIVE
    schedule = Schedule(
        settings.warmup_of(own),
        settings.epochs_of(own),
        settings.epoch,
        settings.stable,
        settings.learning_rate,
        settings.objective_rate if own else settings.architecture_rate,
        settings.epsilon,
        own and settings.keep_length,
        settings.optimiser,
    )
    size = method.settings.batch_size
    check_memory(step_bytes(method, problem.module, data.grid.shape, size), data.device)
    identity = fingerprint(data.identity, settings.as_dict(), stage, method.settings.as_dict())
    trace = Stage(stage, problem, schedule, checkpoints, identity).run()
    facts = {
        "epochs": len(trace.rows),
        "steps": len(trace.rows) * schedule.epoch,
        "stable": trace.stable,
        "seconds": round(trace.seconds, 1),
        "cpu_seconds": round(trace.cpu_seconds, 1),
        "step_bytes": trace.step_bytes,
        "parameters": sum(weight.numel() for weight in problem.weights),
    }
    return {stage: facts}, pd.DataFrame(trace.rows).assign(stage=stage)


def _objective_of(data: _Data, method: AutoReg) -> Objective:
    try:
        return Objective(method.weights).to(data.device)
    except ValueError as error:
        raise InputError(f"methods.{data.name}: {error}") from error


def _training_bytes(data: _Data) -> int:
    """Peak memory of a training step's tensors before the search, without the weights."""
    network, batch = data.method.build(data.grid.ndim).to(data.device), data.training(0)
    return live_peak(lambda: data.method.training_step(network, batch)["total"].backward())


def _with(data: _Data, method: AutoReg, values: Mapping[str, Any]) -> AutoReg:
    """A copy of the method with other settings."""
    return AutoReg({**method.settings.as_dict(), **values}, f"methods.{data.name}")


def _facts_of(plan: Plan, name: str) -> dict[str, Any]:
    return read_json(plan.files.architecture(name) / FACTS, "delete its folder and run the study again")


def _write(
    folder: Path, search: CellSearch, method: AutoReg, measured: Mapping[str, Any], rows: list[pd.DataFrame]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stages = measured["stages"]
    cells = [facts for stage, facts in stages.items() if stage != OBJECTIVE]
    facts = {
        "settings": search.settings.as_dict(),
        **measured,
        "cpu_seconds": sum(facts["cpu_seconds"] for facts in stages.values()),
        "cells_cpu_seconds": sum(facts["cpu_seconds"] for facts in cells),
        "device": torch.cuda.get_device_name() if default_device().type == "cuda" else processor_name(),
    }
    with atomic_write(folder / TRACE) as path:
        (pd.concat(rows) if rows else pd.DataFrame({"stage": []})).to_csv(path, index=False)
    with atomic_write(folder / FACTS) as path:
        path.write_text(json.dumps(facts, indent=1))
    with atomic_write(folder / FOUND) as path:
        objective = {name: float(f"{value:.6g}") for name, value in method.weights.items()}
        sizes = {name: method.settings.value(name) for name in SIZES}
        path.write_text(_readable({**method.settings.cells.as_json(), OBJECTIVE: objective, NETWORK: sizes}))


def _readable(found: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with one line per cell and one per λ."""
    parts = [
        f"  {json.dumps(part)}: {{\n"
        + ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
        + "\n  }"
        for part, content in found.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"
