"""Soft Dice of warped labels against one-hot images, MONAI, and the Dice of voxel counts."""

import numpy as np
import pytest
import torch

from regcore.evaluation import dice
from regcore.kernels import reference_only
from regcore.losses import soft_dice
from regcore.spatial import warp

SHAPES = [(9, 7), (6, 5, 7)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
CODES = (4, 0, 11, 2)


@pytest.fixture(params=["kernel", "reference"])
def either(request):
    """Run a test twice: with the kernel, and with the plain-torch reference that a GPU runs."""
    if request.param == "kernel":
        yield
    else:
        with reference_only():
            yield


def label_map(generator, shape, codes=CODES, batch=1, dtype=torch.int64) -> torch.Tensor:
    """All of ``codes``, in blocks of up to three voxels, so that some cells hold a single label."""
    blocks = [(n + 2) // 3 for n in shape]
    places = np.tile(np.arange(np.prod(blocks)) % len(codes), (batch, 1))
    places = generator.permuted(places, axis=1).reshape(batch, 1, *blocks)
    for axis, size in enumerate(shape, start=2):
        places = np.take(places.repeat(3, axis), np.arange(size), axis)
    return torch.tensor(codes)[torch.from_numpy(places)].to(dtype)


def displacement_of(generator, shape, batch=1, scale=1.5) -> torch.Tensor:
    return torch.from_numpy(scale * generator.standard_normal((batch, len(shape), *shape)))


def between_voxels(generator, shape, batch=1) -> torch.Tensor:
    """Displacements at least 0.2 voxels away from a whole number, where the derivative jumps."""
    size = (batch, len(shape), *shape)
    return torch.from_numpy(generator.integers(-2, 2, size) + generator.uniform(0.2, 0.8, size))


def one_hot_dice(fixed, moving, displacement, labels) -> torch.Tensor:
    """The definition: one indicator image per label, warped as any image is; (batch, label), NaN for none."""
    scores = []
    for code in labels:
        here = (fixed == code).double()
        warped = warp((moving == code).double(), displacement)
        axes = tuple(range(1, fixed.ndim))
        scores.append(2 * (here * warped).sum(axes) / (here.sum(axes) + warped.sum(axes)))
    return torch.stack(scores, 1)


def loss_and_gradient(loss, displacement) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = displacement.detach().clone().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@per_shape
@pytest.mark.parametrize("scale", [0.3, 1.5, 4])
def test_soft_dice_is_that_of_warped_indicator_images(shape, scale, either, generator):
    """Value and gradient, for a batch, a moving map of another size, and labels warped out of the image."""
    moving_shape = tuple(n + step for n, step in zip(shape, (2, -1, 1), strict=False))
    fixed, moving = label_map(generator, shape, batch=2), label_map(generator, moving_shape, batch=2)
    displacement = displacement_of(generator, shape, 2, scale)
    found = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, CODES), displacement)
    expected = loss_and_gradient(lambda u: 1 - one_hot_dice(fixed, moving, u, CODES).mean(), displacement)
    assert expected[1].abs().max() > 1e-5
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


@per_shape
def test_the_gradient_at_whole_voxels_is_that_of_warped_indicator_images(shape, either, generator):
    """Where optimisation starts: at a displacement of zero the slope is that towards the next voxel."""
    fixed, moving = label_map(generator, shape), label_map(generator, shape)
    whole = torch.from_numpy(generator.integers(-2, 3, (1, len(shape), *shape))).double()
    for displacement in (torch.zeros_like(whole), whole):
        found = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, CODES), displacement)
        expected = loss_and_gradient(lambda u: 1 - one_hot_dice(fixed, moving, u, CODES).mean(), displacement)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


@per_shape
def test_the_gradient_is_that_of_finite_differences(shape, either, generator):
    small = tuple(n - 3 for n in shape)
    fixed, moving = label_map(generator, small, batch=2), label_map(generator, shape, batch=2)
    displacement = between_voxels(generator, small, 2).requires_grad_()
    torch.autograd.gradcheck(lambda u: soft_dice(fixed, moving, u, CODES[:3]), displacement)


@per_shape
def test_float32_differs_by_roundings_alone(shape, either, generator):
    """Sums over a few hundred voxels of weights that each are off by 2⁻²⁴ times a position below 16."""
    fixed, moving = label_map(generator, shape), label_map(generator, shape)
    displacement = between_voxels(generator, shape).float()
    found = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, CODES), displacement)
    expected = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, CODES), displacement.double())
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5 * b.abs().max().item())


@per_shape
def test_soft_dice_agrees_with_monai(shape, either, generator):
    losses = pytest.importorskip("monai.losses")
    oracle = losses.DiceLoss(include_background=True, smooth_nr=0, smooth_dr=0, reduction="mean")
    fixed, moving = label_map(generator, shape, batch=2), label_map(generator, shape, batch=2)
    displacement = displacement_of(generator, shape, 2)

    def one_hot(labels):
        return torch.cat([(labels == code).double() for code in CODES], 1)

    expected = loss_and_gradient(lambda u: oracle(warp(one_hot(moving), u), one_hot(fixed)), displacement)
    found = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, CODES), displacement)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


@per_shape
def test_at_zero_displacement_it_is_the_dice_of_voxel_counts(shape, either, generator):
    fixed, moving = label_map(generator, shape), label_map(generator, shape)
    expected = 1 - dice(fixed.numpy(), moving.numpy(), CODES).mean()
    zero = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
    assert soft_dice(fixed, moving, zero, CODES).item() == pytest.approx(expected, rel=1e-13)
    assert soft_dice(fixed, fixed, zero, CODES).item() == pytest.approx(0, abs=1e-13)


@per_shape
def test_at_whole_shifts_it_is_the_dice_of_shifted_labels(shape, either, generator):
    """What comes in from beyond the border is no label; not even label 0."""
    fixed, moving = label_map(generator, shape), label_map(generator, shape)
    shift = (2, -1, 3)[: len(shape)]
    displacement = torch.tensor(shift).double().view(1, -1, *[1] * len(shape)).expand(1, -1, *shape)
    shifted = np.full(shape, -1)
    to = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, shape, strict=True))
    origin = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, shape, strict=True))
    shifted[to] = moving[0, 0].numpy()[origin]
    expected = 1 - dice(fixed[0, 0].numpy(), shifted, CODES).mean()
    assert soft_dice(fixed, moving, displacement, CODES).item() == pytest.approx(expected, rel=1e-13)


def test_a_half_voxel_by_hand(either):
    """One row of two voxels with label 1, half a voxel late: p is 1/2, 1, 1/2, so that 2 · 3/2 over 2 + 2."""
    labels = torch.zeros(1, 1, 3, 6, dtype=torch.int64)
    labels[0, 0, 1, 2:4] = 1
    displacement = torch.zeros(1, 2, 3, 6, dtype=torch.float64)
    displacement[:, 1] = 0.5
    assert soft_dice(labels, labels, displacement, [1]).item() == pytest.approx(1 - 3 / 4, rel=1e-14)


def test_the_mean_is_over_present_labels_then_over_the_batch(either, generator):
    fixed, moving = label_map(generator, (9, 7), batch=3), label_map(generator, (9, 7), batch=3)
    fixed[1][fixed[1] == 4], moving[1][moving[1] == 4] = 0, 0  # absent from both maps of one pair
    displacement = displacement_of(generator, (9, 7), 3)
    scores = one_hot_dice(fixed, moving, displacement, CODES)
    assert scores.isnan().sum() == 1 and scores[1, 0].isnan()
    expected = 1 - scores.nanmean(1).mean()
    assert soft_dice(fixed, moving, displacement, CODES).item() == pytest.approx(expected.item(), rel=1e-12)


def test_absent_labels_count_nothing_or_zero(either, generator):
    fixed, moving = label_map(generator, (9, 7), codes=(1, 2, 3)), label_map(generator, (9, 7), codes=(1, 2, 5))
    displacement = displacement_of(generator, (9, 7), scale=0.3)
    one, two = one_hot_dice(fixed, moving, displacement, (1, 2))[0]
    for labels, expected in {
        (1, 2, 99): (one + two) / 2,  # in neither map
        (1, 2, 3): (one + two) / 3,  # in the fixed map alone
        (1, 2, 5): (one + two) / 3,  # in the moving map alone
        (1, 2, 3, 5, 99, 100): (one + two) / 4,
    }.items():
        value, gradient = loss_and_gradient(lambda u, labels=labels: soft_dice(fixed, moving, u, labels), displacement)
        assert value.item() == pytest.approx(1 - expected.item(), rel=1e-12)
        assert gradient.isfinite().all()
    value, gradient = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, (98, 99)), displacement)
    assert value == 1 and not gradient.any()


def test_a_label_warped_out_of_the_image_is_absent(either):
    """From the moving map alone it is gone after the warp, and leaves the mean; from the fixed map it counts 0."""
    fixed, moving = torch.zeros(1, 1, 4, 5, dtype=torch.int64), torch.full((1, 1, 4, 5), 7)
    away = torch.full((1, 2, 4, 5), 50.0, dtype=torch.float64, requires_grad=True)
    assert soft_dice(fixed, moving, away, [7]).item() == 1
    loss = soft_dice(fixed, moving, away, [0, 7])
    loss.backward()
    assert loss.item() == 1 and not away.grad.any()


@pytest.mark.parametrize(
    "codes",
    [(-5, 3, 0, 2), (-(2**62), 2**62, 1, 2**31), (70000, 65535, 65536, 0), (255, 256, 1, 2)],
    ids=["negative", "huge", "around 2^16", "around 2^8"],
)
def test_any_integer_may_be_a_label(codes, either, generator):
    """The codes stand for nothing: the loss is that of the same maps with small ones, and so is its gradient."""
    seed = generator.bit_generator.state
    maps = label_map(generator, (9, 7), codes=codes), label_map(generator, (9, 7), codes=codes)
    generator.bit_generator.state = seed
    small = label_map(generator, (9, 7), codes=(1, 2, 3, 4)), label_map(generator, (9, 7), codes=(1, 2, 3, 4))
    displacement = displacement_of(generator, (9, 7))
    found = loss_and_gradient(lambda u: soft_dice(*maps, u, codes[:3]), displacement)
    expected = loss_and_gradient(lambda u: soft_dice(*small, u, (1, 2, 3)), displacement)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_labels_that_are_not_asked_for_are_not_taken_for_others(either, generator):
    """Whatever lies below, between and above the codes in the maps, in every type, is background."""
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        limits = torch.iinfo(dtype)
        codes = (limits.min, 0, 3, 7, 11, limits.max) if limits.min else (0, 3, 7, 11, limits.max)
        maps = [label_map(generator, (9, 7), codes=codes, dtype=dtype) for _ in range(2)]
        displacement = displacement_of(generator, (9, 7))
        expected = 1 - one_hot_dice(*maps, displacement, (7, 0)).mean()
        assert soft_dice(*maps, displacement, (7, 0)).item() == pytest.approx(expected.item(), rel=1e-12)
        expected = 1 - one_hot_dice(*maps, displacement, codes).mean()
        assert soft_dice(*maps, displacement, codes).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_order_of_the_labels_does_not_matter(either, generator):
    fixed, moving = label_map(generator, (6, 5, 7)), label_map(generator, (6, 5, 7))
    displacement = displacement_of(generator, (6, 5, 7))
    expected = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, sorted(CODES)), displacement)
    for labels in (CODES, CODES[::-1], np.array(CODES), {*CODES}):
        found = loss_and_gradient(lambda u, labels=labels: soft_dice(fixed, moving, u, labels), displacement)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_the_type_of_the_labels_does_not_matter(dtype, either, generator):
    fixed, moving = label_map(generator, (6, 5, 7)), label_map(generator, (6, 5, 7))
    displacement = displacement_of(generator, (6, 5, 7))
    expected = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, CODES), displacement)
    for pair in ((fixed.to(dtype), moving.to(dtype)), (fixed.to(dtype), moving)):
        found = loss_and_gradient(lambda u, pair=pair: soft_dice(*pair, u, CODES), displacement)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("count", [255, 256, 300])
def test_hundreds_of_labels_are_told_apart(count, either, generator):
    """A byte holds 256 indices, one of them for all other labels."""
    fixed, moving = (torch.from_numpy(generator.integers(0, count + 20, (1, 1, 12, 11, 10))) for _ in range(2))
    displacement = displacement_of(generator, (12, 11, 10))
    labels = range(10, count + 10)
    found = loss_and_gradient(lambda u: soft_dice(fixed, moving, u, labels), displacement)
    expected = loss_and_gradient(lambda u: 1 - one_hot_dice(fixed, moving, u, labels).nanmean(), displacement)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


def test_wrong_arguments_are_refused_by_name_and_shape():
    labels, displacement = torch.zeros(2, 1, 4, 5, dtype=torch.int64), torch.zeros(2, 2, 4, 5)
    with pytest.raises(ValueError, match=r"displacement \(2, 3, 4, 5\) .* must be a floating-point field"):
        soft_dice(labels, labels, torch.zeros(2, 3, 4, 5), [1])
    with pytest.raises(ValueError, match=r"fixed_labels \(2, 1, 4, 6\) must have .* of displacement \(2, 2, 4, 5\)"):
        soft_dice(torch.zeros(2, 1, 4, 6, dtype=torch.int64), labels, displacement, [1])
    with pytest.raises(ValueError, match=r"fixed_labels \(1, 1, 4, 5\) must have .* of displacement \(2, 2, 4, 5\)"):
        soft_dice(labels[:1], labels, displacement, [1])
    with pytest.raises(ValueError, match=r"moving_labels \(1, 1, 4, 5\) .* fits displacement \(2, 2, 4, 5\)"):
        soft_dice(labels, labels[:1], displacement, [1])
    with pytest.raises(ValueError, match=r"moving_labels \(2, 1, 4, 5, 3\) .* fits displacement \(2, 2, 4, 5\)"):
        soft_dice(labels, torch.zeros(2, 1, 4, 5, 3, dtype=torch.int64), displacement, [1])
    with pytest.raises(ValueError, match=r"fixed_labels \(2, 2, 4, 5\) .* fits displacement \(2, 2, 4, 5\)"):
        soft_dice(labels.expand(2, 2, 4, 5), labels, displacement, [1])
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(ValueError, match=rf"moving_labels \(2, 1, 4, 5\) of {dtype} must be a map of integers"):
            soft_dice(labels, labels.to(dtype), displacement, [1])
    with pytest.raises(ValueError, match=r"moving_labels \(2, 1, 0, 5\)"):
        soft_dice(labels, labels[:, :, :0], displacement, [1])
    with pytest.raises(ValueError, match=r"labels must be one code or more, each once, not \[\]"):
        soft_dice(labels, labels, displacement, [])
    with pytest.raises(ValueError, match=r"labels must be one code or more, each once, not \[1, 2, 1\]"):
        soft_dice(labels, labels, displacement, [1, 2, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_displacement_that_is_not_finite_is_refused(value, either):
    labels, displacement = torch.ones(1, 1, 4, 5, dtype=torch.int64), torch.zeros(1, 2, 4, 5)
    displacement[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"displacement \(1, 2, 4, 5\) holds 1 values that are NaN or infinite"):
        soft_dice(labels, labels, displacement, [1])
