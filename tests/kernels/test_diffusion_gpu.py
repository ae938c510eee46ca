"""The Triton kernels of diffusion against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import (
    Budget,
    assert_alike,
    assert_within_budget,
    loss_and_gradients,
    needs_triton,
    on_triton,
    random_field,
)

from regcore.kernels import diffusion as operator
from regcore.kernels.diffusion.reference import diffusion_reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

per_shape = pytest.mark.parametrize("shape", [(7, 5), (5, 4, 6)], ids=["2-D", "3-D"])
per_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
OPERATORS = (operator._diffusion, operator._diffusion_backward)


@per_shape
@per_type
def test_diffusion_is_the_reference(shape, dtype, generator):
    field = random_field(generator, shape, dtype)
    expected = loss_and_gradients(diffusion_reference, field)
    with on_triton(*OPERATORS):
        assert_alike(loss_and_gradients(torch.ops.regcore.diffusion, field), expected)


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    field = random_field(generator, (3, 2, 3), torch.float64)[:1].requires_grad_()
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(torch.ops.regcore.diffusion, field, fast_mode=True)


def test_the_operator_is_registered_as_torch_wants_it(generator):
    field = random_field(generator, (4, 3, 5)).requires_grad_()
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.diffusion.default, (field,))


def test_the_kernels_compile_within_their_budget():
    types = dict.fromkeys(["field", "sums", "out", "upstream"], "*fp32")
    types |= dict.fromkeys(["depth", "height", "width", "pairs_z", "pairs_y", "pairs_x"], "i32")
    tile = {"TYPE": "fp32", "PLANES": 8, "BLOCK_Y": 4, "BLOCK_X": 64}
    assert_within_budget(
        "regcore.kernels.diffusion.gpu",
        [
            Budget("value_kernel", types, tile, registers=40, instructions=330),
            Budget("gradient_kernel", types, tile, registers=48, instructions=340),
        ],
    )


def test_the_cpu_kernel_is_back_after_the_interpreter(monkeypatch):
    """Otherwise, what runs later in this process takes minutes for seconds."""
    called, value = [], operator.cpu.value
    monkeypatch.setattr(operator.cpu, "value", lambda field: called.append(field) or value(field))
    field = torch.rand(1, 3, 4, 5, 6)
    with on_triton(*OPERATORS):
        operator.diffusion(field)
    assert not called
    operator.diffusion(field)
    assert len(called) == 1
