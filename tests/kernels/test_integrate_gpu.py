"""The Triton kernels of scaling and squaring against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import integrate as operator
from regcore.kernels.integrate import reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

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


@pytest.mark.parametrize(
    ("shape", "steps", "dtype"),
    [
        ((7, 5), 1, torch.float32),
        ((7, 5), 3, torch.float64),
        ((5, 4, 6), 1, torch.float64),
        ((5, 4, 6), 3, torch.float32),
    ],
    ids=str,
)
def test_integrate_is_the_reference(shape, steps, dtype, random_displacement):
    """Every pair of shape, steps and type."""
    velocity = velocities(random_displacement, shape, dtype)
    expected = value_and_gradient(lambda v: reference.integrate_reference(v, steps), velocity)
    with on_triton(*OPERATORS):
        found = value_and_gradient(lambda v: torch.ops.regcore.integrate(v, steps, False), velocity)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=128 * torch.finfo(dtype).eps * b.abs().max().item())


def test_states_in_sixteen_bits_are_those_of_a_reference_that_rounds(random_displacement):
    velocity = velocities(random_displacement, (5, 4, 6))
    expected = value_and_gradient(lambda v: reference.integrate_reference(v, 3, half=True), velocity)
    with on_triton(*OPERATORS):
        found = value_and_gradient(lambda v: torch.ops.regcore.integrate(v, 3, True), velocity)
    full, _ = value_and_gradient(lambda v: reference.integrate_reference(v, 3), velocity)
    largest = full.abs().max().item()
    assert 0 < (found[0] - full).abs().max() < 4e-3 * largest
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-3 * largest)
    # A state that is rounded the other way can lie on the other side of a voxel, where the slope is another one.
    assert (found[1] - expected[1]).norm() < 1e-2 * expected[1].norm()


@per_shape
def test_fixed_point_sums_give_the_gradient_of_floats(shape, random_displacement):
    velocity = velocities(random_displacement, (shape[0], *[n - 1 for n in shape[1:]]))
    expected = value_and_gradient(lambda v: reference.integrate_reference(v, 2), velocity)
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


@pytest.mark.parametrize("packed_in", [False, True])
@pytest.mark.parametrize("packed_out", [False, True])
def test_interleaved_fields_give_what_planar_ones_do(packed_in, packed_out, random_displacement):
    from regcore.kernels.integrate import gpu

    field = velocities(random_displacement, (5, 4, 6))
    gradient = torch.randn(field.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    sizes = gpu.volume(field)

    def interleaved(tensor):
        return torch.nn.functional.pad(tensor.movedim(1, -1), (0, 1)).contiguous()

    def planar(tensor):
        return tensor[..., :3].movedim(-1, 1) if gpu.is_packed(tensor, sizes) else tensor

    inputs = [interleaved(x) if packed_in else x for x in (gradient, field)]
    out = interleaved(field) if packed_out else field.clone()
    expected = gpu.square(field, torch.empty_like(field), 0.5, sizes)
    assert torch.equal(planar(gpu.square(inputs[1], out.clone(), 0.5, sizes)), expected)
    expected = gpu.step_back(gradient, field, torch.empty_like(field), 0.5, 2.0, sizes)
    found = planar(gpu.step_back(*inputs, out, 0.5, 2.0, sizes))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    velocity = torch.from_numpy(generator.uniform(0.3, 0.6, (1, 3, 2, 2, 3))).to(DEVICE).requires_grad_()
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(
            lambda v: torch.ops.regcore.integrate(v, 2, False), velocity, fast_mode=True, nondet_tol=1e-10
        )


def test_the_operator_is_registered_as_torch_wants_it(random_displacement):
    velocity = velocities(random_displacement, (2, 2, 3))[:1].contiguous().requires_grad_()
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.integrate.default, (velocity, 2, False))


SIZES = dict.fromkeys(["depth", "height", "width"], "i32")
TENSORS = dict.fromkeys(("field", "out", "gradient", "fixed_scale"), "*fp32")
TYPES = {**TENSORS, "scale": "fp32", "share": "fp32", **SIZES}
BLOCK = {"AXES": 3, "TYPE": "fp32", "PLANES": 4, "BLOCK_Y": 1, "BLOCK_X": 128}
PACKED = {**BLOCK, "PACKED": True, "PACKED_OUT": True}
BACK = {**PACKED, "PACKED_GRADIENT": True, "VECTOR": False, "FIXED": False}


def test_the_kernels_compile_within_their_budget():
    narrow = {**TYPES, "field": "*fp16", "out": "*fp16"}
    planar = {**BLOCK, "PACKED": False, "PACKED_OUT": False}
    assert_within_budget(
        "regcore.kernels.integrate.gpu",
        [
            Budget("square_kernel", TYPES, planar, registers=48, instructions=350),
            Budget("square_kernel", TYPES, PACKED, registers=48, instructions=280),
            Budget("square_kernel", narrow, PACKED, registers=48, instructions=320),
            Budget("back_kernel", TYPES, BACK, registers=72, instructions=630),
            Budget("back_kernel", {**TYPES, "out": "*i64", "fixed_scale": "*fp64"}, {**BACK, "FIXED": True}, 72, 760),
        ],
    )


def test_vectors_are_added_in_one_instruction_on_compute_capability_9():
    budget = Budget("back_kernel", TYPES, {**BACK, "VECTOR": True}, registers=72, instructions=580)
    assert_within_budget("regcore.kernels.integrate.gpu", [budget], architectures=(90,), opcode="RED.*F32x4")
