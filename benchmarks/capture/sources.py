"""Scans of every cohort with labels, by name: ``cohort:subject:contrast``.

Real cohorts lie in ``$REGCORE_TEST_DATA``, else in ``shared/data`` beside the repository; what is not there takes no
part.  The embedded cohort is made in the cache folder when it is first asked for.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.ndimage import binary_closing, binary_dilation, gaussian_filter

from capture.resampling import resampled
from regcore.images.field import DisplacementField, read_field
from regcore.images.grid import Grid
from regcore.images.volume import Volume, read_labels, read_volume
from regcore.process.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("REGCORE_TEST_DATA", ROOT.parent / "shared" / "data"))
CACHE = ROOT / "results" / "alignment-benchmark"
#: Neuromorphometrics' labels that some of the subjects lack.
RARE = (15, 65, 66, 74, 126, 127)
#: FreeSurfer's codes of the right side, and those of the left: both sides of a brain have the same contrast.
SIDES = {41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 58: 26, 60: 28}
#: FreeSurfer's code of the fluid around the brain.  Where it ends is up to who drew it: its centroid is no landmark.
AROUND = 24
#: Neuromorphometrics' labels of white matter, brain stem and ventral diencephalon, and of ventricles and CSF.
WHITE, FLUID = (35, 40, 41, 44, 45, 61, 62), (4, 11, 46, 49, 50, 51, 52)
EMBEDDED_SUBJECTS = {"train": 4, "validation": 2, "test": 4}
#: Positions kept of a scan's content.
CONTENT_POINTS = 20_000
#: Of a scan's 99th percentile: darker is air.
AIR = 0.1


@dataclass(frozen=True, eq=False)
class Scan:
    """An image and its labels, in one world.

    Parameters
    ----------
    name : str
        ``cohort:subject:contrast``.
    image : Volume
        float32; air and what was not imaged is its lowest value.
    smooth : Volume
        The image as voxels of ``spacing`` see it, on the same grid.
    labels : Volume
        int16, on a grid of its own.
    content : ndarray, shape (n, D)
        World positions drawn from the content: the labels, of a head all that is not air, of a crop all of it.
    spacing : float
        Voxel size, mm, at which the scan takes part.
    """

    name: str
    image: Volume
    smooth: Volume
    labels: Volume
    content: np.ndarray
    spacing: float


@dataclass(frozen=True, eq=False)
class Stored:
    """A scan as its cohort stores it; ``content`` is what is labelled, all but the air, or the whole of a crop."""

    image: Volume
    labels: Volume
    spacing: float
    content: Literal["labels", "not air", "image"] = "labels"

    def scan(self, name: str) -> Scan:
        """Work out what pairs need."""
        factors = np.maximum(self.spacing / self.image.grid.spacing, 1)
        smooth = gaussian_filter(self.image.data, 0.5 * np.sqrt(factors**2 - 1))
        soft = gaussian_filter(self.image.data, 1.0)
        where, grid = {
            "labels": (self.labels.data > 0, self.labels.grid),
            "not air": (soft > AIR * np.percentile(soft, 99), self.image.grid),
            "image": (np.ones(self.image.grid.shape, bool), self.image.grid),
        }[self.content]
        voxels = np.argwhere(where)
        chosen = np.random.default_rng(0).permutation(len(voxels))[:CONTENT_POINTS]
        labels = self.labels.with_data(self.labels.data.astype(np.int16))
        content = grid.to_world(voxels[chosen])
        return Scan(name, self.image, self.image.with_data(smooth), labels, content, self.spacing)


def subjects(cohort: str, split: str) -> list[str]:
    """Subjects of a cohort that belong to a split; sessions of one subject are one entry each."""
    if cohort == "embedded":
        table = _embedded_table()
        return [str(row.subject) for row in table.drop_duplicates("subject").itertuples() if row.split == split]
    table = _table(cohort)
    return [f"{row.subject}-{row.session}" for row in table.itertuples() if row.split == split]


def has(cohort: str) -> bool:
    """Whether a cohort is there."""
    return cohort == "embedded" or (DATA / cohort).is_dir()


@lru_cache(maxsize=6)
def load(name: str) -> Scan:
    """Read a scan by its name ``cohort:subject:contrast``; the second time from the cache."""
    path = CACHE / "scans" / f"{name.replace(':', '_')}.npz"
    if not path.is_file():
        cohort, subject, contrast = name.split(":")
        path.parent.mkdir(parents=True, exist_ok=True)
        scan = READERS[cohort](subject, contrast).scan(name)
        with atomic_write(path) as temporary:
            np.savez(
                temporary, image=scan.image.data, smooth=scan.smooth.data, labels=scan.labels.data,
                content=scan.content, grid=scan.image.grid.affine,
                labels_grid=scan.labels.grid.affine, spacing=scan.spacing,
            )  # fmt: skip
    with np.load(path) as stored:
        image, labels = stored["image"], stored["labels"]
        grid = Grid(image.shape, stored["grid"])
        of_labels = Volume(labels, Grid(labels.shape, stored["labels_grid"]))
        smooth, content = Volume(stored["smooth"], grid), stored["content"]
        return Scan(name, Volume(image, grid), smooth, of_labels, content, float(stored["spacing"]))


def scan_number(name: str) -> str:
    """The number of a scan of OASIS in its files' names."""
    cohort, subject, _ = name.split(":")
    return _row(cohort, subject)["image"].partition("_")[0]


def embedded_map(subject: str, back: bool) -> DisplacementField:
    """The map from an embedded subject to the template, or ``back``; its scans have to be loaded before."""
    row = _embedded_table().set_index("subject").loc[subject].iloc[0]
    return read_field(CACHE / "embedded" / row["from_template" if back else "to_template"])


def _table(cohort: str) -> pd.DataFrame:
    return pd.read_csv(DATA / cohort / "cohort.tsv", sep="\t", dtype=str)


def _row(cohort: str, subject: str) -> pd.Series:
    table = _table(cohort)
    return table[table["subject"] + "-" + table["session"] == subject].iloc[0]


def _in_table(cohort: str, spacing: float, content: str = "labels") -> Callable[[str, str], Stored]:
    def read(subject: str, contrast: str) -> Stored:
        row, folder = _row(cohort, subject), DATA / cohort
        labels = read_labels(folder / row["labels"])
        labels = labels.with_data(np.where(np.isin(labels.data, RARE), 0, labels.data))
        return Stored(read_volume(folder / row["image"]), labels, spacing, content)

    return read


def _mni2009c(subject: str, contrast: str) -> Stored:
    stem = DATA / "mni2009c" / "tpl-MNI152NLin2009cSym_res-1_"
    image = read_volume(f"{stem}desc-brain_{contrast}.nii.gz")
    return Stored(image, read_labels(f"{stem}atlas-CerebrA_dseg.nii.gz"), 2.0)


def _avg152(subject: str, contrast: str) -> Stored:
    return Stored(_average(contrast), _average_labels(), 2.0, "not air")


def _average(contrast: str) -> Volume:
    return read_volume(DATA / "avg152" / f"avg152{contrast.removesuffix('w')}.nii")


@lru_cache
def _average_labels() -> Volume:
    """Labels of the averages, moved by what ANTs finds between their tissues and the T1 average within the brain.

    As they are stored they fit another template: they are 1 % too small for the averages in every direction.
    """
    from regcore.images.ants import estimate_affine

    labels, image = read_labels(DATA / "avg152" / "labels_Neuromorphometrics.nii"), _average("T1w")
    tissue = np.select([np.isin(labels.data, codes) for codes in (WHITE, FLUID)], [1.0, 1 / 3], 2 / 3)
    tissue = labels.with_data(np.where(labels.data > 0, tissue, 0).astype(np.float32))
    brain = resampled(labels, image.grid, np.eye(4), nearest=True).data > 0
    brain = binary_closing(binary_dilation(brain), iterations=3)
    extracted = image.with_data(np.where(brain, image.data / image.data.max(), 0).astype(np.float32))
    found = estimate_affine(tissue, extracted, seed=0)
    return Volume(labels.data, Grid(labels.grid.shape, found @ labels.grid.affine))


def _colin27(subject: str, contrast: str) -> Stored:
    folder = DATA / "colin27"
    image = read_volume(folder / {"head": "ch2.nii.gz", "brain": "ch2bet.nii.gz"}[subject])
    return Stored(image, read_labels(folder / "aal.nii.gz"), 2.0, "not air" if subject == "head" else "labels")


def _prostate(subject: str, contrast: str) -> Stored:
    """The gland, the first of the labels' channels."""
    import nibabel as nib

    folder, of = DATA / "prostate-mr-us", contrast.lower()
    image = read_volume(folder / f"{of}_images" / f"{subject}.nii.gz")
    channels = np.asarray(nib.load(folder / f"{of}_labels" / f"{subject}.nii.gz").dataobj)
    gland = channels.reshape(*image.grid.shape, -1)[..., 0] > 0
    return Stored(image, image.with_data(gland.astype(np.int32)), float(image.grid.spacing.min()), "image")


def _brain_scan(subject: str, contrast: str) -> Stored:
    """VoxelMorph's canonical space: left, inferior, anterior at 1 mm."""
    with np.load(DATA / "brain-scan" / "test_scan.npz") as stored:
        image, labels = stored["vol"].astype(np.float32), stored["seg"].astype(np.int32)
    with np.load(DATA / "brain-scan" / "labels.npz") as stored:
        labels = np.where(np.isin(labels, stored["labels"]), labels, 0)
    affine = np.array([[-1.0, 0, 0, 80], [0, 0, 1, -112], [0, -1, 0, 96], [0, 0, 0, 1]])
    grid = Grid(image.shape, affine)
    return Stored(Volume(image, grid), Volume(labels, grid), 2.0)


def _brain_labels(subject: str, contrast: str) -> Stored:
    """An image drawn from a label map: every structure has a grey value of its own, by the number in ``contrast``."""
    path = DATA / "brain-labels" / _row("brain-labels", subject)["labels"]
    labels = _cropped(read_labels(path))
    draws = np.random.default_rng(int(contrast.removeprefix("drawn-")))
    values = draws.uniform(0.15, 1.0, int(labels.data.max()) + 1)
    values[0] = 0
    for right, left in SIDES.items():
        if right < len(values):
            values[right] = values[left]
    image = gaussian_filter(values[labels.data] + 0.04 * draws.standard_normal(labels.data.shape), 0.7)
    image = np.where(labels.data > 0, np.maximum(image, 0.01), 0).astype(np.float32)
    return Stored(labels.with_data(image), labels.with_data(np.where(labels.data == AROUND, 0, labels.data)), 2.0)


def _embedded_settings():
    from regcore.synthesis.settings import EmbeddedSettings

    return EmbeddedSettings(ndim=3, spacing=2, contrasts=["T1w", "T2w", "PDw"], **EMBEDDED_SUBJECTS)


@lru_cache
def _embedded_table() -> pd.DataFrame:
    from regcore.synthesis.icbm152 import cohort_table

    return cohort_table(_embedded_settings())


def _embedded(subject: str, contrast: str) -> Stored:
    from regcore.synthesis.icbm152 import synthesise

    folder = CACHE / "embedded"
    table = _embedded_table()
    row = table[(table["subject"] == subject) & (table["contrast"] == contrast)].iloc[0]
    if not (folder / row["landmarks"]).is_file():  # the last file of a subject
        folder.mkdir(parents=True, exist_ok=True)
        synthesise(_embedded_settings(), [subject], 0, folder)
    return Stored(read_volume(folder / row["image"]), read_labels(folder / row["labels"]), 2.0)


def _cropped(labels: Volume) -> Volume:
    """Cut a label map to its content and a margin of ten voxels."""
    inside = np.argwhere(labels.data > 0)
    low = np.maximum(inside.min(0) - 10, 0)
    high = np.minimum(inside.max(0) + 11, labels.data.shape)
    affine = labels.grid.affine.copy()
    affine[:-1, -1] = labels.grid.to_world(low)
    data = labels.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return Volume(np.ascontiguousarray(data), Grid(data.shape, affine))


READERS: dict[str, Callable[[str, str], Stored]] = {
    "oasis-brains": _in_table("oasis-brains", 2.0),
    "hippocampus": _in_table("hippocampus", 1.0, "image"),
    "brain-slices": _in_table("brain-slices", 1.0),
    "mni2009c": _mni2009c,
    "avg152": _avg152,
    "colin27": _colin27,
    "prostate-mr-us": _prostate,
    "brain-scan": _brain_scan,
    "brain-labels": _brain_labels,
    "embedded": _embedded,
}
