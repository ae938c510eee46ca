"""``python -m regcore.released <model folder>``: release a trained model with regcore."""

import sys
from pathlib import Path

from regcore.errors import InputError
from regcore.released import FOLDER, release

if len(sys.argv) != 2:
    sys.exit("usage: python -m regcore.released results/<study>/models/<method>")
try:
    print(release(Path(sys.argv[1]), FOLDER))
except InputError as error:
    sys.exit(str(error))
