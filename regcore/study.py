"""The stages of a study: each reads files, calls the rooms below, and writes files.

Every function here is the whole content of one script of the workflow and takes plain paths and values,
so that a stage can also be run from Python or a test.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import regcore
from regcore.cohort import FILE_COLUMNS, Cohort
from regcore.config import fingerprint
from regcore.cost import Cost
from regcore.errors import InputError, RegistrationFailed
from regcore.evaluation.accuracy import read_landmarks
from regcore.evaluation.evaluate import Truth, evaluate_field, require_grid
from regcore.field import DisplacementField, read_field
from regcore.files import atomic_write
from regcore.isolation import CallFailed, Worker
from regcore.labels import found_labels, observed_classes, read_label_table, scored_labels
from regcore.methods import entry, make_method
from regcore.methods.base import LearnedMethod, Method
from regcore.plan import TRUTH, Plan
from regcore.preprocess import (
    common_grid,
    prepare,
    prepare_image,
    read_prepared,
    save_prepared,
)
from regcore.registration import register_scans
from regcore.runtime import processor_name
from regcore.synthesis.icbm152 import label_table
from regcore.training.distributed import Processes, launch, launched, process_group, wanted_processes
from regcore.training.model import load_model, save_model
from regcore.training.pairs import PairSampler
from regcore.training.trainer import Trainer
from regcore.training.validation import LabelledPairs, look
from regcore.tuning.amortised import tune
from regcore.volume import Volume, read_grid, read_labels, read_volume

log = logging.getLogger(__name__)

#: Training pairs that the finished network is scored on, beside the validation pairs.
TRAINING_PAIRS_SCORED = 16

#: Columns of the tidy rows of an evaluation.
COLUMNS = ["study", "method", "setting", "seed", "pair", "fixed", "moving", "contrasts", "label", "metric", "value"]

#: Packages whose versions are written beside every result.
PACKAGES = ("regcore", "torch", "numpy", "scipy", "nibabel", "antspyx", "nilearn", "snakemake")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found


def write_cohort_tables(plan: Plan, cohort_path: str | Path, labels_path: str | Path) -> None:
    """Write the embedded cohort's table, with paths relative to it, and the table of its labels."""
    cohort_path = Path(cohort_path)
    table = plan.cohort.table.copy()
    for column in FILE_COLUMNS:
        table[column] = [value and os.path.relpath(value, cohort_path.parent) for value in table[column]]
    with atomic_write(cohort_path) as path:
        table.to_csv(path, sep="\t", index=False)
    with atomic_write(labels_path) as path:
        label_table(plan.embedded).to_csv(path, sep="\t", index=False)


def write_pairs(plan: Plan, path: str | Path) -> None:
    """Write the validation and test pairs with their images, and the names that an import's fields may have."""
    table = plan.pairs.copy()
    for side in ("fixed", "moving"):
        table[f"{side}_image"] = [str(plan.cohort.file(scan, "image")) for scan in table[side]]
    table["field"] = table["pair"] + ".nii.gz"
    with atomic_write(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)


def check_scans(cohort: Cohort) -> str:
    """Read every voxel of a cohort once, so that a damaged file is found before any long work.

    Returns
    -------
    str
        What was checked.

    Raises
    ------
    InputError
        Listing every unusable file.
    """
    problems = []
    for scan in cohort.table.index:
        for column, read in (("image", read_volume), ("labels", read_labels), ("mask", read_labels)):
            path = cohort.file(scan, column)
            try:
                found = path and read(path)
                if column == "labels" and found and not found.data.any():
                    problems.append(f"{path}: the label map is empty (all zero); leave the column empty, or mend it")
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return f"{len(cohort.table)} scans of {cohort.path} are complete, finite and not constant"


def reference_image(plan: Plan) -> Volume:
    """The image that scans are aligned to, normalised on its own grid."""
    settings = plan.config["preprocess"]
    if plan.reference in plan.cohort.table.index:
        return _normalised(plan.cohort.files(plan.reference), settings)
    return prepare_image(read_volume(plan.reference), settings)


def prepare_scans(plan: Plan, scans: Sequence[str], folder: Path) -> None:
    """Align scans to the reference and bring them onto the common grid, in ``folder``."""
    settings = plan.config["preprocess"]
    reference = reference_image(plan)
    grid = common_grid(reference, settings)
    for number, scan in enumerate(scans, start=1):
        started = time.perf_counter()
        files = plan.cohort.files(scan)
        prepared = prepare(_normalised(files, settings), reference, grid, settings, plan.config["seed"])
        save_prepared(prepared, folder / scan, files.get("labels"))
        log.info("%d/%d  %s  %.1f s", number, len(scans), scan, time.perf_counter() - started)


def train(plan: Plan, name: str, folder: Path, checkpoints: Path) -> None:
    """Train a learned method on the training pairs and choose its weights on the validation pairs.

    Several processes train where there are several GPUs, or ``REGCORE_PROCESSES`` says so.

    Parameters
    ----------
    name : str
        The method's name in the study.
    folder : Path
        Where the model goes.
    checkpoints : Path
        Where the training keeps its state; from there it resumes.
    """
    method = make_method(plan.method_of(name), plan.settings(name), f"methods.{name}")
    count = 1 if launched() else wanted_processes(method.settings, f"methods.{name}")
    if count > 1:
        log.info("%s trains in %d processes", name, count)
        launch(count, train, plan, name, folder, checkpoints)
        return
    with process_group() as processes:
        _train(plan, name, method, processes, folder, checkpoints)


def _train(plan: Plan, name: str, method: LearnedMethod, processes: Processes, folder: Path, checkpoints: Path) -> None:
    seed = training_seed(plan.config["seed"], method.settings["replicate"])
    reference = reference_image(plan)
    grid = common_grid(reference, plan.config["preprocess"])
    pairs = plan.training_pairs[name]
    classes = None if method.observed is None else _observed_classes(plan, name, method.observed)
    sampler = PairSampler(pairs, {scan: plan.prepared(scan) for scan in pairs.scans}, seed, classes)
    log.info("%s: %d training pairs of %d scans", name, len(pairs), len(pairs.scans))
    log.info("settings %s", json.dumps(method.settings))
    identity = _training_identity(plan, name, method, classes)
    labelled, codes = labelled_pairs(plan, pairs_of_split(plan, "validation"))

    def validate(module: nn.Module) -> dict[str, float]:
        return look(method, module, labelled, codes, method.settings["select"] == "loss", classes)

    trainer = Trainer(method, sampler, validate, checkpoints, identity, grid.ndim, seed, processes=processes)
    trained = trainer.run()
    if not processes.first:
        return
    trainer.module.load_state_dict(trained.weights)
    method.module = trainer.module.eval()
    if method.hyperparameters:
        tuned = tune(method, labelled, codes)
        log.info("%s: on the validation pairs the best is %s (%.1f s)", name, tuned.values, tuned.seconds)
        method = method.at(tuned.values)
        trained.facts["tuned"] = {**asdict(tuned), "pairs": len(labelled.pairs)}
    chosen = sampler.some(TRAINING_PAIRS_SCORED)
    trained.facts["subjects"] = plan.cohort.table.loc[sorted(pairs.scans), "subject"].nunique()
    trained.facts["observed"] = sorted(classes or {})
    trained.facts["training_dice"] = training_dice(plan, method, chosen, method.module)
    save_model(folder, plan.method_of(name), method, trained, reference, grid, plan.config["preprocess"])
    trainer.checkpoint.unlink()


def training_seed(seed: int, replicate: int) -> int:
    """Seed of one of several trainings that differ in nothing else; the first has the study's."""
    return seed if replicate == 1 else int(np.random.SeedSequence([seed, replicate]).generate_state(1)[0])


def _training_identity(plan: Plan, name: str, method: LearnedMethod, classes: Mapping[int, int] | None) -> str:
    """Fingerprint of all that a training's outcome depends on."""
    training, validation = plan.training_pairs[name], plan.pairs_of("validation")
    files = [Path(f"{plan.prepared(scan)}.nii") for scan in sorted(training.scans | set(_scans(validation)))]
    return fingerprint(
        plan.method_of(name),
        method.settings,
        plan.config["seed"],
        training.identity,
        list(validation["pair"]),
        plan.config["labels"],
        sorted((classes or {}).items()),
        [(file.stat().st_size, file.stat().st_mtime_ns) for file in files],
        regcore.STAGE_VERSIONS["train"],
    )


def labelled_pairs(plan: Plan, pairs: Sequence[tuple[str, str]]) -> tuple[LabelledPairs, list[int]]:
    """Pairs of prepared scans, and the codes of the labels that are scored."""
    scans = {scan for pair in pairs for scan in pair}
    labelled = LabelledPairs.read(pairs, {scan: plan.prepared(scan) for scan in scans})
    labels = scored_labels(found_labels(labelled.labels.values()), plan.config["labels"], plan.label_table)
    return labelled, list(labels["index"])


def pairs_of_split(plan: Plan, split: str) -> list[tuple[str, str]]:
    """The (fixed, moving) scans of validation or test pairs."""
    table = plan.pairs_of(split)
    return list(zip(table["fixed"], table["moving"], strict=True))


def training_dice(
    plan: Plan, method: LearnedMethod, pairs: Sequence[tuple[str, str]], module: nn.Module
) -> float | None:
    """Mean Dice of a network on those of the training ``pairs`` that have labels; None where none has.

    What it exceeds the validation Dice by is the generalisation gap.
    """
    with_labels = [pair for pair in pairs if all(plan.cohort.file(scan, "labels") for scan in pair)]
    if not with_labels:
        return None
    labelled, codes = labelled_pairs(plan, with_labels)
    with torch.inference_mode():
        return look(method, module, labelled, codes)["dice"]


def _observed_classes(plan: Plan, name: str, observed: Any) -> dict[int, int]:
    """The classes of a training with labels: of the scored labels that occur in training or validation scans."""
    scans = sorted(plan.training_pairs[name].scans | set(_scans(plan.pairs_of("validation"))))
    maps = (read_labels(plan.prepared(scan) + "_labels.nii").data for scan in scans)
    labels = scored_labels(found_labels(maps), plan.config["labels"], plan.label_table)
    draw = plan.settings(name).get("observed_draw", 1)
    return observed_classes(labels, observed, f"methods.{name}.observed", draw)


def _scans(pairs: pd.DataFrame) -> list[str]:
    return sorted({*pairs["fixed"], *pairs["moving"]})


def method_to_register(plan: Plan, name: str, model: Path | None) -> Method:
    """An entry of the study, ready to register: with its weights, or those of the network it refines."""
    if model is None or plan.model_of(name) != name:
        method = make_method(plan.method_of(name), plan.settings(name))
        if model is not None:
            method.start_from(load_model(model).method)
        return method
    return load_model(model).method


def register_pairs(plan: Plan, name: str, pairs: Sequence[str], model: Path | None) -> None:
    """Register test pairs with one method and write each field, with a JSON of what it took.

    A pair for which the method finds no usable field has the JSON alone, with the reason under ``failed``.
    """
    method, external = method_to_register(plan, name, model), entry(plan.method_of(name)).external
    table = plan.pairs_of("test").set_index("pair")
    with Worker(torch.get_num_threads()) as worker:
        for number, pair in enumerate(pairs, start=1):
            stems = [plan.prepared(table.at[pair, side]) for side in ("fixed", "moving")]
            path = Path(plan.field(name, pair))
            try:
                if external:
                    job = (plan.method_of(name), method.settings, *stems, str(path))
                    limit = plan.config["registration"]["time_limit"]
                    took = worker.call("regcore.study:register_external", *job, seconds=limit)
                else:
                    took = register_pair(method, *stems, path)
                what = f"{took['seconds']['compute']:.2f} s"
            except (CallFailed, RegistrationFailed) as error:
                took = unmeasured(str(error), getattr(error, "printed", ""))
                what = f"FAILED: {error}"
            write_facts(
                path,
                pair=pair,
                method=plan.method_of(name),
                settings=method.settings,
                threads=torch.get_num_threads(),
                processor=processor_name(),
                device=method.device.type,
                versions=versions(),
                **took,
            )
            log.info("%s %d/%d  %s  %s", name, number, len(pairs), pair, what)


def register_pair(method: Method, fixed: str, moving: str, path: Path, programs: bool = False) -> dict[str, Any]:
    """Register two prepared scans and write the field.

    Parameters
    ----------
    fixed, moving : str
        Path stems of prepared scans.
    path : Path
        Of the field.
    programs : bool
        The method may run programs, whose memory counts.

    Returns
    -------
    dict
        What it took, with ``failed`` None.

    Raises
    ------
    RegistrationFailed
        There is no usable field.
    """
    cost = Cost()
    with cost.measured(programs, on_gpu=method.device.type == "cuda"):
        with cost.stage("load"):
            scans = [read_prepared(Path(stem)) for stem in (fixed, moving)]
        found = register_scans(method, *scans, cost=cost, inverse=False)
        with cost.stage("save"):
            found.field.save(path)
    return {"commands": found.commands, "tool": found.tool, "failed": None, **asdict(cost)}


def register_external(method: str, settings: Mapping, fixed: str, moving: str, path: str) -> dict[str, Any]:
    """:func:`register_pair` with a method by name; what a worker calls."""
    return register_pair(make_method(method, settings), fixed, moving, Path(path), programs=True)


def unmeasured(failed: str | None = None, printed: str = "") -> dict[str, Any]:
    """The layout of :func:`register_pair` for a pair that failed, or whose field was not made here."""
    return {"commands": [], "tool": None, "failed": failed, "stderr": printed, **asdict(Cost())}


def import_pairs(plan: Plan, name: str, pairs: Sequence[str]) -> None:
    """Bring fields made elsewhere into the layout of a method's fields; a pair without a usable one has failed."""
    method = make_method(plan.method_of(name), plan.settings(name), f"methods.{name}")
    table = plan.pairs_of("test").set_index("pair")
    for pair in pairs:
        path, source = Path(plan.field(name, pair)), plan.imported[name].get(pair)
        images = [plan.cohort.file(table.at[pair, side], "image") for side in ("fixed", "moving")]
        try:
            method.read(source, *map(read_grid, images)).save(path)
            took = unmeasured()
        except RegistrationFailed as error:
            took = unmeasured(str(error))
            log.warning("%s  %s  FAILED: %s", name, pair, error)
        facts = {"method": plan.method_of(name), "settings": method.settings, "source": source}
        elsewhere = dict.fromkeys(("threads", "processor", "device"))
        write_facts(path, pair=pair, versions=versions(), **facts, **elsewhere, **took)


def true_field(cohort: Cohort, fixed: str, moving: str) -> DisplacementField:
    """The known map of a pair, fixed → template → moving, on the fixed scan's grid."""
    to_template = read_field(cohort.file(fixed, "to_template"))
    from_template = read_field(cohort.file(moving, "from_template"))
    grid = to_template.grid
    there = to_template.targets().reshape(-1, grid.ndim)
    return DisplacementField.from_world(from_template.at(there).reshape(*grid.shape, grid.ndim), grid)


def evaluate_method(plan: Plan, name: str) -> pd.DataFrame:
    """Score the fields of one method (or the true ones) on all test pairs.

    Returns
    -------
    DataFrame
        Tidy rows: study, method, setting (JSON), seed, pair, fixed, moving, contrasts, label, metric, value.
        A pair whose registration failed has one row, ``failed`` with the value 1.

    Raises
    ------
    InputError
        A field is missing, damaged, or on another grid than its fixed scan.
    """
    pairs = plan.pairs_of("test")
    maps = {scan: read_labels(plan.cohort.file(scan, "labels")) for scan in set(pairs["fixed"]) | set(pairs["moving"])}
    codes = codes_to_score(plan, maps.values())
    frames = []
    for row in pairs.itertuples():
        path = Path(plan.field(name, row.pair))
        facts = read_facts(path)
        rows = [("failed", float(facts["failed"] is not None))]
        if facts["failed"] is None:
            scores = _scores(plan, row, path, maps, codes)
            costs = [(f"seconds_{stage}", value) for stage, value in facts["seconds"].items()]
            if costs:
                costs += [(what, facts[what]) for what in ("cpu_seconds", "peak_memory_mb")]
            if facts["peak_gpu_memory_mb"]:
                costs.append(("peak_gpu_memory_mb", facts["peak_gpu_memory_mb"]))
            rows += costs
        else:
            scores = pd.DataFrame(columns=["label", "metric", "value"])
        table = pd.DataFrame([(-1, *measured) for measured in rows], columns=scores.columns)
        frames.append(
            pd.concat([scores, table] if len(scores) else [table]).assign(
                setting=json.dumps(facts["settings"], sort_keys=True),
                pair=row.pair,
                fixed=row.fixed,
                moving=row.moving,
                contrasts=row.contrasts,
            )
        )
    found = pd.concat(frames, ignore_index=True)
    return found.assign(study=plan.config["study"], method=name, seed=plan.config["seed"])[COLUMNS]


def codes_to_score(plan: Plan, maps: Iterable[Volume]) -> list[int]:
    """The labels that are scored; those of the study's table that no scan has are named in the log."""
    found = found_labels(labels.data for labels in maps)
    if plan.label_table:
        absent = sorted(set(read_label_table(plan.label_table)["index"]) - found)
        if absent:
            log.warning("%s: in no test scan, and so without rows: labels %s", plan.label_table, absent)
    return list(scored_labels(found, plan.config["labels"], plan.label_table)["index"])


def _scores(plan: Plan, pair: Any, path: Path, maps: Mapping[str, Volume], codes: Sequence[int]) -> pd.DataFrame:
    """The rows of one pair that has a field."""
    fixed, moving = maps[pair.fixed], maps[pair.moving]
    known = Truth(
        _field_on(fixed, Path(plan.field(TRUTH, pair.pair))) if plan.knows_truth else None,
        _landmarks(plan.cohort, pair.fixed, pair.moving, fixed.grid.ndim),
    )
    images = [read_volume(plan.cohort.file(scan, "image")) for scan in (pair.fixed, pair.moving)]
    seed = int(fingerprint(plan.config["seed"], pair.pair), 16) % 2**32
    points = plan.config["evaluation"]["points"]
    return evaluate_field(_field_on(fixed, path), fixed, moving, codes, known, points, seed, images)


def _field_on(fixed: Volume, path: Path) -> DisplacementField:
    """Read a field that the study has made; says what to do where it cannot be scored."""
    try:
        field = read_field(path)
        require_grid(field, fixed)
    except InputError as error:
        raise InputError(f"{path} cannot be scored: {error}\nDelete {path.parent} and run the study again") from error
    return field


def write_true_fields(plan: Plan, pairs: Sequence[str]) -> None:
    """Write the true field of test pairs, in the layout of a method's fields."""
    table = plan.pairs_of("test").set_index("pair")
    for pair in pairs:
        path = Path(plan.field(TRUTH, pair))
        true_field(plan.cohort, table.at[pair, "fixed"], table.at[pair, "moving"]).save(path)
        write_facts(path, pair=pair, settings={}, **unmeasured())


def write_facts(field: Path, **facts: Any) -> None:
    """Write the JSON beside a field."""
    with atomic_write(facts_path(field)) as temporary:
        temporary.write_text(json.dumps(facts, indent=1))


def read_facts(field: Path) -> dict[str, Any]:
    """Read the JSON beside a field; raises :class:`InputError` where it is missing or damaged."""
    path = facts_path(field)
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: missing or damaged ({error}); delete {path.parent} and run the study again"
        ) from error


def facts_path(field: Path) -> Path:
    """The JSON beside a field."""
    return field.with_name(field.name.removesuffix(".nii.gz") + ".json")


def _normalised(files: Mapping[str, str], settings: Mapping) -> Volume:
    mask = read_labels(files["mask"]) if settings["mask"] and "mask" in files else None
    return prepare_image(read_volume(files["image"]), settings, mask)


def _landmarks(cohort: Cohort, fixed: str, moving: str, ndim: int) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    paths = cohort.file(fixed, "landmarks"), cohort.file(moving, "landmarks")
    return tuple(read_landmarks(path, ndim) for path in paths) if all(paths) else None
