"""A trained model as a folder that can rebuild itself and prepare new scans for itself.

``weights.safetensors`` holds the weights; ``model.json`` the method, its settings, how scans are prepared
and what training cost; ``reference.nii.gz`` the image that scans are aligned to; ``history.csv`` the
training curve.  A released model (:mod:`regcore.models.released`) has no reference and no grid of its own.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import regcore
from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.images.volume import Grid, Volume, read_volume
from regcore.methods import make_method
from regcore.methods.base import LearnedMethod
from regcore.process.devices import default_device
from regcore.process.files import atomic_copy, atomic_write
from regcore.training.checkpoint import load_tensors, save_tensors
from regcore.training.history import save_history
from regcore.training.trainer import Trained


@dataclass(frozen=True, eq=False)
class Space:
    """The image that scans are aligned to, and the grid that they are resampled onto."""

    reference: Volume
    grid: Grid


@dataclass(frozen=True, eq=False)
class Model:
    """A method with its weights, and what preparing a scan for it needs.

    Attributes
    ----------
    space : Space or None
        What scans are brought into.  None: into a grid around the fixed image, of ``voxels`` along its longest axis
        at most.
    """

    method: LearnedMethod
    name: str
    ndim: int
    preprocess: PreprocessSettings
    facts: dict[str, Any]
    space: Space | None
    voxels: int | None = None


def save_model(
    folder: Path,
    name: str,
    method: LearnedMethod,
    trained: Trained,
    reference: Volume,
    grid: Grid,
    preprocess: PreprocessSettings,
) -> None:
    """Write a model folder; ``model.json`` comes last, so a folder that has it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "weights.safetensors", trained.weights, {"method": name})
    reference.save(folder / "reference.nii.gz")
    save_history(folder, trained.history)
    content = {
        "method": name,
        "settings": method.settings.as_dict(),
        "preprocess": preprocess.as_dict(),
        "grid": {"shape": grid.shape, "affine": grid.affine.tolist()},
        "training": trained.facts,
        "regcore": regcore.__version__,
    }
    with atomic_write(folder / "model.json") as path:
        path.write_text(json.dumps(content, indent=1))


def copy_model(model: Path, folder: Path) -> None:
    """Copy a model folder; as in :func:`save_model`, ``model.json`` comes last."""
    for file in sorted(model.iterdir(), key=lambda file: (file.name == "model.json", file.name)):
        atomic_copy(file, folder / file.name)


def load_model(folder: str | Path) -> Model:
    """Read a model folder.

    Raises
    ------
    InputError
        The folder is no model, or its weights do not fit its method.
    """
    folder = Path(folder)
    if not (folder / "model.json").is_file():
        raise InputError(f"{folder}: not a model folder (no model.json); give a method's name or a trained model")
    content = json.loads((folder / "model.json").read_text())
    method = make_method(content["method"], content["settings"], f"{folder}/model.json")
    space, stored = None, content["grid"]
    if stored:
        grid = Grid(stored["shape"], np.array(stored["affine"]))
        space = Space(read_volume(folder / "reference.nii.gz"), grid)
    ndim = space.grid.ndim if space else content["ndim"]
    weights, _ = load_tensors(folder / "weights.safetensors")
    method.module = method.build(ndim)
    try:
        method.module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{folder}: the weights do not fit the method '{content['method']}' ({error})") from error
    method.module.to(default_device()).eval()
    preprocess = PreprocessSettings.read(content["preprocess"], f"{folder}/model.json: preprocess")
    return Model(method, content["method"], ndim, preprocess, content["training"], space, content.get("voxels"))
