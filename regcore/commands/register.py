"""Registration of two image files: the work of ``regcore register``."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regcore.commands.guides import Guides
from regcore.commands.scans import PairOptions, prepared_pair
from regcore.errors import InputError
from regcore.evaluation.regularity import folds
from regcore.evaluation.verdict import verdict
from regcore.images.background import background
from regcore.images.matrices import save_matrix
from regcore.images.volume import read_grid, read_volume
from regcore.methods import known_methods, make_method, method_info
from regcore.methods.base import Method
from regcore.methods.hypernetworked import Hypernetworked
from regcore.methods.registration import register_scans
from regcore.models.released import named_model, released_model
from regcore.models.trained import Model, load_model
from regcore.process.cost import Cost
from regcore.process.files import atomic_write
from regcore.process.outputs import result_folder
from regcore.process.versions import versions

#: What a registration writes; only the inverse may be missing.
RECORD = "register.json"
RESULTS = ("warped.nii.gz", "displacement.nii.gz", "inverse.nii.gz", "affine.mat", "affine.txt", RECORD)


def register_files(
    fixed_path: Path,
    moving_path: Path,
    output: Path,
    method_name: str,
    settings: Mapping[str, Any],
    options: PairOptions = PairOptions(),  # noqa: B008 (frozen)
    seed: int = 0,
    fill: float | None = None,
    guides: Guides = Guides(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Register two images; the results replace an earlier registration's in ``output`` as one, at the end.

    Parameters
    ----------
    fixed_path, moving_path : Path
        The images, both 2-D or both 3-D. Masks and a start are among the ``options``.
    output : Path
        Refused before the registration if it cannot be written.  Other files in it stay.
    method_name : str
        A method that needs no training or has a released model, or the folder of a trained model.
    settings : mapping
        Settings of the method. For a trained hypernetwork, its hyperparameters; for a method with a released model,
        the settings of the descent from its field (method ``refine``).
    options : PairOptions
        Alignment and masks.
    seed : int
        Of ANTs' random samples in the alignment.
    fill : float, optional
        Value of the warped image outside the moving one; by default the moving image's background.
    guides : Guides
        Further images and label maps.

    Returns
    -------
    dict
        The content of ``register.json``.

    Raises
    ------
    InputError
        An image cannot be used, the images differ in dimension or do not overlap, a mask, matrix, further image or
        label map does not fit, the method is unknown, a trained model lacks a hyperparameter that is given, or a value
        for one that it has, or ``output`` is refused.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.commands.register import register_files
    >>> from regcore.commands.scans import PairOptions
    >>> from regcore.images.volume import Grid, Volume
    >>> shown = np.zeros((32, 32), np.float32)
    >>> shown[8:20, 10:24] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [Path(folder, name) for name in ("fixed.nii", "moving.nii", "out")]
    ...     for path, centre in zip(paths, [(0, 0), (5, 0)]):
    ...         Volume(shown, Grid.centred((32, 32), (1, 1), centre)).save(path)
    ...     report = register_files(*paths, "affine", {}, PairOptions(affine="centre"))
    ...     print(*sorted(path.name for path in paths[2].iterdir()))
    ...     print(Path(folder, "out", "affine.txt").read_text(), end="")
    affine.mat affine.txt displacement.nii.gz inverse.nii.gz register.json warped.nii.gz
    1 0 5
    0 1 0
    0 0 1
    # regcore: fixed world -> moving world, RAS millimetres
    >>> report["affine"], report["folds_percent"]
    ('centre', 0.0)
    """
    inputs = [fixed_path, moving_path, *options.files, *guides.files]
    with result_folder(output, RESULTS, RECORD, _bytes_written(fixed_path, moving_path), inputs) as folder:
        return _register(fixed_path, moving_path, folder, method_name, settings, options, seed, fill, guides)


def _register(
    fixed_path: Path,
    moving_path: Path,
    output: Path,
    method_name: str,
    settings: Mapping[str, Any],
    options: PairOptions,
    seed: int,
    fill: float | None,
    guides: Guides,
) -> dict[str, Any]:
    """:func:`register_files`, into a folder that is new."""
    cost = Cost()
    method, model = _method(method_name, settings, read_grid(fixed_path).ndim)
    kind = options.check(method_name, method, model)
    guides.check(method_name, method)
    guides.check_places(fixed_path, moving_path)
    with cost.stage("load"):
        fixed, moving = read_volume(fixed_path), read_volume(moving_path)
        pair = options.scans(fixed, moving)
        guiding = guides.read()
    if fixed.grid.ndim != moving.grid.ndim:
        raise InputError(f"{fixed_path} is {fixed.grid.ndim}-D and {moving_path} is {moving.grid.ndim}-D")
    if model and model.ndim != fixed.grid.ndim:
        raise InputError(f"{method_name}: a {model.ndim}-D model cannot register {fixed.grid.ndim}-D images")
    if method_name in known_methods() and fixed.grid.ndim not in method_info(method_name).dimensions:
        raise InputError(f"--method {method_name}: cannot register {fixed.grid.ndim}-D images")
    start = options.start(fixed.grid, moving.grid)
    with cost.stage("align"):
        scans = guiding.added(*prepared_pair(*pair, model, kind, start, seed), pair)
    found = register_scans(method, *scans, cost=cost, weights=guides.shares, label_weight=guides.label_weight)
    if fill is None:
        fill = background(moving)
    with cost.stage("warp"):
        warped = found.field.warp(moving, fill=fill)
    with cost.stage("save"):
        warped.save(output / "warped.nii.gz")
        found.field.save(output / "displacement.nii.gz")
        save_matrix(scans[1].to_native @ np.linalg.inv(scans[0].to_native), output / "affine")
        if found.inverse is not None:
            found.inverse.save(output / "inverse.nii.gz")
    with cost.stage("judge"):
        judged = verdict(fixed, moving, found.field, start)
    report = {
        "fixed": str(fixed_path),
        "moving": str(moving_path),
        "method": method_name,
        "settings": method.settings.as_dict(),
        "commands": found.commands,
        "tool": found.tool,
        "choices": found.choices,
        "affine": kind,
        "aligned": scans[1].aligned,
        "notes": [*(note for scan in scans for note in scan.notes), *guides.notes],
        **guides.record(fixed_path, moving_path, method, guiding.codes),
        **{name: value if value is None else str(value) for name, value in asdict(options).items() if name != "affine"},
        "fill": fill,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "seconds": {stage: round(seconds, 3) for stage, seconds in cost.seconds.items()},
        "folds_percent": folds(found.field.displacement),
        "verdict": judged.as_dict(),
        "versions": versions(),
    }
    with atomic_write(output / RECORD) as path:
        path.write_text(json.dumps(report, indent=1))
    return report


def _bytes_written(fixed_path: Path, moving_path: Path) -> int:
    """The size of the results before compression: float32 images and fields, both directions."""
    fixed, moving = (read_grid(path) for path in (fixed_path, moving_path))
    return 4 * (math.prod(fixed.shape) * (1 + fixed.ndim) + math.prod(moving.shape) * moving.ndim) + 2**16


def _method(name: str, settings: Mapping[str, Any], ndim: int) -> tuple[Method, Model | None]:
    if name in known_methods():
        info = method_info(name, "--method")
        folder = released_model(name, ndim)
        if folder is not None:
            if "start" in settings:
                raise InputError(f"--method {name}: starts from {folder.name}; for another, use --method refine")
            return _refined("refine", {"start": folder.name, **settings}, f"--method {name}")
        if info.learned:
            raise InputError(f"--method {name}: needs training first; give the folder of a trained model")
        if info.imported:
            raise InputError(f"--method {name}: does not register; to score a field, use regcore evaluate")
        if info.pretrained:
            raise InputError(f"--method {name}: give the folder of the trained model itself, --method <folder>")
        if info.refines:
            return _refined(name, settings, f"--method {name}")
        method = make_method(name, settings, f"--method {name}")
        missing = method.settings.missing()
        if missing:
            raise InputError(f"--method {name}: {missing}")
        return method, None
    if Path(name).is_dir():
        model = _trained(name, settings)
        return model.method, model
    return make_method(name, settings, "--method"), None  # raises, and suggests the nearest name


def _refined(name: str, settings: Mapping[str, Any], where: str) -> tuple[Method, Model]:
    """A refinement of the network that its settings name, and that model."""
    method = make_method(name, settings, where)
    if method.settings.start is None:
        raise InputError(f"{where}: give the folder of a trained model, --set start=<folder>")
    model = _trained(str(named_model(method.settings.start)), {})
    method.start_from(model.method)
    return method, model


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
