"""Spatial transforms: warp, compose, integrate, invert, resample, Jacobian, affine maps.

Everything is a pure function of tensors ``(batch, channel, *space)`` in voxel units, in 2-D and 3-D from
the same code; see :mod:`regcore.images.field` for the conventions.
"""

from regcore.spatial.affine import (
    affine_between_grids,
    affine_displacement,
    affine_matrix,
    fit_affine,
    fit_affine_to_displacement,
)
from regcore.spatial.diffusion import diffuse, squared_gradient
from regcore.spatial.flow import compose, corner_jacobian_determinants, integrate, invert, jacobian_determinant
from regcore.spatial.sampling import (
    crop_to,
    identity,
    pad_to_multiple,
    resample,
    resample_displacement,
    sample,
    smooth,
    warp,
)

__all__ = [
    "affine_between_grids",
    "affine_displacement",
    "affine_matrix",
    "compose",
    "corner_jacobian_determinants",
    "crop_to",
    "diffuse",
    "fit_affine",
    "fit_affine_to_displacement",
    "identity",
    "integrate",
    "invert",
    "jacobian_determinant",
    "pad_to_multiple",
    "resample",
    "resample_displacement",
    "sample",
    "smooth",
    "squared_gradient",
    "warp",
]
