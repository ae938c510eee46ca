"""Gaussian smoothing against SciPy, its kernel against the plain-torch reference, and its gradient."""

import math
from contextlib import nullcontext

import pytest
import torch
from scipy.ndimage import gaussian_filter

from regcore.kernels import launch, reference_only, smoothing
from regcore.spatial import smooth

#: Shapes, and a standard deviation for each axis: 0, fractions, and Gaussians wider than the axis.
CASES = [
    ((9, 7), (1.0, 1.0)),
    ((7, 11), (0.0, 2.3)),
    ((1, 6), (1.5, 0.4)),
    ((5, 2), (0.3, 4.0)),
    ((6, 5, 7), (0.5, 1.0, 2.0)),
    ((5, 1, 8), (0.0, 2.0, 0.7)),
    ((3, 9, 2), (5.0, 0.0, 3.0)),
    ((1, 1, 1), (1.0, 1.0, 1.0)),
]
per_case = pytest.mark.parametrize(("shape", "sigmas"), CASES, ids=str)
per_type = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
per_context = pytest.mark.parametrize("context", [nullcontext, reference_only], ids=["kernel", "reference"])


def normal(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape)).to(dtype)


def assert_close(found, expected, roundings=64):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    limit = roundings * torch.finfo(expected.dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)


@pytest.fixture
def kernel_calls(monkeypatch):
    """How often the kernel has run."""
    if launch.numba is None:
        pytest.skip("without Numba regcore has no kernels")
    calls = []
    monkeypatch.setattr(smoothing.cpu, "run", lambda *arguments: calls.append(1) or launch.run(*arguments))
    return calls


@per_case
@per_type
@per_context
def test_smoothing_agrees_with_scipy(shape, sigmas, dtype, context, generator):
    values = normal(generator, 2, 3, *shape, dtype=dtype)
    with context():
        found = smooth(values, sigmas)
    radius = [math.ceil(3 * sigma) for sigma in sigmas]
    axes = tuple(range(2, values.ndim))
    expected = gaussian_filter(values.double().numpy(), sigmas, mode="nearest", radius=radius, axes=axes)
    assert_close(found, torch.from_numpy(expected).to(dtype))


@per_case
@per_type
def test_the_kernel_is_the_reference(shape, sigmas, dtype, generator, kernel_calls):
    values = normal(generator, 2, 3, *shape, dtype=dtype)
    found = smooth(values, sigmas)
    assert kernel_calls == [1]
    with reference_only():
        expected = smooth(values, sigmas)
    assert kernel_calls == [1]
    assert_close(found, expected)


def test_one_number_smooths_every_axis_alike(generator):
    values = normal(generator, 1, 2, 6, 5, 7)
    assert torch.equal(smooth(values, 1.5), smooth(values, (1.5, 1.5, 1.5)))
    assert torch.equal(smooth(values, 2), smooth(values, (2.0, 2.0, 2.0)))


@per_context
@pytest.mark.parametrize("shape", [(9, 7), (5, 1, 8)], ids=str)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 7.0])
def test_a_constant_stays_constant(shape, sigma, context):
    with context():
        found = smooth(torch.full((1, 1, *shape), 0.7), sigma)
    torch.testing.assert_close(found, torch.full_like(found, 0.7), rtol=1e-6, atol=0)


@per_context
def test_a_sigma_of_zero_returns_the_values_bit_for_bit(context, generator):
    values = normal(generator, 1, 2, 6, 5)
    with context():
        assert torch.equal(smooth(values, 0), values)
        rows = smooth(values, (0, 1.0))
        assert torch.equal(rows[:, :, 2:3], smooth(values[:, :, 2:3], (0, 1.0)))


@per_context
def test_a_gaussian_far_narrower_than_a_voxel_changes_nothing(context, generator):
    values = normal(generator, 1, 2, 6, 5)
    for sigma in (0.05, 1e-30, 1e-200, 5e-324):
        with context():
            assert torch.equal(smooth(values, sigma), values)


@per_case
def test_the_gradient_is_that_of_finite_differences(shape, sigmas, generator):
    values = normal(generator, 1, 1, *shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: smooth(v, sigmas), values)


def test_the_kernel_runs_where_no_gradient_is_wanted_and_only_there(generator, kernel_calls):
    values = normal(generator, 1, 2, 6, 5).requires_grad_()
    smoothed = smooth(values, 1.0)
    assert smoothed.requires_grad and not kernel_calls
    with torch.no_grad():
        assert_close(smooth(values, 1.0), smoothed.detach())
    with torch.inference_mode():
        smooth(torch.ones(1, 1, 4, 4), 1.0)
    assert len(kernel_calls) == 2


@pytest.mark.parametrize("shape", [(230, 210), (40, 36, 34), (6000, 3, 2), (3, 90, 90)], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(shape, generator):
    values = normal(generator, 1, 2, *shape, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(smooth(values, 1.3))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("shape", [(7, 5), (5, 4, 6)], ids=["2-D", "3-D"])
def test_items_and_strides_change_nothing_and_the_input_is_left_alone(shape, generator):
    values = normal(generator, 3, 2, *shape)
    kept, whole = values.clone(), smooth(values, 1.2)
    assert torch.equal(values, kept)
    for item in range(3):
        assert torch.equal(smooth(values[item : item + 1], 1.2), whole[item : item + 1])
    assert torch.equal(smooth(values[:, 1:], 1.2), whole[:, 1:])
    turned = values.transpose(2, -1).contiguous().transpose(2, -1)
    assert not turned.is_contiguous()
    assert torch.equal(smooth(turned, 1.2), whole)
    assert torch.equal(smooth(values[:1].expand(3, -1, *shape), 1.2)[2], whole[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_smoothed_and_keep_their_type(dtype, generator):
    values = normal(generator, 1, 1, 7, 5).to(dtype)
    assert_close(smooth(values, 1.0), smooth(values.double(), 1.0).to(dtype), roundings=8)


@pytest.mark.parametrize(
    ("values", "sigma", "words"),
    [
        (torch.zeros(3, 4), 1.0, "must be"),
        (torch.zeros(1, 0, 3, 4), 1.0, "not empty"),
        (torch.zeros(1, 1, 3, 4, dtype=torch.int32), 1.0, "floating-point"),
        (torch.zeros(1, 1, 3, 4), -0.1, "sigma must be 0 or more"),
        (torch.zeros(1, 1, 3, 4), (1.0, float("nan")), "sigma must be 0 or more"),
        (torch.zeros(1, 1, 3, 4), float("inf"), "sigma must be 0 or more"),
        (torch.zeros(1, 1, 3, 4), (1.0, 1.0, 1.0), "one for each axis"),
        (torch.zeros(1, 1, 3, 4, 5), (1.0, 1.0), "one for each axis"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(values, sigma, words):
    with pytest.raises(ValueError, match=words):
        smooth(values, sigma)
