"""The numbers that methods are judged by, against counting by hand, SimpleITK, NumPy and closed forms."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from regcore.errors import InputError
from regcore.evaluation import correlation, dice, target_registration_error_mm, true_error_mm
from regcore.evaluation.accuracy import random_points
from regcore.evaluation.evaluate import Truth, evaluate_field
from regcore.evaluation.regularity import folds, mean_jacobian, sd_log_jacobian
from regcore.evaluation.verdict import measure
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume

#: Array axes point to P, S and L, voxels of 1 x 2 x 3 mm: an error in voxels, or along another axis, shows.
GRID = Grid((12, 10, 8), np.array([[0, 0, -3, 20], [-1, 0, 0, 5], [0, 2, 0, -30], [0, 0, 0, 1.0]]))
FLAT = Grid((12, 10), np.array([[0, 3, -8], [-1, 0, 5], [0, 0, 1.0]]))
per_grid = pytest.mark.parametrize("grid", [GRID, FLAT], ids=["3-D", "2-D"])


def translation(grid: Grid, *voxels: float) -> DisplacementField:
    """The field that moves everything by ``voxels``, one number for each array axis."""
    column = torch.tensor(voxels, dtype=torch.float32).view(1, -1, *[1] * grid.ndim)
    return DisplacementField(column.expand(1, grid.ndim, *grid.shape).clone(), grid)


def stretched(shape, axis: int, profile: np.ndarray) -> torch.Tensor:
    """A displacement that along ``axis`` is ``profile`` and elsewhere zero."""
    displacement = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
    along = [1] * len(shape)
    along[axis] = -1
    displacement[0, axis] = torch.from_numpy(profile).view(along)
    return displacement


def test_dice_agrees_with_sets_of_voxels(generator):
    fixed, warped = generator.integers(0, 5, (2, 9, 8, 7))
    expected = []
    for label in (1, 2, 3, 4):
        a, b = set(np.flatnonzero(fixed == label)), set(np.flatnonzero(warped == label))
        expected.append(2 * len(a & b) / (len(a) + len(b)))
    np.testing.assert_allclose(dice(fixed, warped, [1, 2, 3, 4]), expected, rtol=1e-15)


def test_dice_agrees_with_simpleitk(generator):
    labels = generator.integers(0, 4, (9, 8, 7)).astype(np.int32)
    labels[labels == 3] = 2035
    other = np.where(generator.random(labels.shape) < 0.7, labels, np.roll(labels, 1, axis=0))
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(sitk.GetImageFromArray(labels), sitk.GetImageFromArray(other))
    codes = [2035, 1, 2]  # unsorted: the result keeps the order asked for
    expected = [measure.GetDiceCoefficient(code) for code in codes]
    assert len(set(expected)) == 3
    np.testing.assert_allclose(dice(labels, other, codes), expected, rtol=1e-12)


def test_dice_is_one_for_the_same_and_zero_for_disjoint_labels():
    labels = np.array([[0, 1, 1], [2, 2, 0]])
    np.testing.assert_array_equal(dice(labels, labels, [1, 2]), [1, 1])
    np.testing.assert_array_equal(dice(labels, np.array([[0, 2, 2], [1, 1, 0]]), [1, 2]), [0, 0])


def test_a_label_absent_from_one_image_scores_zero_and_from_both_nothing():
    fixed, warped = np.array([[0, 1, 3]]), np.array([[0, 3, 2]])
    np.testing.assert_array_equal(dice(fixed, warped, [1, 2, 3, 4, 999]), [0, 0, 0, np.nan, np.nan])


def test_dice_takes_any_integer_for_a_label():
    """A table as long as the largest code would not fit in memory; in float64 2⁶³ and 2⁶³ + 1 are one number."""
    names = np.array([-7, 0, 2**31, 2**62])
    fixed, warped = np.array([[0, 1, 2, 3], [0, 1, 2, 2]]), np.array([[0, 1, 3, 3], [2, 1, 2, 2]])
    expected = dice(fixed, warped, [3, 0, 2, 1])
    np.testing.assert_allclose(expected, [2 / 3, 2 / 3, 2 / 3, 1])
    np.testing.assert_array_equal(dice(names[fixed], names[warped], names[[3, 0, 2, 1]]), expected)
    large = np.array([2**63, 2**63 + 1, 255], dtype=np.uint64)
    small = np.array([0, 0, 255], dtype=np.uint8)
    np.testing.assert_array_equal(dice(large, small, [2**63, -1, 255, 2**63 + 1, 2**70]), [0, np.nan, 1, 0, np.nan])
    np.testing.assert_array_equal(dice(small, large, [2**63 + 1, 0, 255, 255]), [0, 0, 1, 1])
    np.testing.assert_array_equal(dice(fixed > 0, warped > 0, [True]), [2 * 6 / 13])


def test_dice_of_what_is_no_label_map_is_refused():
    labels = np.zeros((2, 3), np.int32)
    with pytest.raises(ValueError, match=r"b \(3, 2\) must have the shape of a \(2, 3\)"):
        dice(labels, labels.T, [1])
    with pytest.raises(ValueError, match=r"b \(1, 3\) must have the shape of a \(2, 3\)"):
        dice(labels, labels[:1], [1])  # it would broadcast
    with pytest.raises(ValueError, match=r"b \(2, 3\) of float32 must be a label map of integers"):
        dice(labels, labels.astype(np.float32), [1])
    for codes in ([1.0], 1, ["1"]):
        with pytest.raises(ValueError, match="labels must be integers"):
            dice(labels, labels, codes)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_folds_are_counted_where_space_turns_over(axis):
    """u(x) = (x - 3.01)² / 20 - x: ∂φ/∂x = (x - 3.01) / 10, on which central differences are exact."""
    shape = (12, 11, 10)
    x = np.arange(shape[axis], dtype=float)
    folded = stretched(shape, axis, (x - 3.01) ** 2 / 20 - x)
    assert folds(folded) == pytest.approx(100 * 4 / shape[axis], abs=1e-12)  # planes 0 to 3
    assert folds(folded * 0) == 0

    mask = np.zeros(shape, dtype=bool)
    mask[(slice(None),) * axis + (slice(2, 7),)] = True
    assert folds(folded, mask) == pytest.approx(100 * 2 / 5, abs=1e-12)  # planes 2 and 3 of 2 to 6


@pytest.mark.parametrize("slope", [-1.0, -2.0])
def test_a_collapse_and_a_mirror_fold_everything(slope):
    """det = 0 and det = -1, exactly."""
    assert folds(stretched((9, 8), 1, slope * np.arange(8))) == 100


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_a_scaling_changes_every_volume_alike(scale):
    shape = (9, 8, 7)
    displacement = sum(stretched(shape, axis, (scale - 1) * np.arange(n)) for axis, n in enumerate(shape))
    assert sd_log_jacobian(displacement) == pytest.approx(0, abs=1e-12)
    assert mean_jacobian(displacement) == pytest.approx(scale**3, rel=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_spread_of_log_jacobians_follows_the_closed_form(axis):
    """u(x) = x² / 40: det = 1 + x / 20 inside, where central differences are exact on it."""
    shape = (14, 11)
    x = np.arange(shape[axis], dtype=float)
    mask = np.zeros(shape, dtype=bool)
    mask[1:-1, 1:-1] = True
    values = np.broadcast_to(np.log(1 + x / 20).reshape(-1, 1) if axis == 0 else np.log(1 + x / 20), shape)[mask]
    found = sd_log_jacobian(stretched(shape, axis, x**2 / 40), mask)
    assert found == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert mean_jacobian(stretched(shape, axis, x**2 / 40), mask) == pytest.approx(np.exp(values).mean(), rel=1e-12)
    assert found > 0.05


def test_a_fold_counts_as_a_billionth_in_the_spread():
    """Half of the masked voxels keep their volume, half are folded: log 1 and log 1e-9."""
    x = np.arange(12, dtype=float)
    profile = np.where(x < 6, 0, -2 * (x - 6))
    mask = np.zeros((12, 4), dtype=bool)
    mask[[1, 2, 3, 8, 9, 10]] = True
    expected = np.std([0.0] * 12 + [np.log(1e-9)] * 12, ddof=1)
    assert sd_log_jacobian(stretched((12, 4), 0, profile), mask) == pytest.approx(expected, rel=1e-12)


def test_true_error_is_in_millimetres():
    """Two translations differ by 2 voxels of 1 mm and -1 voxel of 3 mm: √13 mm."""
    points = GRID.to_world([[3, 4, 5], [6.5, 2.25, 1]])
    found = true_error_mm(translation(GRID, 2, 1, 0), translation(GRID, 0, 1, 1), points)
    np.testing.assert_allclose(found, np.sqrt([13, 13]), atol=1e-6)  # float32 displacements are exact here
    still = true_error_mm(translation(FLAT, 0, 1), DisplacementField.identity(FLAT), FLAT.to_world([[3, 4]]))
    np.testing.assert_allclose(still, [3], atol=1e-6)


def landmarks(names: str, points: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(points, columns=list("xyz")[: points.shape[1]], index=pd.Index(list(names), name="name"))


@per_grid
def test_landmark_error_is_in_millimetres_and_matched_by_name(grid, generator):
    """The true shift is one voxel along the last axis (3 mm); a field of half a voxel is 1.5 mm off."""
    start = generator.uniform(2, 6, (4, grid.ndim))
    end = grid.to_world(start + np.eye(grid.ndim)[-1])
    fixed = landmarks("abcd", grid.to_world(start))
    moving = landmarks("abcd", end).loc[["d", "b", "a"]]  # another order, and c is missing
    assert grid.spacing[-1] == 3
    still, half = [0.0] * grid.ndim, [*[0.0] * (grid.ndim - 1), 0.5]
    none = target_registration_error_mm(translation(grid, *still), fixed, moving)
    np.testing.assert_allclose(none, [3, 3, 3], atol=1e-9)
    np.testing.assert_allclose(
        target_registration_error_mm(translation(grid, *half), fixed, moving), [1.5, 1.5, 1.5], atol=1e-9
    )


@per_grid
def test_random_points_lie_in_the_voxels_of_the_mask(grid, generator):
    mask = generator.random(grid.shape) < 0.1
    mask[(0,) * grid.ndim] = mask[(-1,) * grid.ndim] = True
    points = random_points(mask, grid, 2000, generator)
    assert points.shape == (2000, grid.ndim)
    voxels = grid.to_voxels(points)
    assert voxels.min() > -1e-9
    assert (voxels < np.array(grid.shape) - 1 + 1e-9).all()
    nearest = np.rint(voxels).astype(int)
    assert mask[tuple(nearest.T)].all()
    assert {tuple(v) for v in np.argwhere(mask)} == {tuple(v) for v in nearest}  # every voxel is drawn
    inner = np.all((nearest > 0) & (nearest < np.array(grid.shape) - 1), axis=1)
    assert np.abs(voxels - nearest)[inner].mean() == pytest.approx(0.25, abs=0.02)  # uniform in ±½: 4 σ is 0.01


def test_correlation_agrees_with_numpy(generator):
    a = generator.standard_normal((9, 8, 7)).astype(np.float32)
    b = 0.3 * a - generator.standard_normal(a.shape).astype(np.float32) + 5
    expected = np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]
    assert correlation(a, b) == pytest.approx(expected, abs=1e-12)
    assert correlation(a, -2 * a) == pytest.approx(-1, abs=1e-12)
    assert max(correlation(row, row) for row in a.reshape(-1, 7)) <= 1  # not 1 and a rounding error
    assert correlation(a, np.full_like(a, 2)) == correlation(np.full_like(a, 0.1), a) == 0
    assert correlation(np.full((9, 8, 7), 0.1), np.full((9, 8, 7), 0.3)) == 0  # means of these are rounded


def test_an_offset_does_not_change_the_correlation(generator):
    """On 10⁶ a float32 mean errs by as much as a contrast of 16 has room for; a float64 one does not."""
    a, b = generator.integers(0, 16, (2, 30, 30, 30)).astype(np.float32)
    expected = correlation(a, b)
    assert correlation(a + np.float32(1e6), b + np.float32(1e6)) == pytest.approx(expected, abs=1e-9)
    assert correlation(a.astype(float) + 1e12, b) == pytest.approx(expected, abs=1e-9)
    codes = a.astype(np.uint8)
    assert correlation(codes, b) == pytest.approx(expected, abs=1e-12)  # integers do not wrap


def test_images_that_cannot_be_correlated_are_refused():
    image = np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match=r"warped \(3, 2\) must have the shape of fixed \(2, 3\)"):
        correlation(image, image.T)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"warped \(2, 3\) must not .* NaN or infinite"):
            correlation(image, np.where(image == 2, value, image))
    with pytest.raises(ValueError, match=r"fixed \(0,\) must not be empty"):
        correlation(np.empty(0), np.empty(0))


@pytest.fixture
def labels() -> Volume:
    """Two boxes, 1 and 2, in background."""
    data = np.zeros(GRID.shape, np.int32)
    data[2:6, 2:8, 2:6] = 1
    data[6:10, 2:8, 2:6] = 2
    return Volume(data, GRID)


def test_evaluate_field_returns_one_tidy_row_per_number(labels):
    truth = Truth(
        translation(GRID, 1, 0, 0),
        (landmarks("a", GRID.to_world([[5, 5, 3]])), landmarks("a", GRID.to_world([[5, 5, 4]]))),
    )
    rows = evaluate_field(translation(GRID, 1, 0, 0), labels, labels, [1, 2, 7], truth, points=50)
    assert list(rows.columns) == ["label", "metric", "value"]
    assert rows["label"].tolist() == [1, 2, 7] * 3 + [-1] * 8
    found = {metric: part["value"].tolist() for metric, part in rows.groupby("metric", sort=False)}
    # Pulled by one voxel along the first axis each box of four planes keeps three of them.
    shell = np.argwhere((labels.data == 1) & ~binary_erosion(labels.data == 1)) * GRID.spacing
    distances = cdist(shell, shell + np.array([1, 0, 0]))
    apart = np.concatenate([distances.min(axis=0), distances.min(axis=1)]).mean()
    expected = {
        "dice": [0.75, 0.75, np.nan],
        "hd95_mm": [1, 1, np.nan],
        "mean_surface_distance_mm": [apart, apart, np.nan],
        "folds_percent": [0],
        "folds_count": [0],
        "ndv_percent": [0],
        "ndp_percent": [0],
        "sd_log_jacobian": [0],
        "mean_jacobian": [1],
        "true_error_mm": [0],
        "landmark_error_mm": [np.sqrt(1 + 9)],
    }
    assert list(found) == list(expected)
    for metric, values in expected.items():
        np.testing.assert_allclose(found[metric], values, atol=1e-6, err_msg=metric)


def test_evaluate_field_pulls_the_moving_labels_onto_the_fixed_ones(labels):
    """The field that undoes a shift scores one, its opposite does not."""
    shifted = Volume(np.roll(labels.data, 2, axis=1), GRID)
    right = evaluate_field(translation(GRID, 0, 2, 0), labels, shifted, [1, 2])
    wrong = evaluate_field(translation(GRID, 0, -2, 0), labels, shifted, [1, 2])
    assert right.loc[right["metric"] == "dice", "value"].tolist() == [1, 1]
    assert wrong.loc[wrong["metric"] == "dice", "value"].max() < 0.5
    assert not {"correlation", "true_error_mm", "landmark_error_mm"} & set(right["metric"]), (
        "nothing to measure them on"
    )


def test_evaluate_field_correlates_the_images_where_they_are_given(labels, generator):
    """The moving image is the fixed one, shifted, on a grid of its own."""
    data = generator.random(GRID.shape).astype("f4")
    fixed, shifted = Volume(data, GRID), Volume(np.roll(data, 2, axis=1), GRID)
    rows = evaluate_field(translation(GRID, 0, 2, 0), labels, labels, [1], images=[fixed, shifted])
    warped = translation(GRID, 0, 2, 0).warp(shifted).data
    assert rows.set_index("metric")["value"]["correlation"] == pytest.approx(
        np.corrcoef(data.ravel(), warped.ravel())[0, 1], abs=1e-6
    )


def test_evaluate_field_measures_what_the_verdict_rests_on(labels, generator):
    image = Volume(gaussian_filter(generator.random(GRID.shape), 1).astype("f4"), GRID)
    field = translation(GRID, 0, 2, 0)
    rows = evaluate_field(field, labels, labels, [1], images=[image, image]).set_index("metric")["value"]
    expected = measure(image, image, field)
    assert {name: rows[f"verdict_{name}"] for name in expected} == expected


def test_a_label_in_one_image_or_in_none_has_defined_rows(labels):
    lacking = Volume(np.where(labels.data == 2, 0, labels.data), GRID)
    rows = evaluate_field(DisplacementField.identity(GRID), labels, lacking, [1, 2, 9]).set_index(["metric", "label"])
    assert rows["value"]["dice"].loc[[1, 2]].tolist() == [1, 0]
    assert np.isnan(rows["value"]["dice"][9])
    assert rows["value"]["hd95_mm"][1] == 0
    assert rows["value"]["hd95_mm"].loc[[2, 9]].isna().all()


def test_evaluate_field_measures_regularity_in_the_labelled_region_alone(labels):
    """The fold is in planes 10 and 11 of the first axis, outside the labels; then labels reach it."""
    x = np.arange(12, dtype=float)
    field = DisplacementField(stretched(GRID.shape, 0, np.where(x < 10, 0, -2 * (x - 10))).float(), GRID)
    outside = evaluate_field(field, labels, labels, [1]).set_index("metric")["value"]
    labels.data[10:12, 2:8, 2:6] = 1
    reached = evaluate_field(field, labels, labels, [1]).set_index("metric")["value"]
    assert outside["folds_percent"] == pytest.approx(0)
    assert reached["folds_percent"] == pytest.approx(100 * 2 / 10)
    assert outside["folds_count"] == 0 and reached["folds_count"] == pytest.approx(2 * 6 * 4)


def test_evaluate_field_scores_moving_labels_on_another_grid(labels):
    """The same boxes on a grid of twice the resolution along the second axis, flipped along the first."""
    affine = GRID.affine @ np.array([[-1, 0, 0, 11], [0, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    fine = Volume(np.repeat(labels.data[::-1], 2, axis=1), Grid((12, 20, 8), affine))
    rows = evaluate_field(DisplacementField.identity(GRID), labels, fine, [1, 2])
    assert rows.loc[rows["metric"] == "dice", "value"].tolist() == [1, 1]


def test_the_true_error_is_drawn_by_its_seed(labels, random_displacement):
    field = DisplacementField(random_displacement(GRID.shape, 1.0, 2.0).float(), GRID)
    truth = Truth(DisplacementField.identity(GRID))

    def error(seed: int) -> float:
        rows = evaluate_field(field, labels, labels, [1], truth, points=20, seed=seed)
        return rows.set_index("metric")["value"]["true_error_mm"]

    assert error(3) == error(3) != error(4)


def test_a_field_on_another_grid_and_empty_labels_are_refused(labels):
    shifted = GRID.affine.copy()
    shifted[0, -1] += 0.5
    elsewhere = DisplacementField.identity(Grid(GRID.shape, shifted))
    named = Volume(labels.data, GRID, "fixed_labels.nii.gz")
    with pytest.raises(InputError, match=r"fixed_labels\.nii\.gz: .*evaluate on the fixed image's own grid"):
        evaluate_field(elsewhere, named, labels, [1])
    with pytest.raises(InputError, match=r"fixed_labels\.nii\.gz: the label map is empty"):
        evaluate_field(DisplacementField.identity(GRID), named.with_data(labels.data * 0), labels, [1])
