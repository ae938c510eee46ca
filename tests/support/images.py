"""Images that are symmetric in nothing, and what a refusal must say."""

import re

import numpy as np
import pytest

from regcore.errors import InputError
from regcore.images.grid import Grid
from regcore.images.volume import Volume

#: Rows of the direction matrix are permuted, flipped and rotated, spacings differ: nothing is symmetric.
OBLIQUE = np.array([[0.0, -1.2, 0.9, 11], [-2.0, 0.0, 0.0, -7], [0.0, 1.6, 0.675, 40], [0, 0, 0, 1]])
IN_PLANE = np.array([[-0.6, 2.4, 5], [0.8, 1.8, -9], [0, 0, 1]])
GRIDS = [Grid((7, 6, 5), OBLIQUE), Grid((8, 6), IN_PLANE)]
per_grid = pytest.mark.parametrize("grid", GRIDS, ids=["3-D", "2-D"])


def random_volume(grid: Grid, generator: np.random.Generator) -> Volume:
    return Volume(generator.standard_normal(grid.shape).astype(np.float32), grid)


def refused(read, path, remedy: str) -> None:
    """``read`` raises an error that names the file and the remedy."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert re.search(remedy, str(caught.value)), f"no '{remedy}' in: {caught.value}"
