"""The embedded cohort: distinct "subjects" made from the ICBM-152 template.

Every subject is the template (``anatomy``) seen through its own random diffeomorphism and affine, under
its own tissue parameters, bias field, noise and gain.  Both directions of the map are kept, so the true
field between any two subjects is known: fixed → template → moving.

The table (:func:`cohort_table`) can be listed without making a single image; the images are made in parts
(:func:`synthesise`), any part alone and in any order, since each subject has its own random stream.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regcore.files import atomic_write

TEMPLATE = "icbm152"


def cohort_table(settings: Mapping) -> pd.DataFrame:
    """List the embedded cohort: the template (split ``atlas``), then the subjects of each split.

    Parameters
    ----------
    settings : mapping
        The study's ``cohort.embedded`` section.

    Returns
    -------
    DataFrame
        A cohort table whose paths are relative to the cohort's folder.
    """
    splits = ["train"] * settings["train"] + ["validation"] * settings["validation"] + ["test"] * settings["test"]
    subjects = [(TEMPLATE, "atlas")] + [(f"sub-{i:03d}", split) for i, split in enumerate(splits, start=1)]
    rows = []
    for subject, split in subjects:
        for contrast in settings["contrasts"]:
            rows.append(
                {
                    "subject": subject,
                    "session": "1",
                    "split": split,
                    "contrast": contrast,
                    "image": f"{subject}_{contrast}.nii.gz",
                    "labels": f"{subject}_labels.nii.gz",
                    "landmarks": f"{subject}_landmarks.tsv",
                    "dataset": "embedded",
                    "to_template": f"{subject}_to_template.nii.gz",
                    "from_template": f"{subject}_from_template.nii.gz",
                }
            )
    return pd.DataFrame(rows)


def label_table(settings: Mapping) -> pd.DataFrame:
    """Columns ``index name group`` of the embedded cohort's labels."""
    return _anatomy(settings).table


def synthesise(settings: Mapping, subjects: Sequence[str], seed: int, folder: str | Path) -> None:
    """Make the files of ``subjects`` in ``folder``, under the names of :func:`cohort_table`.

    Parameters
    ----------
    settings : mapping
        The study's ``cohort.embedded`` section.
    seed : int
        With a subject's name it determines everything about the subject.
    """
    import torch

    from regcore.field import DisplacementField
    from regcore.spatial import identity, sample
    from regcore.synthesis.diffeomorphism import affine_then, random_affine, random_diffeomorphism, then_affine
    from regcore.volume import Volume

    folder = Path(folder)
    anatomy = _anatomy(settings)
    grid, ndim = anatomy.grid, anatomy.grid.ndim
    fractions = torch.from_numpy(np.stack(list(anatomy.fractions.values())))[None].double()
    labels = torch.from_numpy(anatomy.labels)[None, None]
    landmarks = _landmarks(anatomy)
    for subject in subjects:
        generator = np.random.default_rng([seed, *subject.encode()])
        if subject == TEMPLATE:
            to_template = from_template = torch.zeros(1, ndim, *grid.shape, dtype=torch.float64)
        else:
            forward, inverse = random_diffeomorphism(
                grid.shape, settings["spacing"], settings["deformation_mm"], generator
            )
            matrix = _about_centre(random_affine(ndim, generator), grid)
            to_template = then_affine(forward, matrix)
            from_template = affine_then(np.linalg.inv(matrix), inverse)
        points = identity(grid.shape, to_template) + to_template
        seen = dict(zip(anatomy.fractions, sample(fractions, points)[0].numpy(), strict=True))
        for contrast in settings["contrasts"]:
            image = _image(seen, contrast, settings, generator, plain=subject == TEMPLATE)
            Volume(image, grid).save(folder / f"{subject}_{contrast}.nii.gz")
        Volume(sample(labels, points, mode="nearest")[0, 0].numpy().astype(np.int16), grid).save(
            folder / f"{subject}_labels.nii.gz"
        )
        DisplacementField(to_template, grid).save(folder / f"{subject}_to_template.nii.gz")
        back = DisplacementField(from_template, grid)
        back.save(folder / f"{subject}_from_template.nii.gz")
        with atomic_write(folder / f"{subject}_landmarks.tsv") as path:
            moved = pd.DataFrame(back.at(landmarks), columns=list("xyz")[:ndim])
            moved.insert(0, "name", anatomy.table["name"].to_numpy())
            moved.round(4).to_csv(path, sep="\t", index=False)


def _anatomy(settings: Mapping):
    from regcore.synthesis.anatomy import build_anatomy

    return build_anatomy(settings["ndim"], settings["spacing"], settings["coronal_mm"])


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
    """The matrix, about the middle of ``grid``, in voxels of ``grid``."""
    to_centre = np.eye(grid.ndim + 1)
    to_centre[:-1, -1] = -grid.centre
    world = np.linalg.inv(to_centre) @ world_matrix @ to_centre
    return grid.inverse @ world @ grid.affine


def _image(seen: Mapping, contrast: str, settings: Mapping, generator: np.random.Generator, plain: bool) -> np.ndarray:
    """Signal of the tissue fractions, with bias field, noise and gain unless ``plain``; zero outside."""
    from scipy.ndimage import gaussian_filter

    from regcore.synthesis.mr_contrast import TISSUES, tissue_signals

    jitter = {} if plain else {name: generator.uniform(0.97, 1.03) for name in TISSUES}
    signals = tissue_signals(contrast, jitter)
    brain = sum(seen.values())
    image = sum(signals[name] * fraction for name, fraction in seen.items())
    if not plain:
        field = gaussian_filter(generator.standard_normal(image.shape), 30 / settings["spacing"], mode="nearest")
        image = image * np.exp(settings["bias"] * field / field.std())
        noise = generator.standard_normal((2, *image.shape)) * settings["noise"]
        image = np.hypot(image + noise[0], noise[1])  # magnitude images have Rician noise
        image = image * generator.uniform(0.8, 1.2)
    return (1000 * image * (brain > 0.5)).astype(np.float32)
