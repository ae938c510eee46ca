"""The Triton kernels of MIND-SSC against the reference, and what they compile to."""

import pytest
import torch
from support.triton_tools import DEVICE, Budget, assert_within_budget, compiled, needs_triton, on_triton

from regcore.kernels import mind_ssc as operator
from regcore.kernels.mind_ssc import reference
from regcore.losses import mind_ssc

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter


def use_tiles(monkeypatch, planes, columns, rows):
    """Let a program do so many voxels; the interpreter takes as long for one as for a thousand."""
    from regcore.kernels.not_validated import mind_ssc_patch_sums as gpu

    monkeypatch.setattr(gpu, "ROWS", rows)
    monkeypatch.setattr(gpu, "TILE", {"BLOCK_Z": planes, "BLOCK_X": columns})


def images(generator, shape, batch=1, dtype=torch.float64):
    return [torch.from_numpy(generator.standard_normal((batch, 1, *shape))).to(DEVICE, dtype) for _ in range(2)]


def reference_loss(fixed, moving, radius, dilation):
    settings = [radius] * (fixed.ndim - 2), [dilation] * (fixed.ndim - 2)
    return reference.difference_reference(reference.descriptor_reference(fixed, *settings), moving, *settings)


def expected_and_found(tensors, radius, dilation):
    """Loss and both gradients of the reference, and of the kernels."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    loss = reference_loss(*leaves, radius, dilation)
    expected = [loss.detach(), *torch.autograd.grad(loss, leaves)]
    with on_triton(operator._mind_ssc):
        found = torch.ops.regcore.mind_ssc(*tensors, radius, dilation, True, True)
    return expected, found


@pytest.mark.parametrize(
    "shape, radius, dilation, dtype",
    [
        ((6, 5), 1, 2, torch.float64),
        ((5, 3, 4), 1, 2, torch.float64),
        ((2, 2, 3), 1, 1, torch.float32),
        ((1, 2, 3), 2, 3, torch.float64),
    ],
    ids=["2-D", "3-D", "float32", "smaller than a patch"],
)
def test_loss_and_gradients_are_the_reference(shape, radius, dilation, dtype, generator, monkeypatch):
    use_tiles(monkeypatch, 4, 4, 2)
    expected, found = expected_and_found(images(generator, shape, dtype=dtype), radius, dilation)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=0, atol=256 * torch.finfo(dtype).eps * b.abs().max().item())


def test_elements_of_a_batch_have_clamped_variances_of_their_own(generator, monkeypatch):
    """In the first the variance is clamped from below, in the second from above, and the third is constant."""
    use_tiles(monkeypatch, 64, 64, 32)
    fixed, moving = images(generator, (64, 64), batch=3)
    moving[0] *= 0.01
    moving[0, 0, 3, 3] = 10
    moving[1] *= 1e-6
    moving[1, 0, 20, 20] = 1
    moving[2] = 3
    expected, found = expected_and_found([fixed, moving], 0, 1)
    for a, b in zip(found, expected, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * b.abs().max().item())


def test_a_tied_minimum_shares_its_gradient_evenly(generator):
    """Far from a step the patches of many pairs are exactly alike."""
    fixed, moving = images(generator, (6, 7))
    moving[:] = 0
    moving[..., 4:] = 1
    expected, found = expected_and_found([fixed, moving], 1, 1)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12 * b.abs().max().item())


def test_a_gradient_that_is_not_wanted_is_not_computed(generator):
    tensors = images(generator, (5, 4))
    with on_triton(operator._mind_ssc):
        loss, to_fixed, to_moving = torch.ops.regcore.mind_ssc(*tensors, 1, 1, False, True)
        both = torch.ops.regcore.mind_ssc(*tensors, 1, 1, True, True)
        value, *none = torch.ops.regcore.mind_ssc(*tensors, 1, 1, False, False)
    assert to_fixed.numel() == 0 and torch.equal(to_moving, both[2])
    assert torch.equal(loss, both[0]) and torch.equal(value, loss) and not any(x.numel() for x in none)


def test_images_stored_in_sixteen_bits_are_described_in_float32(generator):
    fixed, moving = images(generator, (5, 6), dtype=torch.float32)
    fixed = fixed.half()
    with on_triton(operator._mind_ssc):
        loss, to_fixed, _ = torch.ops.regcore.mind_ssc(fixed, moving, 1, 1, True, False)
    assert loss.dtype == torch.float32 and to_fixed.dtype == torch.float16
    torch.testing.assert_close(loss, reference_loss(fixed, moving, 1, 1))


def test_what_is_not_a_number_shows_in_the_loss(generator):
    fixed, moving = images(generator, (5, 6))
    moving[0, 0, 2, 2] = float("nan")
    with on_triton(operator._mind_ssc):
        assert torch.ops.regcore.mind_ssc(fixed, moving, 1, 1, False, False)[0].isnan()


def test_the_loss_runs_on_the_kernel(generator, monkeypatch):
    """With the gradient of finite differences, and no second derivative."""
    fixed, moving = images(generator, (4, 3))
    monkeypatch.setattr(operator, "has_gpu_kernel", lambda *tensors, operator: True)
    with on_triton(operator._mind_ssc):
        tensors = fixed.requires_grad_(), moving.requires_grad_()
        assert torch.autograd.gradcheck(lambda *x: mind_ssc(*x, radius=0, dilation=1), tensors, fast_mode=True)
        (slope,) = torch.autograd.grad(mind_ssc(*tensors, radius=0), moving, create_graph=True)
        with pytest.raises(RuntimeError, match="scale_ready"):
            torch.autograd.grad(slope.sum(), moving)


def test_the_operator_is_registered_as_torch_wants_it(generator):
    fixed, moving = images(generator, (3, 4), dtype=torch.float32)
    with on_triton(operator._mind_ssc):
        arguments = (fixed.requires_grad_(), moving.requires_grad_(), 0, 1, True, True)
        torch.library.opcheck(torch.ops.regcore.mind_ssc.default, arguments)


MODULE = "regcore.kernels.not_validated.mind_ssc"
TYPES = {
    **dict.fromkeys(["image", "out", "sums", "fixed", "moving", "fixed_mean", "moving_mean", "to_fixed"], "*fp32"),
    **dict.fromkeys(["to_moving", "parts", "gradient", "through_mean", "values", "adjoints"], "*fp32"),
    **dict.fromkeys(["ties", "fixed_ties", "moving_ties"], "*i16"),
    **dict.fromkeys(["dilation", "depth", "height", "width", "entries"], "i32"),
}
SHARED = {"RADIUS": 2, "TYPE": "fp32", "BLOCK_Z": 8, "BLOCK_X": 32}
CHANNELS = {**SHARED, "CHANNELS": 12}
COMPARE = Budget(
    "compare_kernel", TYPES, {**CHANNELS, "FOR_FIXED": False, "FOR_MOVING": True, "SMALLEST": 1e-19}, 128, 2300
)


def test_the_kernels_compile_within_their_budget():
    assert_within_budget(
        MODULE,
        [
            Budget("variance_kernel", TYPES, CHANNELS, 72, 840),
            COMPARE,
            Budget("planes_adjoint_kernel", TYPES, CHANNELS, 136, 1400),
        ],
    )
    assert_within_budget(
        "regcore.kernels.not_validated.mind_ssc_patch_sums",
        [
            Budget("difference_sums_kernel", TYPES, {**SHARED, "GROUPS": 3, "ROWS": 32}, 168, 1500),
            Budget("rows_adjoint_kernel", TYPES, {**SHARED, "ROWS": 32}, 64, 540),
            Budget("collect_kernel", TYPES, {**SHARED, "GROUPS": 3}, 80, 1150),
        ],
    )


def test_the_least_pair_is_told_by_a_distance_that_no_fused_product_makes():
    """Fused, the product of the least pair is not rounded as the least itself is, and their difference is not 0."""
    for found in compiled(MODULE, [COMPARE]):
        made_by = found["compared_with_zero"]
        assert made_by and not any(name.startswith("fma") for name in made_by), found
