"""Reading YAML."""

from pathlib import Path
from typing import Any

import yaml

from regcore.errors import InputError


def load_yaml(path: str | Path) -> Any:
    """Read a YAML file (safe subset); raises :class:`InputError` naming the line that cannot be read."""
    try:
        return yaml.safe_load(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({error})") from error
