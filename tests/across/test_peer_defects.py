"""Silent errors of well-known packages, each computed beside ours: the test documents the error and guards against it.

Users reported them in public, or they show in published code.  No code of those packages is here; the
defective forms are written anew from what they compute.
"""

import importlib.util
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from support.paths import ROOT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regcore.evaluation import (
    dice,
    digital_folds,
    folds,
    non_diffeomorphic_volume,
    sd_log_jacobian,
    surface_distances_per_label,
    target_registration_error_mm,
)
from regcore.evaluation.evaluate import evaluate_field
from regcore.images.ants import fresh_prefix
from regcore.images.field import DisplacementField
from regcore.images.volume import Grid, Volume
from regcore.kernels import reference_only
from regcore.losses import lncc, mind_ssc, soft_dice
from regcore.spatial import (
    affine_displacement,
    compose,
    identity,
    integrate,
    invert,
    jacobian_determinant,
    resample_displacement,
    sample,
    warp,
)

spec = importlib.util.spec_from_file_location("peers_of_defects", ROOT / "benchmarks" / "peers.py")
peers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peers)

SUM_FORMS = [peers.lncc_dense, peers.lncc_separable, peers.lncc_avg_pool, peers.lncc_cumsum, peers.lncc_shifts]


# ---- local correlation


def bright_and_nearly_flat(generator, shape=(12, 13, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    """Two unrelated images of small noise about a large mean, as in the flat background of a CT."""
    return tuple(torch.from_numpy(300 + 0.1 * generator.standard_normal((1, 1, *shape))).float() for _ in range(2))


@pytest.mark.parametrize("form", SUM_FORMS, ids=lambda form: form.__name__)
def test_local_correlation_does_not_leave_its_range_as_the_unclamped_sum_form_does(form, generator):
    """Σ I² - (Σ I)² / n in float32 is rounding here, and a quotient of such differences is anything at all."""
    fixed, moving = bright_and_nearly_flat(generator)
    unclamped = form(fixed, moving).item()
    assert not -1 <= unclamped <= 0
    exact = lncc(fixed.double(), moving.double()).item()
    for variant in ("ants", "voxelmorph"):
        for shape in ("box", "gaussian"):
            assert -1 <= lncc(fixed, moving, variant=variant, shape=shape).item() <= 0
    assert lncc(fixed, moving).item() == pytest.approx(exact, abs=1e-6)
    assert -0.05 < exact < 0


def rounded_as_tf32(values: torch.Tensor) -> torch.Tensor:
    """Ten bits of mantissa, as a graphics card keeps of the inputs of a convolution by default."""
    return ((values.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def test_local_correlation_has_no_convolution_that_tf32_or_autocast_could_round(generator):
    fixed, moving = (0.6 + 0.001 * torch.from_numpy(generator.standard_normal((2, 1, 1, 12, 13, 11))).float()).unbind()
    ones = torch.ones(1, 1, 9, 9, 9)
    moments = (fixed, moving, fixed * fixed, moving * moving, fixed * moving)
    sums = [F.conv3d(rounded_as_tf32(moment), ones, padding=4) for moment in moments]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = peers.lncc_dense(fixed, moving).item()
        ours = lncc(fixed, moving)
    count = 9**3
    variances = [square - total * total / count for total, square in ((sums[0], sums[2]), (sums[1], sums[3]))]
    cross = sums[4] - sums[0] * sums[1] / count
    squared = cross * cross / (variances[0] * variances[1] + 1e-5)
    assert squared.min() < -0.5 and squared.max() > 2 and min(v.min() for v in variances) < 0
    assert abs(under_autocast - peers.lncc_dense(fixed, moving).item()) > 0.02
    assert ours.dtype == torch.float32
    assert torch.equal(ours, lncc(fixed, moving))


def test_an_inverted_contrast_correlates_unlike_where_the_cross_term_is_clamped(generator):
    """cc = max(cross, ε)² / (var var) takes an image and its negative, which correlate fully, for unrelated."""
    fixed = torch.from_numpy(generator.standard_normal((1, 1, 10, 11, 9)))
    ones = torch.ones(1, 1, 5, 5, 5, dtype=torch.float64)
    inside = (..., *[slice(2, -2)] * 3)  # windows that lie in the image
    total = [F.conv3d(moment, ones) for moment in (fixed, -fixed, -fixed * fixed, fixed * fixed)]
    cross, variance = total[2] - total[0] * total[1] / 125, total[3] - total[0] ** 2 / 125
    assert (cross.clamp(min=1e-5) ** 2 / variance**2).max() < 1e-6
    assert cross.shape == fixed[inside].shape
    assert lncc(fixed, -fixed, window=5).item() == pytest.approx(-1, abs=1e-9)
    assert lncc(fixed, 5 - 3 * fixed, window=5).item() == pytest.approx(-1, abs=1e-9)


def test_local_correlation_of_constant_images_is_zero_not_nan(generator):
    flat, image = torch.full((1, 1, 9, 9, 9), 0.1), torch.from_numpy(generator.random((1, 1, 9, 9, 9))).float()
    ones = torch.ones(1, 1, 9, 9, 9)
    with np.errstate(invalid="ignore"):
        variance = F.conv3d(flat * 0, ones)
        assert (variance * variance / (variance * variance)).isnan().all()  # with no ε, as first published
    for pair in ((flat, image), (image, flat), (flat, flat)):
        leaves = [x.clone().requires_grad_() for x in pair]
        loss = lncc(*leaves)
        loss.backward()
        assert loss.item() == 0
        assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_the_gradient_of_local_correlation_goes_through_the_window(generator):
    """Some fused kernels differentiate only the voxel in the middle of each window: not the gradient of the loss."""
    fixed, moving = torch.from_numpy(generator.random((2, 1, 1, 11, 10, 9))).unbind()
    moving = (0.5 * fixed + 0.5 * moving).requires_grad_()
    found = torch.autograd.grad(lncc(fixed, moving, window=5), moving)[0]
    step, numeric = 1e-5, torch.zeros_like(found)
    for place in np.ndindex(*found.shape):
        if sum(place) % 7:
            continue
        shifted = [moving.detach().clone() for _ in range(2)]
        shifted[0][place] += step
        shifted[1][place] -= step
        numeric[place] = (lncc(fixed, shifted[0], window=5) - lncc(fixed, shifted[1], window=5)) / (2 * step)
    known = numeric != 0
    assert F.cosine_similarity(found[known], numeric[known], dim=0) > 1 - 1e-8

    local = moving.detach().clone().requires_grad_()  # the sums held fixed, all but each window's own middle
    ones = torch.ones(1, 1, 5, 5, 5, dtype=torch.float64)

    def box(values):
        return F.conv3d(values, ones, padding=2)

    count = box(torch.ones_like(fixed))
    i, j = fixed - box(fixed) / count, local - (box(local) / count).detach()
    cross = box(i * j.detach()).detach() + i * j - (i * j).detach()
    variance_j = box(j.detach() ** 2) + j**2 - j.detach() ** 2
    dropped = torch.autograd.grad(-(cross**2 / (box(i**2) * variance_j)).mean(), local)[0]
    assert F.cosine_similarity(dropped[known], numeric[known], dim=0) < 0.99


def test_a_descriptor_does_not_depend_on_what_else_is_in_the_batch(generator):
    """The usual code clamps the variance by its mean over the whole batch; then one bright image changes another."""
    quiet, loud = torch.from_numpy(generator.random((2, 1, 1, 9, 9, 9))).unbind()
    quiet, loud, shifted = quiet, 1e4 * loud, quiet.roll(1, 2)
    alone = mind_ssc(quiet, shifted).item()
    together = mind_ssc(torch.cat([quiet, loud]), torch.cat([shifted, loud])).item()
    assert 2 * together == pytest.approx(alone, rel=1e-9)  # the mean of it and 0

    def variance(image, batch_wide):
        difference = (image - image.roll(2, 2)) ** 2
        axes = tuple(range(0 if batch_wide else 1, image.ndim))
        mean = difference.mean(axes, keepdim=True)
        return difference.clamp(0.001 * mean, 1000 * mean)

    both = torch.cat([quiet, loud])
    assert torch.equal(variance(both, False)[:1], variance(quiet, False))
    assert (variance(both, True)[:1] / variance(quiet, True)).max() > 100


# ---- sampling, resizing and composing


def test_zero_flow_is_the_identity_unlike_a_sampler_without_align_corners(generator):
    """Positions normalised for corner voxels on -1 and 1, but sampled with the default: a zoom by n / (n - 1)."""
    image = torch.from_numpy(generator.standard_normal((1, 2, 9, 8, 7))).float()
    still = torch.zeros(1, 3, 9, 8, 7)
    points = [2 * p / (n - 1) - 1 for p, n in zip(identity(image.shape[2:], image)[0], image.shape[2:], strict=True)]
    points = torch.stack(points[::-1], dim=-1)[None]
    zoomed = F.grid_sample(image, points, align_corners=False)
    assert (zoomed - image).abs().max() > 0.5
    assert zoomed.isfinite().all()  # nothing tells
    for border in ("zero", "edge"):
        for mode in ("linear", "nearest"):
            assert torch.equal(warp(image, still, mode=mode, border=border), image)
    assert torch.equal(compose(still, still), still)
    assert torch.equal(integrate(still), still)
    assert torch.equal(invert(still)[0], still)


@pytest.mark.parametrize("shape, new", [((6, 7), (12, 14)), ((6, 5, 7), (12, 10, 14)), ((8, 9), (15, 17))])
def test_resizing_a_displacement_and_sampling_with_it_share_one_convention(shape, new, generator):
    """A map towards a fixed point stays that map at another resolution, up to the border.

    ``interpolate(scale_factor=2)`` with its default puts cell corners on cell corners, which the sampler does
    not: near the border the displacement is cut off, and off by a good part of a voxel everywhere.
    """
    share = generator.uniform(0, 1, len(shape))  # where the fixed point is, from corner voxel to corner voxel

    def towards(sizes):
        point = torch.tensor([s * (n - 1) for s, n in zip(share, sizes, strict=True)]).view(1, -1, *[1] * len(sizes))
        return 0.5 * (point - identity(sizes, point))

    found = resample_displacement(towards(shape), new)
    torch.testing.assert_close(found, towards(new), atol=1e-12, rtol=0)
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    factor = torch.tensor([b / a for a, b in zip(shape, new, strict=True)]).view(1, -1, *[1] * len(shape))
    other = F.interpolate(towards(shape), size=new, mode=mode, align_corners=False) * factor
    assert (other - towards(new)).abs().max() > 0.2

    ramp = identity(new, found).clone()  # an image that holds its own coordinates shows what is sampled
    torch.testing.assert_close(warp(ramp, found), ramp + towards(new), atol=1e-12, rtol=0)
    assert (warp(ramp, other) - ramp - towards(new)).abs().max() > 0.2
    back = resample_displacement(found, shape)
    torch.testing.assert_close(back, towards(shape), atol=1e-12, rtol=0)


def test_composition_is_not_the_shortcut_that_warps_the_sum_by_itself(random_displacement):
    """u + u∘(id + u), as published for increments of a time-varying velocity, is u after u, not u₂ after u₁."""
    shape = (14, 13, 12)
    first, second = random_displacement(shape, 1.5, 3.0), random_displacement(shape, 1.5, 3.0)
    there = identity(shape, first) + first
    true = first + sample(second, there, border="edge")
    torch.testing.assert_close(compose(first, second), true, atol=1e-12, rtol=0)
    for shortcut in (first + warp(second, second, border="edge"), second + warp(first, first, border="edge")):
        assert (shortcut - true).norm(dim=1).max() > 0.5
    image = random_displacement(shape, 1.0, 4.0)[:, :1]
    inside = (..., *[slice(4, -4)] * 3)
    twice = warp(warp(image, second, border="edge"), first, border="edge")
    once = warp(image, compose(first, second), border="edge")
    swapped = warp(image, compose(second, first), border="edge")
    assert (once - twice)[inside].abs().mean() < 0.3 * (swapped - twice)[inside].abs().mean()


def test_displacements_are_not_rounded_to_bfloat16_under_autocast(random_displacement):
    """A displacement of 16 to 32 voxels has steps of 1/8 voxel in bfloat16."""
    velocity = random_displacement((14, 12, 13), 10.0, 4.0).float()
    image = random_displacement((14, 12, 13), 1.0, 1.0)[:, :1].float()
    expected = integrate(velocity), compose(velocity, velocity), warp(image, velocity), jacobian_determinant(velocity)
    with torch.autocast("cpu", torch.bfloat16):
        found = integrate(velocity), compose(velocity, velocity), warp(image, velocity), jacobian_determinant(velocity)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
    rounded = velocity.bfloat16().float()
    assert (rounded - velocity).abs().max() > 0.03


def test_labels_are_not_blurred_into_labels_that_nobody_has(generator):
    """Codes 1 and 3 interpolated linearly give 2 in between, an anatomy that is not there."""
    affine = np.diag([1.0, 2.0, 1.5, 1.0])
    labels = Volume(
        np.where(np.arange(10) < 5, 1, 3)[:, None, None] * np.ones((10, 6, 7), np.int32), Grid((10, 6, 7), affine)
    )
    displacement = torch.zeros(1, 3, 10, 6, 7)
    displacement[:, 0] = 0.4
    linear = warp(torch.from_numpy(labels.data)[None, None].double(), displacement.double(), border="edge").round()
    assert 2 in linear.unique()
    warped = DisplacementField(displacement, labels.grid).warp(labels, nearest=True)
    assert warped.data.dtype == labels.data.dtype
    assert set(np.unique(warped.data)) <= {0, 1, 3}
    with pytest.raises(ValueError, match="mode='nearest'"):
        warp(torch.from_numpy(labels.data)[None, None], displacement)
    rows = evaluate_field(DisplacementField(displacement, labels.grid), labels, labels, [1, 2, 3]).set_index("label")
    assert rows.loc[2, "value"].isna().all()


# ---- folds and Jacobians


def mirrored(shape=(9, 8, 7), axis=1) -> torch.Tensor:
    displacement = torch.zeros(1, 3, *shape)
    sizes = [1] * 3
    sizes[axis] = -1
    displacement[0, axis] = -2 * torch.arange(float(shape[axis])).view(sizes)
    return displacement


def test_the_folding_count_is_not_always_zero_as_with_clip_of_determinant_plus_three():
    displacement = mirrored()
    determinant = jacobian_determinant(displacement)[0].numpy()
    clipped = (determinant + 3).clip(1e-9, 1e9)
    assert (clipped <= 0).sum() == 0  # whatever the map
    assert (determinant < 0).all()
    assert folds(displacement) == 100
    assert digital_folds(displacement).central == 7 * 6 * 5


def test_the_spread_of_log_jacobians_is_that_of_the_determinant_not_of_the_determinant_plus_three():
    """Half of the space is doubled and half is halved: the logarithms are ± log 2.

    With 3 added they are log 5 and log 3½, a quarter of the spread.
    """
    scale = np.repeat([2.0, 0.5], 8)
    position = np.concatenate([[0], np.cumsum((scale[1:] + scale[:-1]) / 2)])
    displacement = torch.zeros(1, 3, 16, 5, 5, dtype=torch.float64)
    displacement[0, 0] = torch.from_numpy(position - np.arange(16)).view(-1, 1, 1)
    mask = np.zeros((16, 5, 5), dtype=bool)
    mask[1:7], mask[9:15] = True, True
    expected = np.log(2) * np.sqrt(300 / 299)  # of a sample
    assert sd_log_jacobian(displacement, mask) == pytest.approx(expected, rel=1e-9)
    determinant = jacobian_determinant(displacement)[0].numpy()[mask]
    assert np.log(determinant + 3).std() == pytest.approx(np.log(5 / 3.5) / 2, rel=1e-9)
    assert np.log(determinant + 3).std() < 0.3 * sd_log_jacobian(displacement, mask)


def test_folds_that_central_differences_do_not_see_are_measured():
    """Neighbours that swap places turn half of space inside out; percent of determinants ≤ 0 says that all is well."""
    shape = (10, 9, 8)
    displacement = torch.zeros(1, 3, *shape)
    displacement[0, 0] = torch.from_numpy(1 - 2.0 * (np.indices(shape).sum(0) % 2))
    inside = np.zeros(shape, dtype=bool)
    inside[1:-1, 1:-1, 1:-1] = True
    assert folds(displacement, inside) == 0
    assert non_diffeomorphic_volume(displacement) == pytest.approx(100 / 3)
    assert digital_folds(displacement).corners == inside.sum()


#: Headers of one grid of 1 x 2 x 3 mm: along the axes, mirrored as RAS images are to ITK, and turned.
SPACING = np.diag([1.0, 2.0, 3.0])
TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
DIRECTIONS = {
    "LPS": np.diag([-1.0, -1, 1]),
    "RAS": np.eye(3),
    "one flipped": np.diag([1.0, 1, -1]),
    "permuted": np.array([[0, 0, -1.0], [1, 0, 0], [0, 1, 0]]),
    "oblique": TURN @ np.diag([1.0, -1, 1]),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_jacobian_heeds_direction_cosines(direction, generator):
    """A map of the world has one Jacobian, whatever the header; the form that takes the derivative of the LPS
    vectors along the array axes, over the spacing alone, is right only where these are the axes of LPS."""
    matrix = np.array([[1.3, 0.1, -0.2], [0.0, 0.8, 0.15], [0.1, -0.05, 1.1]])
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS[direction] @ SPACING
    affine[:3, 3] = generator.uniform(-50, 50, 3)
    grid = Grid((7, 6, 8), affine)
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    middle = grid.centre
    field = DisplacementField.from_world((points - middle) @ matrix.T + middle, grid)
    found = jacobian_determinant(field.displacement.double())
    np.testing.assert_allclose(found.numpy(), np.linalg.det(matrix), rtol=1e-4)

    vectors = (field.targets() - points) * [-1, -1, 1]
    slopes = np.stack([d / s for d, s in zip(np.gradient(vectors, axis=(0, 1, 2)), grid.spacing, strict=True)], axis=-1)
    ignored = np.linalg.det(slopes + np.eye(3))
    if direction == "LPS":
        np.testing.assert_allclose(ignored, np.linalg.det(matrix), rtol=1e-4)
    else:
        assert (np.abs(ignored - np.linalg.det(matrix)) > 0.05).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_mirror_folds_and_a_shift_does_not_whatever_the_header(direction):
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS[direction] @ SPACING
    grid = Grid((9, 8, 7), affine)
    points = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    shifted = DisplacementField.from_world(points + np.array([3, -2, 5]), grid)
    turned = DisplacementField.from_world(2 * grid.centre - points, grid)  # every axis: det = -1
    assert folds(shifted.displacement) == non_diffeomorphic_volume(shifted.displacement) == 0
    assert folds(turned.displacement) == 100
    assert non_diffeomorphic_volume(turned.displacement) == pytest.approx(100, rel=1e-4)


# ---- distances, overlap, landmarks


def test_hd95_is_in_millimetres_not_voxels():
    """A box moved by two voxels of 3 mm is 6 mm off; with a spacing of ones it is "2"."""
    labels = np.zeros((12, 10, 20), np.int32)
    labels[3:8, 3:7, 4:14] = 17
    moved = np.roll(labels, 2, axis=0)
    mm = surface_distances_per_label(labels, moved, [17], (3, 1, 0.5)).loc[17, "hd95_mm"]
    voxels = surface_distances_per_label(labels, moved, [17], (1, 1, 1)).loc[17, "hd95_mm"]
    assert (mm, voxels) == (6, 2)
    grid = Grid(labels.shape, np.diag([3, 1, 0.5, 1]))
    assert surface_distances_per_label(labels, moved, [17], grid.spacing).loc[17, "hd95_mm"] == 6


def test_landmark_errors_are_in_millimetres_of_points_led_from_the_fixed_to_the_moving_image():
    """The field pulls: it leads fixed landmarks to the moving ones.

    The opposite direction, which "warping the moving landmarks" suggests, doubles the error, and distances
    in voxels mix axes of unequal size.
    """
    grid = Grid((14, 12, 10), np.array([[0, 0, -3, 20], [-1, 0, 0, 5], [0, 2, 0, -30], [0, 0, 0, 1.0]]))
    shift = np.array([2.0, -1, 2])
    displacement = torch.tensor(shift, dtype=torch.float32).view(1, 3, 1, 1, 1).expand(1, 3, *grid.shape)
    field = DisplacementField(displacement.clone(), grid)
    start = np.array([[4.0, 5, 3], [7, 6, 4.5]])

    def landmarks(voxels):
        return pd.DataFrame(grid.to_world(voxels), columns=list("xyz"), index=pd.Index(["a", "b"], name="name"))

    fixed, moving = landmarks(start), landmarks(start + shift)
    size = np.linalg.norm(shift * grid.spacing)
    assert size == pytest.approx(np.sqrt(4 + 4 + 36))
    np.testing.assert_allclose(target_registration_error_mm(field, fixed, moving), 0, atol=1e-5)
    np.testing.assert_allclose(target_registration_error_mm(field, moving, fixed), 2 * size, atol=1e-5)
    none = target_registration_error_mm(DisplacementField.identity(grid), fixed, moving)
    np.testing.assert_allclose(none, size, atol=1e-9)
    assert not np.isclose(np.linalg.norm(shift), size, atol=1)


class LargestTensor(TorchDispatchMode):
    """Remember the bytes of the largest tensor that any operator returned."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.untyped_storage().nbytes() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.size = max([self.size, *sizes])
        return out


@pytest.mark.parametrize("code", ["kernel", "reference"])
def test_no_tensor_of_the_dice_loss_grows_with_labels_as_one_hot_maps_do(code, random_displacement, generator):
    shape, voxels = (16, 15, 14), 16 * 15 * 14
    fixed, moving = (torch.from_numpy(generator.integers(0, 200, (1, 1, *shape))) for _ in range(2))
    displacement = random_displacement(shape, 1.0, 3.0).float()

    def largest(loss, count: int) -> int:
        leaf = displacement.clone().requires_grad_()
        with LargestTensor() as mode:
            loss(fixed, moving, leaf, list(range(1, count + 1))).backward()
        return mode.size

    assert largest(peers.dice_one_hot, 100) >= 100 * voxels * 4
    if code == "reference":
        with reference_only():
            sizes = [largest(soft_dice, count) for count in (2, 20, 100)]
    else:
        sizes = [largest(soft_dice, count) for count in (2, 20, 100)]
    assert max(sizes) <= 3 * voxels * 8
    expected = peers.dice_one_hot(fixed, moving, displacement, list(range(1, 101)))
    found = soft_dice(fixed, moving, displacement, list(range(1, 101)))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_counting_overlap_needs_no_table_of_codes_and_no_map_for_each_label(generator):
    """FreeSurfer's codes reach 14175: one boolean map for each, or a table of all pairs, would be gigabytes."""
    fixed, warped = generator.integers(0, 30, (2, 40, 40, 40)).astype(np.int32) * 480

    def peak(labels) -> int:
        tracemalloc.start()
        dice(fixed, warped, labels)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    few, many = peak([480, 14175]), peak(list(range(14176)))
    assert many < few + 8e6
    assert many < 100 * fixed.size  # one-hot would have 14176 bytes for each voxel


def test_a_label_that_is_nowhere_does_not_make_the_dice_loss_nan(random_displacement, generator):
    """0 / 0 of an absent label spoils a mean over labels; an ε in both instead counts it as wholly right."""
    shape = (10, 9, 8)
    fixed, moving = (torch.from_numpy(generator.integers(0, 3, (1, 1, *shape))) for _ in range(2))
    displacement = random_displacement(shape, 1.0, 2.0).float()
    assert peers.dice_one_hot(fixed, moving, displacement, [1, 2, 7]).isnan()
    with_absent = soft_dice(fixed, moving, displacement, [1, 2, 7])
    torch.testing.assert_close(with_absent, soft_dice(fixed, moving, displacement, [1, 2]), atol=1e-7, rtol=0)
    assert np.isnan(dice(fixed.numpy(), moving.numpy(), [7])).all()


# ---- files


def test_two_calls_to_ants_cannot_collect_each_others_results():
    """antspyx finds the results of a call by a glob on the prefix of their names."""
    with fresh_prefix() as one, fresh_prefix() as other:
        assert Path(one).parent != Path(other).parent
        Path(f"{one}1Warp.nii.gz").touch()
        assert not list(Path(other).parent.iterdir())
    assert not Path(one).parent.exists()


def test_an_affine_displacement_is_measured_about_voxel_zero_in_every_operator():
    """The same map as a matrix and as a displacement leads a point to the same place: one origin, one unit."""
    matrix = torch.tensor([[[0.9, 0.1, 0.0, 1.0], [-0.1, 0.95, 0.05, 0.5], [0.0, 0.1, 0.9, 0.25]]]).double()
    displacement = affine_displacement(matrix, (12, 11, 10))
    point = torch.tensor([3.25, 4.5, 2.75]).double()
    moved = point + sample(displacement, point.view(1, 3, 1, 1, 1)).flatten()
    torch.testing.assert_close(moved, matrix[0, :, :3] @ point + matrix[0, :, 3], atol=1e-12, rtol=0)
