"""The Triton kernels of local correlation against the reference, on images that break it, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import lncc as operator
from regcore.kernels.lncc.reference import lncc_reference

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

OPERATORS = (operator._lncc,)
per_variant = pytest.mark.parametrize("variant", ["ants", "voxelmorph"])


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """No more programs than the sizes of these volumes ask for: the interpreter takes them one after another."""
    from regcore.kernels.lncc import gpu_box_sums as gpu

    monkeypatch.setattr(gpu, "PROGRAMS", 1)
    return gpu


def noise(generator, *shape, dtype=torch.float32) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape)).to(dtype).to(DEVICE)


def reference(fixed, moving, window, variant):
    """Loss and gradients in float64."""
    leaves = [x.detach().double().requires_grad_() for x in (fixed, moving)]
    loss = lncc_reference(*leaves, window, variant, False)
    return loss.detach(), *torch.autograd.grad(loss, leaves)


def kernel(fixed, moving, window, variant):
    leaves = [x.detach().requires_grad_() for x in (fixed, moving)]
    with on_triton(*OPERATORS):
        loss = torch.ops.regcore.lncc(*leaves, window, variant, True, True)[0]
        return loss.detach(), *torch.autograd.grad(loss, leaves)


def assert_close(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * b.abs().max().item())


@pytest.mark.parametrize(
    ("shape", "window", "variant", "dtype"),
    [
        ((2, 1, 7, 6), 4, "ants", torch.float32),
        ((2, 1, 7, 6), 4, "voxelmorph", torch.float64),
        ((1, 1, 4, 5, 7), 3, "ants", torch.float64),
        ((1, 1, 4, 5, 7), 3, "voxelmorph", torch.float32),
    ],
    ids=str,
)
def test_lncc_is_the_reference(shape, window, variant, dtype, generator):
    """Every pair of shape, variant and type.

    The means are not zero: what lies beyond the border differs from them in the VoxelMorph form.
    """
    fixed, moving = 2 + noise(generator, *shape, dtype=dtype), noise(generator, *shape, dtype=dtype) - 1
    found, expected = kernel(fixed, moving, window, variant), reference(fixed, moving, window, variant)
    assert_close(found, expected, 1e-5 if dtype == torch.float32 else 1e-12)
    assert all(x.dtype == dtype for x in found)


@pytest.mark.parametrize("width", [36, 33], ids=["vectors", "no vectors"])
def test_many_programs_are_one_volume(width, few_programs, monkeypatch, generator):
    """Several along every axis, and parts of them beyond the border."""
    for name, value in {"PROGRAMS": 16, "COLUMNS": 64, "PLANES_OF_PROGRAM": 2, "ROWS_OF_PROGRAM": 2}.items():
        monkeypatch.setattr(few_programs, name, value)
    fixed, moving = noise(generator, 1, 1, 3, 3, width), noise(generator, 1, 1, 3, 3, width)
    moving += fixed
    assert_close(kernel(fixed, moving, 2, "ants"), reference(fixed, moving, 2, "ants"), 1e-3)  # boxes of few voxels


def test_a_thread_does_two_four_or_one_voxel(few_programs):
    from triton.language import float32, float64

    found = [few_programs.voxels_of_thread(*x) for x in [(224, 9, 5, float32), (224, 9, 1, float32)]]
    assert found == [2, 4]
    assert few_programs.voxels_of_thread(223, 9, 5, float32) == 1
    assert few_programs.voxels_of_thread(224, 9, 5, float64) == 1


@per_variant
def test_long_windows_are_summed_in_a_loop(variant, few_programs, monkeypatch, generator):
    monkeypatch.setattr(few_programs, "UNROLLED", 2)
    fixed, moving = noise(generator, 1, 1, 4, 3, 5), noise(generator, 1, 1, 4, 3, 5)
    assert_close(kernel(fixed, moving, 3, variant), reference(fixed, moving, 3, variant), 1e-5)


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_is_read_ahead_changes_nothing(ahead, few_programs, monkeypatch, generator):
    fixed, moving = noise(generator, 1, 1, 3, 4, 4), noise(generator, 1, 1, 3, 4, 4)
    expected = kernel(fixed, moving, 3, "ants")
    monkeypatch.setattr(few_programs, "ROWS_AHEAD", ahead)
    monkeypatch.setattr(few_programs, "PLANES_AHEAD", ahead)
    assert all(torch.equal(a, b) for a, b in zip(kernel(fixed, moving, 3, "ants"), expected, strict=True))


def test_what_is_not_wanted_is_left_out(generator):
    fixed, moving = noise(generator, 1, 1, 6, 5), noise(generator, 1, 1, 6, 5)
    with on_triton(*OPERATORS):
        loss, to_fixed, to_moving = torch.ops.regcore.lncc(fixed, moving, 3, "ants", True, True)
        for wanted in [(False, False), (False, True), (True, False)]:
            found = torch.ops.regcore.lncc(fixed, moving, 3, "ants", *wanted)
            assert torch.equal(found[0], loss)
            for gradient, full, with_it in zip(found[1:], (to_fixed, to_moving), wanted, strict=True):
                assert torch.equal(gradient, full) if with_it else gradient.numel() == 0


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_images_stored_in_sixteen_bits_are_computed_in_float32(stored, generator):
    fixed, moving = (noise(generator, 1, 1, 7, 8).to(stored) + 2 for _ in range(2))
    found = kernel(fixed, moving, 3, "voxelmorph")
    assert [x.dtype for x in found] == [torch.float32, stored, stored]
    expected = reference(fixed, moving, 3, "voxelmorph")
    assert_close(found[:1], expected[:1], 1e-5)
    assert_close(found[1:], expected[1:], torch.finfo(stored).eps)


@per_variant
def test_what_is_not_a_number_is_not_hidden(variant, generator):
    fixed, moving = noise(generator, 1, 1, 6, 5), noise(generator, 1, 1, 6, 5)
    fixed[..., 1, 1] = float("nan")
    assert all(x.isnan().any() for x in kernel(fixed, moving, 3, variant))


# ---- images that break the usual form


def hard_images(generator) -> dict[str, torch.Tensor]:
    """Images (1, 1, 8, 6) whose variances are nothing, or next to nothing beside their squares."""
    texture = noise(generator, 1, 1, 8, 6)
    half_flat = texture.clone()
    half_flat[..., :4, :] = 1000.1
    one_voxel = torch.full_like(texture, 0.1)
    one_voxel[0, 0, 4, 3] = 1e4
    return {
        "flat": torch.full_like(texture, 1000.1),
        "half flat": half_flat,
        "one bright voxel": one_voxel,
        "noise on a huge offset": texture + 1e6,
        "tiny amplitude": 1e-12 * texture,
        "huge amplitude": 1e15 * texture,
    }


@per_variant
def test_lncc_stays_in_its_range_with_finite_gradients(variant, generator):
    images = hard_images(generator)
    pairs = [(image, images["huge amplitude"]) for image in images.values()]
    pairs.append((images["half flat"], images["one bright voxel"]))
    loss, *gradients = kernel(*(torch.cat(x) for x in zip(*pairs, strict=True)), 3, variant)
    assert -1 <= loss.item() <= 0
    assert all(x.isfinite().all() for x in gradients)


@per_variant
def test_neither_an_offset_nor_the_amplitude_costs_precision(variant, generator):
    images = hard_images(generator)
    fixed = torch.cat([images[x] for x in ("noise on a huge offset", "tiny amplitude", "huge amplitude")])
    moving = noise(generator, 3, 1, 8, 6)
    found, expected = kernel(fixed, moving, 3, variant), reference(fixed, moving, 3, variant)
    for image in range(3):  # their gradients are of other sizes by many orders
        assert_close([x[image] for x in found[1:]], [x[image] for x in expected[1:]], 1e-4)
    assert_close(found[:1], expected[:1], 1e-5)


def test_a_flat_part_counts_nothing_and_the_rest_everything(generator):
    """Windows of 3 that lie in the flat half score 0; all the others, of an image with itself, 1."""
    image = noise(generator, 1, 1, 8, 6)
    image[..., :4, :] = 30.1
    loss, *gradients = kernel(image, image, 3, "ants")
    assert loss.item() == pytest.approx(-5 / 8, abs=1e-5)
    assert not any(gradient[..., :2, :].any() for gradient in gradients)


@per_variant
def test_a_flat_background_at_the_end_of_the_range_is_flat(variant, generator):
    """Its sums of squares are the largest there are, and all of a variance is then rounding."""
    levels = torch.tensor([-3.3, 7.7, 12.345]).view(3, 1, 1, 1).to(DEVICE)
    fixed, moving = (noise(generator, 3, 1, 8, 12) for _ in range(2))
    moving += fixed
    for image in (fixed, moving):
        image[..., 6:] = levels
    expected = reference(fixed, moving, 5, variant)
    assert_close(kernel(fixed, moving, 5, variant), expected, 1e-4)


def test_a_perfect_correlation_is_not_below_minus_one(generator):
    image = noise(generator, 1, 1, 6, 5)
    loss = kernel(torch.cat([image, image]), torch.cat([-image, 3 * image + 2]), 3, "ants")[0].item()
    assert -1 <= loss <= -1 + 1e-5


# ---- the operator


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    images = [noise(generator, 1, 1, 4, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(
            lambda f, m: torch.ops.regcore.lncc(f, m, 2, "voxelmorph", True, True)[0], images, fast_mode=True
        )


def test_the_operator_is_registered_as_torch_wants_it(generator):
    images = [noise(generator, 1, 1, 3, 3).requires_grad_() for _ in range(2)]
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.lncc.default, (*images, 3, "ants", True, True))


def test_the_kernels_compile_within_their_budget():
    image, field = dict.fromkeys(["fixed", "moving", "first", "second"], "*fp32"), "*fp32"
    counts = ["planes", "depth", "height", "width", "area", "vectors", "voxels", "blocks", "whole", "size"]
    tensors = {
        **image, **dict.fromkeys(["sums", "adjoints", "to_fixed", "to_moving"], field), **dict.fromkeys(counts, "i32"),
        "statistics": "*fp64", "totals": "*fp64",
    }  # fmt: skip
    rows = {
        "LEFT": 4, "UP": 4, "WINDOW": 9, "TALL": 9, "STEP": 3, "AHEAD": 1, "LONG": False, "TYPE": "fp32"
    }  # fmt: skip
    moments = {**rows, "IMAGES": True, "PER": 2, "PLANES": 4, "LANES": 16}
    fields = {**rows, "IMAGES": False, "PER": 4, "PLANES": 8, "LANES": 8}
    planes = {"WINDOW": 9, "STEP": 3, "AHEAD": 1, "TYPE": "fp32", "COLUMNS": 128}
    correlation = {
        **planes, "FIELDS": 3, "TALL": 9, "VOXELMORPH": False, "EPSILON": 1e-5, "ROUNDING": 2e-6, "TINY": 1e-37
    }  # fmt: skip
    partial = {"PARTS": 1024, "PART": 1024, "TYPE": "fp32"}
    assert_within_budget(
        "regcore.kernels.lncc.gpu_box_sums",
        [
            Budget("plane_sums_kernel", tensors, moments, registers=208, instructions=960, num_warps=2),
            Budget("plane_sums_kernel", tensors, fields, registers=104, instructions=480, num_warps=2),
        ],
    )
    assert_within_budget(
        "regcore.kernels.lncc.gpu",
        [
            Budget("partial_sums_kernel", {**tensors, "sums": "*fp64"}, partial, registers=80, instructions=700),
            Budget("correlation_kernel", tensors, correlation, registers=104, instructions=980),
            Budget("correlation_kernel", tensors, {**correlation, "FIELDS": 5, "VOXELMORPH": True}, 128, 1100),
            Budget("gradient_kernel", tensors, {**planes, "FIELDS": 3, "FOR_MOVING": True}, 72, 480),
        ],
    )
