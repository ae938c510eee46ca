"""Tuning of a trained hypernetwork on the labelled scans of a cohort: the work of ``regcore tune``."""

import json
import logging
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from regcore.alignment.prepared import save_prepared
from regcore.alignment.preprocess import read_scan
from regcore.cohort.labels import expand_codes, found_labels
from regcore.cohort.pairs import contrasts_of, dataset_of, draw_pairs, read_pairs, task_of
from regcore.cohort.settings import PairSettings
from regcore.cohort.table import Cohort, check_files, read_cohort
from regcore.commands.scans import prepare_for
from regcore.errors import InputError, did_you_mean
from regcore.images.volume import read_grid, read_labels, read_volume
from regcore.methods.hypernetworked import Hypernetworked
from regcore.models.trained import Model, load_model
from regcore.process.files import atomic_write
from regcore.process.outputs import result_folder
from regcore.process.progress import tracked
from regcore.process.versions import processor_name, versions
from regcore.reporting.figures import save_figure
from regcore.reporting.tuned import counted, tuned_figure
from regcore.training.validation import LabelledPairs
from regcore.tuning.amortised import rows_of, sweep, tune
from regcore.tuning.optima import Optimum, curve, optimum

log = logging.getLogger(__name__)

#: Groups for which the best values can be found separately: columns of the pairs or of the scores.
GROUPINGS = ("label", "pair", "dataset", "task", "contrasts")
#: What a tuning writes; groups only with ``per``.
RECORD = "tuned.json"
RESULTS = ("curve.csv", "groups.csv", "curve.png", RECORD)
#: Bytes for that, amply.
ROOM = 2**21
#: The group of pairs whose scans come from two data sets, or from none.
NO_DATASET = "no common dataset"


def tune_model(
    folder: str | Path,
    cohort_path: str | Path,
    output: Path,
    *,
    split: str = "validation",
    pairs: int = 20,
    contrasts: Sequence[tuple[str, str]] = (),
    pair_table: str | Path | None = None,
    labels: Iterable[int | str] = (),
    per: str | None = None,
    points: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Find the hyperparameters with which a model aligns the labels of a cohort best.

    Writes to ``output``: ``curve.csv``, the mean Dice at every point of a dense sweep and its standard deviation over
    pairs; with ``per`` also ``groups.csv``, the same for every group; ``curve.png``; and ``tuned.json``.  They replace
    an earlier tuning's as one, at the end.

    Parameters
    ----------
    folder : path
        A trained model with a hypernetwork.
    cohort_path : path
        Table of the scans, see :mod:`regcore.cohort.table`. Scans that are used need labels.
    output : Path
        Folder for the results; other files in it stay.
    split : str
        Split from which pairs of different subjects are drawn.
    pairs : int
        Number of pairs; all pairs if there are fewer.
    contrasts : sequence of (str, str)
        Fixed and moving contrast, with ``pairs`` pairs of each. Optional if the split has one contrast.
    pair_table : path, optional
        Use these pairs instead of drawing them: columns ``fixed moving``.
    labels : iterable of int or str
        Labels to score, as codes or ranges such as ``"1-35"``; all by default.
    per : {"label", "pair", "dataset", "task", "contrasts"}, optional
        Also find the best values for each of these.
    points : int, optional
        Values of each hyperparameter in the sweep.
    seed : int
        Seed for drawing pairs, for the alignments and for resampling the pairs.

    Returns
    -------
    dict
        The content of ``tuned.json``.

    Raises
    ------
    InputError
        The model has no hypernetwork, the cohort has no such pairs, a scan lacks labels or does not fit the
        model, none of the labels occurs, or ``output`` cannot be written to.
    """
    inputs = [cohort_path, *([pair_table] if pair_table else [])]
    with result_folder(output, RESULTS, RECORD, ROOM, inputs) as results:
        return _tuned(
            results,
            folder,
            cohort_path,
            split=split,
            pairs=pairs,
            contrasts=contrasts,
            pair_table=pair_table,
            labels=labels,
            per=per,
            points=points,
            seed=seed,
        )


def _tuned(
    output: Path,
    folder: str | Path,
    cohort_path: str | Path,
    *,
    split: str,
    pairs: int,
    contrasts: Sequence[tuple[str, str]],
    pair_table: str | Path | None,
    labels: Iterable[int | str],
    per: str | None,
    points: int | None,
    seed: int,
) -> dict[str, Any]:
    """:func:`tune_model`, into a folder that is new."""
    began = time.perf_counter()
    model = load_model(folder)
    method = _hypernetwork(model, folder)
    cohort = read_cohort(cohort_path)
    table = _listed(cohort, pair_table) if pair_table else _drawn(cohort, split, contrasts, pairs, seed)
    _check_groups(cohort, table, per)
    scans = sorted({*table["fixed"], *table["moving"]})
    _check_scans(cohort, scans, model, folder)
    wanted = _codes(cohort, scans, labels)
    labelled = _prepared(model, cohort, scans, list(zip(table["fixed"], table["moving"], strict=True)), seed)
    codes = sorted(wanted & found_labels(labelled.labels.values()))
    seconds = {"prepare": time.perf_counter() - began}

    log.info("following the gradient on %d pairs", len(table))
    tuned = tune(method, labelled, codes)
    seconds["tune"] = tuned.seconds
    started = time.perf_counter()
    rows = _swept(method, labelled, codes, points)
    seconds["sweep"] = time.perf_counter() - started

    names = method.hyperparameters
    along = curve(rows, names)
    best = optimum(rows, names, seed=seed)
    groups = _groups(rows, table, per)
    optima = {group: optimum(own, names, seed=seed) for group, own in groups.items()}
    curves = {group: curve(own, names) for group, own in groups.items()}
    with atomic_write(output / "curve.csv") as path:
        along.to_csv(path, index=False)
    if per:
        with atomic_write(output / "groups.csv") as path:
            pd.concat([own.assign(**{per: group}) for group, own in curves.items()]).to_csv(path, index=False)
    save_figure(tuned_figure(along, best, curves, optima, len(table)), output / "curve.png")
    seconds["total"] = time.perf_counter() - began
    report = {
        "model": str(folder),
        "method": model.name,
        "prior": method.ranges,
        "stored": method.values,
        "cohort": str(cohort_path),
        "split": None if pair_table else split,
        "pair_table": pair_table and str(pair_table),
        "pairs": table.to_dict("records"),
        "labels": codes,
        "best": _facts(best, len(table)),
        "ends": _ends(along, names),
        "lowest": float(along["mean"].min()),
        "gradient": asdict(tuned),
        "per": per,
        "groups": {
            group: _facts(found, groups[group].groupby(["fixed", "moving"]).ngroups) for group, found in optima.items()
        },
        "settings_swept": len(along),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processor": processor_name(),
        "device": method.device.type,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "versions": versions(),
    }
    with atomic_write(output / RECORD) as path:
        path.write_text(json.dumps(report, indent=1))
    return report


def summary(report: Mapping[str, Any]) -> str:
    """A summary of ``tuned.json`` in a few lines; the first is about all pairs and labels.

    Parameters
    ----------
    report : mapping
        As from :func:`tune_model`.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.commands.tune import summary
    >>> best = {"values": {"lambda": 0.3}, "interval": {"lambda": (0.2, 0.45)}, "dice": 0.812, "pairs": 20}
    >>> gradient = {"values": {"lambda": 0.31}, "seconds": 4.2}
    >>> report = {"best": best, "ends": [(0, 0.7), (1, 0.65)], "gradient": gradient, "groups": {}}
    >>> print(summary(report | {"seconds": {"total": 60}}))
    lambda* = 0.3 (95 % of resampled pairs: 0.2 to 0.45); mean Dice 0.812, at ends 0: 0.700, 1: 0.650; 20 pairs, 60 s
    the gradient of the overlap leads to lambda = 0.31 (4.2 s)
    """
    best = report["best"]
    if len(best["values"]) == 1:
        lowest = "at ends " + ", ".join(f"{end:g}: {dice:.3f}" for end, dice in report["ends"])
    else:
        lowest = f"at the worst setting {report['lowest']:.3f}"
    gradient = report["gradient"]
    found = ", ".join(f"{name} = {value:.3g}" for name, value in gradient["values"].items())
    lines = [
        f"{_told(best)}, {lowest}; {counted(best['pairs'])}, {report['seconds']['total']:.0f} s",
        f"the gradient of the overlap leads to {found} ({gradient['seconds']:.1f} s)",
    ]
    return "\n".join(
        lines + [f"{group}: {_told(own)}; {counted(own['pairs'])}" for group, own in report["groups"].items()]
    )


def _told(found: Mapping[str, Any]) -> str:
    """The best values with their confidence intervals, and the Dice there."""
    parts = []
    for name, value in found["values"].items():
        low, high = found["interval"][name]
        sure = f" (95 % of resampled pairs: {low:.3g} to {high:.3g})" if found["pairs"] > 1 else ""
        parts.append(f"{name}* = {value:.3g}{sure}")
    return f"{', '.join(parts)}; mean Dice {found['dice']:.3f}"


def _facts(found: Optimum, pairs: int) -> dict[str, Any]:
    return {"values": found.values, "dice": found.score, "interval": found.interval, "pairs": pairs}


def _ends(along: pd.DataFrame, names: Sequence[str]) -> list[tuple[float, float]]:
    """The two ends of the range of a single hyperparameter, and the mean Dice there."""
    ends = along.iloc[[0, -1]] if len(names) == 1 else along.iloc[:0]
    return list(zip(ends[names[0]].tolist(), ends["mean"].tolist(), strict=True))


def _hypernetwork(model: Model, folder: str | Path) -> Hypernetworked:
    if not isinstance(model.method, Hypernetworked):
        raise InputError(
            f"{folder}: a model of the method {model.name} has no hypernetwork, so there is nothing to tune; give a "
            "model of the method hypermorph, hypertransmorph or hyperspr"
        )
    return model.method


def _drawn(cohort: Cohort, split: str, contrasts: Sequence[tuple[str, str]], count: int, seed: int) -> pd.DataFrame:
    """Pairs of different subjects of a split."""
    present = cohort.table["split"].unique()
    if split not in present:
        raise InputError(f"{cohort.path}: --split {split}: no scan is in that split{did_you_mean(split, present)}")
    own = list(cohort.table.loc[cohort.table["split"] == split, "contrast"].unique())
    for contrast in (name for pairing in contrasts for name in pairing):
        if contrast not in own:
            raise InputError(
                f"{cohort.path}: --contrasts {contrast}: no {split} scan has it{did_you_mean(contrast, own)}"
            )
    if not contrasts and len(own) > 1:
        raise InputError(
            f"{cohort.path}: the {split} scans have several contrasts ({', '.join(own)}); choose the pairings with "
            "--contrasts FIXED MOVING"
        )
    pairings = [list(pairing) for pairing in contrasts] or [[own[0], own[0]]]
    drawn = draw_pairs(cohort, split, PairSettings(kind="random", contrasts=pairings), count, seed)
    return drawn.drop_duplicates(["fixed", "moving"], ignore_index=True)


def _listed(cohort: Cohort, path: str | Path) -> pd.DataFrame:
    """The pairs of a table, with the same columns as drawn pairs."""
    table = read_pairs(path, cohort)[["fixed", "moving"]]
    if table.empty:
        raise InputError(f"{path}: the table has no pairs")
    found = list(zip(table["fixed"], table["moving"], strict=True))
    contrast = cohort.table["contrast"]
    return table.assign(
        pair=table["fixed"] + "--" + table["moving"],
        contrasts=[contrasts_of(contrast[fixed], contrast[moving]) for fixed, moving in found],
        task=[task_of(cohort, *pair) for pair in found],
        dataset=[dataset_of(cohort, *pair) for pair in found],
    )


def _check_groups(cohort: Cohort, table: pd.DataFrame, per: str | None) -> None:
    if per is not None and per not in GROUPINGS:
        raise InputError(f"--per {per}: not possible{did_you_mean(per, GROUPINGS)}")
    if per == "dataset" and not table["dataset"].any():
        raise InputError(f"{cohort.path}: --per dataset: no pair is within one data set; fill in 'dataset'")


def _check_scans(cohort: Cohort, scans: Sequence[str], model: Model, folder: str | Path) -> None:
    """Check that scans have labels, that they fit the model by their headers, and that they can be read."""
    bare = [scan for scan in scans if cohort.file(scan, "labels") is None]
    if bare:
        more = f", and {len(bare) - 1} more" if len(bare) > 1 else ""
        raise InputError(
            f"{cohort.path}: tuning needs labels, and {bare[0]} has none{more}; fill the column 'labels', or name "
            "pairs that have them (--pair-table)"
        )
    check_files(Cohort(cohort.table.loc[list(scans)], cohort.path))
    image = cohort.existing(scans[0], "image")
    ndim = read_grid(image).ndim
    if ndim != model.ndim:
        raise InputError(f"{folder}: a {model.ndim}-D model cannot register {ndim}-D images such as {image}")
    for scan in scans:  # every voxel, before the first alignment
        read_volume(cohort.existing(scan, "image"))
        if model.preprocess.mask and (mask := cohort.file(scan, "mask")):
            read_labels(mask)


def _codes(cohort: Cohort, scans: Sequence[str], labels: Iterable[int | str]) -> set[int]:
    """The labels to score: all labels of the scans, or the selected ones."""
    found = found_labels(read_labels(cohort.existing(scan, "labels")).data for scan in scans) - {0}
    if not found:
        raise InputError(f"{cohort.path}: the label maps of the pairs are empty (all zero)")
    wanted = expand_codes(labels, "--labels")
    if wanted and not wanted & found:
        raise InputError(f"--labels: none of these is a label of the pairs, which have {min(found)} to {max(found)}")
    return wanted & found if wanted else found


def _prepared(
    model: Model, cohort: Cohort, scans: Sequence[str], pairs: Sequence[tuple[str, str]], seed: int
) -> LabelledPairs:
    """Scans and their labels on the model's grid."""
    with tempfile.TemporaryDirectory(prefix="regcore-tune-") as folder:
        for scan in tracked(scans, "prepared"):
            found = read_scan(cohort.files(scan), model.preprocess)
            prepared = prepare_for(model, found, seed)
            save_prepared(prepared, Path(folder) / scan, cohort.file(scan, "labels"))
        return LabelledPairs.read(pairs, {scan: Path(folder) / scan for scan in scans})


def _swept(method: Hypernetworked, labelled: LabelledPairs, codes: Sequence[int], points: int | None) -> pd.DataFrame:
    """:func:`sweep`, pair by pair, to report progress."""
    grid, frames = rows_of(method, points), []
    for pair in tracked(labelled.pairs, f"swept {len(grid)} settings on", "--".join):
        frames.append(sweep(method, replace(labelled, pairs=[pair]), codes, grid))
    return pd.concat(frames, ignore_index=True)


def _groups(rows: pd.DataFrame, table: pd.DataFrame, per: str | None) -> dict[str, pd.DataFrame]:
    """Group name → its scores. Pairs without the group's labels are left out."""
    if per is None:
        return {}
    scores = rows[rows["metric"] == "dice"].dropna(subset="value")
    if per != "label":
        scores = scores.merge(table[["fixed", "moving", per]], on=["fixed", "moving"])
    return {_group_name(per, group): own for group, own in scores.groupby(per)}


def _group_name(per: str, group: Any) -> str:
    return f"label {group}" if per == "label" else str(group) or NO_DATASET
