"""Reading YAML."""

from pathlib import Path
from typing import Any

import yaml

from regcore.errors import InputError


def load_yaml(path: str | Path) -> Any:
    """Read a YAML file (safe subset).

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict, list or plain value
        What the file says.

    Raises
    ------
    InputError
        The file is missing, or is not valid YAML; names the line that cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.settings.yaml import load_yaml
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "study.yaml").write_text("methods: {syn: {}}")
    ...     load_yaml(Path(folder, "study.yaml"))
    {'methods': {'syn': {}}}
    """
    try:
        return yaml.safe_load(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({error})") from error
