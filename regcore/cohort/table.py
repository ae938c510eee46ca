"""The cohort table: subjects, splits, scans and their files.

A cohort is a tab-separated table with the columns ``subject session split contrast image labels`` and
optionally ``mask landmarks dataset to_template from_template`` (others are ignored); paths are relative to
the table.  Nothing here reads voxels, and nothing draws a split: the table decides.  Pairs are made by
:mod:`regcore.cohort.pairs`.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd

from regcore.cohort.landmarks import read_landmarks
from regcore.cohort.settings import CohortRow, Split
from regcore.cohort.tsv import lines_of, read_tsv
from regcore.errors import InputError
from regcore.images.volume import Grid, read_grid

SPLITS: tuple[str, ...] = get_args(Split)
FILE_COLUMNS = ("image", "labels", "mask", "landmarks", "to_template", "from_template")


@dataclass(frozen=True, eq=False)
class Cohort:
    """A checked cohort.

    Parameters
    ----------
    table : DataFrame
        One row per scan, indexed by the scan's name ``subject_session_contrast``; file columns hold paths
        (relative to the working directory or absolute), empty if there is none.
    path : Path
        Path of the table, for error messages.

    Examples
    --------
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from regcore.cohort.table import Cohort
    >>> table = pd.DataFrame({"subject": ["a", "b"], "split": ["train", "test"], "contrast": "T1w"})
    >>> cohort = Cohort(table.set_index(table["subject"] + "_1_T1w"), Path("cohort.tsv"))
    >>> cohort.scans("train"), cohort.scan_of("b")
    (['a_1_T1w'], 'b_1_T1w')
    """

    table: pd.DataFrame
    path: Path

    def scans(self, split: str, contrast: str | None = None) -> list[str]:
        """Names of the scans of a split, in the table's order."""
        chosen = self.table["split"] == split
        if contrast is not None:
            chosen &= self.table["contrast"] == contrast
        return list(self.table.index[chosen])

    def subjects(self) -> dict[str, str]:
        """Subject of every scan."""
        return {str(scan): subject for scan, subject in self.table["subject"].items()}

    def file(self, scan: str, column: str) -> Path | None:
        """Path of a scan's ``image``, ``labels``, …; None if the table has none."""
        value = self.table.at[scan, column]
        return Path(str(value)) if value else None

    def existing(self, scan: str, column: str) -> Path:
        """As :meth:`file`, where there has to be one."""
        path = self.file(scan, column)
        if path is None:
            raise InputError(f"{self.path}: {scan} has no {column}; fill the column '{column}'")
        return path

    def files(self, scan: str) -> dict[str, str]:
        """All files of a scan by column, as plain text."""
        return {column: str(self.table.at[scan, column]) for column in FILE_COLUMNS if self.table.at[scan, column]}

    def scan_of(self, subject: str, contrast: str | None = None) -> str:
        """The first scan of ``subject``, with this contrast if given; or the scan with this name."""
        if subject in self.table.index:
            return subject
        mine = self.table[self.table["subject"] == subject]
        if mine.empty:
            raise InputError(f"{self.path}: there is no subject or scan '{subject}'")
        wanted = mine.index[mine["contrast"] == contrast]
        return wanted[0] if len(wanted) else mine.index[0]


def read_cohort(path: str | Path) -> Cohort:
    r"""Read a cohort table and check each row and the whole.

    Parameters
    ----------
    path : path
        A tab-separated table.

    Returns
    -------
    Cohort

    Raises
    ------
    InputError
        As for :func:`regcore.cohort.tsv.read_tsv`; a row is not a :class:`regcore.cohort.settings.CohortRow`; a subject
        is in two splits; a scan or an image is listed twice; or there are no rows.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from regcore.cohort.table import read_cohort
    >>> row = {"subject": "a", "session": "1", "split": "test", "contrast": "T1w", "image": "a.nii.gz", "labels": ""}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pd.DataFrame([row]).to_csv(Path(folder, "cohort.tsv"), sep="\t", index=False)
    ...     read_cohort(Path(folder, "cohort.tsv")).scans("test")
    ['a_1_T1w']
    """
    required = [column for column, rule in CohortRow.model_fields.items() if rule.is_required()]
    return checked_cohort(read_tsv(path, "cohort table", required), path)


def checked_cohort(table: pd.DataFrame, path: str | Path) -> Cohort:
    """Make a :class:`Cohort` from a raw table.

    Parameters
    ----------
    table : DataFrame of str
        One row for each scan, paths relative to the folder of ``path``.
    path : path
        Path of the table.

    Returns
    -------
    Cohort

    Raises
    ------
    InputError
        As for :func:`read_cohort`.

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.table import checked_cohort
    >>> row = {"subject": "a", "session": "1", "split": "test", "contrast": "T1w", "image": "a.nii.gz", "labels": ""}
    >>> checked_cohort(pd.DataFrame([row]), "data/cohort.tsv").files("a_1_T1w")
    {'image': 'data/a.nii.gz'}
    """
    path = Path(path)
    lines, table = lines_of(table), table.copy()
    for column in CohortRow.model_fields:
        if column not in table:
            table[column] = ""
    for number, row in zip(lines, table[list(CohortRow.model_fields)].to_dict("records"), strict=True):
        CohortRow.read({str(column): value for column, value in row.items()}, f"{path}, line {number}")
    if table.empty:
        raise InputError(f"{path}: the cohort table has no rows")
    table.index = pd.Index(table["subject"] + "_" + table["session"] + "_" + table["contrast"], name="scan")
    doubled = table.index[table.index.duplicated()].unique()
    if len(doubled):
        raise InputError(
            f"{path}: listed more than once (same subject, session and contrast): {', '.join(map(str, doubled))}; "
            "number the sessions"
        )
    splits = table.groupby("subject")["split"].unique()
    for subject, found in splits.items():
        if len(found) > 1:
            raise InputError(
                f"{path}: subject '{subject}' is in the splits {' and '.join(sorted(found))}; "
                "put all scans of a subject into one split, otherwise test scores are meaningless"
            )
    for column in FILE_COLUMNS:
        table[column] = [os.path.normpath(path.parent / value) if value else "" for value in table[column]]
    _require_each_image_once(table, lines, path)
    return Cohort(table, path)


def _require_each_image_once(table: pd.DataFrame, lines: Sequence[int], path: Path) -> None:
    """Raise :class:`InputError` where two scans have one path; links to one file are found by :func:`check_files`."""
    first: dict[str, int] = {}
    for row, image in enumerate(table["image"]):
        other = first.setdefault(image, row)
        if other != row:
            raise InputError(
                f"{path}, lines {lines[other]} and {lines[row]}: "
                + same_image(table, table.index[other], table.index[row])
            )


def same_image(table: pd.DataFrame, first: str, second: str) -> str:
    """The message for two scans of a cohort's table that have the same image.

    Parameters
    ----------
    table : DataFrame
        Of a :class:`Cohort`.
    first, second : str
        Names of scans.

    Returns
    -------
    str

    Examples
    --------
    >>> import pandas as pd
    >>> from regcore.cohort.table import same_image
    >>> table = pd.DataFrame({"split": ["train", "test"], "image": "a.nii"}, index=["a_1_T1w", "b_1_T1w"])
    >>> same_image(table, "a_1_T1w", "b_1_T1w").partition(":")[0]
    "'a_1_T1w' (train) and 'b_1_T1w' (test) have the same image, a.nii"
    """
    splits, images = ([str(table.at[scan, column]) for scan in (first, second)] for column in ("split", "image"))
    why = (
        "two of one image are no pair"
        if splits[0] == splits[1]
        else "what is seen in one split would be scored in another, and test scores be meaningless"
    )
    return (
        f"'{first}' ({splits[0]}) and '{second}' ({splits[1]}) have the same image, "
        f"{' and '.join(dict.fromkeys(images))}: {why}; correct a path, or remove a row"
    )


def _problems_of_fields(cohort: Cohort, scan: str, grid: Grid) -> Iterator[str]:
    """What is wrong, by their headers, with the fields to and from the template."""
    for column in ("to_template", "from_template"):
        path = cohort.file(scan, column)
        if path is None:
            continue
        from regcore.images.field import read_field_grid  # needs torch, which the check of a study else does not

        found = read_field_grid(path)
        if found.ndim != grid.ndim or (column == "to_template" and not found.same_as(grid, voxels=0.01)):
            yield f"{path}: the field {column} is not on the grid of its scan, {cohort.file(scan, 'image')}"


def check_files(cohort: Cohort) -> None:
    """Check from the headers that every file exists and fits its scan.

    Parameters
    ----------
    cohort : Cohort
        All of its scans are checked.

    Raises
    ------
    InputError
        A file is missing or unreadable; an image is not 2-D or 3-D; images differ in their number of dimensions;
        labels, a mask or a field to a template is not on the grid of its image; landmarks are wrong; or two images
        are links to one file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import pandas as pd
    >>> from regcore.cohort.table import Cohort, FILE_COLUMNS, check_files
    >>> from regcore.images.volume import Grid, Volume
    >>> volume = Volume(np.zeros((4, 4)), Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     volume.save(Path(folder, "a.nii"))
    ...     row = {**dict.fromkeys(FILE_COLUMNS, ""), "image": str(Path(folder, "a.nii"))}
    ...     check_files(Cohort(pd.DataFrame([row], index=["a_1_T1w"]), Path("cohort.tsv")))
    """
    problems: list[str] = []
    dimensions: dict[int, str] = {}
    first: dict[tuple[int, int], str] = {}
    for scan in cohort.table.index:
        try:
            image = cohort.files(scan)["image"]
            grid = read_grid(image)
            file = os.stat(image)
            other_scan = first.setdefault((file.st_dev, file.st_ino), scan)
            if other_scan != scan:
                problems.append(f"{cohort.path}: {same_image(cohort.table, other_scan, scan)}")
            dimensions.setdefault(grid.ndim, image)
            for column in ("labels", "mask"):
                other = cohort.file(scan, column)
                if other and not read_grid(other).same_as(grid, voxels=0.01):
                    problems.append(
                        f"{other}: the {column} are not on the grid of their image {image} (shape "
                        f"{read_grid(other).shape} and {grid.shape}, or another orientation); "
                        "resample them onto it with nearest neighbour"
                    )
            if landmarks := cohort.file(scan, "landmarks"):
                read_landmarks(landmarks, grid.ndim)
            problems += _problems_of_fields(cohort, scan, grid)
        except InputError as error:
            problems.append(str(error))
    if len(dimensions) > 1:
        problems.append(
            f"{cohort.path}: 2-D and 3-D images are mixed ({dimensions[2]}, {dimensions[3]}); make one study for each"
        )
    if problems:
        shown = "\n".join(problems[:10])
        more = f"\n… and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError(shown + more)
