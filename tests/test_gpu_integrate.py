"""The Triton kernels of scaling and squaring against the reference, and what they compile to."""

import pytest
import torch
from triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import integrate as operator

pytestmark = needs_triton

per_shape = pytest.mark.parametrize("shape", [(7, 5), (5, 4, 6)], ids=["2-D", "3-D"])
OPERATORS = (operator._integrate, operator._integrate_backward)


def velocities(random_displacement, shape, dtype=torch.float32, rms=2.0) -> torch.Tensor:
    """Two velocities that lead out of the image."""
    return torch.cat([random_displacement(shape, rms, 1.0) for _ in range(2)]).to(dtype).to(DEVICE)


def value_and_gradient(function, velocity):
    leaf = velocity.detach().requires_grad_()
    value = function(leaf)
    cotangent = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(value)
    return value.detach(), torch.autograd.grad(value, leaf, cotangent)[0]


@per_shape
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_integrate_is_the_reference(shape, steps, dtype, random_displacement):
    velocity = velocities(random_displacement, shape, dtype)
    expected = value_and_gradient(lambda v: operator.integrate_reference(v, steps), velocity)
    with on_triton(*OPERATORS):
        found = value_and_gradient(lambda v: torch.ops.regcore.integrate(v, steps, False), velocity)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=128 * torch.finfo(dtype).eps * b.abs().max().item())


def test_states_in_sixteen_bits_are_those_of_a_reference_that_rounds(random_displacement):
    velocity = velocities(random_displacement, (5, 4, 6))
    expected = value_and_gradient(lambda v: operator.integrate_reference(v, 3, half=True), velocity)
    with on_triton(*OPERATORS):
        found = value_and_gradient(lambda v: torch.ops.regcore.integrate(v, 3, True), velocity)
    full, _ = value_and_gradient(lambda v: operator.integrate_reference(v, 3), velocity)
    largest = full.abs().max().item()
    assert 0 < (found[0] - full).abs().max() < 4e-3 * largest
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-3 * largest)
    # A state that is rounded the other way can lie on the other side of a voxel, where the slope is another one.
    assert (found[1] - expected[1]).norm() < 1e-2 * expected[1].norm()


@per_shape
def test_fixed_point_sums_give_the_gradient_of_floats(shape, random_displacement):
    velocity = velocities(random_displacement, shape)
    expected = value_and_gradient(lambda v: operator.integrate_reference(v, 2), velocity)
    torch.use_deterministic_algorithms(True)
    try:
        with on_triton(*OPERATORS):
            first, second = (
                value_and_gradient(lambda v: torch.ops.regcore.integrate(v, 2, False), velocity)[1] for _ in range(2)
            )
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected[1], rtol=0, atol=2e-5 * expected[1].abs().max().item())


def test_interleaved_gradients_are_planar_ones(random_displacement):
    """As between steps on a GPU that adds vectors, with the plain additions that the interpreter can do."""
    from regcore.kernels.gpu import integrate as gpu

    field = velocities(random_displacement, (5, 4, 6))
    gradient = torch.randn(field.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    planar = gpu.step_back(gradient, field, False, False, 1.0, 1.0)
    interleaved = torch.nn.functional.pad(gradient.movedim(1, -1), (0, 1)).contiguous()
    torch.testing.assert_close(gpu.step_back(interleaved, field, False, False, 1.0, 1.0), planar, rtol=0, atol=1e-5)
    if gpu.adds_vectors(field):
        packed = gpu.step_back(gradient, field, True, False, 1.0, 1.0)
        torch.testing.assert_close(packed[..., :3].movedim(-1, 1), planar, rtol=0, atol=1e-5)


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    velocity = torch.from_numpy(generator.uniform(0.3, 0.6, (1, 3, 2, 2, 3))).to(DEVICE).requires_grad_()
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(lambda v: torch.ops.regcore.integrate(v, 2, False), velocity, fast_mode=True)


def test_the_operator_is_registered_as_torch_wants_it(random_displacement):
    velocity = velocities(random_displacement, (4, 3, 5)).requires_grad_()
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.integrate.default, (velocity, 2, False))


def test_the_kernels_compile_within_their_budget():
    names = ["depth", "height", "width", "gradient_element", "gradient_step", "gradient_voxel"]
    sizes = dict.fromkeys([*names, "out_element", "out_step", "out_voxel"], "i32")
    tensors = dict.fromkeys(("field", "out", "gradient"), "*fp32") | {"fixed_scale": "*fp64"}
    tensors |= {"scale": "fp32", "share": "fp32", **sizes}
    constants = {"AXES": 3, "TYPE": "fp32", "BLOCK_Y": 8, "BLOCK_X": 32}
    narrow = {**tensors, "field": "*fp16", "out": "*fp16"}
    # As between the steps, planar on both sides; where it is 1 Triton makes a constant of a number.
    planar = {**constants, "gradient_voxel": 1, "out_voxel": 1, "VECTOR": False}
    assert_within_budget(
        "regcore.kernels.gpu.integrate",
        [
            Budget("square_kernel", tensors, constants, registers=48, instructions=450),
            Budget("square_kernel", narrow, constants, registers=48, instructions=520),
            Budget("back_kernel", tensors, {**planar, "FIXED": False}, registers=72, instructions=1000),
            Budget("back_kernel", {**tensors, "out": "*i64"}, {**planar, "FIXED": True}, 72, 1200),
        ],
    )


def test_vectors_are_added_in_one_instruction_on_compute_capability_9():
    names = ["depth", "height", "width", "gradient_element", "out_element"]
    types = dict.fromkeys(names, "i32") | {"scale": "fp32", "share": "fp32", "fixed_scale": "*fp32"}
    types |= dict.fromkeys(("field", "out", "gradient"), "*fp32")
    packed = {"gradient_step": 1, "gradient_voxel": 4, "out_step": 1, "out_voxel": 4}
    constants = {"AXES": 3, "TYPE": "fp32", "BLOCK_Y": 8, "BLOCK_X": 32, "VECTOR": True, "FIXED": False, **packed}
    budget = Budget("back_kernel", types, constants, registers=80, instructions=850)
    assert_within_budget("regcore.kernels.gpu.integrate", [budget], architectures=(90,), opcode="RED.*F32x4")
