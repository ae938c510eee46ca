"""The Triton kernels of label look-up and label overlaps against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import label_dice as operator
from regcore.kernels.dispatch import WHOLE
from regcore.kernels.label_dice import reference
from regcore.losses import soft_dice

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

SHAPES = [(4, 7), (3, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
per_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
OPERATORS = (operator._places, operator._overlaps, operator._overlaps_backward)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter takes long for each program: where it runs, wide ones do."""
    from regcore.kernels.label_dice import gpu

    if DEVICE == "cpu":
        monkeypatch.setattr(gpu, "BLOCK", gpu.WIDE_BLOCK)


def blocks_of_labels(generator, batch, shape, count):
    """Maps (B, 1, *shape) of 0 ... ``count``, in blocks of three voxels: cells within a label and cells across."""
    coarse = torch.from_numpy(generator.integers(0, count + 1, (batch, 1, *[n // 3 + 1 for n in shape])))
    for axis, size in enumerate(shape):
        coarse = coarse.repeat_interleave(3, 2 + axis).narrow(2 + axis, 1, size)
    return coarse.to(torch.uint8).to(DEVICE)


def inputs(generator, shape, count=4, dtype=torch.float32, reach=1.5, batch=2):
    """Index maps, and displacements that leave the moving one on all sides, on a grid of another size."""
    grid = [n + 2 for n in shape]
    displacement = reach * torch.from_numpy(generator.standard_normal((batch, len(shape), *grid)))
    displacement[..., : grid[-1] // 2] = 0  # whole numbers: interior voxels, and the border itself
    fixed, moving = (blocks_of_labels(generator, batch, space, count) for space in (grid, shape))
    return fixed, moving, displacement.to(dtype).to(DEVICE)


def sums_and_gradient(function, fixed, moving, displacement, count):
    leaf = displacement.detach().requires_grad_()
    both, warped, sizes = function(fixed, moving, leaf, count)
    seeded = torch.Generator().manual_seed(1)
    by_both, by_warped = torch.randn(2, *both.shape, generator=seeded, dtype=torch.float64).to(both)
    (gradient,) = torch.autograd.grad((both * by_both + warped * by_warped).sum(), leaf)
    return both.detach(), warped.detach(), sizes.detach(), gradient


def assert_is_reference(fixed, moving, displacement, count):
    expected = sums_and_gradient(reference.overlaps_reference, fixed, moving, displacement, count)
    with on_triton(*OPERATORS):
        found = sums_and_gradient(torch.ops.regcore.label_overlaps, fixed, moving, displacement, count)
    assert all(x.dtype == displacement.dtype for x in found)
    # Sums are multiples of 2⁻³² in any type.
    atol = [max(64 * torch.finfo(displacement.dtype).eps, 1e-8) * x.abs().max().item() for x in expected]
    for a, b, near in zip(found, expected, atol, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=near)
    return found


@per_type
@per_shape
def test_overlaps_are_the_reference(shape, dtype, generator):
    tensors = inputs(generator, shape, dtype=dtype)
    both, warped, _, gradient = assert_is_reference(*tensors, 4)
    assert (warped > both).any() and (both > 0).any() and (gradient == 0).any() and (gradient != 0).any()


@pytest.mark.parametrize("batch, count", [(1, 1), (2, 31), (1, 32), (1, 200)])
def test_any_number_of_labels_is_counted(batch, count, generator):
    assert_is_reference(*inputs(generator, (3, 7), count, batch=batch), count)


def test_indices_of_other_types_are_taken(generator):
    fixed, moving, displacement = inputs(generator, (3, 7))
    with on_triton(*OPERATORS):
        expected = sums_and_gradient(torch.ops.regcore.label_overlaps, fixed, moving, displacement, 4)
        wide = fixed.int(), moving.int()
        found = sums_and_gradient(torch.ops.regcore.label_overlaps, *wide, displacement, 4)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [(3, 65), (3, 1, 31)], ids=["2-D", "3-D"])
def test_a_volume_may_take_several_programs_along_each_axis(shape, generator, monkeypatch):
    from regcore.kernels.label_dice import gpu

    monkeypatch.undo()
    fixed, moving, displacement = inputs(generator, shape, batch=1)
    assert_is_reference(fixed, moving.expand(-1, -1, -1, *([2] if len(shape) == 3 else []), -1), displacement, 4)
    assert min(gpu.blocks(gpu.volume(displacement))[0][:2]) > 1


def test_cells_that_only_noise_divides_are_counted_label_by_label(generator):
    """More than two labels in a cell: the third and those after it are added one by one."""
    shape = (3, 5, 6)
    labels = [torch.from_numpy(generator.integers(0, 8, (1, 1, *shape))).to(torch.uint8).to(DEVICE) for _ in range(2)]
    displacement = torch.from_numpy(generator.standard_normal((1, 3, *shape))).to(DEVICE)
    assert_is_reference(*labels, displacement, 7)


@per_shape
def test_a_map_laid_on_itself_is_counted_exactly(shape, generator):
    labels = blocks_of_labels(generator, 1, shape, 4)
    still = torch.zeros(1, len(shape), *shape, device=DEVICE)
    with on_triton(*OPERATORS):
        sums = torch.ops.regcore.label_overlaps(labels, labels, still, 4)
    expected = [(labels == label).sum().item() for label in range(4)]
    assert all(x[0].tolist() == expected for x in sums)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # in weights that are not added
@per_shape
def test_what_is_not_a_number_shows_in_its_image(shape, generator):
    fixed, moving, displacement = inputs(generator, shape)
    for axis in (0, len(shape) - 1):
        broken = displacement.clone()
        broken[(1, axis, *[2] * len(shape))] = float("nan")
        with on_triton(*OPERATORS):
            both, warped, sizes = torch.ops.regcore.label_overlaps(fixed, moving, broken, 4)
            ones = torch.ones_like(both)
            gradient = torch.ops.regcore.label_overlaps_backward(ones, ones, fixed, moving, broken)
        assert both[1].isnan().all() and warped[1].isnan().all()
        assert gradient[1].isnan().any() and not gradient[0].isnan().any()
        assert not (both[0].isnan() | warped[0].isnan() | sizes.isnan()).any()


@per_shape
def test_what_is_infinite_is_outside(shape, generator):
    fixed, moving, displacement = inputs(generator, shape)
    displacement[(0, 0, *[2] * len(shape))] = float("inf")
    displacement[(1, 1, *[1] * len(shape))] = -float("inf")
    expected = reference.overlaps_reference(fixed, moving, displacement, 4)
    with on_triton(*OPERATORS):
        found = torch.ops.regcore.label_overlaps(fixed, moving, displacement, 4)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    fixed, moving = (blocks_of_labels(generator, 1, space, 2) for space in ((2, 3), (4, 5)))
    # Away from whole numbers, where the interpolation has a kink.
    displacement = torch.from_numpy(generator.integers(-2, 3, (1, 2, 2, 3)) + generator.uniform(0.2, 0.8))
    displacement = displacement.to(DEVICE).requires_grad_()

    def sums(x):
        return torch.ops.regcore.label_overlaps(fixed, moving, x, 2)[:2]

    with on_triton(*OPERATORS):
        # Linear in each component: a large step has no error but the rounding of the sums, to 2⁻³².
        assert torch.autograd.gradcheck(sums, (displacement,), eps=1e-2, fast_mode=True)


def test_the_operators_are_registered_as_torch_wants_them(generator):
    fixed, moving, displacement = inputs(generator, (2, 5), batch=1)
    tables = torch.ones(2, 1, 4, device=DEVICE)
    checks = ["test_schema", "test_faketensor"]
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.label_places.default, (fixed, [0, 2, 3]), test_utils=checks)
        leaf = displacement.requires_grad_()
        torch.library.opcheck(torch.ops.regcore.label_overlaps.default, (fixed, moving, leaf, 4))
        arguments = (*tables, fixed, moving, displacement.detach())
        torch.library.opcheck(torch.ops.regcore.label_overlaps_backward.default, arguments, test_utils=checks)


@pytest.mark.parametrize("kind", WHOLE, ids=str)
def test_labels_of_any_type_find_their_place(kind, generator):
    labels = torch.from_numpy(generator.integers(-9, 300, (2, 1, 41, 31))).to(kind).to(DEVICE)
    labels[0, 0, 0, 0] = torch.iinfo(kind).max
    labels[0, 0, 0, 1] = torch.iinfo(kind).min
    for codes in ([0], [1, 2, 50, 77], list(range(3, 290))):
        with on_triton(*OPERATORS):
            found = torch.ops.regcore.label_places(labels, codes)
        assert torch.equal(found, reference.place_reference(labels, codes))


def test_the_table_of_codes_is_made_once(generator):
    from regcore.kernels.label_dice import gpu

    labels = torch.from_numpy(generator.integers(0, 9, (1, 1, 4, 5))).to(DEVICE)
    gpu.table_of.cache_clear()
    with on_triton(*OPERATORS):
        for _ in range(3):
            torch.ops.regcore.label_places(labels, [2, 5])
    assert gpu.table_of.cache_info()[:2] == (2, 1)


def test_soft_dice_is_that_of_the_reference(generator):
    fixed, moving, displacement = inputs(generator, (3, 4, 6))
    fixed, moving = fixed.long() * 11, moving.int() * 11
    with on_triton(*OPERATORS):
        found = soft_dice(fixed, moving, displacement, [11, 22, 44])
    codes = [11, 22, 44]
    places = reference.place_reference(fixed, codes), reference.place_reference(moving, codes)
    both, warped, sizes = reference.overlaps_reference(*places, displacement, 3)
    torch.testing.assert_close(found, 1 - (2 * both / (warped + sizes)).mean())


def test_the_kernels_compile_within_their_budget(monkeypatch):
    from regcore.kernels.label_dice import gpu

    monkeypatch.undo()
    sizes = dict.fromkeys(["count", "depth", "height", "width", "rows", "columns", "length", "last"], "i32")
    tensors = {"fixed": "*u8", "moving": "*u8", "shift": "*fp32", "sums": "*i64", "out": "*fp32", **sizes}
    tensors |= dict.fromkeys(["by_both", "by_warped", "both", "warped", "sizes"], "*fp32")
    constants = {"AXES": 3, "TYPE": "fp32", "PLANES": gpu.PLANES, "BLOCK_Y": gpu.BLOCK[3][0], "BLOCK_X": 32}
    forward = {**constants, "REPLICAS": gpu.REPLICAS}
    look_up = {"labels": "*i32", "table": "*u8", "out": "*u8", **sizes}
    finish = {"REPLICAS": gpu.REPLICAS, "COLUMNS": gpu.COLUMNS}
    assert_within_budget(
        "regcore.kernels.label_dice.gpu",
        [
            Budget("look_up_kernel", look_up, {"BLOCK": gpu.LOOK_UP}, registers=32, instructions=140),
            Budget("overlaps_kernel", tensors, {**forward, "BINS": 64}, 114, 1240, num_warps=1),
            Budget("overlaps_kernel", tensors, {**forward, "BINS": 1024, "BLOCK_Y": 8}, 240, 2310),
            Budget("gradient_kernel", tensors, constants, 94, 720, num_warps=1),
            Budget("finish_kernel", tensors, finish, registers=60, instructions=310),
        ],
    )
