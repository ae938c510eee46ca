"""Stage: list and read a cohort, and resample its scans to the common grid."""

import os
from collections.abc import Sequence
from pathlib import Path

from regcore.alignment.prepared import save_prepared
from regcore.alignment.preprocess import Scan, common_grid, prepare, prepare_image, read_scan
from regcore.cohort.table import FILE_COLUMNS, Cohort
from regcore.errors import InputError
from regcore.images.volume import Volume, read_labels, read_volume
from regcore.process.files import atomic_write
from regcore.process.progress import tracked
from regcore.study.plan import Plan
from regcore.synthesis.icbm152 import label_table


def write_cohort_tables(plan: Plan, cohort_path: str | Path, labels_path: str | Path) -> None:
    """Write the embedded cohort's table, with paths relative to it, and the table of its labels."""
    assert plan.embedded is not None  # only the embedded cohort is written
    cohort_path = Path(cohort_path)
    table = plan.cohort.table.copy()
    for column in FILE_COLUMNS:
        table[column] = [value and os.path.relpath(value, cohort_path.parent) for value in table[column]]
    with atomic_write(cohort_path) as path:
        table.to_csv(path, sep="\t", index=False)
    with atomic_write(labels_path) as path:
        label_table(plan.embedded).to_csv(path, sep="\t", index=False)


def write_pairs(plan: Plan, path: str | Path) -> None:
    """Write the validation and test pairs with their images, and the file names expected for imported fields."""
    table = plan.pairs.copy()
    for side in ("fixed", "moving"):
        table[f"{side}_image"] = [str(plan.cohort.file(scan, "image")) for scan in table[side]]
    table["field"] = table["pair"] + ".nii.gz"
    with atomic_write(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)


def check_scans(cohort: Cohort) -> str:
    """Read every voxel of a cohort once, so that a damaged file is found before any long job.

    Returns
    -------
    str
        A summary of the checks.

    Raises
    ------
    InputError
        Lists every unusable file.
    """
    problems = []
    for scan in cohort.table.index:
        for column, read in (("image", read_volume), ("labels", read_labels), ("mask", read_labels)):
            path = cohort.file(scan, column)
            try:
                found = path and read(path)
                if column == "labels" and found and not found.data.any():
                    problems.append(f"{path}: the label map is empty (all zero); repair it, or leave the column empty")
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return f"{len(cohort.table)} scans of {cohort.path} are complete, finite and not constant"


def reference_scan(plan: Plan) -> Scan:
    """The scan to which the others are aligned."""
    if plan.reference in plan.cohort.table.index:
        return read_scan(plan.cohort.files(plan.reference), plan.settings.preprocess)
    return Scan(read_volume(plan.reference))


def reference_image(plan: Plan) -> Volume:
    """The image to which scans are aligned, normalised on its own grid."""
    return prepare_image(reference_scan(plan).image, plan.settings.preprocess)


def prepare_scans(plan: Plan, scans: Sequence[str], folder: Path) -> None:
    """Align scans to the reference and resample them to the common grid, into ``folder``."""
    settings = plan.settings.preprocess
    reference = reference_scan(plan)
    grid = common_grid(prepare_image(reference.image, settings), settings)
    for scan in tracked(scans, "prepared"):
        found = read_scan(plan.cohort.files(scan), settings)
        prepared = prepare(found, reference, grid, settings, plan.settings.seed)
        save_prepared(prepared, folder / scan, plan.cohort.file(scan, "labels"))
