"""Hyperpriors of the weight map against the densities of SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm

from regcore.losses import beta_log_prior, beta_weight, gaussian_log_prior, weighted_diffusion

SHAPES = [(6, 5), (5, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])


def random_weight(generator, shape, batch=2) -> torch.Tensor:
    return torch.from_numpy(generator.uniform(0.05, 1, (batch, 1, *shape)))


@per_shape
@pytest.mark.parametrize("alpha", [1, 1.175, 3.0])
@pytest.mark.parametrize("maximum", [1, 3.354])
def test_beta_is_the_mean_log_density_less_its_constant(shape, alpha, maximum, generator):
    """log pdf of λ ~ λ_max Beta(α, 1), whose constant is log α − log λ_max."""
    weight = random_weight(generator, shape)
    density = beta(alpha, 1, scale=maximum).logpdf(maximum * weight.numpy())
    expected = density.mean() - math.log(alpha) + math.log(maximum)
    assert beta_log_prior(weight, alpha).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@per_shape
@pytest.mark.parametrize("sigma", [0.3, 2.0])
@pytest.mark.parametrize("mean", [1, 3.796])
def test_gaussian_is_the_mean_log_density_less_its_constant(shape, sigma, mean, generator):
    """log pdf of λ / λ_mean ~ N(1, σ²), whose constant is −log σ√2π − log λ_mean."""
    weight = 2 * random_weight(generator, shape)
    density = norm(mean, mean * sigma).logpdf(mean * weight.numpy())
    expected = density.mean() + math.log(sigma * math.sqrt(2 * math.pi) * mean)
    assert gaussian_log_prior(weight, sigma).item() == pytest.approx(expected, rel=1e-12)


def test_the_priors_by_hand():
    weight = torch.tensor([1.0, math.exp(-1)]).view(1, 1, 1, 2)
    assert beta_log_prior(weight, 1.5).item() == pytest.approx(-0.25, rel=1e-6)
    assert gaussian_log_prior(torch.tensor([1.0, 4.0]).view(1, 1, 1, 2), 3).item() == pytest.approx(-0.25, rel=1e-6)


@per_shape
def test_a_larger_weight_is_likelier_under_beta_and_one_near_1_under_gaussian(shape):
    priors = [beta_log_prior(torch.full((1, 1, *shape), w), 1.2).item() for w in (0.2, 0.6, 1.0)]
    assert priors[0] < priors[1] < priors[2] == 0
    priors = [gaussian_log_prior(torch.full((1, 1, *shape), w), 0.5).item() for w in (0.5, 1.0, 1.5)]
    assert priors[0] == priors[2] < priors[1] == 0


def test_uniform_priors_do_not_care(generator):
    weight = random_weight(generator, (5, 4))
    assert beta_log_prior(weight, 1).item() == 0
    assert gaussian_log_prior(weight, math.inf).item() == 0


@per_shape
def test_the_priors_have_the_right_gradient(shape, generator):
    weight = random_weight(generator, shape).requires_grad_()
    torch.autograd.gradcheck(lambda w: beta_log_prior(w, 1.7), weight, eps=1e-7)
    torch.autograd.gradcheck(lambda w: gaussian_log_prior(w, 0.7), weight)


def test_constant_weights_have_finite_gradients():
    for prior in (lambda w: beta_log_prior(w, 1.2), lambda w: gaussian_log_prior(w, 0.5)):
        for value in (1e-6, 1.0):
            weight = torch.full((1, 1, 4, 5), value, requires_grad=True)
            prior(weight).backward()
            assert weight.grad.isfinite().all()


@pytest.mark.parametrize("prior", [lambda w: beta_log_prior(w, 1.2), lambda w: gaussian_log_prior(w, 0.5)])
def test_a_batch_has_the_mean_of_its_elements(prior, generator):
    weight = random_weight(generator, (5, 4), batch=3)
    assert prior(weight).item() == pytest.approx(np.mean([prior(w[None]).item() for w in weight]), rel=1e-12)


@pytest.mark.parametrize("prior", [lambda w: beta_log_prior(w, 1.2), lambda w: gaussian_log_prior(w, 0.5)])
def test_a_bfloat16_weight_has_a_float32_prior(prior, generator):
    weight = random_weight(generator, (5, 4, 6)).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = prior(weight)
    value.backward()
    assert value.dtype == torch.float32 and value.item() == prior(weight.float()).item()
    assert weight.grad.isfinite().all()


def test_the_priors_refuse_what_they_do_not_describe():
    weight = torch.rand(1, 1, 4, 5).clamp_min(0.1)
    for prior, parameter in [(beta_log_prior, 2.0), (gaussian_log_prior, 0.5)]:
        with pytest.raises(ValueError, match=r"weight \(4, 5\)"):
            prior(weight[0, 0], parameter)
        for bad in (math.nan, math.inf):
            broken = weight.clone()
            broken[0, 0, 2, 2] = bad
            with pytest.raises(ValueError, match=r"weight \(1, 1, 4, 5\)"):
                prior(broken, parameter)
    for outside in (0.0, -0.1, 1.01):
        broken = weight.clone()
        broken[0, 0, 2, 2] = outside
        with pytest.raises(ValueError, match=r"weight \(1, 1, 4, 5\) must be in \(0, 1\]"):
            beta_log_prior(broken, 2.0)
    with pytest.raises(ValueError, match=r"alpha 0\.9"):
        beta_log_prior(weight, 0.9)
    with pytest.raises(ValueError, match="sigma 0"):
        gaussian_log_prior(weight, 0)
    one_and_a_rounding = torch.full((1, 1, 4, 5), 1 + 2**-23)
    assert beta_log_prior(one_and_a_rounding, 2.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(60, 50), (30, 25, 35)], ids=["2-D", "3-D"])
def test_the_best_weight_under_beta_is_the_one_that_the_documentation_names(shape, generator):
    """min(1, α′ D² / (λ_max |∇u|²)) minimises λ_max · weighted diffusion − log prior (docs/transmorph.md).

    |∇u|² has the differences that end at a voxel.  A mean over differences is over one fewer than the voxels of an
    axis, so that the penalty weighs a little more than a mean over voxels would.
    """
    alpha, maximum, ndim = 0.175, 3.354, len(shape)
    field = torch.from_numpy(0.15 * generator.normal(size=(1, ndim, *shape)))
    inside = (0, 0, *[slice(1, None)] * ndim)
    squared = sum(
        field.diff(dim=axis, prepend=field.narrow(axis, 0, 1)).square().sum(1, keepdim=True)
        * (field.shape[axis] / (field.shape[axis] - 1))
        for axis in range(2, field.ndim)
    )
    best = (alpha * ndim**2 / (maximum * squared)).clamp(max=1)
    weight = best.clone().requires_grad_()
    loss = maximum * weighted_diffusion(field, weight) - beta_log_prior(weight, 1 + alpha)
    loss.backward()
    slope, free = weight.grad[inside] * weight.numel() * best[inside], (best < 1)[inside]
    assert 0.1 < free.double().mean() < 0.9
    assert slope[free].abs().max() < 1e-9 * alpha
    assert slope[~free].max() < 0, "a larger weight would be better still, but 1 is the largest"


@pytest.mark.parametrize("alpha", [0.05, 0.3, 2.0])
def test_the_most_probable_weight_is_the_minimum_of_the_paper_s_loss(alpha):
    """Eq. 19 at each voxel, over a fine grid of weights."""
    g = torch.tensor([0.0, 0.01, 0.29, 0.31, 1.0, 40.0]).view(1, 1, 2, 3)
    weights = torch.linspace(1e-5, 1, 100_001, dtype=torch.float64).view(-1, 1)
    loss = weights * g.flatten() - alpha * weights.log()
    expected = weights.flatten()[loss.argmin(0)].view_as(g)
    found = beta_weight(g, alpha)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=0)
    assert found.min() > 0 and found.max() == 1


def test_a_weight_needs_a_positive_alpha():
    for alpha in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="alpha"):
            beta_weight(torch.zeros(1, 1, 2, 2), alpha)
