"""Stage: resample the scans of a cohort to the common grid."""

from collections.abc import Sequence
from pathlib import Path

from regcore.alignment.prepared import save_prepared
from regcore.alignment.preprocess import Scan, common_grid, prepare, prepare_image, read_scan
from regcore.images.volume import Volume, read_volume
from regcore.process.progress import tracked
from regcore.study.plan import Plan


def reference_scan(plan: Plan) -> Scan:
    """The scan to which the others are aligned.

    Parameters
    ----------
    plan : Plan
        The study.

    Returns
    -------
    Scan

    Raises
    ------
    InputError
        The image cannot be read.
    """
    if plan.reference in plan.cohort.table.index:
        return read_scan(plan.cohort.files(plan.reference), plan.settings.preprocess)
    return Scan(read_volume(plan.reference))


def reference_image(plan: Plan) -> Volume:
    """The image to which scans are aligned, normalised on its own grid.

    Parameters
    ----------
    plan : Plan
        The study.

    Returns
    -------
    Volume
        Intensities from 0 to 1.

    Raises
    ------
    InputError
        The image cannot be read.
    """
    return prepare_image(reference_scan(plan), plan.settings.preprocess)


def prepare_scans(plan: Plan, scans: Sequence[str], folder: Path) -> None:
    """Align scans to the reference and resample them to the common grid, into ``folder``.

    Parameters
    ----------
    plan : Plan
        The study.
    scans : sequence of str
        Names of scans.
    folder : Path
        For each scan ``<scan>.nii``, ``<scan>.json`` and, if it has labels, ``<scan>_labels.nii``.

    Raises
    ------
    InputError
        A file cannot be read, or a scan cannot be aligned.
    """
    settings = plan.settings.preprocess
    reference = reference_scan(plan)
    grid = common_grid(prepare_image(reference, settings), settings)
    for scan in tracked(scans, "prepared"):
        found = read_scan(plan.cohort.files(scan), settings)
        prepared = prepare(found, reference, grid, settings, plan.settings.seed)
        save_prepared(prepared, folder / scan, plan.cohort.file(scan, "labels"))
