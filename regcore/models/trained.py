"""Trained models as folders with everything needed to rebuild the network and prepare new scans.

``weights.safetensors`` has the weights; ``model.json`` the method, its settings, how scans are prepared and the cost of
training (:mod:`regcore.models.model_json`); ``reference.nii.gz`` the image to which scans are aligned; ``history.csv``
the training curve.  A released model (:mod:`regcore.models.released`) has no reference and no grid of its own.
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
from regcore.models.model_json import read_model_json
from regcore.process.devices import default_device
from regcore.process.files import atomic_copy, atomic_write
from regcore.training.checkpoint import load_tensors, save_tensors
from regcore.training.history import save_history
from regcore.training.trainer import Trained


@dataclass(frozen=True, eq=False)
class Space:
    """The image to which scans are aligned, and the grid to which they are resampled.

    Attributes
    ----------
    reference : Volume
        Normalised, on its own grid.
    grid : Grid
        The common grid of the training.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.models.trained import Space
    >>> reference = Volume(np.zeros((64, 48), np.float32), Grid.centred((64, 48), (1, 1), (0, 0)))
    >>> Space(reference, Grid.centred((32, 32), (2, 2), (0, 0))).grid.shape
    (32, 32)
    """

    reference: Volume
    grid: Grid


@dataclass(frozen=True, eq=False)
class Model:
    """A method with its weights and the preprocessing of its scans.

    Attributes
    ----------
    method : LearnedMethod
        With its network, ready to register.
    name : str
        Name of the method.
    ndim : {2, 3}
        Dimensions of the images.
    preprocess : PreprocessSettings
        How scans are aligned and normalised.
    facts : dict
        The cost and outcome of its training.
    space : Space or None
        The space into which scans are resampled. None: a grid around the fixed image, with at most ``voxels`` along
        its longest axis.
    voxels : int or None
        Only for a model without a space.

    Examples
    --------
    >>> from regcore.models.released import released_model
    >>> from regcore.models.trained import load_model
    >>> model = load_model(released_model("synthmorph", 2))
    >>> model.name, model.ndim, model.space, model.preprocess.affine
    ('synthmorph', 2, None, 'auto')
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
    """Write a model folder; ``model.json`` is written last, so a folder that has it is complete.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    name : str
        Name of the method in the registry.
    method : LearnedMethod
        Its settings are stored.
    trained : Trained
        Weights, history and facts.
    reference : Volume
        The image to which scans are aligned, normalised on its own grid.
    grid : Grid
        The grid of the training.
    preprocess : PreprocessSettings
        How its scans were prepared.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.settings import PreprocessSettings
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> from regcore.models.trained import load_model, save_model
    >>> from regcore.training.trainer import Trained
    >>> image = Volume(np.eye(32, dtype=np.float32), Grid.centred((32, 32), (1, 1), (0, 0)))
    >>> method = make_method("voxelmorph", {"similarity": "mse"})
    >>> trained = Trained(method.build(ndim=2).state_dict(), history=[{"step": 10, "validation_dice": 0.6}])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(Path(folder), "voxelmorph", method, trained, image, image.grid, PreprocessSettings())
    ...     print(*sorted(file.name for file in Path(folder).iterdir()))
    ...     load_model(folder).method.register(image, image).field.grid.shape
    history.csv model.json reference.nii.gz weights.safetensors
    (32, 32)
    """
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
    """Copy a model folder; as in :func:`save_model`, ``model.json`` is written last.

    Parameters
    ----------
    model : Path
        A folder without subfolders.
    folder : Path
        The copy; made if it is missing.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.models.released import released_model
    >>> from regcore.models.trained import copy_model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     copy_model(released_model("synthmorph", 2), Path(folder))
    ...     Path(folder, "model.json").is_file()
    True
    """
    for file in sorted(model.iterdir(), key=lambda file: (file.name == "model.json", file.name)):
        atomic_copy(file, folder / file.name)


def load_model(folder: str | Path) -> Model:
    """Read a model folder.

    Parameters
    ----------
    folder : path
        As written by :func:`save_model`, or of a released model.

    Returns
    -------
    Model
        Its network is in evaluation mode, on a GPU if there is one.

    Raises
    ------
    InputError
        The folder is not a model, or its weights do not fit its method.

    Examples
    --------
    >>> from regcore.models.released import released_model
    >>> from regcore.models.trained import load_model
    >>> model = load_model(released_model("synthmorph", 2))
    >>> model.method.settings.maps, model.method.network.training
    ('shapes', False)
    """
    folder = Path(folder)
    if not (folder / "model.json").is_file():
        raise InputError(
            f"{folder}: not a model folder (no model.json); give the name of a method or the folder of a trained model"
        )
    content = read_model_json(folder)
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
