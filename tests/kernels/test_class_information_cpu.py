"""Total information of classes: the equation against scikit-learn, and the Numba kernels against the reference."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from support.kernel_cases import Entered, needs_numba, per_context, per_type

from regcore.kernels.class_information import class_information, classes
from regcore.kernels.class_information.reference import class_information_reference, total_information

#: Sizes of the moving image; an axis of one voxel is constant.
SHAPES = [(9, 7), (1, 12), (6, 8, 7), (1, 9, 10)]


def scan(generator, *shape) -> torch.Tensor:
    """Samples (3, *shape) of an image: shares that count, of which a part is content, with ranks."""
    valid = generator.uniform(0.6, 1, shape)
    inside = valid * generator.uniform(0.1, 0.9, shape)
    return torch.from_numpy(np.stack([inside * generator.uniform(0.02, 0.98, shape), inside, valid]))


def case(generator, shape, points=400, poses=3):
    """Arguments of the operator, in float64: poses that leave the image in part, and one far away."""
    ndim = len(shape)
    maps = np.concatenate(
        [np.eye(ndim) + 0.2 * generator.standard_normal((poses, ndim, ndim)), np.zeros((poses, ndim, 1))], 2
    )
    maps[:, :, -1] = (np.array(shape) - 1) / 2 + generator.uniform(-1, 1, (poses, ndim))
    maps[-1, :, -1] += 1e3
    places = generator.uniform(-0.8, 0.8, (points, ndim)) * np.array(shape) / 2
    image = scan(generator, *shape).movedim(0, -1).contiguous()
    return torch.from_numpy(maps), image, torch.from_numpy(places), scan(generator, points), 5


def value_and_gradient(function, maps, *others):
    maps = maps.clone().requires_grad_()
    found = function(maps, *others)
    (gradient,) = torch.autograd.grad((found * torch.arange(1, len(found) + 1, dtype=found.dtype)).sum(), maps)
    return found.detach(), gradient


@per_context
def test_whole_classes_have_the_mutual_information_of_scikit_learn(context):
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, 500)
    second = np.where(rng.random(500) < 0.6, first, rng.integers(0, 4, 500))
    fixed, moving = (
        torch.stack([torch.tensor(labels / 3), *torch.ones(2, 500, dtype=torch.float64)]) for labels in (first, second)
    )
    places = torch.stack([torch.zeros(500), torch.arange(500.0)], 1).double()
    with context():
        found = class_information(torch.eye(2, 3).double()[None], moving.T[None].contiguous(), places, fixed, 4)
    assert abs(found.item() / 500 - mutual_info_score(first, second)) < 1e-4


@per_context
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_that_of_finite_differences(shape, context, generator):
    maps, *others = case(generator, shape, points=300)
    with context():
        _, gradient = value_and_gradient(class_information, maps, *others)
        for index in [(0, 0, 0), (1, 1, 1), (1, 0, len(shape)), (0, 1, len(shape))]:
            step = torch.zeros_like(maps)
            step[index] = 1e-6
            ends = [class_information(maps + sign * step, *others)[index[0]] for sign in (1, -1)]
            slope = (index[0] + 1) * (ends[0] - ends[1]).item() / 2e-6
            # Only close: the derivative of what keeps logarithms finite is left out.
            assert abs(slope - gradient[index].item()) < 0.01 * gradient.abs().max()


def test_gradient_of_samples_is_that_of_finite_differences():
    generator = np.random.default_rng(0)
    samples, fixed = scan(generator, 2, 30).requires_grad_(), torch.from_numpy(generator.random((6, 30)))
    (gradient,) = torch.autograd.grad(total_information(samples, fixed).sum(), samples)
    for index in [(0, 0, 3), (1, 1, 7), (2, 0, 20), (1, 0, 0), (0, 1, 29)]:
        step = torch.zeros_like(samples)
        step[index] = 1e-5
        ends = [total_information(samples.detach() + sign * step, fixed).sum() for sign in (1, -1)]
        assert abs((ends[0] - ends[1]).item() / 2e-5 - gradient[index].item()) < 2e-3 * gradient.abs().max()


def test_what_does_not_count_says_nothing():
    samples = torch.stack([torch.rand(1, 40), torch.ones(1, 40), torch.ones(1, 40)])
    fixed = classes(samples, 3)[:, 0]
    hidden = samples.clone()
    hidden[:, :, 20:] = 0
    assert torch.allclose(total_information(hidden, fixed), total_information(samples[:, :, :20], fixed[:, :20]))


@needs_numba
@per_type
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("points", [400, 5000])
def test_the_kernel_is_the_reference(shape, points, dtype, generator):
    maps, image, places, fixed, count = case(generator, shape, points)
    arguments = [tensor.to(dtype) for tensor in (maps, image, places, fixed)]
    with Entered() as entered:
        found = value_and_gradient(class_information, *arguments, count)
    assert any("class_information" in name for name in entered.names)
    expected = value_and_gradient(class_information_reference, maps, image, places, fixed, count)
    rounding = {torch.float64: 1e-9, torch.float32: 1e-5}[dtype]
    for mine, exact in zip(found, expected, strict=True):
        assert mine.dtype == dtype and mine.shape == exact.shape
        assert (mine - exact).abs().max() < rounding * max(points, exact.abs().max())
    assert found[0][-1].abs() < 1e-6 and not found[1][-1].any()  # the pose far away


@needs_numba
def test_threads_change_no_bit(generator):
    arguments = case(generator, (6, 8, 7), points=20_000, poses=2)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(value_and_gradient(class_information, *arguments))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@needs_numba
def test_it_is_an_operator_of_torch(generator):
    maps, *others = case(generator, (6, 8, 7), points=50)
    operator = torch.ops.regcore.class_information.default
    torch.library.opcheck(
        operator,
        (maps.requires_grad_(), *others),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )
