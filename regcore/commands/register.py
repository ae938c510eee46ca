"""Registration of two image files: the work of ``regcore register``."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regcore.alignment.preprocess import Prepared, align, common_grid, prepare, prepare_image, resample
from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.evaluation.regularity import folds
from regcore.evaluation.verdict import verdict
from regcore.images.volume import Grid, Volume, read_grid, read_labels, read_volume
from regcore.methods import known_methods, make_method, method_info
from regcore.methods.base import Method
from regcore.methods.hypernetworked import Hypernetworked
from regcore.methods.registration import register_scans
from regcore.models.released import released_model
from regcore.models.trained import Model, load_model
from regcore.process.cost import Cost
from regcore.process.files import atomic_write
from regcore.process.versions import versions

#: Preprocessing for methods that have none of their own.
PREPARATION = PreprocessSettings(affine="affine", mask=False, percentiles=[0.5, 99.5])


def register_files(
    fixed_path: Path,
    moving_path: Path,
    output: Path,
    method_name: str,
    settings: Mapping[str, Any],
    centre: bool = False,
    seed: int = 0,
    fixed_mask_path: Path | None = None,
    moving_mask_path: Path | None = None,
) -> dict[str, Any]:
    """Register two images and write the results into ``output``.

    Parameters
    ----------
    method_name : str
        A method that needs no training or has a released model, or the folder of a trained model.
    settings : mapping
        Settings of the method. For a trained hypernetwork, its hyperparameters.
    centre : bool
        Start from aligned image centres. Otherwise the images must overlap in space.
    fixed_mask_path, moving_mask_path : path, optional
        Zero where the image is to be ignored. On the grid of its image.

    Returns
    -------
    dict
        The content of ``register.json``.

    Raises
    ------
    InputError
        An image cannot be used, the images differ in dimension or do not overlap, a mask does not fit, the method
        is unknown, or a trained model lacks a hyperparameter that is given, or a value for one that it has.
    """
    cost = Cost()
    method, model = _method(method_name, settings, read_grid(fixed_path).ndim)
    with cost.stage("load"):
        fixed, moving = read_volume(fixed_path), read_volume(moving_path)
        masks = [_mask(fixed_mask_path, fixed), _mask(moving_mask_path, moving)]
    if any(masks) and not method.uses_masks:
        raise InputError(f"--method {method_name} takes no masks; instance does")
    if fixed.grid.ndim != moving.grid.ndim:
        raise InputError(f"{fixed_path} is {fixed.grid.ndim}-D and {moving_path} is {moving.grid.ndim}-D")
    if model and model.ndim != fixed.grid.ndim:
        raise InputError(f"{method_name}: a {model.ndim}-D model cannot register {fixed.grid.ndim}-D images")
    if method_name in known_methods() and fixed.grid.ndim not in method_info(method_name).dimensions:
        raise InputError(f"--method {method_name}: cannot register {fixed.grid.ndim}-D images")
    shift = np.eye(fixed.grid.ndim + 1)
    if centre and not method.aligned:
        raise InputError(f"--centre: '{method_name}' leaves the images where their headers put them; use affine")
    if centre:
        shift = align(fixed, moving, "centre", seed)
    elif not fixed.grid.overlaps(moving.grid):
        raise InputError(
            f"{moving_path} does not overlap {fixed_path} in space (by their headers): pass --centre to align the "
            "image centres first, or correct the headers"
        )
    with cost.stage("align"):
        scans = _prepared(fixed, moving, masks, method, model, shift, seed)
    found = register_scans(method, *scans, cost=cost)
    with cost.stage("warp"):
        warped = found.field.warp(moving)
    with cost.stage("save"):
        warped.save(output / "warped.nii.gz")
        found.field.save(output / "displacement.nii.gz")
        if found.inverse is not None:
            found.inverse.save(output / "inverse.nii.gz")
    with cost.stage("judge"):
        judged = verdict(fixed, moving, found.field, start=shift)
    report = {
        "fixed": str(fixed_path),
        "moving": str(moving_path),
        "method": method_name,
        "settings": method.settings.as_dict(),
        "commands": found.commands,
        "tool": found.tool,
        "centre": centre,
        "fixed_mask": fixed_mask_path and str(fixed_mask_path),
        "moving_mask": moving_mask_path and str(moving_mask_path),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "seconds": {stage: round(seconds, 3) for stage, seconds in cost.seconds.items()},
        "folds_percent": folds(found.field.displacement),
        "verdict": judged.as_dict(),
        "versions": versions(),
    }
    with atomic_write(output / "register.json") as path:
        path.write_text(json.dumps(report, indent=1))
    return report


def _method(name: str, settings: Mapping[str, Any], ndim: int) -> tuple[Method, Model | None]:
    if name in known_methods():
        info = method_info(name, "--method")
        folder = released_model(name, ndim)
        if folder is not None:
            model = _trained(str(folder), settings)
            return model.method, model
        if info.learned:
            raise InputError(f"--method {name}: needs training first; give the folder of a trained model")
        if info.imported:
            raise InputError(f"--method {name}: does not register; to score a field, use regcore evaluate")
        if info.pretrained:
            raise InputError(f"--method {name}: give the folder of the trained model itself, --method <folder>")
        method = make_method(name, settings, f"--method {name}")
        missing = method.settings.missing()
        if missing:
            raise InputError(f"--method {name}: {missing}")
        if not info.refines:
            return method, None
        if method.settings.start is None:
            raise InputError(f"--method {name}: give the folder of a trained model, --set start=<folder>")
        model = _trained(method.settings.start, {})
        method.start_from(model.method)
        return method, model
    if Path(name).is_dir():
        model = _trained(name, settings)
        return model.method, model
    return make_method(name, settings, "--method"), None  # raises, and suggests the nearest name


def _trained(folder: str, settings: Mapping[str, Any]) -> Model:
    """Load a trained model. A hypernetwork takes ``settings``, and its tuned values for the rest."""
    model = load_model(folder)
    if settings:
        model = replace(model, method=_at(model, settings, folder))
    if model.method.hyperparameters:
        unchosen = [name for name, value in model.method.values.items() if value is None]
        if unchosen:
            raise InputError(
                f"{folder}: the model is not tuned: no value for {', '.join(unchosen)}. Find good values with regcore "
                "tune, or set them: regcore register --method <this model> --lambda or --set KEY=VALUE"
            )
    return model


def _at(model: Model, settings: Mapping[str, Any], where: str) -> Hypernetworked:
    """The method of a trained model with other hyperparameters."""
    method = model.method
    if not isinstance(method, Hypernetworked):
        raise InputError(
            f"{where}: --lambda and --set have no effect on a model of the method {model.name}: its settings were "
            "fixed in training. Only a hypernetwork takes other hyperparameters"
        )
    for name, value in settings.items():
        if name in method.hyperparameters and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{where}: {name} must be a number, not {value!r}")
    try:
        return method.at(settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _mask(path: Path | None, image: Volume) -> Volume | None:
    if path is None:
        return None
    mask = read_labels(path)
    if not mask.grid.same_as(image.grid, tolerance_mm=0.01):
        raise InputError(f"{path}: the mask is not on the grid of its image {image.path}; resample it onto that grid")
    if not mask.data.any():
        raise InputError(f"{path}: the mask is empty (all zero)")
    return mask


def prepare_for(model: Model, scan: Volume, seed: int, mask: Volume | None = None) -> Prepared:
    """Resample a scan onto a model's grid and normalise it like the model's training scans.

    Parameters
    ----------
    scan : Volume
        On its own grid, with its own intensities.
    seed : int
        Seed of the sampling in the affine alignment.
    mask : Volume, optional
        On the scan's grid; used if the training scans were masked.

    Raises
    ------
    InputError
        The model has no reference, or the scan cannot be aligned to it.
    """
    if model.space is None:
        raise InputError(f"the model of the method {model.name} has no reference image to bring scans to")
    kind = model.preprocess.affine
    own = "affine" if kind == "none" else kind
    return prepare(prepare_image(scan, model.preprocess, mask), model.space.reference, model.space.grid, own, seed)


def _prepared(
    fixed: Volume,
    moving: Volume,
    masks: list[Volume | None],
    method: Method,
    model: Model | None,
    shift: np.ndarray,
    seed: int,
) -> tuple[Prepared, Prepared]:
    """Resample both scans to one grid: the model's, one around the fixed image's content, or the fixed image's."""
    if model and model.space:
        return prepare_for(model, fixed, seed), prepare_for(model, moving, seed)
    settings = model.preprocess if model else PREPARATION
    fixed_image, moving_image = (prepare_image(volume, settings) for volume in (fixed, moving))
    grid = _grid_around(fixed_image, model.voxels) if model else fixed.grid
    to_moving = align(fixed_image, moving_image, settings.affine, seed) if method.aligned else shift
    fixed_mask, moving_mask = masks
    if moving_mask is not None:
        moving_mask = resample(moving_mask, grid, to_moving, nearest=True)
    in_place = np.eye(fixed.grid.ndim + 1)
    shown = resample(fixed_image, grid, in_place) if model else fixed_image
    return (
        Prepared(shown, in_place, fixed.grid, fixed_mask),
        Prepared(resample(moving_image, grid, to_moving), to_moving, moving.grid, moving_mask),
    )


def _grid_around(image: Volume, voxels: int | None) -> Grid:
    """An axis-aligned grid around an image's content, as fine as the image but at most ``voxels`` per axis."""
    grid = common_grid(image, PreprocessSettings())
    longest = max(grid.shape)
    if voxels is None or longest <= voxels:
        return grid
    # Slightly coarser, so that rounding does not add a voxel.
    spacing = float(grid.spacing[0]) * longest / voxels * (1 + 1e-6)
    return common_grid(image, PreprocessSettings(spacing=spacing))
