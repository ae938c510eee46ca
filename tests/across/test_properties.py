"""What must hold for any input: found by drawing shapes, seeds and numbers."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.ndimage import gaussian_filter

from regcore.evaluation import (
    dice,
    digital_folds,
    folds,
    non_diffeomorphic_volume,
    sd_log_jacobian,
    surface_distances,
    surface_distances_per_label,
)
from regcore.losses import (
    bending_energy,
    beta_log_prior,
    diffusion,
    field_mse,
    gaussian_log_prior,
    lncc,
    mind_ssc,
    mind_ssc_descriptor,
    mse,
    nmi,
    soft_dice,
    weighted_diffusion,
)
from regcore.spatial import (
    affine_displacement,
    affine_matrix,
    compose,
    corner_jacobian_determinants,
    crop_to,
    fit_affine,
    fit_affine_to_displacement,
    identity,
    integrate,
    invert,
    jacobian_determinant,
    pad_to_multiple,
    resample,
    resample_displacement,
    sample,
    warp,
)

some = settings(deadline=None, derandomize=True, max_examples=25)
few = settings(deadline=None, derandomize=True, max_examples=12)

seeds = st.integers(0, 2**32 - 1)
shapes = st.one_of(st.tuples(*[st.integers(5, 12)] * 2), st.tuples(*[st.integers(5, 9)] * 3))
both_dimensions = pytest.mark.parametrize("shape", [(30, 26), (20, 18, 19)], ids=["2-D", "3-D"])


def smooth(shape, seed: int, largest: float, sigma: float) -> torch.Tensor:
    """A smooth random field (1, D, *shape) whose longest vector is ``largest`` voxels long."""
    noise = np.random.default_rng(seed).standard_normal((len(shape), *[n + 10 for n in shape]))
    middle = (slice(5, -5),) * len(shape)  # away from the border, where the filter repeats values, all alike
    field = np.stack([gaussian_filter(component, sigma)[middle] for component in noise])
    return torch.from_numpy(field * largest / np.linalg.norm(field, axis=0).max())[None]


def image(shape, seed: int, batch=1, channels=1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, channels, *shape)))


def field(shape, seed: int, size=1.0, batch=1) -> torch.Tensor:
    return size * image(shape, seed, batch, len(shape))


def labels(shape, seed: int, codes: int = 4) -> np.ndarray:
    """Coarse random blobs, 0 to ``codes`` - 1."""
    values = gaussian_filter(np.random.default_rng(seed).random(shape), 1.0)
    edges = np.quantile(values, np.arange(1, codes) / codes)
    return np.digitize(values, edges).astype(np.int32)


def inside(values: torch.Tensor, margin: int) -> torch.Tensor:
    return values[(..., *[slice(margin, -margin)] * (values.ndim - 2))]


def affine(ndim: int, seed: int, size: float = 0.15) -> torch.Tensor:
    """A random matrix (1, D + 1, D + 1) not far from the identity."""
    draw = np.random.default_rng(seed)
    matrix = np.eye(ndim + 1)
    matrix[:-1] += draw.uniform(-size, size, (ndim, ndim + 1))
    return torch.from_numpy(matrix)[None]


def contraction(shape, seed: int) -> torch.Tensor:
    """A random affine map of a grid into itself, so that nothing is asked for outside."""
    matrix = affine(len(shape), seed, 0.1)[0]
    matrix[:-1, :-1] *= 0.7
    centre = torch.tensor([(n - 1) / 2 for n in shape]).double()
    matrix[:-1, -1] = centre - matrix[:-1, :-1] @ centre
    return matrix[None]


# ---- maps


@both_dimensions
@some
@given(seed=seeds)
def test_integrating_back_undoes_integrating(shape, seed):
    """To a twentieth of a voxel, where no path leaves the grid."""
    velocity = smooth(shape, seed, 2.5, 4.5)
    there, back = integrate(velocity), integrate(-velocity)
    for both in (compose(there, back), compose(back, there)):
        assert inside(both, 5).norm(dim=1).max() < 0.05
    assert inside(velocity, 5).norm(dim=1).max() > 0.5


@both_dimensions
@few
@given(seed=seeds)
def test_integrated_velocities_do_not_fold(shape, seed):
    displacement = integrate(smooth(shape, seed, 4.0, 4.5))
    assert digital_folds(displacement).corners == folds(displacement) == 0


@both_dimensions
@few
@given(seed=seeds)
def test_integrating_half_twice_is_integrating_once(shape, seed):
    """exp(v) = exp(v / 2) ∘ exp(v / 2) exactly, with one squaring less."""
    velocity = smooth(shape, seed, 3.0, 4.0)
    half = integrate(velocity / 2, steps=5)
    torch.testing.assert_close(compose(half, half), integrate(velocity, steps=6), atol=1e-12, rtol=0)


@both_dimensions
@few
@given(seed=seeds)
def test_the_inverse_on_either_side_is_the_identity(shape, seed):
    displacement = smooth(shape, seed, 1.5, 4.5)
    inverse, residual = invert(displacement, 60)
    assert residual < 1e-8
    assert compose(inverse, displacement).norm(dim=1).max() < 1e-8
    assert inside(compose(displacement, inverse), 3).norm(dim=1).max() < 0.05  # interpolated on the other side


@some
@given(shape=shapes, seed=seeds, data=st.data())
def test_a_whole_number_shift_moves_voxels_exactly(shape, seed, data):
    shift = data.draw(st.tuples(*[st.integers(-n - 1, n + 1) for n in shape]))
    values = image(shape, seed, 2, 2).float()
    displacement = torch.tensor(shift).float().view(1, -1, *[1] * len(shape)).expand(1, len(shape), *shape)
    expected = torch.zeros_like(values)
    here = tuple(slice(max(-s, 0), max(n - max(s, 0), 0)) for s, n in zip(shift, shape, strict=True))
    there = tuple(slice(max(s, 0), max(n - max(-s, 0), 0)) for s, n in zip(shift, shape, strict=True))
    expected[(..., *here)] = values[(..., *there)]
    assert torch.equal(warp(values, displacement), expected)
    assert torch.equal(warp(values, displacement, mode="nearest"), expected)
    clamped = [np.clip(np.arange(n) + s, 0, n - 1) for s, n in zip(shift, shape, strict=True)]
    edge = values[(..., *np.ix_(*clamped))]
    assert torch.equal(warp(values, displacement, border="edge"), edge)
    assert torch.equal(warp(values, displacement, mode="nearest", border="edge"), edge)


@some
@given(
    shape=shapes,
    seed=seeds,
    a=st.floats(-5, 5),
    b=st.floats(-5, 5),
    border=st.sampled_from(["zero", "edge"]),
)
def test_warping_is_linear_in_the_image(shape, seed, a, b, border):
    first, second = image(shape, seed), image(shape, seed + 1)
    displacement = field(shape, seed + 2, 2.0)
    together = warp(a * first + b * second, displacement, border=border)
    apart = a * warp(first, displacement, border=border) + b * warp(second, displacement, border=border)
    torch.testing.assert_close(together, apart, atol=1e-12, rtol=1e-12)


@some
@given(shape=shapes, seed=seeds)
def test_warping_stays_between_the_extremes_and_keeps_constants(shape, seed):
    values, displacement = image(shape, seed), field(shape, seed + 1, 3.0)
    warped = warp(values, displacement, border="edge")
    assert values.min() - 1e-12 <= warped.min() and warped.max() <= values.max() + 1e-12
    constant = torch.full_like(values, 0.1)
    torch.testing.assert_close(warp(constant, displacement, border="edge"), constant, atol=1e-15, rtol=1e-15)


@some
@given(shape=shapes, seed=seeds)
def test_the_identity_is_neutral_in_every_composition(shape, seed):
    displacement, still = field(shape, seed, 2.0), torch.zeros(1, len(shape), *shape).double()
    assert torch.equal(compose(displacement, still), displacement)
    assert torch.equal(compose(still, displacement), displacement)


@some
@given(shape=shapes, seed=seeds)
def test_composing_affine_maps_multiplies_matrices_and_is_associative(shape, seed):
    """Of contractions, which do not lead outside the grid, where a displacement is no longer affine."""
    matrices = [contraction(shape, seed + i) for i in range(3)]
    first, second, third = (affine_displacement(m, shape) for m in matrices)
    product = matrices[2] @ matrices[1] @ matrices[0]
    left, right = compose(compose(first, second), third), compose(first, compose(second, third))
    torch.testing.assert_close(left, affine_displacement(product, shape), atol=1e-11, rtol=0)
    torch.testing.assert_close(right, left, atol=1e-11, rtol=0)


@some
@given(shape=shapes, seed=seeds)
def test_the_jacobian_of_a_composition_is_the_product(shape, seed):
    matrices = [contraction(shape, seed + i) for i in range(2)]
    first, second = (affine_displacement(m, shape) for m in matrices)
    expected = jacobian_determinant(first) * jacobian_determinant(second)
    torch.testing.assert_close(jacobian_determinant(compose(first, second)), expected, atol=1e-11, rtol=0)
    corners = corner_jacobian_determinants(compose(first, second))
    assert (corners - expected.flatten()[0]).abs().max() < 1e-10


@both_dimensions
@few
@given(seed=seeds)
def test_the_jacobian_of_a_smooth_composition_is_nearly_the_product(shape, seed):
    """The chain rule: the second determinant is taken where the first map leads."""
    first, second = smooth(shape, seed, 1.5, 5.0), smooth(shape, seed + 1, 1.5, 5.0)
    expected = jacobian_determinant(first) * warp(jacobian_determinant(second)[:, None], first, border="edge")[:, 0]
    difference = jacobian_determinant(compose(first, second)) - expected
    assert inside(difference[:, None], 3).abs().max() < 0.05
    assert (expected - 1).abs().max() > 0.1


@some
@given(shape=shapes, seed=seeds, size=st.floats(0.1, 3), shift=st.floats(-5, 5))
def test_a_jacobian_does_not_know_where_the_origin_is(shape, seed, size, shift):
    displacement = field(shape, seed, size)
    moved = displacement + shift
    torch.testing.assert_close(jacobian_determinant(moved), jacobian_determinant(displacement), atol=1e-10, rtol=0)
    assert digital_folds(moved).central == digital_folds(displacement).central
    found = corner_jacobian_determinants(moved)
    torch.testing.assert_close(found, corner_jacobian_determinants(displacement), atol=1e-10, rtol=0)


@some
@given(shape=shapes, seed=seeds)
def test_a_fit_finds_the_matrix_of_its_own_displacement(shape, seed):
    matrix = affine(len(shape), seed, 0.5)
    displacement = affine_displacement(matrix, shape)
    torch.testing.assert_close(fit_affine_to_displacement(displacement), matrix, atol=1e-9, rtol=0)
    points = identity(shape, displacement)
    torch.testing.assert_close(fit_affine(points, points + displacement), matrix, atol=1e-9, rtol=0)
    weights = torch.from_numpy(np.random.default_rng(seed).random((1, 1, *shape)) + 0.01)
    torch.testing.assert_close(fit_affine(points, points + displacement, weights), matrix, atol=1e-9, rtol=0)


@some
@given(ndim=st.sampled_from([2, 3]), seed=seeds)
def test_a_rotation_and_its_opposite_cancel_and_keep_lengths(ndim, seed):
    draw = np.random.default_rng(seed)
    angles = torch.from_numpy(draw.uniform(-3, 3, (1, {2: 1, 3: 3}[ndim])))
    still, centre = torch.zeros(1, ndim).double(), draw.uniform(-5, 5, ndim).tolist()
    turn = affine_matrix(still, rotation=angles, centre=centre)
    linear = turn[0, :-1, :-1]
    torch.testing.assert_close(linear @ linear.mT, torch.eye(ndim).double(), atol=1e-12, rtol=0)
    assert torch.linalg.det(linear) > 0
    torch.testing.assert_close(
        turn[0] @ torch.tensor([*centre, 1.0], dtype=torch.float64),
        torch.tensor([*centre, 1.0], dtype=torch.float64),
        atol=1e-12,
        rtol=0,
    )
    if ndim == 2:
        back = affine_matrix(still, rotation=-angles, centre=centre)
        torch.testing.assert_close((back @ turn)[0], torch.eye(3).double(), atol=1e-12, rtol=0)


# ---- sizes


@some
@given(shape=shapes, seed=seeds, multiple=st.integers(1, 20))
def test_cropping_undoes_padding(shape, seed, multiple):
    values = image(shape, seed, 2, 3)
    padded = pad_to_multiple(values, multiple)
    assert all(n % multiple == 0 and 0 <= n - m < multiple for n, m in zip(padded.shape[2:], shape, strict=True))
    assert torch.equal(crop_to(padded, shape), values)
    assert padded.count_nonzero() == values.count_nonzero()
    assert torch.equal(pad_to_multiple(padded, multiple), padded)


@some
@given(shape=shapes, seed=seeds)
def test_doubling_and_halving_the_intervals_gives_the_values_back(shape, seed):
    """On 2 n - 1 voxels every second one is an old one; a displacement is twice as long there."""
    values, displacement = image(shape, seed), field(shape, seed + 1)
    fine = tuple(2 * n - 1 for n in shape)
    torch.testing.assert_close(resample(resample(values, fine), shape), values, atol=1e-12, rtol=0)
    finer = resample_displacement(displacement, fine)
    every_second = finer[(..., *[slice(None, None, 2)] * len(shape))]
    torch.testing.assert_close(every_second, 2 * displacement, atol=1e-12, rtol=0)
    torch.testing.assert_close(resample_displacement(finer, shape), displacement, atol=1e-12, rtol=0)


@some
@given(shape=shapes, seed=seeds)
def test_warping_and_refining_commute_where_the_map_is_affine(shape, seed):
    """A linear image under an affine map, warped on the coarse grid or on the fine one, shows the same."""
    displacement = affine_displacement(contraction(shape, seed), shape)
    slopes = torch.from_numpy(np.random.default_rng(seed).standard_normal(len(shape)))
    ramp = torch.einsum("c,bc...->b...", slopes, identity(shape, displacement))[:, None]
    fine = tuple(2 * n - 1 for n in shape)
    coarse_first = resample(warp(ramp, displacement), fine)
    fine_first = warp(resample(ramp, fine), resample_displacement(displacement, fine))
    torch.testing.assert_close(fine_first, coarse_first, atol=1e-10, rtol=0)


@both_dimensions
@few
@given(seed=seeds)
def test_warping_and_refining_nearly_commute_for_smooth_maps(shape, seed):
    displacement, values = smooth(shape, seed, 3.0, 4.0), smooth(shape, seed + 1, 1.0, 4.0)[:, :1]
    values /= values.abs().max()
    fine = tuple(2 * n - 1 for n in shape)
    coarse_first = resample(warp(values, displacement, border="edge"), fine)
    fine_first = warp(resample(values, fine), resample_displacement(displacement, fine), border="edge")
    assert inside(fine_first - coarse_first, 8).abs().max() < 0.05
    assert (fine_first - resample(values, fine)).abs().max() > 0.1


# ---- losses


@some
@given(
    shape=shapes,
    seed=seeds,
    scale=st.floats(0.01, 100),
    offset=st.floats(-1000, 1000),
    sign=st.sampled_from([1, -1]),
    window=st.integers(3, 9),  # of two voxels the last window in a corner holds one voxel and counts 0
    kernel=st.sampled_from(["box", "gaussian"]),
)
def test_local_correlation_does_not_change_under_affine_intensities(shape, seed, scale, offset, sign, window, kernel):
    fixed, noise = image(shape, seed), image(shape, seed + 1)
    moving = fixed + 0.7 * noise
    expected = lncc(fixed, moving, window, shape=kernel)
    assert -1 <= expected < 0
    for pair in ((fixed, sign * scale * moving + offset), (sign * scale * fixed + offset, moving), (moving, fixed)):
        torch.testing.assert_close(lncc(*pair, window, shape=kernel), expected, atol=1e-7, rtol=0)
    assert lncc(fixed, sign * scale * fixed + offset, window, shape=kernel).item() == pytest.approx(-1, abs=1e-7)


@some
@given(shape=shapes, seed=seeds, scale=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
def test_mutual_information_is_symmetric_and_does_not_change_under_affine_intensities(shape, seed, scale, offset):
    fixed, moving = image(shape, seed), image(shape, seed) ** 2 + 0.3 * image(shape, seed + 1)
    expected = nmi(fixed, moving)
    assert -2 <= expected <= -1
    for pair in ((moving, fixed), (fixed, scale * moving + offset), (fixed, -scale * moving + offset)):
        torch.testing.assert_close(nmi(*pair), expected, atol=1e-9, rtol=0)


@some
@given(shape=shapes, seed=seeds)
def test_mutual_information_does_not_know_where_voxels_are(shape, seed):
    fixed, moving = image(shape, seed), image(shape, seed + 1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(math.prod(shape)))
    shuffled = [values.flatten()[order].view(values.shape) for values in (fixed, moving)]
    torch.testing.assert_close(nmi(*shuffled), nmi(fixed, moving), atol=1e-12, rtol=0)


@some
@given(shape=shapes, seed=seeds, scale=st.floats(0.01, 100), offset=st.floats(-100, 100), sign=st.sampled_from([1, -1]))
def test_descriptors_do_not_change_under_affine_intensities(shape, seed, scale, offset, sign):
    values = image(shape, seed)
    found = mind_ssc_descriptor(sign * scale * values + offset)
    torch.testing.assert_close(found, mind_ssc_descriptor(values), atol=1e-7, rtol=0)
    assert found.min() >= 0 and found.max() <= 1
    assert mind_ssc(values, sign * scale * values + offset).item() == pytest.approx(0, abs=1e-12)


@some
@given(shape=shapes, seed=seeds, size=st.floats(-100, 100), factor=st.floats(0.1, 10))
def test_smoothness_does_not_see_translations_and_is_quadratic(shape, seed, size, factor):
    displacement, weight = field(shape, seed), image(shape, seed + 1).abs()
    shift = size * torch.arange(1, len(shape) + 1).double().view(1, -1, *[1] * len(shape))
    for loss in (diffusion, bending_energy, lambda u: weighted_diffusion(u, weight)):
        torch.testing.assert_close(loss(displacement + shift), loss(displacement), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(loss(factor * displacement), factor**2 * loss(displacement), atol=0, rtol=1e-9)


@some
@given(shape=shapes, seed=seeds)
def test_bending_energy_does_not_see_affine_maps(shape, seed):
    displacement, straight = field(shape, seed), affine_displacement(affine(len(shape), seed, 1.0), shape)
    assert bending_energy(straight).item() == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(bending_energy(displacement + straight), bending_energy(displacement), atol=0, rtol=1e-9)


@some
@given(shape=shapes, seed=seeds)
def test_a_loss_of_the_same_is_zero_and_does_not_know_which_comes_first(shape, seed):
    a, b, u, v = image(shape, seed), image(shape, seed + 1), field(shape, seed), field(shape, seed + 1)
    for loss, first, second in ((mse, a, b), (mind_ssc, a, b), (field_mse, u, v)):
        assert loss(first, first).item() == 0
        torch.testing.assert_close(loss(first, second), loss(second, first), atol=0, rtol=1e-12)
        assert loss(first, second) > 0


def losses(shape) -> dict:
    """Every loss as a function of a batch's arguments, with what makes the arguments of one element."""

    def positive(shape, seed):
        return image(shape, seed).abs().clamp(0.01, 1)

    def maps(shape, seed):
        return torch.from_numpy(labels(shape, seed))[None, None].long()

    pair, fields = (image, image), (field, field)
    return {
        "mse": (mse, pair),
        "field_mse": (field_mse, fields),
        "lncc": (lambda a, b: lncc(a, b, 5), pair),
        "lncc voxelmorph": (lambda a, b: lncc(a, b, 5, "voxelmorph"), pair),
        "lncc gaussian": (lambda a, b: lncc(a, b, 5, shape="gaussian"), pair),
        "nmi": (nmi, pair),
        "nmi with ranges": (lambda a, b: nmi(a, b, 16, 0.7, (-2, 2), (-2, 2)), pair),
        "mind_ssc": (mind_ssc, pair),
        "soft_dice": (lambda f, m, u: soft_dice(f, m, u, [1, 2, 3]), (maps, maps, field)),
        "diffusion": (diffusion, (field,)),
        "bending_energy": (bending_energy, (field,)),
        "weighted_diffusion": (weighted_diffusion, (field, positive)),
        "beta_log_prior": (lambda w: beta_log_prior(w, 1.5), (positive,)),
        "gaussian_log_prior": (lambda w: gaussian_log_prior(w, 0.5), (positive,)),
    }


@pytest.mark.parametrize("name", losses((5, 5)))
@few
@given(shape=shapes, seed=seeds)
def test_the_loss_of_a_batch_is_the_mean_of_its_elements(name, shape, seed):
    loss, makers = losses(shape)[name]
    a, b = ([make(shape, seed + 10 * i + j) for j, make in enumerate(makers)] for i in range(2))
    together = loss(*[torch.cat(pair) for pair in zip(a, b, strict=True)])
    turned = loss(*[torch.cat(pair) for pair in zip(b, a, strict=True)])
    torch.testing.assert_close(together, (loss(*a) + loss(*b)) / 2, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(turned, together, atol=1e-12, rtol=1e-9)


OPERATORS = {
    "warp": (lambda i, u: warp(i, u), (image, field)),
    "warp edge": (lambda i, u: warp(i, u, border="edge"), (image, field)),
    "warp nearest": (lambda i, u: warp(i, u, mode="nearest"), (image, field)),
    "sample": (sample, (image, lambda shape, seed: field(shape, seed, 5.0))),
    "compose": (compose, (field, field)),
    "integrate": (integrate, (field,)),
    "invert": (lambda u: invert(u)[0], (lambda shape, seed: field(shape, seed, 0.1),)),
    "jacobian_determinant": (jacobian_determinant, (field,)),
    "corner_jacobian_determinants": (corner_jacobian_determinants, (field,)),
    "resample": (lambda i: resample(i, [n + 3 for n in i.shape[2:]]), (image,)),
    "resample_displacement": (lambda u: resample_displacement(u, [n + 3 for n in u.shape[2:]]), (field,)),
    "pad_to_multiple": (lambda i: pad_to_multiple(i, 4), (image,)),
    "crop_to": (lambda i: crop_to(i, [n - 2 for n in i.shape[2:]]), (image,)),
    "affine_displacement": (
        lambda m: affine_displacement(m, (4, 5, 6)[: m.shape[-1] - 1]),
        (lambda shape, seed: affine(len(shape), seed),),
    ),
    "fit_affine": (fit_affine, (field, field)),
    "fit_affine rigid": (lambda x, y: fit_affine(x, y, kind="rigid"), (field, field)),
    "fit_affine_to_displacement": (fit_affine_to_displacement, (field,)),
    "mind_ssc_descriptor": (mind_ssc_descriptor, (image,)),
}


@pytest.mark.parametrize("name", OPERATORS)
@few
@given(shape=shapes, seed=seeds)
def test_an_operator_treats_every_element_of_a_batch_alike(name, shape, seed):
    operator, makers = OPERATORS[name]
    a, b = ([make(shape, seed + 10 * i + j) for j, make in enumerate(makers)] for i in range(2))
    alone = torch.cat([operator(*a), operator(*b)])
    together = operator(*[torch.cat(pair) for pair in zip(a, b, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=1e-12)


@some
@given(shape=shapes, seed=seeds, channels=st.integers(1, 5))
def test_warping_treats_channels_alike(shape, seed, channels):
    values, displacement = image(shape, seed, 1, channels), field(shape, seed, 2.0)
    apart = torch.cat([warp(channel, displacement) for channel in values.split(1, dim=1)], dim=1)
    assert torch.equal(warp(values, displacement), apart)


@some
@given(shape=shapes, seed=seeds)
def test_memory_layout_does_not_matter(shape, seed):
    """Transposed and sliced views hold the same numbers as a fresh copy of them."""
    values, displacement = image(shape, seed), field(shape, seed + 1)
    turned = values.transpose(2, -1).contiguous().transpose(2, -1)
    sliced = torch.repeat_interleave(displacement, 2, dim=-1)[..., ::2]
    assert not turned.is_contiguous() or shape[0] == shape[-1] == 1
    assert torch.equal(warp(turned, sliced), warp(values, displacement))
    assert torch.equal(jacobian_determinant(sliced), jacobian_determinant(displacement))
    assert torch.equal(integrate(sliced), integrate(displacement))
    assert digital_folds(sliced) == digital_folds(displacement)
    for loss in (mse, lambda a, b: lncc(a, b, 3), nmi, mind_ssc):
        torch.testing.assert_close(loss(turned, sliced[:, :1]), loss(values, displacement[:, :1]), atol=1e-12, rtol=0)
    torch.testing.assert_close(diffusion(sliced), diffusion(displacement), atol=1e-12, rtol=0)


@some
@given(shape=shapes, seed=seeds)
def test_arguments_are_left_as_they_were(shape, seed):
    values, displacement = image(shape, seed), field(shape, seed + 1, 0.3)
    maps = torch.from_numpy(labels(shape, seed))[None, None].long()
    before = values.clone(), displacement.clone(), maps.clone()
    warp(values, displacement), compose(displacement, displacement), integrate(displacement), invert(displacement)
    jacobian_determinant(displacement), digital_folds(displacement), resample_displacement(displacement, shape)
    mse(values, values), lncc(values, values, 3), nmi(values, values), mind_ssc(values, values)
    diffusion(displacement), bending_energy(displacement), soft_dice(maps, maps, displacement, [1, 2])
    for now, then in zip((values, displacement, maps), before, strict=True):
        assert torch.equal(now, then)


# ---- overlap and distances


@some
@given(shape=shapes, seed=seeds)
def test_dice_is_symmetric_between_zero_and_one_and_one_for_the_same(shape, seed):
    a, b = labels(shape, seed), labels(shape, seed + 1)
    codes = [0, 1, 2, 3]
    found = dice(a, b, codes)
    np.testing.assert_array_equal(found, dice(b, a, codes))
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(dice(a, a, codes), 1)


@some
@given(shape=shapes, seed=seeds, spacing=st.tuples(*[st.floats(0.2, 5)] * 3))
def test_distances_are_symmetric_and_ordered(shape, seed, spacing):
    a, b = labels(shape, seed) == 1, labels(shape, seed + 1) == 1
    spacing = spacing[: len(shape)]
    there, back = surface_distances(a, b, spacing), surface_distances(b, a, spacing)
    assert there.hd95 == back.hd95 <= there.hausdorff() == back.hausdorff()
    assert there.mean == pytest.approx(back.mean, rel=1e-12)
    assert there.mean <= there.hausdorff() + 1e-12
    assert there.hausdorff() <= np.linalg.norm((np.array(shape) - 1) * spacing) + 1e-9
    assert surface_distances(a, a, spacing).hausdorff() == 0


@some
@given(
    shape=shapes,
    seed=seeds,
    names=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=4, unique=True),
    order=st.permutations(range(4)),
)
def test_no_metric_depends_on_the_numbering_of_labels(shape, seed, names, order):
    """New codes for the same structures, asked for in another order."""
    a, b = labels(shape, seed), labels(shape, seed + 1)
    named = np.array(names)
    new_a, new_b, asked = named[a], named[b], [names[i] for i in order]
    np.testing.assert_array_equal(dice(new_a, new_b, asked), dice(a, b, list(order)))
    spacing = (1.0, 2.0, 0.5)[: len(shape)]
    found = surface_distances_per_label(new_a, new_b, asked, spacing)
    expected = surface_distances_per_label(a, b, list(order), spacing)
    assert list(found.index) == asked
    np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())
    displacement = smooth(shape, seed, 1.0, 1.0)
    tensors = [torch.from_numpy(values)[None, None] for values in (a, b, new_a, new_b)]
    expected_loss = soft_dice(*tensors[:2], displacement, list(order))
    torch.testing.assert_close(soft_dice(*tensors[2:], displacement, asked), expected_loss, atol=1e-12, rtol=0)


@some
@given(shape=shapes, seed=seeds)
def test_the_dice_loss_of_whole_shifts_is_that_of_counting(shape, seed):
    """Where no label is shared between voxels the loss is one minus the mean of the measured overlap."""
    fixed, moving = labels(shape, seed), labels(shape, seed + 1)
    shift = np.random.default_rng(seed).integers(-2, 3, len(shape))
    displacement = (
        torch.from_numpy(shift.astype(float)).view(1, -1, *[1] * len(shape)).expand(1, -1, *shape).contiguous()
    )
    codes = [1, 2, 3]
    warped = warp(torch.from_numpy(moving)[None, None], displacement, mode="nearest")[0, 0].numpy()
    tensors = [torch.from_numpy(values)[None, None] for values in (fixed, moving)]
    loss = soft_dice(*tensors, displacement, codes).item()
    assert loss == pytest.approx(1 - np.nanmean(dice(fixed, warped, codes)), abs=1e-12)


@some
@given(shape=shapes, seed=seeds)
def test_metrics_do_not_depend_on_the_order_of_the_axes(shape, seed):
    """Reversing the axes of everything, spacing and components with it, changes no number."""
    a, b = labels(shape, seed), labels(shape, seed + 1)
    codes, spacing = [0, 1, 2, 3], (1.0, 2.0, 0.5)[: len(shape)]
    np.testing.assert_array_equal(dice(a.T, b.T, codes), dice(a, b, codes))
    found = surface_distances_per_label(a.T, b.T, codes, spacing[::-1]).to_numpy()
    np.testing.assert_allclose(found, surface_distances_per_label(a, b, codes, spacing).to_numpy(), rtol=1e-12)
    displacement = field(shape, seed, 0.5)
    turned = displacement.flip(1).permute(0, 1, *range(displacement.ndim - 1, 1, -1))
    mask = a > 0
    assert folds(turned, mask.T) == pytest.approx(folds(displacement, mask), rel=1e-12)
    assert sd_log_jacobian(turned, mask.T) == pytest.approx(sd_log_jacobian(displacement, mask), rel=1e-6)
    volume = non_diffeomorphic_volume(displacement, mask)
    assert non_diffeomorphic_volume(turned, mask.T) == pytest.approx(volume, rel=1e-9, abs=1e-12, nan_ok=True)


@some
@given(shape=shapes, seed=seeds)
def test_losses_and_operators_do_not_depend_on_the_order_of_the_axes(shape, seed):
    a, b, u = image(shape, seed), image(shape, seed + 1), field(shape, seed + 2)
    back = (0, 1, *range(a.ndim - 1, 1, -1))
    turn, turn_field = (lambda t: t.permute(back)), (lambda t: t.flip(1).permute(back))
    for loss in (mse, lambda x, y: lncc(x, y, 3), nmi, mind_ssc):
        torch.testing.assert_close(loss(turn(a), turn(b)), loss(a, b), atol=1e-10, rtol=0)
    for loss in (diffusion, bending_energy, lambda v: weighted_diffusion(v, a.abs() if v is u else turn(a.abs()))):
        torch.testing.assert_close(loss(turn_field(u)), loss(u), atol=1e-12, rtol=1e-12)
    for border, mode in itertools.product(("zero", "edge"), ("linear", "nearest")):
        found = warp(turn(a), turn_field(u), mode, border)
        torch.testing.assert_close(turn(found), warp(a, u, mode, border), atol=1e-12, rtol=0)
    torch.testing.assert_close(turn_field(integrate(turn_field(u))), integrate(u), atol=1e-10, rtol=0)
    torch.testing.assert_close(turn_field(compose(turn_field(u), turn_field(u))), compose(u, u), atol=1e-12, rtol=0)
