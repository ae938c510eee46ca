"""Models that come with regcore: trained by its own studies on synthetic images alone.

A folder each, ``<method>-<D>d``: the weights, ``model.json``, the training's ``history.csv`` and a model card.  Unlike
a study's models they bring no reference and no grid, so that they register whatever two images show.
"""

import json
from pathlib import Path

from regcore.errors import InputError
from regcore.methods import read_settings
from regcore.methods.settings.synthmorph import SHAPES, SynthMorphSettings
from regcore.process.files import atomic_copy, atomic_write

FOLDER = Path(__file__).parent
#: How a released model brings two scans onto one grid.  Its aligner sees any contrast, as the model does.
PREPARATION = {"affine": "nmi", "mask": False, "percentiles": [0.5, 99.5]}


def released_models() -> dict[str, Path]:
    """Name → folder."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/model.json"))}


def released_model(method: str, ndim: int) -> Path | None:
    """The folder of a method's released model; None where there is none for so many dimensions."""
    return released_models().get(f"{method}-{ndim}d")


def release(model: Path, into: Path, voxels: int | None = None, passes: int | None = None) -> Path:
    """Copy a trained model without what belongs to its study's scans.

    Parameters
    ----------
    model : Path
        Folder of a model that training wrote.
    into : Path
        Folder of released models.
    voxels : int, optional
        Most voxels along an axis of the grid that it registers on; left out: those of its study's grid.
    passes : int, optional
        Passes that it registers with; left out: those that it was trained with.

    Returns
    -------
    Path
        Its folder, named after method and dimensions.

    Raises
    ------
    InputError
        There is no model, or it was trained on images or label maps of a cohort.
    """
    if not (model / "model.json").is_file():
        raise InputError(f"{model}: not a model folder (no model.json)")
    content = json.loads((model / "model.json").read_text())
    settings = read_settings(content["method"], content["settings"], f"{model}/model.json")
    if not isinstance(settings, SynthMorphSettings) or settings.maps != SHAPES:
        raise InputError(f"{model}: only a synthmorph model that learned from shapes alone can be released")
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
