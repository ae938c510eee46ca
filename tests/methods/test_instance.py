"""Registration from nothing: it finds known displacements, without folds, whatever the size, spacing and masks."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from regcore.alignment.prepared import Prepared
from regcore.errors import InputError
from regcore.images.volume import Grid, Volume
from regcore.losses import lncc, mse, soft_dice
from regcore.methods import instance as module
from regcore.methods import make_method
from regcore.methods.registration import register_scans
from regcore.spatial import compose, jacobian_determinant, warp

SLICE, VOLUME = (48, 40), (24, 22, 20)
per_shape = pytest.mark.parametrize("shape", [SLICE, VOLUME], ids=["2-D", "3-D"])
per_kind = pytest.mark.parametrize("kind", ["displacement", "velocity"])


def method(kind="displacement", similarity="mse", **settings):
    """Fewer and smaller levels than by default: the images are small."""
    short = {"shrink": [4, 2, 1], "iterations": [30, 30, 15], "transformation": kind, "similarity": similarity}
    return make_method("instance", short | settings)


def texture(shape, generator) -> torch.Tensor:
    """Fine and coarse detail everywhere, 0 to 1, (1, 1, *shape)."""
    noise = [gaussian_filter(generator.standard_normal(shape), s) * s ** (len(shape) / 2) for s in (1.2, 3)]
    image = sum(noise)
    return torch.from_numpy((image - image.min()) / np.ptp(image)).float()[None, None]


def known_pair(shape, generator, peak=2.5):
    """Fixed, moving, and the smooth displacement between them, which is zero at the border."""
    smooth = [gaussian_filter(generator.standard_normal(shape), 7, mode="nearest") for _ in shape]
    window = np.prod([np.sin(np.pi * i / (n - 1)) for i, n in zip(np.indices(shape), shape, strict=True)], axis=0)
    truth = np.stack(smooth) * window
    truth = torch.from_numpy(truth * peak / np.abs(truth).max()).float()[None]
    assert jacobian_determinant(truth).min() > 0.3
    moving = texture(shape, generator)
    return warp(moving, truth, border="edge"), moving, truth


def optimise(registration, fixed, moving, *masks, spacing=None):
    return registration.optimise(fixed, moving, np.ones(fixed.ndim - 2) if spacing is None else spacing, *masks)


def error(found, truth, where=...) -> float:
    """Mean distance in voxels."""
    return (found - truth).norm(dim=1)[where].mean().item()


def inner(field: torch.Tensor, margin=3) -> torch.Tensor:
    return field[(..., *[slice(margin, -margin)] * (field.ndim - 2))]


# ---- what it finds


@per_kind
@per_shape
@pytest.mark.parametrize("similarity", ["lncc", "mse"])
def test_a_known_displacement_is_found(shape, kind, similarity, generator):
    fixed, moving, truth = known_pair(shape, generator)
    found, _ = optimise(method(kind, similarity), fixed, moving)
    assert error(found, truth) < 0.25 * error(0, truth)
    warped = warp(moving, found, border="edge")
    for loss in (mse, lambda f, w: 1 + lncc(f, w, 5, "ants")):
        assert loss(fixed, warped) < 0.2 * loss(fixed, moving)


@pytest.mark.slow
@per_kind
@pytest.mark.parametrize("similarity", ["nmi", "mind"])
def test_images_of_opposite_contrast_are_registered(kind, similarity, generator):
    fixed, moving, truth = known_pair(SLICE, generator)
    found, _ = optimise(method(kind, similarity), fixed, 1 - moving)
    assert error(found, truth) < 0.4 * error(0, truth)
    misled, _ = optimise(method(kind, "mse"), fixed, 1 - moving)
    assert error(misled, truth) > error(0, truth)


@pytest.mark.slow
@pytest.mark.parametrize("similarity", ["nmi", "mind"])
def test_volumes_of_opposite_contrast_are_registered(similarity, generator):
    fixed, moving, truth = known_pair(VOLUME, generator)
    found, _ = optimise(method("displacement", similarity, shrink=[2, 1], iterations=[25, 15]), fixed, 1 - moving)
    assert error(found, truth) < 0.5 * error(0, truth)


@per_kind
def test_the_overlap_of_labels_rises(kind, generator):
    fixed, moving, truth = known_pair(SLICE, generator, peak=4)
    label = torch.from_numpy((np.indices(SLICE) // 6).sum(0) % 2).float()[None, None]
    expected = warp(label, truth, "nearest", "edge")

    def dice(displacement):
        found = warp(label, displacement, "nearest", "edge")
        return 2 * (found * expected).sum() / (found + expected).sum()

    found, _ = optimise(method(kind, "lncc"), fixed, moving)
    assert dice(found) > 0.95 > 0.85 > dice(0 * truth)


@per_kind
@per_shape
def test_the_inverse_undoes_the_displacement(shape, kind, generator):
    fixed, moving, truth = known_pair(shape, generator)
    found, inverse = optimise(method(kind), fixed, moving)
    assert error(found, inverse) > error(0, truth), "it is not the field itself"
    for there_and_back in (compose(found, inverse), compose(inverse, found)):
        assert inner(there_and_back).norm(dim=1).mean() < 0.1 * error(0, truth)


@per_kind
@per_shape
@pytest.mark.parametrize("similarity", ["mse", "lncc"])
def test_nothing_folds_even_where_nothing_fits(shape, kind, similarity, generator):
    fixed, moving = texture(shape, generator), texture(shape, generator)
    found, inverse = optimise(method(kind, similarity), fixed, moving)
    assert jacobian_determinant(found).min() > 0
    assert found.norm(dim=1).mean() > 0.5
    if kind == "velocity":
        assert jacobian_determinant(inverse).min() > 0


def test_a_field_is_smoothed_where_it_folds_and_only_there(random_displacement):
    calm = random_displacement((40, 36), 0.5, 4.0)
    folded = calm.clone()
    folded[:, :, 8:14, 8:14] += random_displacement((6, 6), 1.5, 1.0)
    assert jacobian_determinant(folded).min() < 0
    mended = module._unfolded(folded, lambda field: (field,))
    assert jacobian_determinant(mended).min() > 0
    assert torch.equal(mended[:, :, 25:, 25:], calm[:, :, 25:, 25:])
    assert torch.equal(module._unfolded(mended, lambda field: (field,)), mended)


def test_a_velocity_is_smoothed_until_its_map_and_the_inverse_have_no_fold(random_displacement):
    shape = torch.Size((40, 36))
    velocity = module._Velocity(torch.zeros(1, 1, *shape))
    velocity.move_to(shape)
    velocity.field = random_displacement((20, 18), 2.0, 1.0).float()
    assert jacobian_determinant(velocity.displacement(velocity.field)).min() < 0
    forward, backward = velocity.result(shape)
    assert jacobian_determinant(forward).min() > 0 and jacobian_determinant(backward).min() > 0
    assert inner(compose(forward, backward), 6).norm(dim=1).mean() < 0.2 * forward.norm(dim=1).mean()


# ---- grids


@per_kind
def test_levels_are_as_isotropic_as_they_can_be(kind, monkeypatch, generator):
    levels = []
    real = module._Level
    monkeypatch.setattr(module, "_Level", lambda fixed, *others: levels.append(fixed) or real(fixed, *others))
    image = texture((64, 20), generator)
    optimise(method(kind, iterations=[1, 1, 1]), image, image, spacing=np.array([1.0, 3.0]))
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 15), (32, 20), (64, 20)]
    assert torch.equal(levels[2], image)
    image = texture((20, 6), generator)
    optimise(method(kind, iterations=[1, 1, 1]), image, image)
    assert [tuple(level.shape[2:]) for level in levels[3:]] == [(8, 6), (10, 6), (20, 6)], "none below 8 voxels"


@per_kind
def test_thick_slices_are_registered(kind, generator):
    """The pair on an isotropic grid, of which every third voxel along the last axis is kept."""
    fixed, moving, truth = known_pair((48, 60), generator, peak=3)
    found, _ = optimise(method(kind), fixed[..., ::3], moving[..., ::3], spacing=np.array([1.0, 3.0]))
    scale = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    assert error(scale * found, truth[..., ::3]) < 0.6 * error(0, truth)


@per_kind
@pytest.mark.parametrize("shape", [(8, 9), (12, 7, 10), (5, 6), (2, 3), (64, 3)], ids=str)
def test_small_images_are_registered(shape, kind, generator):
    fixed = torch.from_numpy(generator.random((1, 1, *shape))).float()
    moving = 0.8 * fixed + 0.2 * texture(shape, generator)
    for similarity in ("lncc", "mse", "nmi", "mind"):
        found, inverse = optimise(method(kind, similarity, iterations=[3, 3, 3]), fixed, moving)
        assert found.shape == inverse.shape == (1, len(shape), *shape)
        assert found.isfinite().all() and inverse.isfinite().all()
        assert found.any()


def test_a_registration_of_files_is_on_their_grids_and_in_voxels(generator):
    fixed, moving, _ = known_pair(SLICE, generator)
    grid = Grid.centred(SLICE, (1.5, 1.5), (3, -2))
    elsewhere = Grid.centred(SLICE, (1.5, 1.5), (8, 8))
    scans = Volume(fixed[0, 0].numpy(), grid), Volume(moving[0, 0].numpy(), elsewhere)
    registration = method()
    found = registration.register(*scans)
    expected = optimise(registration, fixed, moving)
    assert torch.equal(found.field.displacement, expected[0]) and found.field.grid is grid
    assert torch.equal(found.inverse.displacement, expected[1]) and found.inverse.grid is elsewhere


# ---- masks


def lesion(centre, radius) -> torch.Tensor:
    offset = [i - c for i, c in zip(np.indices(SLICE), centre, strict=True)]
    return torch.from_numpy(sum(o**2 for o in offset) < radius**2)[None, None]


@pytest.mark.slow
@per_kind
@pytest.mark.parametrize("similarity", ["mse", "lncc"])
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_a_mask_hides_what_only_one_image_has(side, kind, similarity, generator):
    fixed, moving, truth = known_pair(SLICE, generator)
    blob, mask = lesion((24, 20), 6), (~lesion((24, 20), 10)).float()
    registration = method(kind, similarity)
    if side == "fixed":
        fixed, masks = torch.where(blob, 1.0, fixed), (mask, None)
    else:
        moving, masks = torch.where(blob, 1.0, moving), (None, mask)
    near = lesion((24, 20), 8)[0]
    without, _ = optimise(registration, fixed, moving)
    hidden, _ = optimise(registration, fixed, moving, *masks)
    assert error(hidden, truth, near) < 0.6 * error(without, truth, near)
    assert error(hidden, truth, near) < 0.8 * error(0, truth, near)


@per_kind
def test_a_mask_of_ones_changes_nothing_and_one_of_zeros_stops_everything(kind, generator):
    fixed, moving, _ = known_pair(SLICE, generator)
    ones, zeros = torch.ones_like(fixed), torch.zeros_like(fixed)
    registration = method(kind, iterations=[10, 10, 5])
    found, _ = optimise(registration, fixed, moving)
    masked, _ = optimise(registration, fixed, moving, ones, ones)
    torch.testing.assert_close(masked, found, atol=2e-3, rtol=0)
    for masks in ((zeros, None), (None, zeros), (ones, zeros)):
        assert not optimise(registration, fixed, moving, *masks)[0].any()


def test_the_masks_of_prepared_scans_reach_the_optimiser(generator):
    fixed, moving, _ = known_pair(SLICE, generator)
    grid = Grid.centred(SLICE, (1, 1), (0, 0))
    mask = ~lesion((24, 20), 8)

    def scan(image, mask=None):
        mask = None if mask is None else Volume(7 * mask[0, 0].numpy().astype(np.int16), grid)
        return Prepared(Volume(image[0, 0].numpy(), grid), np.eye(3), grid, mask)

    registration, other = method(iterations=[5, 5, 5]), ~lesion((30, 30), 6)
    for masks in ((mask, None), (None, mask), (mask, other)):
        found = register_scans(registration, scan(fixed, masks[0]), scan(moving, masks[1])).field.displacement
        expected, _ = optimise(registration, fixed, moving, *(None if m is None else m.float() for m in masks))
        torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=0)


# ---- several channels


def halves(shape, generator, peak=2.5):
    """Two channels, each with detail in one half along the first axis, and the displacement of both."""
    _, _, truth = known_pair(shape, generator, peak)
    first = torch.from_numpy(np.indices(shape)[0] < shape[0] // 2)
    moving = torch.cat([torch.where(side, texture(shape, generator), 0.5) for side in (first, ~first)], dim=1)
    return warp(moving, truth, border="edge"), moving, truth


@per_kind
@per_shape
def test_each_channel_contributes_what_it_shows(shape, kind, generator):
    fixed, moving, truth = halves(shape, generator)
    registration = method(kind, "lncc")
    middle = shape[0] // 2
    first, second = slice(0, middle - 4), slice(middle + 4, None)
    both, _ = optimise(registration, fixed, moving)
    for channel, (seen, unseen) in enumerate(((first, second), (second, first))):
        alone, _ = optimise(registration, fixed[:, channel : channel + 1], moving[:, channel : channel + 1])
        assert error(alone, truth, (slice(None), seen)) < 0.6 * error(0, truth, (slice(None), seen))
        assert error(both, truth, (slice(None), unseen)) < 0.6 * error(alone, truth, (slice(None), unseen))


def test_only_ratios_of_weights_count_and_a_weight_of_0_hides_a_channel(generator):
    fixed, moving, _ = halves(SLICE, generator)
    registration = method(iterations=[5, 5, 5])

    def found(weights, *channels):
        where = list(channels)
        return registration.optimise(fixed[:, where], moving[:, where], np.ones(2), weights=weights)[0]

    assert torch.equal(found([1, 3], 0, 1), found([2, 6], 0, 1))
    assert torch.equal(found(None, 0, 1), found([1, 1], 0, 1))
    assert not torch.equal(found([1, 3], 0, 1), found([3, 1], 0, 1))
    torch.testing.assert_close(found([1, 0], 0, 1), found(None, 0), atol=1e-4, rtol=0)
    torch.testing.assert_close(found([1, 3], 0, 1), found([3, 1], 1, 0), atol=1e-4, rtol=0)
    for wrong in ([1], [1, -1], [0, 0], [1, float("inf")]):
        with pytest.raises(ValueError, match="weights must be"):
            found(wrong, 0, 1)


def test_a_mask_of_one_channel_hides_it_alone(generator):
    fixed, moving, _ = halves(SLICE, generator)
    registration = method(iterations=[5, 5, 5])
    masks = torch.cat([torch.ones_like(fixed[:, :1]), torch.zeros_like(fixed[:, :1])], dim=1)
    masked, _ = optimise(registration, fixed, moving, masks, None)
    alone, _ = optimise(registration, fixed[:, :1], moving[:, :1])
    torch.testing.assert_close(masked, alone, atol=2e-3, rtol=0)


# ---- labels that guide


def stripes(shape, displacement, width=6) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of four labels, warped and as they are."""
    blocks = np.indices(shape) // width
    moving = torch.from_numpy(sum((axis + 1) * block for axis, block in enumerate(blocks)) % 4)
    moving = moving[None, None]
    return warp(moving, displacement, "nearest", "edge"), moving


@per_kind
@per_shape
def test_labels_alone_show_the_displacement(shape, kind, generator):
    """The images are constant."""
    truth = known_pair(shape, generator)[2]
    labels, flat = stripes(shape, truth), torch.full((1, 1, *shape), 0.5)
    found, inverse = method(kind, smooth_field=1).optimise(flat, flat, np.ones(len(shape)), labels=labels)
    assert error(inner(found), inner(truth)) < 0.5 * error(0, inner(truth))
    assert jacobian_determinant(found).min() > 0 and inverse.isfinite().all()


def test_labels_outweigh_images_as_their_weight_says(generator):
    fixed, moving, truth = known_pair(SLICE, generator)
    labels = stripes(SLICE, -truth)

    def dice(weight):
        guided = {"labels": labels, "label_weight": weight} if weight else {}
        found, _ = method("displacement", "lncc").optimise(fixed, moving, np.ones(2), **guided)
        return 1 - soft_dice(*labels, found, [1, 2, 3]).item()

    assert dice(None) + 0.05 < dice(1) < dice(100)


def test_labels_of_one_map_alone_do_not_guide(generator):
    fixed, moving, truth = known_pair(SLICE, generator)
    first, second = stripes(SLICE, truth)
    found = [
        method(iterations=[5, 5, 5]).optimise(fixed, moving, np.ones(2), labels=labels)[0]
        for labels in (
            (first, second),
            (first * 10, second * 10),
            (torch.where(first == 0, 7, first), torch.where(second == 0, 8, second)),
        )
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    with pytest.raises(ValueError, match="no code but 0 in common"):
        method().optimise(fixed, moving, np.ones(2), labels=(first, second * 10 + 5 * (second == 0)))


def test_coarser_labels_are_labels_of_the_voxels_there():
    labels = torch.from_numpy(np.indices((9, 7)).sum(0))[None, None]
    found = module._coarser_labels(labels, torch.Size((5, 4)))[0, 0]
    assert found.equal(torch.from_numpy(2 * np.indices((5, 4)).sum(0)))
    assert module._coarser_labels(labels, labels.shape[2:]).equal(labels)


# ---- organs that slide


def sliding_pair(shape, generator, shift=3.0):
    """Two textures that slide along their common border in opposite directions; fixed, moving, displacement.

    The border is in the middle of the first axis, and the displacement along the second.
    """
    places = np.indices(shape)
    first = places[0] < shape[0] / 2
    moving = np.where(first, 0.6 * texture(shape, generator)[0, 0], 0.4 + 0.6 * texture(shape, generator)[0, 0])
    window = np.prod([np.sin(np.pi * (i + 0.5) / n) ** 0.5 for i, n in zip(places, shape, strict=True)], axis=0)
    truth = np.zeros((len(shape), *shape))
    truth[1] = np.where(first, shift, -shift) * window
    fixed = map_coordinates(moving, places + truth, order=1, mode="nearest")
    pair = [image + 0.02 * generator.standard_normal(shape) for image in (fixed, moving)]
    return *(torch.from_numpy(image.clip(0, 1)).float()[None, None] for image in pair), torch.from_numpy(truth)[None]


@pytest.mark.slow
@per_kind
@pytest.mark.parametrize("shape", [(64, 64), (40, 36, 32)], ids=["2-D", "3-D"])
def test_the_prior_lets_organs_slide(shape, kind, generator):
    """Near their border it is better than any uniform smoothing, and away from it than the one that is best there."""
    fixed, moving, truth = sliding_pair(shape, generator)
    middle = shape[0] // 2
    inner = [slice(6, -6)] * (len(shape) - 1)
    near = (slice(None), slice(middle - 4, middle + 4), *inner)
    away = (slice(None), slice(6, middle - 8), *inner)

    def errors(**settings):
        found, _ = optimise(method(kind, "lncc", **settings), fixed, moving)
        assert jacobian_determinant(found).min() > 0
        return error(found, truth, near), error(found, truth, away)

    uniform = [errors(smooth_field=sigma) for sigma in (0.35, 0.5, 0.7, 1.0)]
    prior = errors(prior="beta", smooth_field=1.4)
    best = min(uniform)
    assert prior[0] < 0.8 * best[0] and prior[1] < best[1]


@per_kind
def test_a_prior_that_smooths_everything_in_full_is_uniform_smoothing(kind, generator):
    fixed, moving, _ = known_pair(SLICE, generator)
    plain, _ = optimise(method(kind, smooth_field=1), fixed, moving)
    full, _ = optimise(method(kind, smooth_field=1, prior="beta", alpha=1e6), fixed, moving)
    free, _ = optimise(method(kind, smooth_field=1, prior="beta", alpha=1e-6), fixed, moving)
    assert error(full, plain) < 0.1 < error(free, plain)


# ---- stopping, and where there is nothing to do


@per_kind
@pytest.mark.parametrize("similarity", ["lncc", "mse", "nmi", "mind"])
def test_images_without_a_gradient_stay_where_they_are(kind, similarity):
    for value, shrink in ((0.0, [2, 1]), (0.3, [1])):
        image = torch.full((1, 1, 20, 18), value)
        for found in optimise(method(kind, similarity, shrink=shrink, iterations=[5] * len(shrink)), image, image):
            assert not found.any() and not found.isnan().any()


@per_kind
def test_equal_images_stay_where_they_are(kind, generator):
    image = texture(SLICE, generator)
    assert not optimise(method(kind), image, image)[0].any()
    assert optimise(method(kind, "lncc"), image, image)[0].abs().max() < 0.5


def calls_of(registration, fixed, moving, falling=0.0) -> list[int]:
    """How often each level compares the images; the loss falls by ``falling`` each time besides."""
    calls = []
    real = registration._unlikeness

    def counted(fixed, warped):
        calls.append(fixed.shape[-1])
        return real(fixed, warped) - falling * len(calls)

    registration._unlikeness = counted
    optimise(registration, fixed, moving)
    return [calls.count(size) for size in sorted(set(calls))]


def test_a_level_ends_where_the_loss_has_settled(generator):
    fixed, moving, _ = known_pair(SLICE, generator)
    assert calls_of(method(tolerance=10, iterations=[50, 40, 10]), fixed, moving) == [20, 20, 10]
    assert calls_of(method(tolerance=0, iterations=[50, 40, 10]), fixed, moving, falling=1.0) == [50, 40, 10]
    few = calls_of(method(tolerance=0.05, iterations=[60, 60, 60]), fixed, moving)
    many = calls_of(method(tolerance=0.005, iterations=[60, 60, 60]), fixed, moving)
    assert sum(few) < sum(many)
    assert all(count % 5 == 0 and count >= 20 for count in few)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_tolerance_is_a_share_of_the_loss_whatever_its_sign(sign):
    """Means of ten: 100 and 95, or -95 and -100."""
    first, second = (100.0, 95.0) if sign == 1 else (-95.0, -100.0)
    losses = [torch.tensor(value) for value in [0.0] * 5 + [first] * 10 + [second] * 10]
    assert module._has_settled(losses, 0.06)
    assert not module._has_settled(losses, 0.04)
    assert not module._has_settled(losses[:19], 10)
    assert not module._has_settled(losses[:-1], 10), "it looks at every fifth iteration alone"
    assert module._has_settled(losses[:5] + losses[15:] + losses[5:15], 0), "the loss rises"


def test_no_iterations_find_nothing(generator):
    fixed, moving, _ = known_pair(SLICE, generator)
    for found in optimise(method(iterations=[0, 0, 0]), fixed, moving):
        assert not found.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shrink": [4, 2], "iterations": [10]}, "'shrink' has 2 levels and 'iterations' 1"),
        ({"iterations": [10, 5, 3]}, "'shrink' has 4 levels and 'iterations' 3"),
        ({"shrink": [0.5], "iterations": [1]}, "shrink"),
        ({"step": 0}, "step"),
        ({"similarity": "cc"}, "similarity"),
        ({"smooth_fields": 1}, "did you mean 'smooth_field'"),
    ],
)
def test_wrong_settings_are_explained(settings, words):
    with pytest.raises(InputError, match=words) as caught:
        make_method("instance", settings, "methods.mine")
    assert "methods.mine" in str(caught.value)


# ---- repeatable


@per_kind
def test_the_same_pair_gives_the_same_bits_whatever_came_before(kind, generator):
    first, second = known_pair(SLICE, generator)[:2], known_pair(SLICE, generator)[:2]
    kept = [image.clone() for image in (*first, *second)]
    registration = method(kind, "lncc", iterations=[10, 10, 5])
    forwards = [optimise(registration, *pair) for pair in (first, second)]
    backwards = [optimise(registration, *pair) for pair in (second, first)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip((*first, *second), kept, strict=True)), "images are only read"


@per_kind
@pytest.mark.parametrize("similarity", ["mse", "lncc"])
def test_a_batch_is_registered_as_its_pairs_one_by_one(kind, similarity, generator):
    pairs = [known_pair(SLICE, generator)[:2] for _ in range(2)]
    registration = method(kind, similarity, iterations=[15, 15, 5])
    both = optimise(registration, *(torch.cat(images) for images in zip(*pairs, strict=True)))
    for item, pair in enumerate(pairs):
        for together, alone in zip(both, optimise(registration, *pair), strict=True):
            torch.testing.assert_close(together[item : item + 1], alone, atol=1e-3, rtol=0)
