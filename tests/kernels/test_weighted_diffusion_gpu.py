"""The Triton kernels of weighted diffusion against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import (
    DEVICE,
    Budget,
    assert_alike,
    assert_within_budget,
    loss_and_gradients,
    needs_triton,
    on_triton,
    random_field,
)

from regcore.kernels import weighted_diffusion as operator
from regcore.kernels.weighted_diffusion.reference import weighted_diffusion_reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

per_shape = pytest.mark.parametrize("shape", [(7, 5), (5, 4, 6)], ids=["2-D", "3-D"])
per_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
OPERATORS = (operator._weighted_diffusion, operator._weighted_diffusion_backward)


def fields(generator, shape, dtype=torch.float32):
    """A field and a weight of two elements each."""
    field = random_field(generator, shape, dtype)
    weight = torch.from_numpy(generator.uniform(0, 2, (2, 1, *shape))).to(dtype)
    return field, weight.to(DEVICE)


@per_shape
@per_type
def test_weighted_diffusion_is_the_reference(shape, dtype, generator):
    tensors = fields(generator, shape, dtype)
    expected = loss_and_gradients(weighted_diffusion_reference, *tensors)
    with on_triton(*OPERATORS):
        assert_alike(loss_and_gradients(torch.ops.regcore.weighted_diffusion, *tensors), expected)


def test_one_gradient_is_given_where_one_is_asked_for(generator):
    field, weight = fields(generator, (5, 4, 6))
    expected = loss_and_gradients(weighted_diffusion_reference, field, weight)
    with on_triton(*OPERATORS):
        by_field = loss_and_gradients(lambda f: torch.ops.regcore.weighted_diffusion(f, weight), field)
        by_weight = loss_and_gradients(lambda w: torch.ops.regcore.weighted_diffusion(field, w), weight)
    assert_alike(by_field, expected[:2])
    assert_alike(by_weight, [expected[0], expected[2]])


def test_a_field_stored_in_sixteen_bits_is_weighted_in_float32(generator):
    field, weight = fields(generator, (5, 4, 6))
    expected = loss_and_gradients(weighted_diffusion_reference, field, weight.half().float())
    with on_triton(*OPERATORS):
        found = loss_and_gradients(torch.ops.regcore.weighted_diffusion, field, weight.half())
    assert_alike(found[:2], expected[:2])
    torch.testing.assert_close(found[2].float(), expected[2], rtol=2e-3, atol=1e-6)


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    field, weight = (x[:1].requires_grad_() for x in fields(generator, (3, 2, 3), torch.float64))
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(torch.ops.regcore.weighted_diffusion, (field, weight), fast_mode=True)


def test_the_operator_is_registered_as_torch_wants_it(generator):
    field, weight = (x.requires_grad_() for x in fields(generator, (4, 3, 5)))
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.weighted_diffusion.default, (field, weight))


def test_the_kernels_compile_within_their_budget():
    types = dict.fromkeys(["field", "weight", "sums", "out", "to_weight", "upstream"], "*fp32")
    types |= dict.fromkeys(["depth", "height", "width", "channels", "pairs_z", "pairs_y", "pairs_x"], "i32")
    tile = {"TYPE": "fp32", "PLANES": 8, "BLOCK_Y": 4, "BLOCK_X": 64}
    both = {"FOR_FIELD": True, "FOR_WEIGHT": True}
    assert_within_budget(
        "regcore.kernels.not_validated.weighted_diffusion",
        [
            Budget("value_kernel", types, tile, registers=64, instructions=420),
            Budget("gradient_kernel", types, {**tile, **both}, registers=120, instructions=490),
        ],
    )
