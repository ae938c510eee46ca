"""Stage: list a cohort and its pairs, and read its files once.

Nothing here computes, so these jobs need not load torch.
"""

import os
from hashlib import blake2b
from pathlib import Path

from regcore.cohort.labels import found_labels, scored_labels
from regcore.cohort.table import FILE_COLUMNS, Cohort, same_image
from regcore.errors import InputError
from regcore.images.volume import Volume, read_labels, read_volume
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


def check_cohort(plan: Plan) -> str:
    """Read every voxel of a study's own cohort once, and what else the study's jobs would read only at their end.

    Parameters
    ----------
    plan : Plan
        A study with a cohort table.

    Returns
    -------
    str
        A summary of the checks.

    Raises
    ------
    InputError
        Lists every unusable file; or no label of the test scans is left to score.
    """
    codes = check_scans(plan.cohort)
    if plan.reference not in plan.cohort.table.index:
        read_volume(plan.reference)
    pairs = plan.pairs_of("test")
    tested = {code for scan in {*pairs["fixed"], *pairs["moving"]} for code in codes[scan]}
    scored_labels(tested, plan.settings.labels, plan.label_table)
    return f"{len(plan.cohort.table)} scans of {plan.cohort.path} are complete, different, finite and not constant"


def check_scans(cohort: Cohort) -> dict[str, set[int]]:
    """Read every voxel of a cohort once, so that a damaged file is found before any long job.

    Parameters
    ----------
    cohort : Cohort
        The scans.

    Returns
    -------
    dict of str → set of int
        The codes in each scan's label map; none where it has none.

    Raises
    ------
    InputError
        Lists every unusable file, and scans whose images have the same voxels.

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
    problems: list[str] = []
    codes: dict[str, set[int]] = {}
    first: dict[bytes, str] = {}
    for scan in map(str, cohort.table.index):
        found: dict[str, Volume] = {}
        for column, read in (("image", read_volume), ("labels", read_labels), ("mask", read_labels)):
            path = cohort.file(scan, column)
            try:
                found |= {column: read(path)} if path else {}
            except InputError as error:
                problems.append(str(error))
        codes[scan] = found_labels([found["labels"].data]) if "labels" in found else set()
        for column, name in (("labels", "label map"), ("mask", "mask")):
            if column in found and not found[column].data.any():
                problems.append(
                    f"{found[column].path}: the {name} is empty (all zero); repair it, or leave the column empty"
                )
        if "image" in found:
            image = found["image"].data
            content = blake2b(repr(image.shape).encode())
            content.update(image.tobytes())
            other = first.setdefault(content.digest(), scan)
            if other != scan:
                problems.append(f"{cohort.path}: {same_image(cohort.table, other, scan)}")
    if problems:
        raise InputError("\n".join(problems))
    return codes
