"""The Triton kernels of interpolation against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton, value_and_gradients

from regcore.kernels import warp as operator
from regcore.kernels.warp import reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

SHAPES = [(7, 5), (5, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
per_edge = pytest.mark.parametrize("edge", [False, True], ids=["zero", "edge"])
OPERATORS = (operator._warp, operator._warp_backward)


def inputs(generator, shape, channels=2, dtype=torch.float32, reach=3.0):
    """Two images, and displacements that leave them on all sides, on a grid of another size."""
    image = torch.from_numpy(generator.standard_normal((2, channels, *shape))).to(dtype)
    grid = [n + 2 for n in shape]
    displacement = torch.from_numpy(reach * generator.standard_normal((2, len(shape), *grid))).to(dtype)
    return image.to(DEVICE), displacement.to(DEVICE)


@per_edge
@per_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_warp_is_the_reference(shape, edge, dtype, generator):
    tensors = inputs(generator, shape, dtype=dtype)
    expected = value_and_gradients(lambda *x: reference.warp_reference(*x, edge), *tensors)
    with on_triton(*OPERATORS):
        found = value_and_gradients(lambda *x: torch.ops.regcore.warp(*x, edge), *tensors)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=64 * torch.finfo(dtype).eps * b.abs().max().item())


@per_edge
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_images_stored_in_sixteen_bits_are_computed_in_float32(edge, stored, generator):
    image, displacement = inputs(generator, (5, 4, 6))
    image = image.to(stored)
    expected = value_and_gradients(lambda *x: reference.warp_reference(*x, edge), image.float(), displacement)
    with on_triton(*OPERATORS):
        found = value_and_gradients(lambda *x: torch.ops.regcore.warp(*x, edge), image, displacement)
    assert [x.dtype for x in found] == [stored, stored, torch.float32]
    for a, b in zip(found, expected, strict=True):
        # The incoming gradient has been rounded to the type of the image too.
        torch.testing.assert_close(a.float(), b, rtol=0, atol=2 * torch.finfo(stored).eps * b.abs().max().item())


@per_shape
def test_fixed_point_sums_are_those_of_floats(shape, generator):
    from regcore.kernels.warp import gpu

    image, displacement = inputs(generator, shape)
    gradient = torch.from_numpy(generator.standard_normal((2, 2, *displacement.shape[2:]))).float().to(DEVICE)
    floats = gpu.push(gradient, image, displacement, True)
    torch.use_deterministic_algorithms(True)
    try:
        fixed = gpu.push(gradient, image, displacement, True)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(fixed, floats, rtol=0, atol=1e-6 * floats.abs().max().item())


def test_what_is_not_a_number_stays_in_place(generator):
    image, displacement = inputs(generator, (5, 4, 6))
    displacement[0, 1, 2, 2, 2] = float("nan")
    with on_triton(*OPERATORS):
        found = torch.ops.regcore.warp(image, displacement, False)
    expected = reference.warp_reference(image, displacement, False)
    torch.testing.assert_close(found, expected, equal_nan=True)


@per_edge
def test_the_operator_has_the_gradient_of_finite_differences(edge, generator):
    shape = (3, 3, 4)
    image = torch.from_numpy(generator.standard_normal((1, 1, *shape))).to(DEVICE).requires_grad_()
    # Away from whole numbers, where the interpolation has a kink.
    displacement = torch.from_numpy(generator.integers(-2, 2, (1, 3, 2, 2, 3)) + generator.uniform(0.2, 0.8))
    displacement = displacement.to(DEVICE).requires_grad_()
    with on_triton(*OPERATORS):
        warp = lambda *x: torch.ops.regcore.warp(*x, edge)  # noqa: E731
        # On a GPU the order of additions is not the same every time.
        assert torch.autograd.gradcheck(warp, (image, displacement), fast_mode=True, nondet_tol=1e-10)


def test_the_operator_is_registered_as_torch_wants_it(generator):
    image, displacement = inputs(generator, (4, 3, 5), channels=1)
    with on_triton(*OPERATORS):
        tensors = image.requires_grad_(), displacement.requires_grad_()
        torch.library.opcheck(torch.ops.regcore.warp.default, (*tensors, True))


def test_the_kernels_compile_within_their_budget():
    sizes = dict.fromkeys(["channels", "depth", "height", "width", "rows", "columns", "length"], "i32")
    tensors = {"image": "*fp32", "shift": "*fp32", "gradient": "*fp32", "out": "*fp32", "scale": "*fp64", **sizes}
    constants = {"AXES": 3, "EDGE": True, "TYPE": "fp32", "PLANES": 4, "BLOCK_Y": 1, "BLOCK_X": 128}
    zero, fixed = {**constants, "EDGE": False}, {**constants, "FIXED": True}
    narrow = {**tensors, "image": "*fp16", "out": "*fp16"}
    whole = {**tensors, "out": "*i64"}
    assert_within_budget(
        "regcore.kernels.warp.gpu",
        [
            Budget("forward_kernel", tensors, constants, registers=48, instructions=560),
            Budget("forward_kernel", tensors, zero, registers=48, instructions=560),
            Budget("forward_kernel", narrow, constants, registers=48, instructions=640),
            Budget("pull_kernel", tensors, constants, registers=64, instructions=360),
            Budget("push_kernel", tensors, {**constants, "FIXED": False}, registers=48, instructions=800),
            Budget("push_kernel", whole, fixed, registers=48, instructions=340),
        ],
    )
