import numpy as np
import torch
from sklearn.metrics import mutual_info_score

from regcore.alignment.information import classes, total_information


def test_whole_classes_have_the_mutual_information_of_scikit_learn():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, 500)
    second = np.where(rng.random(500) < 0.6, first, rng.integers(0, 4, 500))
    samples = [
        torch.stack([torch.tensor(labels[None] / 3, dtype=torch.float64), *torch.ones(2, 1, 500, dtype=torch.float64)])
        for labels in (first, second)
    ]
    found = total_information(samples[1], classes(samples[0], 4)[:, 0])
    assert abs(found.item() / 500 - mutual_info_score(first, second)) < 1e-4


def test_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(2, 30, generator=generator, dtype=torch.float64) * 0.4 + 0.6
    inside = valid * (torch.rand(2, 30, generator=generator, dtype=torch.float64) * 0.8 + 0.1)
    ranked = inside * (torch.rand(2, 30, generator=generator, dtype=torch.float64) * 0.9 + 0.05)
    fixed = torch.rand(6, 30, generator=generator, dtype=torch.float64)
    samples = torch.stack([ranked, inside, valid]).requires_grad_()
    (gradient,) = torch.autograd.grad(total_information(samples, fixed).sum(), samples)
    for index in [(0, 0, 3), (1, 1, 7), (2, 0, 20), (1, 0, 0), (0, 1, 29)]:
        step = torch.zeros_like(samples)
        step[index] = 1e-5
        ends = [total_information(samples.detach() + sign * step, fixed).sum() for sign in (1, -1)]
        assert abs((ends[0] - ends[1]).item() / 2e-5 - gradient[index].item()) < 2e-3 * gradient.abs().max()


def test_what_does_not_count_says_nothing():
    samples = torch.stack([torch.rand(1, 40), torch.ones(1, 40), torch.ones(1, 40)])
    fixed = classes(samples, 3)[:, 0]
    hidden = samples.clone()
    hidden[:, :, 20:] = 0
    assert torch.allclose(total_information(hidden, fixed), total_information(samples[:, :, :20], fixed[:, :20]))
