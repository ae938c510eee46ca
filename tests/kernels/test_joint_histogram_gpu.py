"""The Triton kernels of the joint histogram against the reference, and what they compile to."""

import math

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton, value_and_gradients

from regcore.kernels import joint_histogram as operator
from regcore.kernels.joint_histogram import reference
from regcore.losses import nmi

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

OPERATORS = (operator._joint_histogram, operator._joint_histogram_backward)
per_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Several programs for each row, each of them with several blocks."""
    from regcore.kernels.joint_histogram import gpu

    monkeypatch.setattr(gpu, "PROGRAMS", 6)


def positions(generator, bins, voxels=300, rows=2, dtype=torch.float32):
    """Two (rows, voxels) of positions, some on the ends of the range and on centres of bins."""
    values = generator.uniform(0, bins - 1, (2, rows, voxels))
    values[:, :, :4] = 0, bins - 1, 1, 0.5
    return [x.to(DEVICE, dtype) for x in torch.from_numpy(values)]


@per_type
@pytest.mark.parametrize("bins, width", [(32, 0.5), (20, 1.3), (5, 0.05), (64, 0.01)])
def test_the_histogram_is_the_reference(bins, width, dtype, generator):
    tensors = positions(generator, bins, dtype=dtype)
    expected = value_and_gradients(lambda *x: reference.joint_histogram_reference(*x, bins, width), *tensors)
    with on_triton(*OPERATORS):
        found = value_and_gradients(lambda *x: torch.ops.regcore.joint_histogram(*x, bins, width), *tensors)
    assert found[0].sum((1, 2)).tolist() == pytest.approx([1, 1], rel=1e-5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=256 * torch.finfo(dtype).eps * b.abs().max().item())


def test_a_gradient_that_is_not_wanted_is_not_computed(generator):
    fixed, warped = positions(generator, 8, voxels=50)
    gradient = torch.ones(2, 8, 8, device=DEVICE)
    with on_triton(*OPERATORS):
        both = torch.ops.regcore.joint_histogram_backward(gradient, fixed, warped, 0.5, True, True)
        none, one = torch.ops.regcore.joint_histogram_backward(gradient, fixed, warped, 0.5, False, True)
    assert none.numel() == 0 and torch.equal(one, both[1])


def test_what_is_not_a_number_reaches_its_histogram_and_no_other(generator):
    fixed, warped = positions(generator, 8, voxels=50)
    fixed[0, 7] = float("nan")
    with on_triton(*OPERATORS):
        found = torch.ops.regcore.joint_histogram(fixed, warped, 8, 0.5)
    assert found[0].isnan().all() and found[1].isfinite().all()


def test_the_loss_runs_on_the_kernel(generator, monkeypatch):
    """From images to −NMI and back."""
    images = [torch.from_numpy(generator.uniform(0, 1, (2, 1, 5, 6, 7))).to(DEVICE) for _ in range(2)]
    expected = value_and_gradients(lambda *x: nmi(*x), *images)
    monkeypatch.setattr(operator, "has_gpu_kernel", lambda *tensors, operator: True)
    with on_triton(*OPERATORS):
        found = value_and_gradients(lambda *x: nmi(*x), *images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    tensors = [x.requires_grad_() for x in positions(generator, 6, voxels=9, rows=1, dtype=torch.float64)]
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(
            lambda *x: torch.ops.regcore.joint_histogram(*x, 6, 0.7), tensors, fast_mode=True
        )


def test_a_second_derivative_is_refused(generator):
    fixed, warped = (x.requires_grad_() for x in positions(generator, 6, voxels=9, rows=1))
    with on_triton(*OPERATORS):
        loss = torch.ops.regcore.joint_histogram(fixed, warped, 6, 0.7).square().sum()
        (slope,) = torch.autograd.grad(loss, warped, create_graph=True)
        with pytest.raises(RuntimeError, match="joint_histogram_backward"):
            torch.autograd.grad(slope.sum(), warped)


def test_the_operator_is_registered_as_torch_wants_it(generator):
    tensors = [x.requires_grad_() for x in positions(generator, 6, voxels=9)]
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.joint_histogram.default, (*tensors, 6, 0.7))


def test_the_kernels_compile_within_their_budget():
    sizes = dict.fromkeys(["voxels", "chunk", "own_stride", "other_stride"], "i32")
    tensors = dict.fromkeys(["fixed", "warped", "own", "other", "gradient", "out"], "*fp32") | sizes
    double = {name: "*fp64" if kind == "*fp32" else kind for name, kind in tensors.items()}
    constants = {
        "SHARPNESS": 2 * math.log2(math.e), "BINS": 32, "PADDED": 32, "TYPE": "fp32", "PRECISION": "tf32x3",
        "FAST": True, "BLOCK": 32,
    }  # fmt: skip
    exact = {**constants, "TYPE": "fp64", "PRECISION": "ieee", "FAST": False, "BLOCK": 64}
    assert_within_budget(
        "regcore.kernels.joint_histogram.gpu",
        [
            Budget("histogram_kernel", tensors, constants, registers=168, instructions=980, num_warps=1),
            Budget("slope_kernel", tensors, {**constants, "BLOCK": 128}, registers=208, instructions=1180),
            Budget("slope_kernel", double, exact, registers=255, instructions=3000),
        ],
    )
