"""Stage: train learned methods on a study's pairs."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from regcore.alignment.preprocess import common_grid
from regcore.cohort.labels import BY_SIZE, classes_by_size, found_labels, observed_classes, scored_labels
from regcore.images.volume import read_labels
from regcore.methods.base import LearnedMethod
from regcore.methods.hypernetworked import Hypernetworked
from regcore.models.trained import save_model
from regcore.settings.fingerprint import fingerprint
from regcore.study.plan import Plan
from regcore.study.stages.prepare import reference_image
from regcore.study.versions import stage_version
from regcore.training.distributed import Processes, launch, launched, process_group, wanted_processes
from regcore.training.pairs import PairSampler
from regcore.training.trainer import Trainer
from regcore.training.validation import LabelledPairs, validate_network
from regcore.tuning.amortised import tune

log = logging.getLogger(__name__)

#: Number of training pairs on which the finished network is scored, in addition to the validation pairs.
TRAINING_PAIRS_SCORED = 16


def train(
    plan: Plan,
    name: str,
    folder: Path,
    checkpoints: Path,
    point: Mapping[str, Any] | None = None,
    watch: Callable[[int, float], bool] | None = None,
) -> None:
    """Train a learned method on the training pairs and choose its weights on the validation pairs.

    Several processes train if there are several GPUs or ``REGCORE_PROCESSES`` is set.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        The method's name in the study.
    folder : Path
        Folder for the model.
    checkpoints : Path
        Folder for the training's state, from which it resumes.
    point : mapping, optional
        Hyperparameters of a trial, if they are searched.
    watch : callable, optional
        (number of the validation, its Dice) → whether to stop training there, without a model. Must pickle.

    Raises
    ------
    DivergedError
        The loss became NaN or infinite.
    InputError
        Another process trains in the same folder, a step does not fit into memory, or no label can be scored.
    """
    method = plan.entries[name].make(point)
    count = 1 if launched() else wanted_processes(method.settings, f"methods.{name}")
    if count > 1:
        log.info("%s trains in %d processes", name, count)
        launch(count, train, plan, name, folder, checkpoints, point, watch)
        return
    with process_group() as processes:
        _train(plan, name, method, processes, folder, checkpoints, watch)


def _train(
    plan: Plan,
    name: str,
    method: LearnedMethod,
    processes: Processes,
    folder: Path,
    checkpoints: Path,
    watch: Callable[[int, float], bool] | None,
) -> None:
    seed = training_seed(plan.settings.seed, method.settings.replicate)
    reference = reference_image(plan)
    grid = common_grid(reference, plan.settings.preprocess)
    method.fit_to(grid.shape)
    pairs = plan.entries[name].existing_training_pairs
    classes = None if method.observed is None else _observed_classes(plan, name, method)
    sampler = PairSampler(pairs, {scan: plan.prepared(scan) for scan in pairs.scans}, seed, classes)
    log.info("%s: %d training pairs of %d scans", name, pairs.different, len(pairs.scans))
    log.info("settings %s", json.dumps(method.settings.as_dict()))
    identity = training_identity(plan, name, method, classes)
    labelled, codes = validation_pairs(plan, name)

    def validate(module: nn.Module) -> dict[str, float]:
        return validate_network(method, module, labelled, codes, method.settings.select == "loss", classes)

    trainer = Trainer(method, sampler, validate, checkpoints, identity, grid.ndim, seed, None, processes, watch)
    trained = trainer.run()
    if trainer.ended or not processes.first:
        return
    trainer.module.load_state_dict(trained.weights)
    network = method.module = trainer.module.eval()
    if None in method.values.values():
        assert isinstance(method, Hypernetworked)  # other methods have no hyperparameters
        tuned = tune(method, labelled, codes, fixed={key: v for key, v in method.values.items() if v is not None})
        log.info("%s: on the validation pairs the best is %s (%.1f s)", name, tuned.values, tuned.seconds)
        method = method.at(tuned.values)
        trained.facts["tuned"] = {**asdict(tuned), "pairs": len(labelled.pairs)}
        with torch.inference_mode():  # at the chosen hyperparameters; the history has means over them
            trained.facts["best_validation_dice"] = validate_network(method, network, labelled, codes)["dice"]
    chosen = sampler.some(TRAINING_PAIRS_SCORED)
    trained.facts["subjects"] = plan.cohort.table["subject"].loc[sorted(pairs.scans)].nunique()
    trained.facts["observed"] = sorted(classes or {})
    trained.facts["training_dice"] = training_dice(plan, method, chosen, network)
    save_model(folder, plan.entries[name].method, method, trained, reference, grid, plan.settings.preprocess)
    trainer.checkpoint.remove()


def training_seed(seed: int, replicate: int) -> int:
    """Seed of one of several trainings that differ only in their seed; the first has the study's.

    Parameters
    ----------
    seed : int
        The study's.
    replicate : int
        Number of the training, from 1.

    Returns
    -------
    int

    Examples
    --------
    >>> from regcore.study.stages.train import training_seed
    >>> training_seed(7, replicate=1), training_seed(7, replicate=2) == training_seed(8, replicate=2)
    (7, False)
    """
    return seed if replicate == 1 else int(np.random.SeedSequence([seed, replicate]).generate_state(1)[0])


def training_identity(plan: Plan, name: str, method: LearnedMethod, classes: Mapping[int, int] | None) -> str:
    """Fingerprint of everything that a training's outcome depends on.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        The entry.
    method : LearnedMethod
        Its method, fitted to the images.
    classes : mapping of int → int or None
        Label code → class, if training uses labels.

    Returns
    -------
    str
        It changes with the image files and the code, and as :func:`planned_identity`.
    """
    training, validation = plan.entries[name].existing_training_pairs, plan.validation_pairs(name)
    files = [Path(f"{plan.prepared(scan)}.nii") for scan in sorted(training.scans | set(_scans(validation)))]
    return fingerprint(
        *planned_identity(plan, name, method, classes),
        [(file.stat().st_size, file.stat().st_mtime_ns) for file in files],
        stage_version("train", plan.entries[name].method),
    )


def planned_identity(plan: Plan, name: str, method: LearnedMethod, classes: Mapping[int, int] | None) -> list[Any]:
    """The study's values that a training's outcome depends on, without the image files.

    Parameters
    ----------
    plan : Plan
        The study.
    name : str
        The entry.
    method : LearnedMethod
        Its method.
    classes : mapping of int → int or None
        Label code → class, if training uses labels.

    Returns
    -------
    list
        JSON-like.

    Examples
    --------
    >>> from regcore.study.plan import plan_study
    >>> from regcore.study.stages.train import planned_identity
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> methods = {"voxelmorph": {}, "other": {"method": "voxelmorph", "lambda": 2}}
    >>> plan = plan_study({"study": "small", "cohort": cohort, "methods": methods}, check=False)
    >>> first, second = (planned_identity(plan, name, plan.entries[name].made, None) for name in methods)
    >>> sorted(key for key in first[1] if first[1][key] != second[1][key])
    ['lambda']
    """
    return [
        plan.entries[name].method,
        method.settings.as_dict(),
        method.hyperparameters,  # their order matters, and a fingerprint ignores the order of keys
        plan.settings.seed,
        plan.entries[name].existing_training_pairs.identity,
        list(plan.validation_pairs(name)["pair"]),
        plan.settings.labels.as_dict(),
        sorted((classes or {}).items()),
    ]


def labelled_pairs(plan: Plan, pairs: Sequence[tuple[str, str]]) -> tuple[LabelledPairs, list[int]]:
    """Pairs of prepared scans with their labels, and the codes of the scored labels.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    pairs : sequence of (str, str)
        Fixed and moving scans.

    Returns
    -------
    labelled : LabelledPairs
        In memory.
    codes : list of int
        Those of the scored labels that one of the scans has.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    scans = {scan for pair in pairs for scan in pair}
    labelled = LabelledPairs.read(pairs, {scan: plan.prepared(scan) for scan in scans})
    labels = scored_labels(found_labels(labelled.labels.values()), plan.settings.labels, plan.label_table)
    return labelled, list(labels["index"])


def validation_pairs(plan: Plan, name: str) -> tuple[LabelledPairs, list[int]]:
    """The :func:`labelled_pairs` on which a learned method's weights are chosen.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    name : str
        The entry.

    Returns
    -------
    labelled : LabelledPairs
        In memory.
    codes : list of int
        Those of the scored labels that one of the scans has.
    """
    return labelled_pairs(plan, _listed(plan.validation_pairs(name)))


def pairs_of_split(plan: Plan, split: str) -> list[tuple[str, str]]:
    """The (fixed, moving) scans of validation or test pairs.

    Parameters
    ----------
    plan : Plan
        The study.
    split : {"validation", "test"}
        The split.

    Returns
    -------
    list of (str, str)

    Examples
    --------
    >>> from regcore.study.plan import plan_study
    >>> from regcore.study.stages.train import pairs_of_split
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> plan = plan_study({"study": "small", "cohort": cohort, "methods": {"affine": {}}}, check=False)
    >>> pairs_of_split(plan, "test")
    [('sub-005_1_T1w', 'sub-006_1_T1w'), ('sub-006_1_T1w', 'sub-005_1_T1w')]
    """
    return _listed(plan.pairs_of(split))


def training_dice(
    plan: Plan, method: LearnedMethod, pairs: Sequence[tuple[str, str]], module: nn.Module
) -> float | None:
    """Mean Dice of a network on the training ``pairs`` with labels; None if no pair has labels.

    Its excess over the validation Dice is the generalisation gap.

    Parameters
    ----------
    plan : Plan
        The study, whose scans are prepared.
    method : LearnedMethod
        The network's method.
    pairs : sequence of (str, str)
        Fixed and moving scans.
    module : nn.Module
        The network, in evaluation mode.

    Returns
    -------
    float or None
    """
    with_labels = [pair for pair in pairs if all(plan.cohort.file(scan, "labels") for scan in pair)]
    if not with_labels:
        return None
    labelled, codes = labelled_pairs(plan, with_labels)
    with torch.inference_mode():
        return validate_network(method, module, labelled, codes)["dice"]


def _observed_classes(plan: Plan, name: str, method: LearnedMethod) -> dict[int, int]:
    """Label code → class for a training with labels: the scored labels that occur in training or validation scans.

    If images are synthesised from label maps: all labels in training scans.
    """
    pairs = plan.entries[name].existing_training_pairs
    if method.observed == BY_SIZE:
        training = (read_labels(plan.prepared(scan) + "_labels.nii").data for scan in pairs.scans)
        return classes_by_size(training, f"methods.{name}")
    scans = sorted(pairs.scans | set(_scans(plan.validation_pairs(name))))
    maps = (read_labels(plan.prepared(scan) + "_labels.nii").data for scan in scans)
    labels = scored_labels(found_labels(maps), plan.settings.labels, plan.label_table)
    return observed_classes(labels, method.observed, f"methods.{name}.observed", method.observed_draw)


def _listed(pairs: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(pairs["fixed"], pairs["moving"], strict=True))


def _scans(pairs: pd.DataFrame) -> list[str]:
    return sorted({*pairs["fixed"], *pairs["moving"]})
