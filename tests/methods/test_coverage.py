"""A scan that shows only a part of the other: what it does not show does not pull."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from support.tools import skip_without

from regcore.alignment.prepared import Prepared
from regcore.alignment.resampling import resample
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method
from regcore.methods.registration import covered_mask, register_scans

SHAPE = (72, 64)


def scans(first: int, last: int, background: int = 0) -> tuple[Prepared, Prepared]:
    """A texture inside a frame of background, and its rows from first to last as another scan, on one grid."""
    grid = Grid.centred(SHAPE, (1.5, 1.5), (0, 0))
    values = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 2)
    values = 0.2 + 0.8 * (values - values.min()) / np.ptp(values)
    values[:background], values[SHAPE[0] - background :] = 0, 0
    whole = Volume(values.astype(np.float32), grid)
    native = grid.affine.copy()
    native[:-1, -1] = grid.to_world(np.array([first, 0]))
    part = Volume(whole.data[first:last], Grid((last - first, SHAPE[1]), native))
    fixed = Prepared(whole, np.eye(3), grid)
    return fixed, Prepared(resample(part, grid, np.eye(3)), np.eye(3), part.grid)


def test_what_a_field_of_view_misses_is_masked():
    fixed, slab = scans(20, 50)
    assert np.unique(np.nonzero(covered_mask(slab, fixed).data)[0]).tolist() == list(range(20, 50))
    assert covered_mask(fixed, slab) is None


def test_background_that_is_missed_is_not_masked():
    fixed, most = scans(12, 60, background=12)
    assert covered_mask(most, fixed) is None
    fixed, less = scans(16, 60, background=12)
    assert covered_mask(less, fixed) is not None


def test_a_mask_of_the_scan_still_counts():
    fixed, slab = scans(20, 50)
    own = slab.image.with_data((np.indices(SHAPE)[0] < 30).astype(np.uint8))
    masked = Prepared(slab.image, slab.to_native, slab.native, own)
    assert np.unique(np.nonzero(covered_mask(masked, fixed).data)[0]).tolist() == list(range(20, 30))
    assert covered_mask(Prepared(fixed.image, np.eye(3), fixed.native, own), slab) is own


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"), [("greedy", {}), ("instance", {"shrink": [4, 2, 1], "iterations": [40, 40, 40]})]
)
def test_a_slab_is_not_stretched(name, settings):
    """The true map is the identity; without the mask, all that the slab misses is pulled out of it."""
    method = make_method(name, settings)
    skip_without(name, method.settings)
    fixed, slab = scans(24, 48)
    found = register_scans(method, fixed, slab).field.displacement[0].numpy()
    plain = method.register(fixed.image, slab.image).field.displacement[0].numpy()
    moved, moved_plain = (np.linalg.norm(field, axis=0)[24:48].mean() for field in (found, plain))
    assert moved < 0.5 * moved_plain and moved < 0.5, (moved, moved_plain)
