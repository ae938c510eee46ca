"""``python -m regcore.models.released <model folder>``: release a trained model with regcore."""

import argparse
import sys
from pathlib import Path

from regcore.errors import InputError
from regcore.models.released import FOLDER, release


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m regcore.models.released", description="Release a trained model.")
    parser.add_argument("model", type=Path, help="results/<study>/models/<method>")
    parser.add_argument("--voxels", type=int, help="most voxels along an axis of the grid (default: as in its study)")
    parser.add_argument("--passes", type=int, help="passes for registration (default: as in its training)")
    arguments = parser.parse_args()
    try:
        print(release(arguments.model, FOLDER, arguments.voxels, arguments.passes))
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
