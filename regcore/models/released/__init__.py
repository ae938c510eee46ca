"""Models released with regcore: trained by its own studies, only on synthetic images.

One folder each, ``<method>-<D>d``: weights, ``model.json``, the training's ``history.csv`` and a model card.  Unlike a
study's models they have no reference and no grid, so they register images with any content.
"""

import json
from pathlib import Path

from regcore.errors import InputError
from regcore.methods import read_settings
from regcore.methods.settings.synthmorph import SHAPES, SynthMorphSettings
from regcore.models.model_json import read_model_json
from regcore.process.files import atomic_copy, atomic_write

FOLDER = Path(__file__).parent
#: Preprocessing of a released model.  The affine alignment works for any contrast, like the model.
PREPARATION = {"affine": "auto", "mask": False, "percentiles": [0.5, 99.5]}


def released_models() -> dict[str, Path]:
    """The models released with regcore.

    Returns
    -------
    dict of str → Path
        Name, ``<method>-<D>d`` → folder.

    Examples
    --------
    >>> from regcore.models.released import released_models
    >>> [name for name in released_models() if name.endswith("2d")]
    ['synthmorph-2d']
    """
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/model.json"))}


def released_model(method: str, ndim: int) -> Path | None:
    """The folder of a method's released model; None if there is none for this number of dimensions.

    Parameters
    ----------
    method : str
        Name of the method.
    ndim : {2, 3}
        Dimensions of the images.

    Returns
    -------
    Path or None

    Examples
    --------
    >>> from regcore.models.released import released_model
    >>> released_model("synthmorph", 2).name, released_model("voxelmorph", 2)
    ('synthmorph-2d', None)
    """
    return released_models().get(f"{method}-{ndim}d")


def named_model(name: str) -> Path:
    """The folder of the model that a user names.

    Parameters
    ----------
    name : str
        That of a released model, or the path of the folder of any model.

    Returns
    -------
    Path
        It need not exist.

    Examples
    --------
    >>> from regcore.models.released import FOLDER, named_model
    >>> named_model("synthmorph-2d").relative_to(FOLDER), named_model("results/x/models/spr")
    (PosixPath('synthmorph-2d'), PosixPath('results/x/models/spr'))
    """
    return released_models().get(name, Path(name))


def release(model: Path, into: Path, voxels: int | None = None, passes: int | None = None) -> Path:
    """Copy a trained model without the parts that belong to its study's scans.

    Parameters
    ----------
    model : Path
        Folder of a trained model.
    into : Path
        Folder of released models.
    voxels : int, optional
        Most voxels along an axis of its grid for registration; default: as in its study's grid.
    passes : int, optional
        Passes for registration; default: as in its training.

    Returns
    -------
    Path
        The new folder, named after method and dimensions.

    Raises
    ------
    InputError
        There is no model, its ``model.json`` is damaged, or it was trained on a cohort's images or label maps.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.alignment.settings import PreprocessSettings
    >>> from regcore.images.volume import Grid, Volume
    >>> from regcore.methods import make_method
    >>> from regcore.models.released import release
    >>> from regcore.models.trained import save_model
    >>> from regcore.training.trainer import Trained
    >>> image = Volume(np.eye(32, dtype=np.float32), Grid.centred((32, 32), (1, 1), (0, 0)))
    >>> method = make_method("synthmorph", {"width": 0.125})
    >>> trained = Trained(method.build(ndim=2).state_dict(), history=[])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = Path(folder, "model")
    ...     save_model(model, "synthmorph", method, trained, image, image.grid, PreprocessSettings())
    ...     released = release(model, into=Path(folder, "released"))
    ...     print(released.name, *sorted(file.name for file in released.iterdir()))
    synthmorph-2d history.csv model.json weights.safetensors
    """
    if not (model / "model.json").is_file():
        raise InputError(f"{model}: not a model folder (no model.json)")
    content = read_model_json(model)
    settings = read_settings(content["method"], content["settings"], f"{model}/model.json")
    if not isinstance(settings, SynthMorphSettings) or settings.maps != SHAPES:
        raise InputError(f"{model}: only a synthmorph model trained on shapes can be released")
    shape = content["grid"]["shape"]
    folder = into / f"{content['method']}-{len(shape)}d"
    for name in ("weights.safetensors", "history.csv"):
        atomic_copy(model / name, folder / name)
    settings.passes = passes or settings.passes
    content["settings"] = settings.as_dict()
    content |= {"preprocess": PREPARATION, "grid": None, "ndim": len(shape), "voxels": voxels or max(shape)}
    with atomic_write(folder / "model.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    return folder
