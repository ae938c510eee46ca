"""Scripts in a Python of their own."""

import os
import subprocess
import sys
from pathlib import Path

import regcore
from support.paths import TESTS


def run_script(script: str, *arguments, **environment) -> None:
    """Run ``script`` in a Python of its own that can import tests/support; a hang or an error fails the test."""
    paths = os.pathsep.join([str(TESTS), str(Path(regcore.__file__).parents[1])])
    result = subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
