"""What is done to the moving scan of a pair: declarations only.

Every kind also gives the moving image a grid of its own (another voxel size, order and direction of axes, up to 10°
oblique) and another gain, so that no grid of interpolation and no intensity gives the answer away.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A way to make a pair hard.

    Parameters
    ----------
    says : str
        For the table.
    degrees : float
        The rotation is about a random axis by up to this; 180: uniform over all rotations.
    shift_mm : float
        The centres lie up to this apart along each axis.
    scales : (float, float)
        Range of the scale along each axis.
    keep : float
        Part of the content's length that the moving image's field of view covers, along one of its axes.
    slab_mm : float, optional
        The same in mm.
    hemisphere : bool
        Whether one half of the brain is cut away.
    thick : bool
        Whether voxels are 1×1×5 mm.
    noise : float
        SD of Rician noise relative to the content's 99th percentile.
    bias : float
        SD of the logarithm of the bias field.
    inverted : bool
        Whether bright becomes dark within the content.
    air : float
        Value added to the whole image, relative to the content's 99th percentile: the background is not zero.
    aligned : bool
        Whether the headers are right before rotation, shift and scale are applied.
    only : {"all", "brains", "head-brain"}
        Scans that it is for.
    """

    says: str
    degrees: float = 15.0
    shift_mm: float = 15.0
    scales: tuple[float, float] = (1.0, 1.0)
    keep: float = 1.0
    slab_mm: float | None = None
    hemisphere: bool = False
    thick: bool = False
    noise: float = 0.0
    bias: float = 0.0
    inverted: bool = False
    air: float = 0.0
    aligned: bool = False
    only: str = "all"


KINDS = {
    "identity": Kind("headers already right", degrees=0, shift_mm=0, aligned=True),
    "tiny": Kind("headers off by up to 2° and 2 mm", degrees=2, shift_mm=2, scales=(0.99, 1.01), aligned=True),
    "moderate": Kind("up to 15° and 15 mm, as in every kind below that does not say otherwise"),
    "rotation": Kind("any rotation, uniform over SO(3)", degrees=180),
    "translation": Kind("up to 150 mm along each axis", shift_mm=150),
    "scale": Kind("scales of 0.8 to 1.25 along each axis", scales=(0.8, 1.25)),
    "fov60": Kind("60 % of the field of view", keep=0.6),
    "fov30": Kind("30 % of the field of view", keep=0.3),
    "slab40": Kind("a slab of 40 mm", slab_mm=40, only="brains"),
    "slab20": Kind("a slab of 20 mm", slab_mm=20, only="brains"),
    "hemisphere": Kind("one hemisphere", hemisphere=True, only="brains"),
    "thick": Kind("voxels of 1×1×5 mm", thick=True, only="brains"),
    "noise": Kind("noise of 15 % of the content", noise=0.15),
    "bias": Kind("bias field, SD 0.4 of its logarithm", bias=0.4),
    "inverted": Kind("inverted contrast", inverted=True),
    "air": Kind("background not zero, as in CT", air=-2.0),
    "head-brain": Kind("a head and an extracted brain", only="head-brain"),
    "together": Kind(
        "any rotation, 150 mm, scales, 1×1×5 mm, noise 8 %, bias 0.25",
        degrees=180, shift_mm=150, scales=(0.8, 1.25), thick=True, noise=0.08, bias=0.25, only="brains",
    ),
}  # fmt: skip
