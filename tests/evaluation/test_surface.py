"""Surface distances against shapes whose distances are known, all pairs of points, MONAI and SimpleITK."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from regcore.evaluation import dice, surface_distances, surface_distances_per_label

SPACING = (1.0, 2.0, 3.0)
quick = settings(deadline=None, max_examples=25, derandomize=True)
masks = arrays.arrays(bool, (5, 4, 4))
label_maps = arrays.arrays(np.int16, (5, 4, 4), elements=st.integers(0, 3))
spacings = st.tuples(*[st.floats(0.1, 5)] * 3)


def blob(generator, shape=(14, 13, 11), level=0.0) -> np.ndarray:
    """A random smooth mask, in several pieces, with holes, and reaching the border."""
    smooth = gaussian_filter(generator.standard_normal(shape), 1.5)
    return smooth / smooth.std() > level


def surface_points(mask: np.ndarray, spacing) -> np.ndarray:
    """Surface voxels in mm, found by looking at every neighbour of every voxel."""
    voxels = {tuple(v) for v in np.argwhere(mask)}
    steps = np.concatenate([np.eye(mask.ndim, dtype=int), -np.eye(mask.ndim, dtype=int)])
    outer = [v for v in sorted(voxels) if any(tuple(np.add(v, step)) not in voxels for step in steps)]
    return np.array(outer) * spacing


def itk_surface(mask: np.ndarray, spacing) -> sitk.Image:
    """The surface as SimpleITK erodes it, beyond the border outside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])  # ITK orders axes the other way round
    erode = sitk.BinaryErodeImageFilter()
    erode.SetKernelRadius(1)
    erode.SetKernelType(sitk.sitkCross)
    erode.BoundaryToForegroundOff()
    return sitk.Subtract(image, erode.Execute(image))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_displaced_plates_are_as_far_apart_as_they_were_moved(axis):
    """Plates one voxel thick, moved by four voxels: every surface voxel is that far, in mm."""
    a = np.zeros((9, 9, 9), dtype=bool)
    a[(slice(None),) * axis + (2,)] = True
    found = surface_distances(a, np.roll(a, 4, axis), SPACING)
    np.testing.assert_array_equal(found.a_to_b, np.full(81, 4 * SPACING[axis]))
    assert found.hd95 == found.mean == found.hausdorff() == 4 * SPACING[axis]


def test_boxes_one_inside_the_other():
    """Rings of 16 and of 8 voxels: only the corners of the outer one are a diagonal away."""
    large, small = np.zeros((7, 7), dtype=bool), np.zeros((7, 7), dtype=bool)
    large[1:6, 1:6], small[2:5, 2:5] = True, True
    found = surface_distances(large, small, (1, 1))
    assert sorted(found.a_to_b) == [1] * 12 + [np.sqrt(2)] * 4
    assert sorted(found.b_to_a) == [1] * 8
    assert found.mean == pytest.approx((20 + 4 * np.sqrt(2)) / 24, rel=1e-15)
    assert found.hausdorff() == found.hd95 == np.sqrt(2)


def test_concentric_balls_differ_by_their_radii():
    """Radii 10 and 6: within the diagonal of a voxel every distance is 4."""
    r = np.linalg.norm(np.indices((25, 25, 25)) - 12, axis=0)
    found = surface_distances(r <= 10, r <= 6, (1, 1, 1))
    for directed in (found.a_to_b, found.b_to_a):
        assert np.abs(directed - 4).max() < np.sqrt(3) / 2
    assert found.mean == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("shape", [(14, 13), (14, 13, 11)], ids=["2-D", "3-D"])
def test_distances_agree_with_all_pairs_of_surface_points(shape, generator):
    spacing = SPACING[: len(shape)]
    for _ in range(3):
        a, b = blob(generator, shape), blob(generator, shape, 0.5)
        apart = cdist(surface_points(a, spacing), surface_points(b, spacing))
        found = surface_distances(a, b, spacing)
        np.testing.assert_allclose(found.a_to_b, apart.min(1), rtol=1e-12)
        np.testing.assert_allclose(found.b_to_a, apart.min(0), rtol=1e-12)
        there, back = (np.percentile(apart.min(axis), 95) for axis in (0, 1))
        assert found.hd95 == pytest.approx(max(there, back), rel=1e-12)
        assert found.mean == pytest.approx(np.append(apart.min(0), apart.min(1)).mean(), rel=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(14, 13), (14, 13, 11)], ids=["2-D", "3-D"])
def test_the_summaries_agree_with_monai(shape, generator):
    monai = pytest.importorskip("monai.metrics")
    spacing = SPACING[: len(shape)]
    for _ in range(3):
        a, b = blob(generator, shape), blob(generator, shape, 0.5)
        found = surface_distances(a, b, spacing)
        one_hot = [torch.from_numpy(mask)[None, None] for mask in (a, b)]
        keywords = {"include_background": True, "spacing": spacing}
        hd95 = monai.compute_hausdorff_distance(*one_hot, percentile=95, **keywords)
        mean = monai.compute_average_surface_distance(*one_hot, symmetric=True, **keywords)
        assert found.hd95 == pytest.approx(hd95.item(), rel=1e-6)  # it computes in float32
        assert found.mean == pytest.approx(mean.item(), rel=1e-6)


def test_the_hausdorff_distance_agrees_with_simpleitk(generator):
    for _ in range(3):
        a, b = blob(generator), blob(generator, level=0.5)
        measure = sitk.HausdorffDistanceImageFilter()
        measure.Execute(itk_surface(a, SPACING), itk_surface(b, SPACING))
        found = surface_distances(a, b, SPACING)
        assert found.hausdorff() == pytest.approx(measure.GetHausdorffDistance(), rel=1e-6)
        directed = (found.a_to_b.mean() + found.b_to_a.mean()) / 2
        assert directed == pytest.approx(measure.GetAverageHausdorffDistance(), rel=1e-6)


def test_hd95_is_in_millimetres_not_in_voxels():
    """Widely used evaluations pass a spacing of ones and call the result millimetres."""
    a = np.zeros((12, 12, 12), dtype=bool)
    a[2:6, 2:6, 2:6] = True
    b = np.roll(a, 4, axis=2)
    voxels = surface_distances(a, b, (1, 1, 1))
    for factor in (0.5, 2.5):
        found = surface_distances(a, b, (factor,) * 3)
        assert found.hd95 == factor * voxels.hd95
        assert found.mean == pytest.approx(factor * voxels.mean, rel=1e-12)
    assert surface_distances(a, b, SPACING).hausdorff() == 3 * voxels.hausdorff() == 12


def test_hd95_is_the_larger_directed_percentile_not_that_of_the_pooled_distances():
    """A speck far away is a twelfth of one surface, but less than a twentieth of both."""
    b = np.zeros((40, 12), dtype=bool)
    b[2:10, 2:10] = True
    a = np.zeros_like(b)
    a[4:6, 2:9] = True
    a[39, 2] = True
    found = surface_distances(a, b, (1, 1))
    assert found.hd95 == np.percentile(found.a_to_b, 95) > np.percentile(found.b_to_a, 95)
    assert found.hd95 > np.percentile(np.concatenate([found.a_to_b, found.b_to_a]), 95) + 1


def test_the_edge_of_the_image_is_outside():
    """A mask that fills the image has its border for surface, not nothing."""
    full, frame = np.ones((5, 5), dtype=bool), np.ones((5, 5), dtype=bool)
    frame[1:-1, 1:-1] = False
    found = surface_distances(full, frame, (1, 1))
    assert len(found.a_to_b) == len(found.b_to_a) == 16
    assert found.hausdorff() == 0


def test_where_the_masks_lie_in_the_image_does_not_matter(generator):
    a, b = blob(generator), blob(generator, level=0.5)
    padded = surface_distances(np.pad(a, 4), np.pad(b, 4), SPACING)
    found = surface_distances(a, b, SPACING)
    np.testing.assert_array_equal(found.a_to_b, padded.a_to_b)
    np.testing.assert_array_equal(found.b_to_a, padded.b_to_a)


def test_empty_masks_have_no_distance():
    empty, some = np.zeros((5, 5), dtype=bool), np.zeros((5, 5), dtype=bool)
    some[1:3, 1:3] = True
    for a, b in [(empty, some), (some, empty), (empty, empty)]:
        found = surface_distances(a, b, (1, 1))
        assert np.isnan([found.hd95, found.mean, found.hausdorff()]).all()
    assert np.isnan(surface_distances(some, empty, (1, 1)).a_to_b).tolist() == [True] * 4


def test_labels_are_summarised_as_their_masks_would_be(generator):
    a, b = (1 + (blob(generator) + 2 * blob(generator)) for _ in range(2))
    a[a == 4], b[b == 4] = 2**31 + 7, 2**31 + 7
    a[a == 3], b[b == 3] = -5, -5
    codes = [2**31 + 7, 2, -5, 99]
    table = surface_distances_per_label(a, b, codes, SPACING)
    assert list(table.columns) == ["hd95_mm", "mean_surface_distance_mm"] and table.index.tolist() == codes
    for code in codes[:3]:
        found = surface_distances(a == code, b == code, SPACING)
        assert table.loc[code].tolist() == [found.hd95, found.mean]
        assert found.mean > 0.5
    assert table.loc[99].isna().all()


@pytest.mark.parametrize("turned", [False, True])
def test_labels_that_nowhere_meet_are_measured(turned):
    """From one corner of the grid to the other: 6 and 3 voxels of 1 and 2 mm."""
    a, b = np.zeros((9, 8), np.int32), np.zeros((9, 8), np.int32)
    a[1, 2], b[7, 5] = 4, 4
    if turned:
        a, b = b, a
    table = surface_distances_per_label(a, b, [4], (1, 2))
    np.testing.assert_allclose(table.to_numpy(), np.full((1, 2), np.sqrt(72)), rtol=1e-15)


def test_a_label_absent_from_one_map_has_no_distance():
    a, b = np.zeros((6, 6), np.int32), np.zeros((6, 6), np.int32)
    a[1:3, 1:3], b[3:5, 3:5], a[5, 5], b[5, 5] = 1, 2, 3, 3
    table = surface_distances_per_label(a, b, [1, 3, 2, 3], (1, 1))
    assert table["hd95_mm"].isna().tolist() == [True, False, True, False]
    assert surface_distances_per_label(a, b, [], (1, 1)).shape == (0, 2)


@quick
@given(masks, masks, spacings, st.floats(0.1, 10))
def test_distances_are_symmetric_and_scale_with_the_spacing(a, b, spacing, factor):
    there, back = surface_distances(a, b, spacing), surface_distances(b, a, spacing)
    np.testing.assert_array_equal(there.a_to_b, back.b_to_a)
    np.testing.assert_array_equal([there.hd95, there.hausdorff()], [back.hd95, back.hausdorff()])
    np.testing.assert_allclose(there.mean, back.mean, rtol=1e-12)
    scaled = surface_distances(a, b, np.multiply(spacing, factor))
    wanted = np.multiply([there.hd95, there.mean], factor)
    np.testing.assert_allclose([scaled.hd95, scaled.mean], wanted, rtol=1e-9, atol=1e-12)


@quick
@given(label_maps, label_maps, st.lists(st.integers(-(2**62), 2**62), min_size=4, max_size=4, unique=True))
def test_the_numbering_of_labels_does_not_matter(a, b, codes):
    names = np.array(codes)
    np.testing.assert_array_equal(dice(names[a], names[b], codes), dice(a, b, range(4)))
    np.testing.assert_array_equal(dice(b, a, range(4)), dice(a, b, range(4)))
    renamed = surface_distances_per_label(names[a], names[b], codes, SPACING)
    pd.testing.assert_frame_equal(
        renamed.reset_index(drop=True), surface_distances_per_label(a, b, range(4), SPACING).reset_index(drop=True)
    )


def test_what_cannot_be_compared_is_refused():
    mask = np.ones((4, 5), dtype=bool)
    with pytest.raises(ValueError, match=r"b \(5, 4\) must have the shape of a \(4, 5\)"):
        surface_distances(mask, mask.T, (1, 1))
    with pytest.raises(ValueError, match=r"b \(4, 5\) of int64 must be a boolean mask"):
        surface_distances(mask, mask.astype(np.int64), (1, 1))
    with pytest.raises(ValueError, match=r"a \(4,\) must have two or three axes"):
        surface_distances(mask[:, 0], mask[:, 0], (1,))
    for spacing in [(1, 1, 1), (1, 0), (1, -1), (1, np.nan), (1, np.inf), 1.0]:
        with pytest.raises(ValueError, match=r"spacing .* must be 2 positive numbers .* of \(4, 5\)"):
            surface_distances(mask, mask, spacing)
    with pytest.raises(ValueError, match=r"a \(4, 5\) of float64 must be a label map of integers"):
        surface_distances_per_label(mask.astype(float), mask, [1], (1, 1))
    with pytest.raises(ValueError, match=r"b \(5, 4\) must have the shape of a \(4, 5\)"):
        surface_distances_per_label(mask, mask.T, [1], (1, 1))
