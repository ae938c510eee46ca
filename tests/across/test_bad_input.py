"""What every public function refuses, and how: one table, and a check that no function is missing from it.

A wrong shape is refused with the argument's name, its shape and the one it does not fit; NaN and infinity
with the argument's name, wherever they sit; a wrong type, mode or number with what would be right.
"""

import inspect
import itertools
import re

import numpy as np
import pandas as pd
import pytest
import torch

from regcore import evaluation, losses, spatial
from regcore.checks import NotFiniteError
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid
from regcore.kernels import reference_only

SHAPE = (6, 7)
THICK = (5, 6, 7)
GRID = Grid(SHAPE, np.diag([2.0, 3.0, 1.0]))
MODULES = (spatial, losses, evaluation)
PUBLIC = {name: getattr(module, name) for module in MODULES for name in module.__all__}
FUNCTIONS = {name: function for name, function in PUBLIC.items() if inspect.isfunction(function)}


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def image(shape=SHAPE, batch=2, channels=1) -> torch.Tensor:
    return draw(0, batch, channels, *shape)


def field(shape=SHAPE, batch=2) -> torch.Tensor:
    return 0.5 * draw(1, batch, len(shape), *shape)


def label_tensor(shape=SHAPE) -> torch.Tensor:
    return (3 * draw(2, 2, 1, *shape)).long()


def label_array(shape=SHAPE) -> np.ndarray:
    return (3 * draw(3, *shape)).numpy().astype(np.int32)


def landmarks(*voxels, columns="xy") -> pd.DataFrame:
    points = np.array(voxels, dtype=float)
    return pd.DataFrame(points, columns=list(columns), index=pd.Index(list("abcdef")[: len(points)], name="name"))


def displacement_field(values: torch.Tensor | None = None, grid: Grid = GRID) -> DisplacementField:
    return DisplacementField(field(grid.shape, 1) if values is None else values, grid)


def matrix(ndim=2, batch=1) -> torch.Tensor:
    return torch.eye(ndim + 1).repeat(batch, 1, 1) + 0.0


#: For every function arguments that it takes; the rows below replace one of them.
GOOD = {
    # spatial
    "affine_between_grids": lambda: {"matrix": matrix(), "fixed": np.eye(3), "moving": np.diag([2.0, 2, 1])},
    "affine_displacement": lambda: {"matrix": matrix(), "shape": SHAPE},
    "affine_matrix": lambda: {
        "translation": draw(0, 2, 2),
        "rotation": draw(1, 2, 1),
        "scaling": 1 + draw(2, 2, 2),
        "shear": draw(3, 2, 1),
        "centre": draw(4, 2, 2),
    },
    "compose": lambda: {"first": field(), "second": field()},
    "corner_jacobian_determinants": lambda: {"displacement": field()},
    "crop_to": lambda: {"values": image(), "shape": (5, 6)},
    "diffuse": lambda: {"values": field(), "weight": image(), "sigma": 1.0},
    "fit_affine": lambda: {"points": draw(0, 2, 2, 9), "targets": draw(1, 2, 2, 9), "weights": draw(2, 2, 1, 9)},
    "fit_affine_to_displacement": lambda: {"displacement": field(), "weights": image()},
    "identity": lambda: {"shape": SHAPE, "like": torch.zeros(1)},
    "integrate": lambda: {"velocity": field(), "steps": 3},
    "invert": lambda: {"displacement": field(), "iterations": 3},
    "jacobian_determinant": lambda: {"displacement": field()},
    "pad_to_multiple": lambda: {"values": image(), "multiple": 4},
    "resample": lambda: {"values": image(), "shape": (5, 9)},
    "resample_displacement": lambda: {"displacement": field(), "shape": (5, 9)},
    "sample": lambda: {"image": image(), "points": field()},
    "smooth": lambda: {"values": image(), "sigma": 1.0},
    "squared_gradient": lambda: {"field": field()},
    "warp": lambda: {"image": image(), "displacement": field()},
    # losses
    "bending_energy": lambda: {"field": field()},
    "beta_log_prior": lambda: {"weight": image().clamp(0.1, 1), "alpha": 1.5},
    "beta_weight": lambda: {"squared_gradient": image(), "alpha": 0.3},
    "diffusion": lambda: {"field": field()},
    "field_mse": lambda: {"field": field(), "reference": field() + 0.1},
    "gaussian_log_prior": lambda: {"weight": image(), "sigma": 1.5},
    "lncc": lambda: {"fixed": image(), "moving": image() ** 2, "window": 3},
    "mind_ssc": lambda: {"fixed": image(), "warped": image() ** 2},
    "mind_ssc_descriptor": lambda: {"image": image()},
    "mind_ssc_difference": lambda: {"descriptor": image(channels=4), "warped": image() ** 2},
    "mse": lambda: {"fixed": image(), "warped": image() ** 2},
    "nmi": lambda: {"fixed": image(), "warped": image() ** 2},
    "soft_dice": lambda: {
        "fixed_labels": label_tensor(),
        "moving_labels": label_tensor(),
        "displacement": field(),
        "labels": [1, 2],
    },
    "weighted_diffusion": lambda: {"field": field(), "weight": image()},
    # evaluation
    "compare_methods": lambda: {"scores": pd.DataFrame({"a": [0.1, 0.2, 0.4], "b": [0.3, 0.1, 0.1]}), "resamples": 99},
    "correlation": lambda: {"fixed": image().numpy(), "warped": image().numpy() ** 2},
    "dice": lambda: {"a": label_array(), "b": label_array(), "labels": [1, 2]},
    "digital_folds": lambda: {"displacement": field(batch=1), "mask": label_array() > 0},
    "folds": lambda: {"displacement": field(batch=1), "mask": label_array() > 0},
    "holm": lambda: {"p_values": [0.1, 0.2]},
    "non_diffeomorphic_points": lambda: {"displacement": field(batch=1), "mask": label_array() > 0},
    "non_diffeomorphic_volume": lambda: {"displacement": field(batch=1), "mask": label_array() > 0},
    "paired_comparison": lambda: {"a": [0.1, 0.2, 0.4], "b": [0.3, 0.1, 0.1], "resamples": 99},
    "mean_jacobian": lambda: {"displacement": field(batch=1), "mask": label_array() > 0},
    "sd_log_jacobian": lambda: {"displacement": field(batch=1), "mask": label_array() > 0},
    "surface_distances": lambda: {"a": label_array() > 0, "b": label_array() > 1, "spacing": (1, 2)},
    "surface_distances_per_label": lambda: {"a": label_array(), "b": label_array(), "labels": [1], "spacing": (1, 2)},
    "target_registration_error_mm": lambda: {
        "field": displacement_field(),
        "fixed": landmarks([1, 2], [3, 4]),
        "moving": landmarks([1, 2], [4, 4]),
    },
    "true_error_mm": lambda: {
        "field": displacement_field(),
        "truth": displacement_field(),
        "points": np.array([[1.0, 2], [3, 4]]),
    },
}

THIN = {"displacement": torch.zeros(1, 2, 1, 7)}
LONGER = (6, 8)
#: Function, what is replaced, and the message: shapes of the argument and of what it does not fit.
SHAPES = [
    ("affine_between_grids", {"matrix": torch.eye(5)}, r"matrix \(5, 5\) must be 3x3 or 4x4"),
    ("affine_between_grids", {"fixed": np.eye(4)}, r"fixed \(1, 4, 4\) must be as large as matrix \(1, 3, 3\)"),
    ("affine_between_grids", {"moving": np.eye(4)}, r"moving \(1, 4, 4\) must be as large as matrix \(1, 3, 3\)"),
    (
        "affine_between_grids",
        {"matrix": matrix(batch=2), "fixed": np.stack([np.eye(3)] * 3)},
        r"fixed \(3, 3, 3\) must be as large as matrix \(2, 3, 3\)",
    ),
    ("affine_displacement", {"shape": THICK}, r"matrix \(1, 3, 3\) must be .* for a grid of \(5, 6, 7\)"),
    ("affine_displacement", {"matrix": torch.eye(3)}, r"matrix \(3, 3\) must be .* for a grid of \(6, 7\)"),
    ("affine_matrix", {"translation": draw(0, 2, 4)}, r"translation \(2, 4\) must be"),
    ("affine_matrix", {"rotation": draw(0, 2, 3)}, r"rotation \(2, 3\) must be .* for translation \(2, 2\)"),
    ("affine_matrix", {"scaling": draw(0, 3, 2)}, r"scaling \(3, 2\) must be .* for translation \(2, 2\)"),
    ("affine_matrix", {"shear": draw(0, 2, 2)}, r"shear \(2, 2\) must be .* for translation \(2, 2\)"),
    ("affine_matrix", {"centre": [1.0, 2, 3]}, r"centre \(3,\) must be .* for translation \(2, 2\)"),
    ("beta_weight", {"squared_gradient": torch.zeros(6, 7)}, r"squared_gradient \(6, 7\) must be"),
    ("diffuse", {"values": torch.zeros(6, 7)}, r"values \(6, 7\) must be"),
    ("diffuse", {"weight": image(LONGER)}, r"weight \(2, 1, 6, 8\) must have the .* of values \(2, 2, 6, 7\)"),
    ("squared_gradient", {"field": image()}, r"field \(2, 1, 6, 7\) "),
    ("compose", {"first": field(LONGER)}, r"second \(2, 2, 6, 7\) must have the shape of first \(2, 2, 6, 8\)"),
    ("compose", {"second": field(batch=1)}, r"second \(1, 2, 6, 7\) must have the shape of first \(2, 2, 6, 7\)"),
    ("compose", {"second": image()}, r"second \(2, 1, 6, 7\) .* must be a floating-point field"),
    ("corner_jacobian_determinants", {"displacement": image()}, r"displacement \(2, 1, 6, 7\) .* field"),
    ("corner_jacobian_determinants", {"displacement": field((2, 7))}, r"displacement \(2, 2, 2, 7\) .* 3 voxels"),
    ("crop_to", {"shape": (5, 8)}, r"shape \(5, 8\) .*values \(2, 1, 6, 7\)"),
    ("crop_to", {"shape": (5,)}, r"shape \(5,\) .*values \(2, 1, 6, 7\)"),
    ("crop_to", {"values": torch.zeros(6, 7)}, r"values \(6, 7\) must be"),
    ("fit_affine", {"targets": draw(1, 2, 2, 8)}, r"targets \(2, 2, 8\) must have the shape of points \(2, 2, 9\)"),
    ("fit_affine", {"points": draw(1, 2, 4, 9)}, r"points \(2, 4, 9\) must be"),
    ("fit_affine", {"weights": draw(1, 2, 2, 9)}, r"weights \(2, 2, 9\) must be .* for points \(2, 2, 9\)"),
    ("fit_affine", {"weights": draw(1, 3, 1, 9)}, r"weights \(3, 1, 9\) must be .* for points \(2, 2, 9\)"),
    ("fit_affine_to_displacement", {"displacement": image()}, r"displacement \(2, 1, 6, 7\) .* field"),
    ("fit_affine_to_displacement", {"weights": image(LONGER)}, r"weights \(2, 1, 6, 8\) must be .*\(2, 2, 6, 7\)"),
    ("integrate", {"velocity": image()}, r"velocity \(2, 1, 6, 7\) .* field"),
    ("integrate", {"velocity": torch.zeros(2, 6, 7)}, r"velocity \(2, 6, 7\) must be"),
    ("invert", {"displacement": image()}, r"displacement \(2, 1, 6, 7\) .* field"),
    ("jacobian_determinant", {"displacement": torch.zeros(1, 3, 6, 7)}, r"displacement \(1, 3, 6, 7\) .* field"),
    ("jacobian_determinant", THIN, r"displacement \(1, 2, 1, 7\) must have 2 voxels"),
    ("jacobian_determinant", {"displacement": torch.zeros(0, 2, 6, 7)}, r"displacement \(0, 2, 6, 7\) .* not empty"),
    ("pad_to_multiple", {"values": torch.zeros(3)}, r"values \(3,\) must be"),
    ("resample", {"values": torch.zeros(6, 7)}, r"values \(6, 7\) must be"),
    ("smooth", {"values": torch.zeros(6, 7)}, r"values \(6, 7\) must be"),
    ("resample", {"shape": (5,)}, r"shape \(5,\) must have .* values \(2, 1, 6, 7\)"),
    ("resample_displacement", {"shape": (5,)}, r"shape \(5,\) must have .* displacement \(2, 2, 6, 7\)"),
    ("resample_displacement", {"displacement": image()}, r"displacement \(2, 1, 6, 7\) .* field"),
    ("resample_displacement", THIN, r"displacement \(1, 2, 1, 7\) must have"),
    ("sample", {"image": torch.zeros(6, 7)}, r"image \(6, 7\) must be"),
    ("sample", {"points": draw(0, 2, 3, 5, 5)}, r"points \(2, 3, 5, 5\) .* for image \(2, 1, 6, 7\)"),
    ("sample", {"points": draw(0, 3, 2, 5, 5)}, r"points \(3, 2, 5, 5\) .* for image \(2, 1, 6, 7\)"),
    ("sample", {"points": draw(0, 2, 2, 0)}, r"points \(2, 2, 0\)"),
    ("warp", {"displacement": field(batch=3)}, r"displacement \(3, 2, 6, 7\) .* for image \(2, 1, 6, 7\)"),
    ("warp", {"displacement": field(THICK)}, r"displacement \(2, 3, 5, 6, 7\) .* for image \(2, 1, 6, 7\)"),
    ("warp", {"displacement": image()}, r"displacement \(2, 1, 6, 7\) .* field"),
    ("warp", {"image": torch.zeros(2, 6, 7)}, r"image \(2, 6, 7\) must be"),
    ("bending_energy", {"field": image()}, r"field \(2, 1, 6, 7\) .* field"),
    ("bending_energy", {"field": field((2, 7))}, r"field \(2, 2, 2, 7\) must have at least 3 voxels"),
    ("beta_log_prior", {"weight": torch.ones(6, 7)}, r"weight \(6, 7\) must be"),
    ("diffusion", {"field": image()}, r"field \(2, 1, 6, 7\) .* field"),
    ("diffusion", {"field": field((1, 7))}, r"field \(2, 2, 1, 7\) must have at least 2 voxels"),
    ("field_mse", {"reference": field(LONGER)}, r"reference \(2, 2, 6, 8\) .* field \(2, 2, 6, 7\)"),
    ("field_mse", {"reference": field(batch=1)}, r"reference \(1, 2, 6, 7\) .* field \(2, 2, 6, 7\)"),
    ("gaussian_log_prior", {"weight": torch.ones(6, 7)}, r"weight \(6, 7\) must be"),
    ("lncc", {"moving": image(LONGER)}, r"moving \(2, 1, 6, 8\) must have the shape of fixed \(2, 1, 6, 7\)"),
    ("lncc", {"moving": image(batch=1)}, r"moving \(1, 1, 6, 7\) must have the shape of fixed \(2, 1, 6, 7\)"),
    ("lncc", {"fixed": torch.zeros(6, 7)}, r"fixed \(6, 7\) must be"),
    ("mind_ssc", {"warped": image(LONGER)}, r"warped \(2, 1, 6, 8\) must have the shape of fixed \(2, 1, 6, 7\)"),
    ("mind_ssc", {"fixed": image(channels=2)}, r"fixed \(2, 2, 6, 7\) must have one channel"),
    ("mind_ssc_descriptor", {"image": image(channels=2)}, r"image \(2, 2, 6, 7\) must have one channel"),
    ("mind_ssc_difference", {"warped": image(channels=2)}, r"warped \(2, 2, 6, 7\) must have one channel"),
    ("mind_ssc_difference", {"descriptor": image()}, r"descriptor \(2, 1, 6, 7\) must have 4 channels"),
    (
        "mind_ssc_difference",
        {"descriptor": image(LONGER, channels=4)},
        r"descriptor \(2, 4, 6, 8\) must have the batch and space of warped \(2, 1, 6, 7\)",
    ),
    ("mse", {"warped": image(LONGER)}, r"warped \(2, 1, 6, 8\) must have the shape of fixed \(2, 1, 6, 7\)"),
    ("mse", {"warped": image(channels=3)}, r"warped \(2, 3, 6, 7\) must have the shape of fixed \(2, 1, 6, 7\)"),
    ("nmi", {"warped": image(batch=1)}, r"warped \(1, 1, 6, 7\) must have the shape of fixed \(2, 1, 6, 7\)"),
    ("nmi", {"fixed": torch.zeros(2, 1, 0, 7)}, r"fixed \(2, 1, 0, 7\) must be .* not empty"),
    (
        "soft_dice",
        {"fixed_labels": label_tensor(LONGER)},
        r"fixed_labels \(2, 1, 6, 8\) must have .* displacement \(2, 2, 6, 7\)",
    ),
    (
        "soft_dice",
        {"moving_labels": label_tensor(THICK)},
        r"moving_labels \(2, 1, 5, 6, 7\) .* displacement \(2, 2, 6, 7\)",
    ),
    (
        "soft_dice",
        {"moving_labels": label_tensor()[:1]},
        r"moving_labels \(1, 1, 6, 7\) .* displacement \(2, 2, 6, 7\)",
    ),
    ("soft_dice", {"displacement": image()}, r"displacement \(2, 1, 6, 7\) .* field"),
    ("weighted_diffusion", {"weight": image(LONGER)}, r"weight \(2, 1, 6, 8\) .* field \(2, 2, 6, 7\)"),
    ("weighted_diffusion", {"weight": image(channels=2)}, r"weight \(2, 2, 6, 7\) .* field \(2, 2, 6, 7\)"),
    ("correlation", {"warped": np.zeros((7, 6))}, r"warped \(7, 6\) must have the shape of fixed \(2, 1, 6, 7\)"),
    ("dice", {"b": label_array(LONGER)}, r"b \(6, 8\) must have the shape of a \(6, 7\)"),
    ("dice", {"b": label_array()[:1]}, r"b \(1, 7\) must have the shape of a \(6, 7\)"),
    *[
        row
        for name in (
            "digital_folds",
            "folds",
            "mean_jacobian",
            "non_diffeomorphic_points",
            "non_diffeomorphic_volume",
            "sd_log_jacobian",
        )
        for row in (
            (name, {"mask": np.ones((7, 6), bool)}, r"mask \(7, 6\) .* displacement \(1, 2, 6, 7\)"),
            (name, {"displacement": field()}, r"displacement \(2, 2, 6, 7\) must be one field"),
            (name, {"displacement": image(batch=1)}, r"displacement \(1, 1, 6, 7\) .* field"),
            (name, {**THIN, "mask": None}, r"displacement \(1, 2, 1, 7\) must have"),
        )
    ],
    ("holm", {"p_values": [[0.1, 0.2]]}, r"p_values \(1, 2\)"),
    ("paired_comparison", {"b": [0.1, 0.2]}, r"b \(2,\) must have the shape of a \(3,\)"),
    ("paired_comparison", {"a": [[1.0]], "b": [[2.0]]}, r"a \(1, 1\) must be one-dimensional"),
    ("surface_distances", {"b": np.ones((7, 6), bool)}, r"b \(7, 6\) must have the shape of a \(6, 7\)"),
    ("surface_distances", {"spacing": (1, 2, 3)}, r"spacing .* each axis of \(6, 7\)"),
    ("surface_distances_per_label", {"b": label_array(LONGER)}, r"b \(6, 8\) must have the shape of a \(6, 7\)"),
    ("surface_distances_per_label", {"spacing": (1,)}, r"spacing .* each axis of \(6, 7\)"),
    (
        "target_registration_error_mm",
        {"fixed": landmarks([1, 2, 3], columns="xyz"), "moving": landmarks([1, 2, 3], columns="xyz")},
        r"fixed",
    ),
    ("target_registration_error_mm", {"moving": landmarks([1, 2, 3], columns="xyz")}, r"moving"),
    ("true_error_mm", {"points": np.ones((4, 3))}, r"points \(4, 3\)"),
    ("true_error_mm", {"points": np.ones(2)}, r"points \(2,\)"),
    ("true_error_mm", {"truth": displacement_field(grid=Grid(THICK, np.eye(4)))}, r"truth"),
]

INTEGERS = label_tensor()
#: Function, what is replaced, and what the message says: types, modes, and numbers out of range.
VALUES = [
    ("affine_between_grids", {"matrix": matrix() + torch.ones(3, 3).tril(-1)}, "matrix .* last row"),
    ("affine_between_grids", {"fixed": np.eye(3) + np.tri(3, k=-1)}, "fixed .* last row"),
    ("affine_between_grids", {"matrix": torch.eye(3, dtype=torch.int64)}, "matrix"),
    ("affine_displacement", {"matrix": matrix() + torch.ones(3, 3).tril(-1)}, "matrix .* last row"),
    ("affine_displacement", {"matrix": torch.eye(3, dtype=torch.int64)[None]}, "matrix"),
    ("affine_matrix", {"translation": torch.zeros(2, 2, dtype=torch.int64)}, "translation .* floating-point"),
    ("compose", {"first": torch.zeros(2, 2, 6, 7, dtype=torch.int64)}, "first .* floating-point"),
    ("compose", {"second": torch.zeros(2, 2, 6, 7, dtype=torch.int64)}, "second .* floating-point"),
    ("corner_jacobian_determinants", {"displacement": torch.zeros(1, 2, 6, 7).int()}, "floating-point"),
    ("crop_to", {"shape": (-1, 6)}, "shape"),
    ("fit_affine", {"kind": "similarity"}, "'similarity'"),
    ("fit_affine", {"weights": -draw(0, 2, 1, 9)}, "weights .* negative"),
    ("fit_affine", {"weights": torch.zeros(2, 1, 9)}, "weights .* zero"),
    ("fit_affine", {"points": torch.zeros(2, 2, 9)}, "do not determine"),
    ("fit_affine", {"targets": (9 * draw(0, 2, 2, 9)).long()}, "targets"),
    ("fit_affine_to_displacement", {"kind": "similarity"}, "'similarity'"),
    ("fit_affine_to_displacement", {"weights": -image()}, "weights .* negative"),
    ("fit_affine_to_displacement", {"displacement": field((1, 7)), "weights": None}, "do not determine"),
    ("integrate", {"steps": -1}, "steps must be 0 or more, not -1"),
    ("integrate", {"velocity": torch.zeros(1, 2, 6, 7).int()}, "velocity .* floating-point"),
    ("invert", {"iterations": -1}, "iterations"),
    ("invert", {"displacement": torch.zeros(1, 2, 6, 7).int()}, "displacement .* floating-point"),
    ("jacobian_determinant", {"displacement": torch.zeros(1, 2, 6, 7).int()}, "displacement .* floating-point"),
    ("pad_to_multiple", {"multiple": 0}, "multiple"),
    ("pad_to_multiple", {"multiple": -4}, "multiple"),
    ("resample", {"shape": (0, 5)}, "shape"),
    ("resample", {"values": INTEGERS}, "values .*int64"),
    ("resample", {"values": INTEGERS.to(torch.uint8)}, "values .*uint8"),
    ("resample_displacement", {"displacement": torch.zeros(1, 2, 6, 7).int()}, "displacement .* floating-point"),
    ("resample_displacement", {"shape": (0, 5)}, "shape"),
    ("smooth", {"values": INTEGERS}, "values .*int64"),
    ("beta_weight", {"alpha": 0}, "alpha"),
    ("diffuse", {"values": INTEGERS}, "values .*int64"),
    ("diffuse", {"sigma": -1}, "sigma"),
    ("smooth", {"sigma": -1}, "sigma must be 0 or more"),
    ("smooth", {"sigma": (1, 1, 1)}, "sigma must be 0 or more, one number or one for each axis"),
    ("sample", {"mode": "cubic"}, "mode must be 'linear' or 'nearest', not 'cubic'"),
    ("sample", {"border": "reflect"}, "border must be 'zero' or 'edge', not 'reflect'"),
    ("sample", {"image": INTEGERS}, "image .* of torch.int64 .* mode='nearest'"),
    ("sample", {"points": torch.zeros(2, 2, 3, 3).int()}, "points .* of torch.int32 .* floating-point"),
    ("warp", {"mode": "bilinear"}, "mode must be 'linear' or 'nearest', not 'bilinear'"),
    ("warp", {"border": "zeros"}, "border must be 'zero' or 'edge', not 'zeros'"),
    ("warp", {"image": INTEGERS}, "image .* of torch.int64 .* mode='nearest'"),
    ("warp", {"displacement": torch.zeros(2, 2, 6, 7).int()}, "displacement .* floating-point"),
    ("bending_energy", {"field": torch.zeros(1, 2, 6, 7).int()}, "field .* floating-point"),
    ("beta_log_prior", {"alpha": 0.9}, "alpha 0.9 must be at least 1"),
    ("beta_log_prior", {"alpha": float("nan")}, "alpha nan"),
    ("beta_log_prior", {"weight": 2 + image()}, "weight .* in \\(0, 1\\]"),
    ("beta_log_prior", {"weight": 0 * image()}, "weight .* in \\(0, 1\\]"),
    ("diffusion", {"field": torch.zeros(1, 2, 6, 7).int()}, "field .* floating-point"),
    ("field_mse", {"field": torch.zeros(2, 2, 6, 7).int()}, "field .* floating-point"),
    ("gaussian_log_prior", {"sigma": 0}, "sigma 0 must be positive"),
    ("gaussian_log_prior", {"sigma": -1.0}, "sigma -1.0 must be positive"),
    ("gaussian_log_prior", {"sigma": float("nan")}, "sigma nan must be positive"),
    ("gaussian_log_prior", {"weight": -image()}, "weight"),
    ("lncc", {"window": 1}, "window must be 2 voxels or more, not 1"),
    ("lncc", {"window": -3}, "window must be 2 voxels or more, not -3"),
    ("lncc", {"variant": "itk"}, "variant must be one of ants, voxelmorph, not 'itk'"),
    ("lncc", {"shape": "ball"}, "shape must be 'box' or 'gaussian', not 'ball'"),
    ("mind_ssc", {"radius": -1}, "radius=-1"),
    ("mind_ssc", {"dilation": 0}, "dilation=0"),
    ("mind_ssc_descriptor", {"radius": -1}, "radius=-1"),
    ("mind_ssc_descriptor", {"dilation": 0}, "dilation=0"),
    ("mind_ssc_difference", {"radius": -1}, "radius=-1"),
    ("mind_ssc_difference", {"dilation": (1, 2, 3)}, r"dilation=\(1, 2, 3\)"),
    ("mse", {"sigma": 0.0}, "sigma 0.0 must be positive"),
    ("mse", {"sigma": -1}, "sigma -1 must be positive"),
    ("mse", {"sigma": float("nan")}, "sigma nan must be positive"),
    ("nmi", {"bins": 1}, "bins=1"),
    ("nmi", {"width": 0}, "width=0"),
    ("nmi", {"width": -0.5}, "width=-0.5"),
    ("nmi", {"width": float("nan")}, "width=nan"),
    ("nmi", {"fixed_range": (1, 1)}, "fixed_range .* must be ascending"),
    ("nmi", {"warped_range": (1, float("nan"))}, "warped_range .* must be ascending"),
    ("soft_dice", {"labels": []}, "labels must be one code or more"),
    ("soft_dice", {"labels": [1, 2, 1]}, "labels must be one code or more, each once"),
    ("soft_dice", {"labels": [1.5]}, "labels"),
    ("soft_dice", {"fixed_labels": image()}, "fixed_labels .* of torch.float32 must be a map of integers"),
    ("soft_dice", {"moving_labels": image()}, "moving_labels .* of torch.float32 must be a map of integers"),
    ("soft_dice", {"displacement": torch.zeros(2, 2, 6, 7).int()}, "displacement .* floating-point"),
    ("weighted_diffusion", {"field": torch.zeros(2, 2, 6, 7).int()}, "field .* floating-point"),
    ("weighted_diffusion", {"weight": -image()}, "weight"),
    ("compare_methods", {"scores": pd.DataFrame({"a": [1.0, np.inf], "b": [1.0, 2]})}, "infinite"),
    ("correlation", {"fixed": np.empty(0), "warped": np.empty(0)}, r"fixed \(0,\) must not be empty"),
    ("dice", {"a": label_array().astype(float)}, "a .* of float64 must be a label map of integers"),
    ("dice", {"b": label_array().astype(float)}, "b .* of float64 must be a label map of integers"),
    ("dice", {"labels": [1.0]}, "labels must be integers"),
    *[
        row
        for name in (
            "digital_folds",
            "folds",
            "mean_jacobian",
            "non_diffeomorphic_points",
            "non_diffeomorphic_volume",
            "sd_log_jacobian",
        )
        for row in (
            (name, {"mask": label_array()}, "mask .* of torch.int32 must be true or false"),
            (name, {"displacement": torch.zeros(1, 2, 6, 7).int()}, "displacement .* floating-point"),
        )
    ],
    ("holm", {"p_values": [0.5, 1.1]}, "numbers from 0 to 1"),
    ("holm", {"p_values": [-0.1]}, "numbers from 0 to 1"),
    ("paired_comparison", {"a": [1.0, 2, np.inf]}, r"a \(3,\) .* infinite"),
    ("paired_comparison", {"b": [1.0, 2, -np.inf]}, r"b \(3,\) .* infinite"),
    ("paired_comparison", {"confidence": 2}, "confidence"),
    ("paired_comparison", {"confidence": -0.5}, "confidence"),
    ("paired_comparison", {"resamples": 0}, "resamples"),
    ("surface_distances", {"a": label_array()}, "a .* of int32 must be a boolean mask"),
    ("surface_distances", {"spacing": (1, 0)}, "spacing .* positive"),
    ("surface_distances", {"spacing": (1, -2)}, "spacing .* positive"),
    ("surface_distances", {"spacing": (1, np.nan)}, "spacing .* positive"),
    ("surface_distances_per_label", {"a": label_array().astype(float)}, "a .* of float64 must be a label map"),
    ("surface_distances_per_label", {"spacing": (np.inf, 1)}, "spacing .* positive"),
    ("surface_distances_per_label", {"labels": [0.5]}, "labels must be integers"),
    ("target_registration_error_mm", {"moving": landmarks([1, 2]).rename({"a": "z"})}, r"fixed|moving|landmark"),
]

#: Arguments in which NaN and infinity are refused by name.
FINITE = {
    "affine_between_grids": ["matrix", "fixed", "moving"],
    "affine_displacement": ["matrix"],
    "affine_matrix": ["translation", "rotation", "scaling", "shear", "centre"],
    "compose": ["first"],
    "corner_jacobian_determinants": ["displacement"],
    "fit_affine": ["points", "targets", "weights"],
    "fit_affine_to_displacement": ["displacement", "weights"],
    "integrate": ["velocity"],
    "invert": ["displacement"],
    "jacobian_determinant": ["displacement"],
    "sample": ["points"],
    "warp": ["displacement"],
    "bending_energy": ["field"],
    "beta_log_prior": ["weight"],
    "diffusion": ["field"],
    "field_mse": ["field", "reference"],
    "gaussian_log_prior": ["weight"],
    "lncc": ["fixed", "moving"],
    "mind_ssc": ["fixed", "warped"],
    "mind_ssc_descriptor": ["image"],
    "mind_ssc_difference": ["descriptor", "warped"],
    "mse": ["fixed", "warped"],
    "nmi": ["fixed", "warped"],
    "soft_dice": ["displacement"],
    "weighted_diffusion": ["field", "weight"],
    "correlation": ["fixed", "warped"],
    "digital_folds": ["displacement"],
    "folds": ["displacement"],
    "non_diffeomorphic_points": ["displacement"],
    "non_diffeomorphic_volume": ["displacement"],
    "mean_jacobian": ["displacement"],
    "sd_log_jacobian": ["displacement"],
    "true_error_mm": ["points"],
}
#: Arguments of the same kind that mean something in one of the function's other ways of working.
VARIANTS = {
    "lncc": [
        {"variant": variant, "shape": shape, "window": window}
        for variant in ("ants", "voxelmorph")
        for shape in ("box", "gaussian")
        for window in (3, 9)
    ],
    "nmi": [{}, {"fixed_range": (0, 1), "warped_range": (0, 1)}],
    "mind_ssc": [{}, {"radius": 0, "dilation": 1}, {"radius": (0, 2), "dilation": (1, 3)}],
    "sample": [{"mode": mode, "border": border} for mode in ("linear", "nearest") for border in ("zero", "edge")],
    "warp": [{"mode": mode, "border": border} for mode in ("linear", "nearest") for border in ("zero", "edge")],
    "fit_affine": [{}, {"kind": "rigid"}],
    "soft_dice": [{}, {"labels": [2]}],
    "integrate": [{}, {"steps": 0}],
}


def call(name: str, **replaced):
    return FUNCTIONS[name](**{**GOOD[name](), **replaced})


def rows_of(name: str) -> int:
    return sum(row[0] == name for row in SHAPES + VALUES) + len(FINITE.get(name, []))


def label(value) -> str | None:
    return ",".join(value) if isinstance(value, dict) else None


@pytest.fixture(params=["kernel", "reference"])
def code(request):
    if request.param == "kernel":
        yield
        return
    with reference_only():
        yield


@pytest.mark.parametrize("name", GOOD)
def test_the_arguments_that_the_rows_start_from_are_taken(name):
    """Without this a row could be refused for another reason than its own."""
    result = call(name)
    for values in result if isinstance(result, tuple) else (result,):
        if isinstance(values, torch.Tensor | np.ndarray):
            assert np.isfinite(np.asarray(values)).all()


@pytest.mark.parametrize("name, replaced, message", SHAPES, ids=label)
def test_shapes_that_do_not_fit_are_named(name, replaced, message):
    with pytest.raises(ValueError, match=message):
        call(name, **replaced)


@pytest.mark.parametrize("name, replaced, message", VALUES, ids=label)
def test_types_modes_and_numbers_out_of_range_are_refused(name, replaced, message):
    with pytest.raises(ValueError, match=message):
        call(name, **replaced)


def spoilt(good, place: str, value: float):
    """A copy with ``value`` at the first element, at one in the middle or at the last."""
    bad = np.array(good, dtype=np.float64) if isinstance(good, np.ndarray) else good.clone()
    bad.reshape(-1)[{"first": 0, "middle": bad.reshape(-1).shape[0] // 2 + 3, "last": -1}[place]] = value
    return bad


@pytest.mark.parametrize("name, argument", [(name, argument) for name in FINITE for argument in FINITE[name]])
def test_nan_and_infinity_are_refused_by_name(name, argument, code):
    good = GOOD[name]()[argument]
    places = ["first", "middle", "last"] if len(np.ravel(good)) > 12 else ["first"]  # the last is the last row's 1
    for place, value, variant in itertools.product(places, (np.nan, np.inf, -np.inf), VARIANTS.get(name, [{}])):
        with pytest.raises(ValueError, match=rf"\b{argument}\b"):
            call(name, **{**variant, argument: spoilt(good, place, value)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=["bfloat16", "float64"])
@pytest.mark.parametrize("name", ["lncc", "mse", "nmi", "mind_ssc"])
def test_nan_is_refused_in_images_of_any_type(name, dtype, value):
    """Types that the kernels do not take go another way through the operator."""
    good = {name: tensor.to(dtype) for name, tensor in GOOD[name]().items() if isinstance(tensor, torch.Tensor)}
    for argument in good:
        with pytest.raises(NotFiniteError, match=argument):
            FUNCTIONS[name](**{**good, argument: spoilt(good[argument], "middle", value)})


@pytest.mark.parametrize("name", ["bending_energy", "diffusion", "weighted_diffusion"])
@pytest.mark.parametrize("corner", [0, -1])
def test_nan_in_a_corner_of_space_is_refused(name, corner):
    """A corner has the fewest neighbours: a difference that leaves it out does not see it."""
    good = {"field": field(THICK, 1)}
    if name == "weighted_diffusion":
        good["weight"] = image(THICK, 1)
    for argument, tensor in good.items():
        bad = tensor.clone()
        bad[0, 0, corner, corner, corner] = float("nan")
        with pytest.raises(ValueError, match=argument):
            FUNCTIONS[name](**{**good, argument: bad})


def test_fields_with_nan_have_no_error_in_millimetres():
    """A field in memory is checked by nobody else before it is measured."""
    bad = displacement_field(torch.full((1, 2, *SHAPE), float("nan")))
    for name in ("true_error_mm", "target_registration_error_mm"):
        with pytest.raises(ValueError, match=r"field|displacement"):
            call(name, field=bad)


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_landmarks_with_nan_are_refused(side):
    with pytest.raises(ValueError, match=side):
        call("target_registration_error_mm", **{side: landmarks([1, np.nan], [3, 4])})


def test_nan_is_a_value_error_of_its_own_kind():
    with pytest.raises(NotFiniteError, match=r"velocity \(2, 2, 6, 7\) holds 1 values that are NaN or infinite"):
        call("integrate", velocity=spoilt(field(), "middle", float("nan")))
    assert issubclass(NotFiniteError, ValueError)


#: What takes a tensor for its type alone has nothing to refuse.
TYPE_ONLY = {"identity"}
#: An ``ArrayLike`` is spelt out as what it stands for, nested sequences among it.
TAKES_DATA = re.compile(r"Tensor|ndarray|DataFrame|DisplacementField|_NestedSequence|Sequence\[float\]")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_takes_data_is_in_the_table(name):
    annotations = [str(parameter.annotation) for parameter in inspect.signature(FUNCTIONS[name]).parameters.values()]
    assert any(TAKES_DATA.search(annotation) for annotation in annotations), f"{name}: is there a type missing?"
    assert name in GOOD
    if name in TYPE_ONLY:
        return
    assert rows_of(name) > 0, f"{name}: no row says what it refuses"
    shapes = [argument for _, replaced, _ in (row for row in SHAPES if row[0] == name) for argument in replaced]
    assert shapes or name == "compare_methods", f"{name}: no row with a wrong shape"


def test_the_table_names_only_what_there_is():
    assert set(GOOD) == set(FUNCTIONS)
    assert {row[0] for row in SHAPES + VALUES} | set(FINITE) | set(VARIANTS) <= set(FUNCTIONS)
    for name in FUNCTIONS:
        parameters = inspect.signature(FUNCTIONS[name]).parameters
        assert set(GOOD[name]()) <= set(parameters)
        assert all(argument in parameters for argument in FINITE.get(name, []))


def documented(name: str) -> str:
    """The docstring of a function, with those that it refers to."""
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    others = re.findall(r":func:`~?(?:[\w.]*\.)?(\w+)`", text)
    return text + "".join(inspect.getdoc(FUNCTIONS[other]) or "" for other in others if other in FUNCTIONS)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - TYPE_ONLY))
def test_every_function_says_what_shapes_it_takes_and_what_it_raises(name):
    text = documented(name)
    assert "shape" in text
    assert "Raises" in text


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_public_names_are_sorted_and_exist_once(module):
    assert module.__all__ == sorted(set(module.__all__))
    assert all(inspect.getdoc(getattr(module, name)) for name in module.__all__)
