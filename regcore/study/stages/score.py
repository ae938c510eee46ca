"""Stage: score the fields of a method, computed here or imported."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from regcore.cohort.labels import found_labels, read_label_table, scored_labels
from regcore.cohort.landmarks import read_landmarks
from regcore.cohort.table import Cohort
from regcore.errors import InputError
from regcore.evaluation.evaluate import Truth, evaluate_field, require_grid
from regcore.images.field import DisplacementField, read_field
from regcore.images.volume import Volume, read_labels, read_volume
from regcore.settings.fingerprint import fingerprint
from regcore.study.checks import TRUTH
from regcore.study.plan import Plan
from regcore.study.stages.register import read_facts

log = logging.getLogger(__name__)

#: Columns of the tidy rows of an evaluation.
COLUMNS = ["study", "method", "setting", "seed", "pair", "fixed", "moving", "contrasts", "label", "metric", "value"]


def evaluate_method(plan: Plan, name: str) -> pd.DataFrame:
    """Score the fields of one method (or the true ones) on all test pairs.

    Parameters
    ----------
    plan : Plan
        The study, in which the method has registered all test pairs.
    name : str
        The entry, or ``TRUTH``.

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
    scans = set(pairs["fixed"]) | set(pairs["moving"])
    maps = {scan: read_labels(plan.cohort.existing(scan, "labels")) for scan in scans}
    codes = _codes_to_score(plan, maps.values())
    frames = []
    row: Any  # its attributes are the columns of the table
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
    return found.assign(study=plan.settings.study, method=name, seed=plan.settings.seed)[COLUMNS]


def _codes_to_score(plan: Plan, maps: Iterable[Volume]) -> list[int]:
    """The labels to score. Labels of the study's table that no scan has are logged."""
    found = found_labels(labels.data for labels in maps)
    if plan.label_table:
        absent = sorted(set(read_label_table(plan.label_table)["index"]) - found)
        if absent:
            log.warning("%s: labels %s are in no test scan and are not scored", plan.label_table, absent)
    return list(scored_labels(found, plan.settings.labels, plan.label_table)["index"])


def _scores(plan: Plan, pair: Any, path: Path, maps: Mapping[str, Volume], codes: Sequence[int]) -> pd.DataFrame:
    """The rows of one pair that has a field."""
    fixed, moving = maps[pair.fixed], maps[pair.moving]
    known = Truth(
        _field_on(fixed, Path(plan.field(TRUTH, pair.pair))) if plan.knows_truth else None,
        _landmarks(plan.cohort, pair.fixed, pair.moving, fixed.grid.ndim),
    )
    images = [read_volume(plan.cohort.existing(scan, "image")) for scan in (pair.fixed, pair.moving)]
    seed = int(fingerprint(plan.settings.seed, pair.pair), 16) % 2**32
    points = plan.settings.evaluation.points
    return evaluate_field(_field_on(fixed, path), fixed, moving, codes, known, points, seed, images)


def _field_on(fixed: Volume, path: Path) -> DisplacementField:
    """Read a field of the study; the error says what to do if it cannot be scored."""
    try:
        field = read_field(path)
        require_grid(field, fixed)
    except InputError as error:
        raise InputError(f"{path} cannot be scored: {error}\nDelete {path.parent} and run the study again") from error
    return field


def _landmarks(cohort: Cohort, fixed: str, moving: str, ndim: int) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    on_fixed, on_moving = cohort.file(fixed, "landmarks"), cohort.file(moving, "landmarks")
    if on_fixed is None or on_moving is None:
        return None
    return read_landmarks(on_fixed, ndim), read_landmarks(on_moving, ndim)
