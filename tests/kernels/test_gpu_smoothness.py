"""The Triton kernels of diffusion and of Gaussian smoothing against their references, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import diffusion as operator
from regcore.kernels import smoothing

pytestmark = needs_triton

per_shape = pytest.mark.parametrize("shape", [(7, 5), (5, 4, 6)], ids=["2-D", "3-D"])
per_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
PLAIN = (operator._diffusion, operator._diffusion_backward)
WEIGHTED = (operator._weighted_diffusion, operator._weighted_diffusion_backward)


def fields(generator, shape, dtype=torch.float32):
    """A field and a weight of two elements each."""
    field = torch.from_numpy(generator.standard_normal((2, len(shape), *shape))).to(dtype)
    weight = torch.from_numpy(generator.uniform(0, 2, (2, 1, *shape))).to(dtype)
    return field.to(DEVICE), weight.to(DEVICE)


def value_and_gradients(function, *tensors):
    leaves = [x.detach().requires_grad_() for x in tensors]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad(3 * value, leaves)]


def assert_alike(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=32 * torch.finfo(b.dtype).eps * b.abs().max().item())


@per_shape
@per_type
def test_diffusion_is_the_reference(shape, dtype, generator):
    field, _ = fields(generator, shape, dtype)
    expected = value_and_gradients(operator.diffusion_reference, field)
    with on_triton(*PLAIN):
        assert_alike(value_and_gradients(torch.ops.regcore.diffusion, field), expected)


@per_shape
@per_type
def test_weighted_diffusion_is_the_reference(shape, dtype, generator):
    tensors = fields(generator, shape, dtype)
    expected = value_and_gradients(operator.weighted_diffusion_reference, *tensors)
    with on_triton(*WEIGHTED):
        assert_alike(value_and_gradients(torch.ops.regcore.weighted_diffusion, *tensors), expected)


def test_one_gradient_is_given_where_one_is_asked_for(generator):
    field, weight = fields(generator, (5, 4, 6))
    expected = value_and_gradients(operator.weighted_diffusion_reference, field, weight)
    with on_triton(*WEIGHTED):
        by_field = value_and_gradients(lambda f: torch.ops.regcore.weighted_diffusion(f, weight), field)
        by_weight = value_and_gradients(lambda w: torch.ops.regcore.weighted_diffusion(field, w), weight)
    assert_alike(by_field, expected[:2])
    assert_alike(by_weight, [expected[0], expected[2]])


def test_a_field_stored_in_sixteen_bits_is_weighted_in_float32(generator):
    field, weight = fields(generator, (5, 4, 6))
    expected = value_and_gradients(operator.weighted_diffusion_reference, field, weight.half().float())
    with on_triton(*WEIGHTED):
        found = value_and_gradients(torch.ops.regcore.weighted_diffusion, field, weight.half())
    assert_alike(found[:2], expected[:2])
    torch.testing.assert_close(found[2].float(), expected[2], rtol=2e-3, atol=1e-6)


def test_the_operators_have_the_gradient_of_finite_differences(generator):
    field, weight = (x[:1].requires_grad_() for x in fields(generator, (3, 2, 3), torch.float64))
    with on_triton(*PLAIN, *WEIGHTED):
        assert torch.autograd.gradcheck(torch.ops.regcore.diffusion, field, fast_mode=True)
        assert torch.autograd.gradcheck(torch.ops.regcore.weighted_diffusion, (field, weight), fast_mode=True)


def test_the_operators_are_registered_as_torch_wants_them(generator):
    field, weight = (x.requires_grad_() for x in fields(generator, (4, 3, 5)))
    with on_triton(*PLAIN, *WEIGHTED, smoothing._gaussian):
        torch.library.opcheck(torch.ops.regcore.diffusion.default, (field,))
        torch.library.opcheck(torch.ops.regcore.weighted_diffusion.default, (field, weight))
        torch.library.opcheck(torch.ops.regcore.gaussian.default, (field.detach(), [0.5, 0.0, 1.0]))


@per_type
@pytest.mark.parametrize("sigmas", [(0.5, 1.0, 2.0), (0.0, 1.5, 0.0), (0.0, 0.0, 0.0)], ids=str)
def test_smoothing_is_the_reference(sigmas, dtype, generator):
    field, _ = fields(generator, (5, 4, 6), dtype)
    with on_triton(smoothing._gaussian):
        found = torch.ops.regcore.gaussian(field, sigmas)
    assert found is not field
    assert_alike([found], [smoothing.gaussian_reference(field, sigmas)])


def test_smoothing_of_planes_is_the_reference(generator):
    field, _ = fields(generator, (7, 5))
    with on_triton(smoothing._gaussian):
        found = torch.ops.regcore.gaussian(field, (2.0, 0.7))
    assert_alike([found], [smoothing.gaussian_reference(field, (2.0, 0.7))])


def test_the_kernels_compile_within_their_budget():
    names = ["depth", "height", "width", "channels", "pairs_z", "pairs_y", "pairs_x", "radius"]
    tensors = dict.fromkeys(["field", "weight", "sums", "out", "to_weight", "upstream"], "*fp32")
    types = {**tensors, **dict.fromkeys(names, "i32")}
    tile = {"TYPE": "fp32", "PLANES": 8, "BLOCK_Y": 4, "BLOCK_X": 64}
    plain, weighted = {**tile, "WEIGHTED": False, "channels": 1}, {**tile, "WEIGHTED": True}
    for_field, both = {"FOR_FIELD": True, "FOR_WEIGHT": False}, {"FOR_FIELD": True, "FOR_WEIGHT": True}
    assert_within_budget(
        "regcore.kernels.gpu.diffusion",
        [
            Budget("value_kernel", types, plain, registers=40, instructions=330),
            Budget("value_kernel", types, weighted, registers=64, instructions=420),
            Budget("gradient_kernel", types, {**plain, **for_field}, registers=48, instructions=340),
            Budget("gradient_kernel", types, {**weighted, **both}, registers=120, instructions=490),
        ],
    )
    types |= {"values": "*fp32", "weights": "*fp32"}
    radii = [(axis, radius) for axis in range(3) for radius in (0, 3)]
    assert_within_budget(
        "regcore.kernels.gpu.smoothing",
        [
            Budget(
                "smooth_kernel",
                types,
                {**tile, "AXIS": axis, "RADIUS": radius},
                registers=48,
                instructions=640 if radius == 0 else 300,
            )
            for axis, radius in radii
        ],
    )
