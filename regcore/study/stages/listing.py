"""Stage: list a cohort and its pairs, and read its files once.

Nothing here computes, so these jobs need not load torch.
"""

import os
from pathlib import Path

from regcore.cohort.table import FILE_COLUMNS, Cohort
from regcore.errors import InputError
from regcore.images.volume import read_labels, read_volume
from regcore.process.files import atomic_write
from regcore.study.plan import Plan
from regcore.synthesis.icbm152 import label_table


def write_cohort_tables(plan: Plan, cohort_path: str | Path, labels_path: str | Path) -> None:
    """Write the embedded cohort's table, with paths relative to it, and the table of its labels.

    Parameters
    ----------
    plan : Plan
        A study of the embedded cohort.
    cohort_path, labels_path : path
        Tab-separated tables.
    """
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
    r"""Write the validation and test pairs with their images, and the file names expected for imported fields.

    Parameters
    ----------
    plan : Plan
        The study.
    path : path
        A tab-separated table.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from regcore.study.plan import plan_study
    >>> from regcore.study.stages.listing import write_pairs
    >>> cohort = {"embedded": {"train": 2, "validation": 2, "test": 2}}
    >>> plan = plan_study({"study": "small", "cohort": cohort, "methods": {"affine": {}}}, check=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_pairs(plan, f"{folder}/pairs.tsv")
    ...     pd.read_csv(f"{folder}/pairs.tsv", sep="\t").loc[0, ["split", "fixed", "moving", "field"]].tolist()
    ['test', 'sub-005_1_T1w', 'sub-006_1_T1w', 'sub-005_1_T1w--sub-006_1_T1w.nii.gz']
    """
    table = plan.pairs.copy()
    for side in ("fixed", "moving"):
        table[f"{side}_image"] = [str(plan.cohort.file(scan, "image")) for scan in table[side]]
    table["field"] = table["pair"] + ".nii.gz"
    with atomic_write(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False)


def check_scans(cohort: Cohort) -> str:
    """Read every voxel of a cohort once, so that a damaged file is found before any long job.

    Parameters
    ----------
    cohort : Cohort
        The scans.

    Returns
    -------
    str
        A summary of the checks.

    Raises
    ------
    InputError
        Lists every unusable file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import pandas as pd
    >>> from regcore.cohort.table import checked_cohort
    >>> from regcore.errors import InputError
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.study.stages.listing import check_scans
    >>> row = {"subject": "a", "session": "1", "split": "test", "contrast": "T1w", "image": "a.nii", "labels": ""}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = np.full((8, 8), 7, dtype=np.float32)
    ...     Volume(image, Grid.centred((8, 8), (1, 1), (0, 0))).save(f"{folder}/a.nii")
    ...     try:
    ...         check_scans(checked_cohort(pd.DataFrame([row]), f"{folder}/cohort.tsv"))
    ...     except InputError as error:
    ...         print(str(error).removeprefix(folder))
    /a.nii: every voxel has the value 7; there is nothing to register, check how the file was made
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
