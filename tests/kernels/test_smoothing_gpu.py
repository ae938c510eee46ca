"""The Triton kernel of Gaussian smoothing against the reference, and what it compiles to."""

import pytest
import torch
from support.triton_tools import (
    Budget,
    assert_alike,
    assert_within_budget,
    needs_triton,
    on_triton,
    random_field,
)

from regcore.kernels import smoothing as operator
from regcore.kernels.smoothing.reference import gaussian_reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

per_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@per_type
@pytest.mark.parametrize("sigmas", [(0.5, 1.0, 2.0), (0.0, 1.5, 0.0), (0.0, 0.0, 0.0)], ids=str)
def test_smoothing_is_the_reference(sigmas, dtype, generator):
    field = random_field(generator, (5, 4, 6), dtype)
    with on_triton(operator._gaussian):
        found = torch.ops.regcore.gaussian(field, sigmas)
    assert found is not field
    assert_alike([found], [gaussian_reference(field, sigmas)])


def test_smoothing_of_planes_is_the_reference(generator):
    field = random_field(generator, (7, 5))
    with on_triton(operator._gaussian):
        found = torch.ops.regcore.gaussian(field, (2.0, 0.7))
    assert_alike([found], [gaussian_reference(field, (2.0, 0.7))])


def test_the_operator_is_registered_as_torch_wants_it(generator):
    field = random_field(generator, (4, 3, 5))
    with on_triton(operator._gaussian):
        torch.library.opcheck(torch.ops.regcore.gaussian.default, (field, [0.5, 0.0, 1.0]))


def test_the_kernels_compile_within_their_budget():
    types = dict.fromkeys(["values", "weights", "out"], "*fp32")
    types |= dict.fromkeys(["radius", "depth", "height", "width"], "i32")
    tile = {"TYPE": "fp32", "PLANES": 8, "BLOCK_Y": 4, "BLOCK_X": 64}
    assert_within_budget(
        "regcore.kernels.smoothing.gpu",
        [
            Budget(
                "smooth_kernel",
                types,
                {**tile, "AXIS": axis, "RADIUS": radius},
                registers=48,
                instructions=640 if radius == 0 else 300,
            )
            for axis in range(3)
            for radius in (0, 3)
        ],
    )
