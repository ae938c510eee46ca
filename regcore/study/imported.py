"""The files of imported fields: which belongs to which test pair of a study."""

from pathlib import Path

import pandas as pd

from regcore.cohort.pairs import read_pairs
from regcore.cohort.table import Cohort
from regcore.errors import InputError
from regcore.methods.settings.imported import ImportedSettings
from regcore.study.entry import Entry


def imported_fields(entry: Entry, cohort: Cohort, pairs: pd.DataFrame) -> dict[str, str]:
    r"""Test pair → path of its field, for the pairs in the list of an import.

    Parameters
    ----------
    entry : Entry
        An entry of the method ``imported``: ``folder`` and ``pairs``, by default ``pairs.tsv`` in that folder.
    cohort : Cohort
        The scans that the list names.
    pairs : DataFrame
        The test pairs: ``pair fixed moving``.

    Returns
    -------
    dict of str → str
        Without the pairs that have no field. Whether the files exist is not checked.

    Raises
    ------
    InputError
        There is no folder or list, the list names unknown scans, or none of its pairs is a test pair.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from regcore.cohort.table import checked_cohort
    >>> from regcore.study.entry import Entry
    >>> from regcore.study.imported import imported_fields
    >>> row = {"session": "1", "split": "test", "contrast": "T1w", "labels": ""}
    >>> scans = [{"subject": name, "image": f"{name}.nii.gz", **row} for name in "ab"]
    >>> cohort = checked_cohort(pd.DataFrame(scans), "cohort.tsv")
    >>> listed = pd.DataFrame([("a", "b", "a-b.nii.gz")], columns=["fixed", "moving", "field"])
    >>> pairs = pd.DataFrame([("a--b", "a_1_T1w", "b_1_T1w")], columns=["pair", "fixed", "moving"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     listed.to_csv(f"{folder}/pairs.tsv", sep="\t", index=False)
    ...     found = imported_fields(Entry("other", {"method": "imported", "folder": folder}), cohort, pairs)
    >>> found["a--b"].removeprefix(folder)
    '/a-b.nii.gz'
    """
    settings = entry.checked
    assert isinstance(settings, ImportedSettings)
    folder = settings.folder
    if not folder or not Path(folder).is_dir():
        raise InputError(f"{entry.where}.folder: {folder!r} is not a folder; give the folder with the fields")
    path = settings.pairs or str(Path(folder) / "pairs.tsv")
    listed = read_pairs(path, cohort, "field")
    files = {
        (fixed, moving): str(Path(folder) / field)
        for fixed, moving, field in zip(listed["fixed"], listed["moving"], listed["field"], strict=True)
        if field
    }
    found = {
        pair: files[fixed, moving]
        for pair, fixed, moving in zip(pairs["pair"], pairs["fixed"], pairs["moving"], strict=True)
        if (fixed, moving) in files
    }
    if not found:
        raise InputError(
            f"{path}: none of its pairs is a test pair of the study (the first: {pairs['fixed'].iloc[0]}, "
            f"{pairs['moving'].iloc[0]}); list the test pairs, or make these the study's pairs with pairs: "
            "{kind: listed, table: …}"
        )
    return found
