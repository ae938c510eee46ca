"""The Triton kernels of Jacobian determinants and of digital folds against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import jacobian as operator
from regcore.kernels.jacobian import reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

per_shape = pytest.mark.parametrize("shape", [(2, 2), (9, 40), (2, 2, 2), (4, 9, 35)], ids=str)
per_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
OPERATORS = (operator._determinant, operator._digital_folds)


def field(generator, *shape, scale=1.0, dtype=torch.float32):
    return torch.from_numpy(scale * generator.standard_normal(shape)).to(dtype).to(DEVICE)


def folds(displacement, mask):
    with on_triton(*OPERATORS):
        return torch.ops.regcore.digital_folds(displacement, mask)


def assert_counted_as_by_the_reference(displacement, mask):
    found, expected = folds(displacement, mask), reference.digital_folds_reference(displacement, mask)
    assert found.dtype == torch.float64
    assert found[:4].tolist() == expected[:4].tolist()
    torch.testing.assert_close(found[4], expected[4], rtol=1e-12, atol=0)
    return found


@per_type
@per_shape
def test_determinants_are_the_reference(shape, dtype, generator):
    displacement = field(generator, 2, len(shape), *shape, dtype=dtype)
    with on_triton(*OPERATORS):
        leaf = displacement.detach().requires_grad_()
        found = torch.ops.regcore.jacobian_determinant(leaf)
        (gradient,) = torch.autograd.grad(found.square().sum(), leaf)
    assert found.dtype == dtype
    wide = displacement.double().requires_grad_()
    expected = reference.determinant_reference(wide)
    (wanted,) = torch.autograd.grad(expected.square().sum(), wide)
    for a, b in ((found, expected), (gradient, wanted)):
        near = 64 * torch.finfo(dtype).eps * b.detach().abs().max().item()
        torch.testing.assert_close(a.double(), b, rtol=0, atol=near)


def test_the_determinant_has_the_gradient_of_finite_differences(generator):
    displacement = field(generator, 1, 3, 2, 2, 3, dtype=torch.float64).requires_grad_()
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(torch.ops.regcore.jacobian_determinant, (displacement,), fast_mode=True)


def test_a_determinant_of_what_is_not_a_number_is_none(generator):
    displacement = field(generator, 1, 3, 4, 5, 6)
    displacement[0, 1, 2, 2, 2] = float("nan")
    with on_triton(*OPERATORS):
        found = torch.ops.regcore.jacobian_determinant(displacement)
    assert torch.equal(found.isnan(), reference.determinant_reference(displacement).isnan())
    assert found.isnan().any()


@per_type
@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 6, 37)], ids=str)
def test_folds_are_those_of_the_reference(shape, dtype, generator):
    for scale in (0.1, 0.6):
        displacement = field(generator, 1, 3, *shape, scale=scale, dtype=dtype)
        for part in (0.5, 1.0):
            mask = torch.from_numpy(generator.random(shape) < part).to(DEVICE)
            found = assert_counted_as_by_the_reference(displacement, mask)
            assert part < 1 or found[0] == (shape[0] - 2) * (shape[1] - 2) * (shape[2] - 2)
    assert shape == (3, 3, 3) or 0 < found[1] < found[2] < found[3]


def test_a_mask_of_nothing_counts_nothing(generator):
    mask = torch.zeros(4, 5, 6, dtype=torch.bool, device=DEVICE)
    assert folds(field(generator, 1, 3, 4, 5, 6), mask).tolist() == [0] * 5


@per_type
def test_a_map_that_only_just_folds_is_counted_as_by_the_reference(dtype, generator):
    """Whole and half numbers are exact, so that a determinant of 0 is 0 in both."""
    halves = torch.from_numpy(generator.integers(-2, 3, (1, 3, 4, 6, 8)) / 2).to(dtype).to(DEVICE)
    mask = torch.ones(4, 6, 8, dtype=torch.bool, device=DEVICE)
    found = assert_counted_as_by_the_reference(halves, mask)
    assert 0 < found[1] < found[0]


@pytest.mark.parametrize("shift, folded", [(-1.0, True), (-(1 - 2**-24), False)])
def test_signs_are_those_of_float64(shift, folded):
    """An axis that is squeezed to nothing, or to what float32 takes for nothing."""
    displacement = torch.zeros(1, 3, 3, 4, 5)
    displacement[0, 0] = shift * torch.arange(3.0)[:, None, None]
    mask = torch.ones(3, 4, 5, dtype=torch.bool, device=DEVICE)
    found = assert_counted_as_by_the_reference(displacement.to(DEVICE), mask)
    assert found.tolist()[:3] == [6, 6 * folded, 6 * folded]


@pytest.mark.parametrize("grows", [1e-3, 1.0, 1e3])
def test_nothing_that_folds_is_taken_for_safe(grows, generator):
    """Determinants near zero, of edges of any length: what float32 calls positive is so in float64."""
    rows = torch.from_numpy(generator.standard_normal((3, 3)))
    rows[2] = rows[0] + rows[1]
    points = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in (3, 6, 20)], indexing="ij")).double()
    displacement = (torch.einsum("ab,b...->a...", grows * rows, points) - points).float()[None].to(DEVICE)
    mask = torch.ones(3, 6, 20, dtype=torch.bool, device=DEVICE)
    found = assert_counted_as_by_the_reference(displacement, mask)
    assert 0 < found[3] < 10 * found[0]


def test_the_volume_of_what_is_not_a_number_is_none(generator):
    displacement = field(generator, 1, 3, 4, 5, 6, scale=0.05)
    displacement[0, 1, 2, 2, 2] = float("nan")
    mask = torch.ones(4, 5, 6, dtype=torch.bool, device=DEVICE)
    found, expected = folds(displacement, mask), reference.digital_folds_reference(displacement, mask)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[4].isnan()


def test_the_operators_are_registered_as_torch_wants_them(generator):
    displacement = field(generator, 1, 3, 3, 4, 5)
    mask = torch.ones(3, 4, 5, dtype=torch.bool, device=DEVICE)
    with on_triton(*OPERATORS):
        checks = ["test_schema", "test_faketensor"]
        torch.library.opcheck(torch.ops.regcore.digital_folds.default, (displacement, mask), test_utils=checks)
        leaf = field(generator, 1, 2, 4, 5).requires_grad_()
        torch.library.opcheck(torch.ops.regcore.jacobian_determinant.default, (leaf,))


def test_folds_are_counted_within_one_graph(generator):
    displacement = field(generator, 1, 3, 3, 4, 5).cpu()
    mask = torch.ones(3, 4, 5, dtype=torch.bool)
    compiled = torch.compile(operator.digital_folds, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(displacement, mask), operator.digital_folds(displacement, mask))


def test_the_kernels_compile_within_their_budget():
    from regcore.kernels.jacobian import gpu

    tensors = {"field": "*fp32", "out": "*fp32", "mask": "*u8", "counts": "*fp64"}
    tensors |= dict.fromkeys(["depth", "height", "width"], "i32")
    block = {"BLOCK_Y": gpu.FOLDS_BLOCK[0], "BLOCK_X": gpu.FOLDS_BLOCK[1]}
    space = {"AXES": 3, "TYPE": "fp32", "BLOCK_Y": 8, "BLOCK_X": 32}
    plane = {"AXES": 2, "TYPE": "fp32", "BLOCK_Y": 1, "BLOCK_X": 256}
    wide = {**tensors, "field": "*fp64"}
    assert_within_budget(
        "regcore.kernels.jacobian.gpu",
        [
            Budget("determinant_kernel", tensors, space, registers=44, instructions=260),
            Budget("determinant_kernel", tensors, plane, registers=44, instructions=176),
            Budget("folds_kernel", tensors, {**block, "QUICK": True}, 104, 1040, num_warps=2),
            Budget("folds_kernel", wide, {**block, "QUICK": False}, 120, 670, num_warps=2),
        ],
    )
