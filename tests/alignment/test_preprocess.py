"""Scans on one grid: normalisation, the common grid, alignment, and the way back to the native scans."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from regcore.alignment import with_ants
from regcore.alignment.aligner import Aligned
from regcore.alignment.intensities import normalise
from regcore.alignment.prepared import Prepared, read_prepared, save_prepared
from regcore.alignment.preprocess import Scan, align, as_scan, common_grid, placed, prepare
from regcore.alignment.resampling import coarsened, resample
from regcore.alignment.settings import PreprocessSettings
from regcore.errors import InputError
from regcore.images import ants as ants_bridge
from regcore.images.grid import transform_points
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method
from regcore.methods.registration import register_scans

SETTINGS = PreprocessSettings()
#: A small rotation, anisotropic scale and shift: world of the reference → world of the scan.
TRUE_AFFINE = np.array([[1.05, -0.08, 0.02, 4.0], [0.07, 0.96, -0.03, -3.0], [0.0, 0.04, 1.02, 2.0], [0, 0, 0, 1]])


def phantom(points):
    """Smooth structure without symmetry at world points (..., D); zero background."""
    x, y, *rest = np.moveaxis(points, -1, 0)
    z = rest[0] if rest else 0 * x
    body = 1 / (1 + np.exp((np.sqrt((x / 24) ** 2 + (y / 30) ** 2 + (z / 22) ** 2) - 1) * 20))
    detail = 0.3 * np.sin(x / 6) * np.cos(y / 8 + 1) + 0.3 * np.cos(z / 5 + x / 9)
    image = body * (1 + detail)
    return np.where(image > 0.05, image, 0).astype("f4")


def on(grid, matrix=None):
    """The phantom on a grid, moved so that ``scan(matrix · x) = phantom(x)``."""
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return Volume(phantom(points if matrix is None else transform_points(np.linalg.inv(matrix), points)), grid)


@pytest.fixture(scope="module")
def reference():
    return on(Grid.centred((72, 84, 68), (1, 1, 1), (0, 0, 0)))


@pytest.fixture(scope="module")
def scan():
    """The phantom after TRUE_AFFINE, on an anisotropic grid with permuted and flipped axes."""
    affine = np.array([[0, 0, -1.2, 45], [-1.0, 0, 0, 45], [0, 1.5, 0, -38], [0, 0, 0, 1]])
    return on(Grid((90, 52, 76), affine), TRUE_AFFINE)


@pytest.fixture(scope="module")
def coarse():
    """The reference and the scan with a tenth of the voxels, for alignments that take long."""
    affine = np.array([[0, 0, -2.4, 45], [-2.0, 0, 0, 45], [0, 2.5, 0, -38], [0, 0, 0, 1]])
    return on(Grid.centred((36, 42, 34), (2, 2, 2), (0, 0, 0))), on(Grid((45, 31, 38), affine), TRUE_AFFINE)


def test_percentiles_become_zero_and_one_whatever_the_unit_and_the_field_of_view(generator):
    content = generator.gamma(5, 40, (30, 30))
    padded = np.pad(content, 15)
    a, b = normalise(content * 7 + 100), normalise(content)
    np.testing.assert_allclose(a, b, atol=1e-5)
    assert a.min() == 0 and a.max() == 1
    inside = normalise(padded)[15:-15, 15:-15]
    np.testing.assert_allclose(inside, np.clip(content / np.percentile(content, 99.5), 0, 1), atol=1e-5)
    assert normalise(padded)[0, 0] == 0


def test_the_upper_percentile_is_that_within_the_mask(generator):
    data = generator.gamma(5, 40, (30, 30))
    data[:, :4] = 0  # background
    mask = np.ones(data.shape, np.uint8)
    mask[:6] = 0
    spoilt = np.where(mask, data, 1e5)
    np.testing.assert_allclose(normalise(spoilt, mask=mask)[6:], normalise(data[6:]), atol=1e-6)
    assert (normalise(spoilt, mask=mask)[:6] == 1).all()
    np.testing.assert_array_equal(normalise(data, mask=0 * mask), normalise(data))
    around = (data > 0).astype(np.uint8)  # a mask of the content leaves its intensities as they are
    np.testing.assert_array_equal(normalise(data, mask=around), normalise(data))


def test_a_mask_is_applied_only_when_the_study_says_so(reference):
    mask = reference.with_data((reference.grid.to_world(np.moveaxis(np.indices((72, 84, 68)), 0, -1))[..., 0] > 0) * 1)
    cut = as_scan(reference, mask, PreprocessSettings(mask=True))
    assert cut.image.data[: 72 // 2 - 1].max() == 0 < cut.image.data[72 // 2 + 1 :].max() and cut.mask is None
    assert as_scan(reference, mask, SETTINGS).image is reference and as_scan(reference, mask, SETTINGS).mask is None
    guided = as_scan(reference, mask, PreprocessSettings(cost_mask=True))
    assert guided.image is reference and guided.mask is mask
    assert as_scan(reference, None, PreprocessSettings(mask=True, cost_mask=True)).mask is None


def test_the_common_grid_surrounds_the_content_of_the_reference(reference):
    grid = common_grid(reference, SETTINGS)
    np.testing.assert_allclose(grid.affine[:3, :3], np.eye(3))
    content = reference.grid.to_world(np.argwhere(reference.data > 0.1))
    inside = grid.to_voxels(content)
    assert inside.min() > 5 and (inside < np.array(grid.shape) - 6).all()
    coarse = common_grid(reference, PreprocessSettings(spacing=[2, 2, 3], shape=[40, 48, 32]))
    assert coarse.shape == (40, 48, 32) and list(coarse.spacing) == [2, 2, 3]
    np.testing.assert_allclose(coarse.centre, grid.centre)
    with pytest.raises(InputError, match="'shape' has 2 numbers"):
        common_grid(reference, PreprocessSettings(shape=[40, 48]))


@pytest.mark.slow
def test_ants_recovers_a_known_matrix_and_is_repeatable(coarse):
    reference, scan = map(Scan, coarse)
    found = align(reference, scan, "ants", seed=1).matrix
    assert distances(found, TRUE_AFFINE).max() < 1.5  # mm; the voxels are 2 to 2.5 mm
    np.testing.assert_array_equal(found, align(reference, scan, "ants", seed=1).matrix)


def distances(found, true):
    """How far from each other two maps take points of the phantom, mm."""
    corners = np.array(np.meshgrid([-20, 20], [-25, 25], [-18, 18])).reshape(3, -1).T
    return np.linalg.norm(transform_points(found, corners) - transform_points(true, corners), axis=1)


#: A turn of 90° from which no alignment by small steps comes back.
TURN = np.array([[0.0, -1, 0, 15], [1, 0, 0, -25], [0, 0, 1, 10], [0, 0, 0, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["auto", "affine", "ants"])
def test_a_start_is_improved(coarse, kind):
    reference, scan = coarse
    turned = Volume(scan.data, Grid(scan.grid.shape, TURN @ scan.grid.affine))
    found = align(Scan(reference), Scan(turned), kind, start=TURN).matrix
    assert distances(TURN, TURN @ TRUE_AFFINE).max() > 3
    assert distances(found, TURN @ TRUE_AFFINE).max() < 1.5


@pytest.mark.parametrize("kind", ["auto", pytest.param("ants", marks=pytest.mark.slow)])
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_what_a_mask_excludes_does_not_pull(reference, scan, coarse, kind, side):
    """One image has a slab as bright as nothing else across a third of it."""
    pair = (reference, scan) if kind == "ants" else coarse  # ANTs' histogram of few voxels is sparse
    images = dict(zip(("fixed", "moving"), pair, strict=True))
    image = images[side]
    points = image.grid.to_world(np.moveaxis(np.indices(image.grid.shape), 0, -1))
    slab = (points[..., 1] > 8) & (image.data > 0)
    spoilt = image.with_data(np.where(slab, 6 * np.sin(points[..., 0] / 4) + 8, image.data).astype("f4"))
    mask = image.with_data((~slab).astype(np.uint8))
    start = np.eye(4) if kind == "ants" else None  # by itself, it begins at the centres of intensity without masks

    def error(scan):
        pair = {name: Scan(one) for name, one in images.items()} | {side: scan}
        return distances(align(pair["fixed"], pair["moving"], kind, start=start).matrix, TRUE_AFFINE).mean()

    try:
        pulled = error(Scan(spoilt))
    except InputError:  # so far off that it is refused
        pulled = np.inf
    assert error(Scan(spoilt, mask)) < min(1.5, pulled)  # mm


def test_rigid_alignment_is_rigid(coarse):
    linear = align(*map(Scan, coarse), "rigid").matrix[:3, :3]
    np.testing.assert_allclose(linear.T @ linear, np.eye(3), atol=1e-4)
    assert np.linalg.det(linear) > 0


def test_centre_alignment_joins_the_middles_and_none_trusts_the_headers_or_the_start(reference, scan):
    first, second = Scan(reference), Scan(scan)
    centred = align(first, second, "centre")
    np.testing.assert_allclose(transform_points(centred.matrix, reference.grid.centre), scan.grid.centre)
    assert centred.kind == "centre"
    np.testing.assert_array_equal(align(first, second, "none").matrix, np.eye(4))
    np.testing.assert_array_equal(align(first, second, "none", start=TRUE_AFFINE).matrix, TRUE_AFFINE)
    with pytest.raises(InputError, match="'centre' takes no start"):
        align(first, second, "centre", start=TRUE_AFFINE)


def test_images_apart_are_refused_unless_a_start_joins_them(reference, scan):
    far = Scan(Volume(scan.data, Grid.centred(scan.grid.shape, (1, 1, 1), (900, 0, 0))))
    with pytest.raises(InputError, match=r"does not overlap.*by their headers.*'auto'"):
        align(Scan(reference), far, "none")
    away = np.eye(4)
    away[0, 3] = 900
    np.testing.assert_array_equal(align(Scan(reference), far, "none", start=away).matrix, away)
    with pytest.raises(InputError, match=r"does not overlap.*by the given matrix"):
        align(Scan(reference), Scan(scan), "none", start=away)


def test_an_incredible_alignment_is_tried_again_and_then_refused(reference, monkeypatch):
    tried, scan = [], Scan(reference)

    def estimate(fixed, moving, seed, *others):
        tried.append(seed)
        return np.diag([0.3, 1, 1, 1]) if len(tried) < 3 else np.eye(4)

    monkeypatch.setattr(with_ants, "estimate_affine", estimate)
    np.testing.assert_array_equal(align(scan, scan, "ants").matrix, np.eye(4))
    assert len(set(tried)) == 3
    monkeypatch.setattr(with_ants, "estimate_affine", lambda *arguments: np.diag([0.3, 1, 1, 1]))
    with pytest.raises(InputError, match="could not be aligned"):
        align(scan, scan, "ants")


def test_a_coarser_volume_keeps_place_and_extent(reference):
    coarse = coarsened(reference, 2.0)
    assert coarse.grid.shape == (36, 42, 34)
    np.testing.assert_allclose(coarse.grid.corners(), reference.grid.corners(), atol=1e-9)
    smooth = reference.with_data(gaussian_filter(reference.data, 0.5 * np.sqrt(3)))
    np.testing.assert_allclose(coarse.data, resample(smooth, coarse.grid, np.eye(4)).data, atol=1e-5)
    assert coarsened(coarse, 2.0) is coarse


def test_resampling_by_the_true_matrix_shows_the_reference(reference, scan):
    shown = resample(scan, reference.grid, TRUE_AFFINE)
    # Linear interpolation of voxels up to 1.5 mm across detail of 5 mm.
    assert np.abs(shown.data - reference.data).mean() < 0.02
    assert np.corrcoef(shown.data.ravel(), reference.data.ravel())[0, 1] > 0.99


def test_a_prepared_scan_survives_the_disk(reference, scan, tmp_path):
    grid = common_grid(reference, PreprocessSettings(spacing=3))
    mask = scan.with_data((scan.data > 0).astype(np.uint8))
    prepared = prepare(Scan(scan, mask), Scan(reference), grid, PreprocessSettings(affine="centre"))
    labels = tmp_path / "labels.nii.gz"
    Volume((scan.data > 0.5).astype(np.int16), scan.grid).save(labels)
    save_prepared(prepared, tmp_path / "scan", labels)
    back = read_prepared(tmp_path / "scan")
    np.testing.assert_array_equal(back.image.data, prepared.image.data)
    np.testing.assert_allclose(back.to_native, prepared.to_native)
    assert back.native.same_as(scan.grid) and back.image.grid.same_as(grid)
    names = {"labels.nii.gz", "scan.nii", "scan.json", "scan_labels.nii", "scan_mask.nii"}
    assert {p.name for p in tmp_path.iterdir()} == names
    np.testing.assert_array_equal(back.mask.data, prepared.mask.data)
    assert back.mask.grid.same_as(grid) and set(np.unique(back.mask.data)) == {0, 1}
    assert back.aligned == "centre" and back.notes == ()
    save_prepared(replace(prepared, mask=None, notes=("few slices",)), tmp_path / "scan")
    again = read_prepared(tmp_path / "scan")
    assert again.mask is None and again.notes == ("few slices",)


def test_a_mask_lies_on_its_image_after_the_alignment(reference, scan):
    mask = scan.with_data((scan.data > 0.5).astype(np.uint8))
    known = Aligned(TRUE_AFFINE, "affine", ("a note",))
    prepared = placed(Scan(scan, mask), known, reference.grid, SETTINGS)
    inside = reference.data > 0.5
    assert (prepared.mask.data.astype(bool) == inside).mean() > 0.98
    assert prepared.aligned == "affine" and prepared.notes == ("a note",)


def test_the_affine_method_maps_between_native_scans_and_identity_trusts_the_headers(reference, scan):
    fixed = Prepared(reference, np.eye(4), reference.grid)
    moving = Prepared(resample(scan, reference.grid, TRUE_AFFINE), TRUE_AFFINE, scan.grid)
    points = np.random.default_rng(0).uniform(-15, 15, (100, 3))
    found = register_scans(make_method("affine"), fixed, moving)
    np.testing.assert_allclose(found.field.at(points), transform_points(TRUE_AFFINE, points), atol=1e-4)
    np.testing.assert_allclose(found.inverse.at(found.field.at(points)), points, atol=1e-4)
    assert found.field.grid.same_as(reference.grid) and found.inverse.grid.same_as(scan.grid)
    np.testing.assert_allclose(register_scans(make_method("identity"), fixed, moving).field.at(points), points)


def test_our_grids_are_where_ants_puts_them(scan):
    ants = ants_bridge.load()
    image = ants_bridge.to_ants(scan)
    for voxel in ([0, 0, 0], [10, 20, 30], [89, 51, 75]):
        lps = np.array(ants.transform_index_to_physical_point(image, voxel))
        np.testing.assert_allclose(lps * [-1, -1, 1], scan.grid.to_world(voxel), atol=1e-4)
