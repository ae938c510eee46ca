"""Places in the repository."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
#: Programs that pip installs beside the interpreter.
BIN = Path(sys.executable).parent
