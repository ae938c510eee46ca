"""The embedded cohort: distinct "subjects" made from the ICBM-152 template.

Every subject is the template (``anatomy``) deformed by its own random diffeomorphism and affine, with its own tissue
parameters, bias field, noise and gain.  A later session of a subject is the same anatomy with another small
diffeomorphism and a new scan.  Both directions of the map are kept, so the true field between any two scans is
known: fixed → template → moving.

The table (:func:`cohort_table`) can be listed without making any image.  The images are made in parts
(:func:`synthesise`), in any order, because each session of a subject has its own random stream.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regcore.errors import InputError
from regcore.process.files import atomic_write
from regcore.synthesis.mr_contrast import check_contrasts
from regcore.synthesis.settings import EmbeddedSettings

TEMPLATE = "icbm152"
#: The dataset of the template, and of all subjects if the study names no datasets.
DATASET = "embedded"
#: Default root-mean-square displacement between two sessions.
SESSION_DEFORMATION_MM = 1.0


def cohort_table(settings: EmbeddedSettings) -> pd.DataFrame:
    """List the embedded cohort: the template (split ``atlas``), then the subjects of each split.

    Parameters
    ----------
    settings : EmbeddedSettings
        Its numbers of subjects, contrasts, sessions and datasets count.

    Returns
    -------
    DataFrame
        A cohort table whose paths are relative to the cohort's folder.

    Raises
    ------
    InputError
        A split has fewer subjects than there are datasets, or a contrast is beyond its series.

    Examples
    --------
    >>> from regcore.synthesis.icbm152 import cohort_table
    >>> from regcore.synthesis.settings import EmbeddedSettings
    >>> settings = EmbeddedSettings(train=2, validation=2, test=2)
    >>> cohort_table(settings)[["subject", "split", "image"]].values.tolist()[:2]
    [['icbm152', 'atlas', 'icbm152_T1w.nii.gz'], ['sub-001', 'train', 'sub-001_T1w.nii.gz']]
    """
    check_contrasts(settings.contrasts, "cohort.embedded.contrasts")
    rows = []
    for subject, (split, dataset) in _members(settings).items():
        for session in _sessions(subject, settings):
            stem = _stem(subject, session)
            for contrast in settings.contrasts:
                rows.append(
                    {
                        "subject": subject,
                        "session": str(session),
                        "split": split,
                        "contrast": contrast,
                        "image": f"{stem}_{contrast}.nii.gz",
                        "labels": f"{stem}_labels.nii.gz",
                        "landmarks": f"{stem}_landmarks.tsv",
                        "dataset": dataset,
                        "to_template": f"{stem}_to_template.nii.gz",
                        "from_template": f"{stem}_from_template.nii.gz",
                    }
                )
    return pd.DataFrame(rows)


def label_table(settings: EmbeddedSettings) -> pd.DataFrame:
    """List the labels of the embedded cohort.

    Parameters
    ----------
    settings : EmbeddedSettings
        How it is made.

    Returns
    -------
    DataFrame
        Columns ``index name group``.
    """
    return _anatomy(settings).table


def synthesise(settings: EmbeddedSettings, subjects: Sequence[str], seed: int, folder: str | Path) -> None:
    """Make the files of ``subjects`` in ``folder``, under the names of :func:`cohort_table`.

    Parameters
    ----------
    settings : EmbeddedSettings
        How it is made.
    subjects : sequence of str
        Names in :func:`cohort_table`.
    seed : int
        Together with a subject's name it determines everything about the subject.
    folder : path
        The cohort's folder.
    """
    import torch

    from regcore.images.field import DisplacementField
    from regcore.images.volume import Volume
    from regcore.spatial import identity, sample

    folder = Path(folder)
    anatomy = _anatomy(settings)
    grid = anatomy.grid
    fractions = torch.from_numpy(np.stack(list(anatomy.fractions.values())))[None].double()
    labels = torch.from_numpy(anatomy.labels)[None, None]
    landmarks = _landmarks(anatomy)
    members = _members(settings)
    for subject in subjects:
        own = settings.in_dataset(members[subject][1])
        for session, generator, to_template, from_template in _maps(subject, own, seed, anatomy):
            stem = _stem(subject, session)
            points = identity(grid.shape, to_template) + to_template
            seen = dict(zip(anatomy.fractions, sample(fractions, points)[0].numpy(), strict=True))
            for contrast in settings.contrasts:
                image = _image(seen, contrast, own, generator, plain=subject == TEMPLATE)
                Volume(image, grid).save(folder / f"{stem}_{contrast}.nii.gz")
            Volume(sample(labels, points, mode="nearest")[0, 0].numpy().astype(np.int16), grid).save(
                folder / f"{stem}_labels.nii.gz"
            )
            DisplacementField(to_template, grid).save(folder / f"{stem}_to_template.nii.gz")
            back = DisplacementField(from_template, grid)
            back.save(folder / f"{stem}_from_template.nii.gz")
            with atomic_write(folder / f"{stem}_landmarks.tsv") as path:
                moved = pd.DataFrame(back.at(landmarks), columns=list("xyz")[: grid.ndim])
                moved.insert(0, "name", anatomy.table["name"].to_numpy())
                moved.round(4).to_csv(path, sep="\t", index=False)


def _members(settings: EmbeddedSettings) -> dict[str, tuple[str, str]]:
    """Split and dataset of the template and of every subject, in the order of the table."""
    datasets = sorted(settings.datasets or [DATASET])
    found = {TEMPLATE: ("atlas", DATASET)}
    for split in ("train", "validation", "test"):
        count = settings.subjects(split)
        if count < len(datasets):
            raise InputError(
                f"cohort.embedded.{split}: {count} subjects are too few for {len(datasets)} datasets; "
                f"use {len(datasets)} or more, or fewer 'datasets'"
            )
        for place in range(count):
            found[f"sub-{len(found):03d}"] = (split, datasets[place % len(datasets)])
    return found


def _sessions(subject: str, settings: EmbeddedSettings) -> range:
    return range(1, 2 if subject == TEMPLATE else 1 + (settings.sessions or 1))


def _stem(subject: str, session: int) -> str:
    """The start of the file names of a scan."""
    return subject if session == 1 else f"{subject}_ses-{session}"


def _maps(subject: str, settings: EmbeddedSettings, seed: int, anatomy) -> Iterator[tuple]:
    """Session, its random generator, and its maps to and from the template in voxels, for each session."""
    import torch

    from regcore.spatial import compose
    from regcore.synthesis.diffeomorphism import (
        affine_then,
        expanded,
        random_affine,
        random_diffeomorphism,
        then_affine,
    )

    grid = anatomy.grid
    generator = np.random.default_rng([seed, *subject.encode()])
    if subject == TEMPLATE:
        zero = torch.zeros(1, grid.ndim, *grid.shape, dtype=torch.float64)
        yield 1, generator, zero, zero
        return
    forward, inverse = random_diffeomorphism(grid.shape, settings.spacing, settings.deformation_mm, generator)
    matrix = _about_centre(random_affine(grid.ndim, generator), grid)
    if largest := settings.ventricles_mm:
        outward = generator.uniform(0, largest)
        forward, inverse = expanded(forward, inverse, _ventricles(anatomy), settings.spacing, outward)
    to_template = then_affine(forward, matrix)
    from_template = affine_then(np.linalg.inv(matrix), inverse)
    yield 1, generator, to_template, from_template
    # Velocities at independent scales: the squares of their lengths add up.
    change = settings.session_deformation_mm
    change_mm = [(SESSION_DEFORMATION_MM if change is None else change) / np.sqrt(3)] * 3
    for session in _sessions(subject, settings)[1:]:
        generator = np.random.default_rng([seed, *_stem(subject, session).encode()])
        to_first, from_first = random_diffeomorphism(grid.shape, settings.spacing, change_mm, generator)
        yield session, generator, compose(to_first, to_template), compose(from_template, from_first)


def _anatomy(settings: EmbeddedSettings):
    from regcore.synthesis.anatomy import build_anatomy

    return build_anatomy(settings.ndim, settings.spacing, settings.coronal_mm)


def _ventricles(anatomy) -> np.ndarray:
    """Mask of the template's ventricles.

    Raises
    ------
    InputError
        The slice has none.
    """
    names = anatomy.table["name"].str.contains("ventricle")
    mask = np.isin(anatomy.labels, anatomy.table.loc[names, "index"])
    if not mask.any():
        raise InputError("cohort.embedded.ventricles_mm: no ventricles in this slice; move 'coronal_mm'")
    return mask


def _landmarks(anatomy) -> np.ndarray:
    """World position of the deepest voxel of every label, shape (labels, D)."""
    from scipy.ndimage import distance_transform_edt, find_objects

    points = []
    for code, box in zip(anatomy.table["index"], find_objects(anatomy.labels), strict=True):
        depth = distance_transform_edt(np.pad(anatomy.labels[box] == code, 1))
        inside = np.unravel_index(depth.argmax(), depth.shape)
        points.append([i - 1 + axis.start for i, axis in zip(inside, box, strict=True)])
    return anatomy.grid.to_world(np.array(points))


def _about_centre(world_matrix: np.ndarray, grid) -> np.ndarray:
    """The matrix about the centre of ``grid``, in voxels of ``grid``."""
    to_centre = np.eye(grid.ndim + 1)
    to_centre[:-1, -1] = -grid.centre
    world = np.linalg.inv(to_centre) @ world_matrix @ to_centre
    return grid.inverse @ world @ grid.affine


def _image(
    seen: Mapping, contrast: str, settings: EmbeddedSettings, generator: np.random.Generator, plain: bool
) -> np.ndarray:
    """Signal of the tissue fractions, with bias field, noise and gain unless ``plain``; zero outside."""
    from scipy.ndimage import gaussian_filter

    from regcore.synthesis.mr_contrast import TISSUES, tissue_signals

    jitter = {} if plain else {name: generator.uniform(0.97, 1.03) for name in TISSUES}
    signals = tissue_signals(contrast, jitter)
    brain = sum(seen.values())
    image = sum(signals[name] * fraction for name, fraction in seen.items())
    if not plain:
        field = gaussian_filter(generator.standard_normal(image.shape), 30 / settings.spacing, mode="nearest")
        image = image * np.exp(settings.bias * field / field.std())
        noise = generator.standard_normal((2, *image.shape)) * settings.noise
        image = np.hypot(image + noise[0], noise[1])  # magnitude images have Rician noise
        image = image * generator.uniform(0.8, 1.2)
    return (1000 * image * (brain > 0.5)).astype(np.float32)
