"""Losses against their equations, and their gradients."""

import math

import numpy as np
import pytest
import torch

from regcore.losses import bending_energy, diffusion, field_mse, mse, weighted_diffusion
from regcore.spatial import identity

SHAPES = [(6, 5), (5, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])


def random_tensor(generator, *shape) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape))


@per_shape
def test_mse_is_the_mean_of_squares(shape, generator):
    fixed, warped = random_tensor(generator, 2, 1, *shape), random_tensor(generator, 2, 1, *shape)
    expected = ((fixed.numpy() - warped.numpy()) ** 2).sum() / fixed.numel()
    assert mse(fixed, warped).item() == pytest.approx(expected, rel=1e-12)
    assert mse(fixed, fixed + 3).item() == pytest.approx(9, rel=1e-12)
    assert mse(fixed, fixed).item() == 0


@per_shape
def test_mse_has_the_right_gradient(shape, generator):
    fixed, warped = random_tensor(generator, 1, 1, *shape), random_tensor(generator, 1, 1, *shape).requires_grad_()
    mse(fixed, warped).backward()
    torch.testing.assert_close(warped.grad, 2 * (warped.detach() - fixed) / fixed.numel(), atol=1e-15, rtol=0)
    torch.autograd.gradcheck(lambda w: mse(fixed, w), warped)


@per_shape
def test_diffusion_of_a_linear_field_is_its_mean_squared_slope(shape, generator):
    """u(p) = G p + b has the same difference between any two neighbours: the mean of G² over its entries."""
    ndim = len(shape)
    slopes = random_tensor(generator, ndim, ndim)
    field = torch.einsum("ij,bj...->bi...", slopes, identity(shape, slopes)) + 7
    assert diffusion(field).item() == pytest.approx(slopes.square().mean().item(), rel=1e-12)


@per_shape
def test_diffusion_of_a_translation_is_zero(shape):
    assert diffusion(torch.full((1, len(shape), *shape), 4.2)).item() == 0


@per_shape
def test_diffusion_averages_over_batch_components_voxels_and_axes(shape, generator):
    field = random_tensor(generator, 2, len(shape), *shape)
    expected = np.mean([np.mean(np.diff(field.numpy(), axis=axis) ** 2) for axis in range(2, field.ndim)])
    assert diffusion(field).item() == pytest.approx(expected, rel=1e-12)


def test_diffusion_of_one_bump_by_hand():
    """One value 1 in a 3 x 3 grid of two components: two differences along each axis, of 2 · 6 = 12."""
    field = torch.zeros(1, 2, 3, 3)
    field[0, 1, 1, 1] = 1
    assert diffusion(field).item() == pytest.approx(2 / 12)


@per_shape
def test_diffusion_has_the_right_gradient(shape, generator):
    torch.autograd.gradcheck(diffusion, random_tensor(generator, 1, len(shape), *shape).requires_grad_())


@per_shape
def test_mse_is_divided_by_the_variance_of_the_noise(shape, generator):
    fixed, warped = random_tensor(generator, 2, 1, *shape), random_tensor(generator, 2, 1, *shape)
    assert mse(fixed, warped, sigma=0.05).item() == pytest.approx(400 * mse(fixed, warped).item(), rel=1e-12)
    torch.autograd.gradcheck(lambda f, w: mse(f, w, sigma=0.5), (fixed.requires_grad_(), warped.requires_grad_()))


def test_mse_of_narrow_types_is_computed_in_float32():
    """300² overflows float16, and bfloat16 cannot tell 256 from 257."""
    for dtype in (torch.float16, torch.bfloat16):
        fixed = torch.full((1, 1, 4, 4), 300, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            loss = mse(fixed, torch.zeros_like(fixed))
        assert loss.dtype == torch.float32 and loss.item() == fixed[0, 0, 0, 0].item() ** 2
    assert mse(torch.full((1, 1, 4, 4), 3), torch.ones(1, 1, 4, 4, dtype=torch.long)).item() == 4


@per_shape
def test_field_mse_is_the_mean_squared_length(shape, generator):
    field, reference = (random_tensor(generator, 2, len(shape), *shape) for _ in range(2))
    lengths = np.linalg.norm(field.numpy() - reference.numpy(), axis=1)
    assert field_mse(field, reference).item() == pytest.approx((lengths**2).mean(), rel=1e-12)
    torch.autograd.gradcheck(field_mse, (field.requires_grad_(), reference.requires_grad_()))


def test_field_mse_of_a_shift_is_its_squared_length():
    shift = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert field_mse(torch.zeros(2, 2, 4, 5), shift.expand(2, 2, 4, 5)).item() == pytest.approx(25)


@per_shape
def test_weighted_diffusion_of_a_constant_weight_is_that_weight_times_diffusion(shape, generator):
    field = random_tensor(generator, 2, len(shape), *shape)
    weight = torch.full((2, 1, *shape), 3.354, dtype=torch.float64)
    assert weighted_diffusion(field, weight).item() == pytest.approx(3.354 * diffusion(field).item(), rel=1e-12)


@per_shape
def test_weighted_diffusion_weighs_each_difference_by_the_voxel_in_front(shape, generator):
    field, weight = random_tensor(generator, 2, len(shape), *shape), random_tensor(generator, 2, 1, *shape).exp()
    terms = []
    for axis, size in enumerate(shape, start=2):
        total, count = 0, 0
        for index in np.ndindex(field.shape):
            if index[axis] < size - 1:
                front = tuple(i + (a == axis) for a, i in enumerate(index))
                difference = field[front].item() - field[index].item()
                total += weight[(front[0], 0, *front[2:])].item() * difference**2
                count += 1
        terms.append(total / count)
    assert weighted_diffusion(field, weight).item() == pytest.approx(np.mean(terms), rel=1e-12)


def test_weighted_diffusion_of_one_bump_by_hand():
    """Of the 12 differences along each axis, the one into the bump takes its weight, the one out that beyond."""
    field, weight = torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)
    field[0, 1, 1, 1] = 1
    weight[0, 0, 1, 1], weight[0, 0, 2, 1], weight[0, 0, 1, 2], weight[0, 0, 0, 1] = 5, 7, 11, 1000
    assert weighted_diffusion(field, weight).item() == pytest.approx((5 + 7 + 5 + 11) / 24)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 4)], ids=["2-D", "3-D"])
def test_weighted_diffusion_has_the_right_gradient(shape, generator):
    field, weight = random_tensor(generator, 2, len(shape), *shape), random_tensor(generator, 2, 1, *shape).square()
    torch.autograd.gradcheck(weighted_diffusion, (field.requires_grad_(), weight.requires_grad_()))


@per_shape
def test_bending_energy_of_a_quadratic_field_is_that_of_its_hessian(shape, generator):
    """u_c(p) = p·H_c p / 2 + g·p + b: every central difference is exact."""
    ndim = len(shape)
    hessians = random_tensor(generator, ndim, ndim, ndim)
    hessians = hessians + hessians.mT
    p = identity(shape, hessians)
    affine = torch.einsum("cj,bj...->bc...", random_tensor(generator, ndim, ndim), p) + 5
    field = torch.einsum("cij,bi...,bj...->bc...", hessians, p, p) / 2 + affine
    assert bending_energy(field).item() == pytest.approx(hessians.square().sum((1, 2)).mean().item(), rel=1e-10)
    assert bending_energy(affine).item() == pytest.approx(0, abs=1e-24)


@per_shape
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # of MONAI's, by torch
def test_bending_energy_is_that_of_monai(shape, generator):
    oracle = pytest.importorskip("monai.losses").BendingEnergyLoss()
    field = random_tensor(generator, 2, len(shape), *shape)
    assert bending_energy(field).item() == pytest.approx(oracle(field).item(), rel=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (3, 3, 4)], ids=["2-D", "3-D"])
def test_bending_energy_has_the_right_gradient(shape, generator):
    torch.autograd.gradcheck(bending_energy, random_tensor(generator, 2, len(shape), *shape).requires_grad_())


FIELD_LOSSES = {
    "field_mse": lambda field: field_mse(field, torch.zeros_like(field)),
    "weighted_diffusion": lambda field: weighted_diffusion(field, torch.ones_like(field[:, :1])),
    "bending_energy": bending_energy,
}
per_field_loss = pytest.mark.parametrize("name", FIELD_LOSSES)


@per_shape
@per_field_loss
def test_a_batch_of_fields_has_the_mean_of_its_elements(shape, name, generator):
    fields = random_tensor(generator, 3, len(shape), *shape)
    alone = [FIELD_LOSSES[name](field[None]).item() for field in fields]
    assert FIELD_LOSSES[name](fields).item() == pytest.approx(np.mean(alone), rel=1e-12)


@per_shape
@per_field_loss
def test_constant_fields_have_no_gradient_and_broken_ones_are_named(shape, name):
    field = torch.full((1, len(shape), *shape), 0.1, requires_grad=True)
    FIELD_LOSSES[name](field).backward()
    assert field.grad.isfinite().all() and (name == "field_mse" or field.grad.abs().max() < 1e-6)
    for bad in (math.nan, math.inf):
        broken = field.detach().clone()
        broken.view(-1)[0 if name == "field_mse" else broken[0, 0].numel() // 2] = bad
        with pytest.raises(ValueError, match=r"field .* holds 1 value"):
            FIELD_LOSSES[name](broken)


@per_field_loss
def test_autocast_does_not_break_losses_of_fields(name, generator):
    field = random_tensor(generator, 1, 3, 5, 6, 7).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = FIELD_LOSSES[name](field)
        narrow = FIELD_LOSSES[name](field.bfloat16())
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == FIELD_LOSSES[name](field).item()
    assert narrow.item() == pytest.approx(loss.item(), rel=0.02)


def test_losses_name_arguments_that_do_not_belong_together():
    image, field = torch.rand(1, 1, 4, 5), torch.rand(1, 2, 4, 5)
    with pytest.raises(ValueError, match=r"warped \(1, 1, 5, 4\).*fixed \(1, 1, 4, 5\)"):
        mse(image, torch.rand(1, 1, 5, 4))
    with pytest.raises(ValueError, match=r"warped \(1, 1, 1, 5\).*fixed \(1, 1, 4, 5\)"):
        mse(image, torch.rand(1, 1, 1, 5))  # would broadcast
    with pytest.raises(ValueError, match="sigma 0"):
        mse(image, image, sigma=0)
    with pytest.raises(ValueError, match=r"warped .* holds 20 values"):
        mse(image, image + math.nan)
    with pytest.raises(ValueError, match=r"reference \(1, 2, 5, 4\).*field \(1, 2, 4, 5\)"):
        field_mse(field, torch.rand(1, 2, 5, 4))
    with pytest.raises(ValueError, match=r"field \(1, 1, 4, 5\)"):
        field_mse(image, image)
    with pytest.raises(ValueError, match=r"weight \(1, 1, 5, 4\).*field \(1, 2, 4, 5\)"):
        weighted_diffusion(field, torch.rand(1, 1, 5, 4))
    with pytest.raises(ValueError, match=r"weight \(1, 2, 4, 5\).*field \(1, 2, 4, 5\)"):
        weighted_diffusion(field, field)
    with pytest.raises(ValueError, match=r"weight .* holds 20 values"):
        weighted_diffusion(field, image * math.inf)
    with pytest.raises(ValueError, match=r"field \(1, 2, 1, 5\) must have at least 2 voxels"):
        weighted_diffusion(field[:, :, :1], image[:, :, :1])
    with pytest.raises(ValueError, match=r"field \(1, 2, 2, 5\) must have at least 3 voxels"):
        bending_energy(field[:, :, :2])
    with pytest.raises(ValueError, match=r"field \(1, 1, 4, 5\)"):
        bending_energy(image)
