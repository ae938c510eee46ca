"""Stage: resample the scans of a cohort to the common grid."""

from collections.abc import Sequence
from pathlib import Path

from regcore.alignment.preprocess import common_grid, prepare, prepare_image, read_scan, save_prepared
from regcore.images.volume import Volume, read_volume
from regcore.process.progress import tracked
from regcore.study.plan import Plan


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
    settings = plan.settings.preprocess
    if plan.reference in plan.cohort.table.index:
        return read_scan(plan.cohort.files(plan.reference), settings)
    return prepare_image(read_volume(plan.reference), settings)


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
    reference = reference_image(plan)
    grid = common_grid(reference, settings)
    for scan in tracked(scans, "prepared"):
        files = plan.cohort.files(scan)
        prepared = prepare(read_scan(files, settings), reference, grid, settings.affine, plan.settings.seed)
        save_prepared(prepared, folder / scan, plan.cohort.file(scan, "labels"))
