"""The Triton kernels of shading against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import shading as operator
from regcore.kernels.shading.reference import shade_reference, stretch_reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

OPERATORS = (operator._shade, operator._stretch)


@pytest.mark.parametrize(("space", "coarse"), [((5, 9, 34), (2, 3, 4)), ((7, 40), (3, 2)), ((4, 5, 6), (4, 5, 6))])
def test_bias_field_clipping_normalisation_and_power_are_the_references(space, coarse, generator):
    image = torch.from_numpy(generator.uniform(-20, 200, (1, 1, *space))).float().to(DEVICE)
    field = torch.from_numpy(0.5 * generator.standard_normal((1, 1, *coarse))).float().to(DEVICE)
    expected, ends = shade_reference(image, field, 255)
    raised = stretch_reference(expected, ends, 0.7)
    with on_triton(*OPERATORS):
        found = torch.ops.regcore.shade(image, field, 255)
        torch.testing.assert_close(found, (expected, ends), rtol=2e-6, atol=1e-5)
        stretched = torch.ops.regcore.stretch(found[0], found[1], 0.7)
    torch.testing.assert_close(stretched, raised, rtol=0, atol=3e-6)
    assert float(stretched.min()) == 0 and float(stretched.max()) == 1


def test_an_image_of_one_value_is_zero():
    with on_triton(*OPERATORS):
        flat = torch.ops.regcore.shade(
            torch.full((1, 1, 4, 5), 3.0, device=DEVICE), torch.zeros(1, 1, 2, 2, device=DEVICE), 255
        )
        assert not torch.ops.regcore.stretch(*flat, 0.7).any()


def test_the_operators_are_registered_as_torch_wants_it():
    image, field = torch.rand(1, 1, 5, 6, device=DEVICE), torch.rand(1, 1, 2, 3, device=DEVICE)
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.shade.default, (image, field, 255.0))
        torch.library.opcheck(torch.ops.regcore.stretch.default, (image, torch.ones(2, device=DEVICE), 0.7))


def test_the_kernels_compile_within_their_budget():
    types = dict.fromkeys(["image", "field", "out", "ends"], "*fp32")
    types |= dict.fromkeys(["depth", "height", "width", "planes", "rows", "columns", "count"], "i32")
    types |= dict.fromkeys(["brightest", "ratio_z", "ratio_y", "ratio_x", "exponent"], "fp32")
    assert_within_budget(
        "regcore.kernels.not_validated.shading",
        [
            Budget("shade_kernel", types, {"BLOCK_Y": 8, "BLOCK_X": 32}, registers=40, instructions=360),
            Budget("stretch_kernel", types, {"VOXELS": 1024}, registers=44, instructions=430),
        ],
    )
