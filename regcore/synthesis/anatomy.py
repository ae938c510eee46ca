"""The ICBM-152 template as tissue fractions and a label map, by rules in MNI coordinates.

The template and its grey- and white-matter maps (1 mm, symmetric, 2009a) are part of nilearn's wheel.
CSF is the rest of the brain.  The label map assigns every voxel of the brain to a structure:

1. Each voxel belongs to the tissue with the largest fraction.
2. Deep grey structures are ellipsoids (``DEEP``, MNI mm): inside, a voxel whose grey fraction exceeds
   ``DEEP_GREY`` belongs to the structure, because the thalamus and pallidum are only partly grey there.
3. CSF inside the box ``VENTRICLES`` is lateral ventricle, or third ventricle near the midline; the rest
   is sulcal CSF.
4. Tissue in the boxes ``BRAINSTEM`` and ``CEREBELLUM`` is named after them; other grey matter in the box
   ``CENTRAL_GREY``, around the third ventricle, is central grey.
5. The remaining grey matter is cortex, and goes to the nearest of the centres ``CORTEX``: a Voronoi
   parcellation whose cells carry the name of the region at their centre.
6. Structures are left where x < 0 and right elsewhere, except those on the midline.
7. Structures with fewer voxels than ``MINIMUM_VOXELS`` on the working grid (a slice cuts many) are
   removed: cortical voxels go to the nearest remaining centre, ventricles to sulcal CSF, the rest to white
   matter.

The rules give a reproducible, symmetric parcellation of real anatomy; they are not an atlas.
"""

import importlib.resources
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pandas as pd

from regcore.images.grid import transform_points
from regcore.images.volume import Grid

#: Half axes are in mm; x is the distance from the midline.
DEEP = {  # name: (centre, half axes)
    "thalamus": ((11, -18, 7), (11, 16, 10)),
    "caudate": ((13, 9, 11), (7, 17, 13)),
    "putamen": ((27, 0, 1), (7, 20, 13)),
    "pallidum": ((19, -7, -1), (6, 10, 7)),
    "hippocampus": ((28, -22, -14), (10, 18, 8)),
    "amygdala": ((23, -4, -19), (9, 8, 8)),
}
DEEP_GREY = 0.35
CORTEX = {  # name: centre, x as distance from the midline
    "superior-frontal": (13, 30, 46),
    "middle-frontal": (38, 32, 30),
    "inferior-frontal": (48, 22, 10),
    "orbitofrontal": (22, 38, -16),
    "frontal-pole": (18, 62, 4),
    "paracentral": (8, -18, 62),
    "precentral": (36, -12, 56),
    "postcentral": (54, -16, 38),
    "operculum": (48, -12, 15),
    "insula": (38, -4, 0),
    "superior-temporal": (58, -14, -2),
    "middle-temporal": (60, -22, -15),
    "inferior-temporal": (50, -24, -28),
    "fusiform": (36, -26, -26),
    "parahippocampal": (20, -18, -26),
    "temporal-pole": (36, 14, -30),
    "anterior-cingulate": (6, 30, 22),
    "middle-cingulate": (6, -10, 40),
    "posterior-cingulate": (7, -46, 28),
    "superior-parietal": (24, -60, 58),
    "supramarginal": (56, -38, 32),
    "angular": (46, -62, 34),
    "precuneus": (9, -60, 46),
    "cuneus": (9, -82, 24),
    "lingual": (14, -72, -4),
    "lateral-occipital": (36, -82, 6),
    "occipital-pole": (16, -96, 0),
}
VENTRICLES = ((0, 26), (-48, 34), (-14, 30))  # |x|, y, z ranges
THIRD_VENTRICLE_WIDTH, THIRD_VENTRICLE_TOP = 5, 11
BRAINSTEM = ((0, 19), (-46, -12), (-70, -8))
CENTRAL_GREY = ((0, 20), (-40, 24), (-14, 26))
CEREBELLUM = ((0, 70), (-100, -34), (-72, -17))
MINIMUM_VOXELS = 60


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The template on a working grid.

    Parameters
    ----------
    grid : Grid
        Two-dimensional: the world axes are the template's x and z.
    fractions : dict of str → ndarray
        Fraction (0 to 1) of ``white``, ``grey``, ``deep`` and ``csf`` in each voxel.
    labels : ndarray of int32
        Codes of ``table``; 0 is background.
    table : DataFrame
        Columns ``index name group``, one row per label.
    """

    grid: Grid
    fractions: dict[str, np.ndarray]
    labels: np.ndarray
    table: pd.DataFrame


def build_anatomy(ndim: int, spacing: float, coronal_mm: float) -> Anatomy:
    """Resample the template onto a working grid and label it.

    Parameters
    ----------
    ndim : {2, 3}
        2 takes the coronal slice at ``coronal_mm`` (MNI y).
    spacing : float
        Voxel size in mm.
    coronal_mm : float
        Place of the slice; not used in 3-D.

    Returns
    -------
    Anatomy
    """
    extent_mm, centre = {
        3: (np.array([176, 216, 176]), np.array([0, -18, 10])),
        2: (np.array([176, 160]), np.array([0, 16])),
    }[ndim]
    shape = np.round(extent_mm / spacing).astype(int)
    grid = Grid.centred(shape, [spacing] * ndim, centre)
    mni = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    if ndim == 2:
        mni = np.stack([mni[..., 0], np.full(grid.shape, float(coronal_mm)), mni[..., 1]], axis=-1)
    brain, grey, white = (_sample_map(name, mni, spacing) for name in ("t1", "gm", "wm"))
    inside = brain > 0.1
    white, grey = white * inside, grey * inside
    csf = np.clip(inside - grey - white, 0, 1)
    labels, table = _label(mni, inside, grey, white, csf)
    deep_codes = table.loc[table["group"] == "deep grey", "index"]
    deep = grey * np.isin(labels, deep_codes)
    fractions = {"white": white, "grey": grey - deep, "deep": deep, "csf": csf}
    return Anatomy(grid, fractions, labels, table)


def _sample_map(name: str, mni: np.ndarray, spacing: float) -> np.ndarray:
    """Values (0 to 1) of a template map at MNI positions, smoothed to the voxel size."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    folder = importlib.resources.files("nilearn") / "datasets" / "data"
    image = nib.Nifti1Image.from_filename(str(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"))
    values = np.asarray(image.dataobj, dtype=np.float32) / 255
    if spacing > 1:
        values = gaussian_filter(values, 0.4 * spacing)
    voxels = transform_points(np.linalg.inv(image.affine), mni)
    return map_coordinates(values, np.moveaxis(voxels, -1, 0), order=1, mode="constant")


def _in_box(mni: np.ndarray, box: tuple) -> np.ndarray:
    x, y, z = np.abs(mni[..., 0]), mni[..., 1], mni[..., 2]
    return np.all([(low <= v) & (v <= high) for v, (low, high) in zip((x, y, z), box, strict=True)], axis=0)


def _label(mni, inside, grey, white, csf) -> tuple[np.ndarray, pd.DataFrame]:
    folded = np.concatenate([np.abs(mni[..., :1]), mni[..., 1:]], axis=-1)
    names = np.full(inside.shape, "", dtype=object)
    tissue = np.argmax([grey, white, csf], axis=0)
    names[inside & (tissue == 1)] = "white-matter"
    names[inside & (tissue == 2)] = "sulcal-csf"
    ventricle = inside & (tissue == 2) & _in_box(mni, VENTRICLES)
    names[ventricle] = "lateral-ventricle"
    midline = (np.abs(mni[..., 0]) < THIRD_VENTRICLE_WIDTH) & (mni[..., 2] < THIRD_VENTRICLE_TOP)
    names[ventricle & midline] = "third-ventricle"

    deep = np.zeros(inside.shape, dtype=bool)
    for name, (centre, half_axes) in DEEP.items():
        within = (((folded - centre) / half_axes) ** 2).sum(-1) <= 1
        chosen = inside & within & (grey > DEEP_GREY) & (tissue != 2) & ~deep
        if chosen.sum() >= 2 * MINIMUM_VOXELS:  # both sides
            names[chosen] = name
            deep |= chosen
    stem = inside & _in_box(mni, BRAINSTEM) & (tissue != 2) & ~deep
    names[stem] = "brainstem"
    cerebellum = inside & _in_box(mni, CEREBELLUM) & ~stem & (tissue != 2)
    names[cerebellum & (tissue == 0)] = "cerebellar-cortex"
    names[cerebellum & (tissue == 1)] = "cerebellar-white-matter"
    central = inside & (tissue == 0) & _in_box(mni, CENTRAL_GREY) & ~deep & ~stem
    names[central] = "central-grey"
    cortex = inside & (tissue == 0) & ~deep & ~stem & ~cerebellum & ~central
    names[cortex] = _nearest_centres(folded[cortex])

    midline_names = ("third-ventricle", "brainstem", "sulcal-csf", "central-grey")
    groups = (
        dict.fromkeys(CORTEX, "cortex")
        | dict.fromkeys((*DEEP, "central-grey"), "deep grey")
        | dict.fromkeys(("white-matter", "cerebellar-white-matter", "brainstem"), "white matter")
        | {"cerebellar-cortex": "cortex"}
        | dict.fromkeys(("lateral-ventricle", "third-ventricle", "sulcal-csf"), "csf")
    )
    labels = np.zeros(inside.shape, dtype=np.int32)
    rows: list[tuple[int, str, str]] = []
    left = mni[..., 0] < 0
    for name in ("third-ventricle", "lateral-ventricle"):
        if (names == name).sum() < 2 * MINIMUM_VOXELS:
            names[names == name] = "sulcal-csf"
    for name in ("central-grey", "brainstem", "cerebellar-cortex", "cerebellar-white-matter"):
        if (names == name).sum() < 2 * MINIMUM_VOXELS:
            names[names == name] = "white-matter"
    for name in groups:
        sides = [("", True)] if name in midline_names else [("left-", left), ("right-", ~left)]
        for side, here in sides:
            chosen = (names == name) & here
            if chosen.any():
                rows.append((len(rows) + 1, side + name, groups[name]))
                labels[chosen] = len(rows)
    return labels, pd.DataFrame(rows, columns=["index", "name", "group"])


def _nearest_centres(points: np.ndarray) -> np.ndarray:
    """Name of the nearest cortical centre of each point (n, 3); small cells go to their neighbours."""
    kept = list(CORTEX)
    while True:
        centres = np.array([CORTEX[name] for name in kept])
        nearest = ((points[:, None] - centres) ** 2).sum(-1).argmin(1)
        counts = np.bincount(nearest, minlength=len(kept))
        if counts.min() >= 2.5 * MINIMUM_VOXELS or len(kept) == 1:
            return np.array(kept, dtype=object)[nearest]
        kept.pop(int(np.where(counts == 0, -1, counts).argmin()))
