"""Reading ``model.json`` of a trained model's folder, which needs no torch; every reader of it comes here.

:mod:`regcore.models.trained` writes it, last of the folder's files.
"""

from pathlib import Path
from typing import Any

from regcore.errors import InputError
from regcore.process.files import read_json

#: What the ``model.json`` of every model has.
KEYS = {"method", "settings", "preprocess", "grid", "training"}
REMEDY = "delete the model's folder and train it again, or copy its folder again"


def read_model_json(folder: Path) -> dict[str, Any]:
    """What ``model.json`` says about a trained model.

    Parameters
    ----------
    folder : Path
        The model's folder.

    Returns
    -------
    dict

    Raises
    ------
    InputError
        The file is missing, damaged, or not that of a model.

    Examples
    --------
    >>> from regcore.models.model_json import read_model_json
    >>> from regcore.models.released import released_model
    >>> read_model_json(released_model("synthmorph", 2))["method"]
    'synthmorph'
    """
    file = folder / "model.json"
    content = read_json(file, REMEDY)
    lacking = KEYS - set(content) if isinstance(content, dict) else KEYS
    if lacking:
        raise InputError(f"{file}: not the file of a trained model (it has no {', '.join(sorted(lacking))}); {REMEDY}")
    return content


def ndim_of_model(folder: Path) -> int:
    """Number of dimensions of a trained model's images.

    Parameters
    ----------
    folder : Path
        The model's folder.

    Returns
    -------
    int

    Raises
    ------
    InputError
        As for :func:`read_model_json`.

    Examples
    --------
    >>> from regcore.models.model_json import ndim_of_model
    >>> from regcore.models.released import released_model
    >>> ndim_of_model(released_model("synthmorph", 2))
    2
    """
    content = read_model_json(folder)
    return len(content["grid"]["shape"]) if content["grid"] else content["ndim"]
