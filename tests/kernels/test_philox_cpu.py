"""Counted random numbers: the published vectors, statistics, and the same numbers from reference and Numba kernels."""

import numpy as np
import pytest
import torch
from scipy import stats
from support.random_numbers import KNOWN_ANSWERS, OFFSET, SEED

from regcore.kernels import philox as operator
from regcore.kernels.dispatch import WHOLE
from regcore.kernels.philox import reference
from regcore.synthesis.intensities import ImageRanges, WarpRanges, draw_pair
from regcore.synthesis.noise import Draws, normal, normal_number, number, uniform

CPU = torch.device("cpu")


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_words_are_the_published_ones(counter, key, words):
    seed = key[1] << 32 | key[0]
    assert reference.philox(counter, seed) == words
    tensors = reference.philox([torch.tensor([c]) for c in counter], seed)
    assert tuple(int(word) for word in tensors) == words


@pytest.mark.parametrize("shape", [(1,), (7, 5), (1, 1, 9, 4, 33), (1025,)])
def test_kernels_draw_what_the_reference_does(shape):
    numbers = operator.uniform(shape, SEED, OFFSET, CPU)
    assert torch.equal(numbers, reference.uniform_reference(shape, SEED, OFFSET, CPU))
    normals = operator.normal(shape, SEED, OFFSET, CPU)
    torch.testing.assert_close(normals, reference.normal_reference(shape, SEED, OFFSET, CPU), rtol=2e-6, atol=2e-7)
    assert reference.number_reference(SEED, OFFSET) == float(numbers.flatten()[0])


def test_numbers_depend_on_neither_shape_nor_threads():
    whole = operator.normal((50_001,), 1, 2, CPU)
    assert torch.equal(operator.normal((3, 7, 11), 1, 2, CPU).flatten(), whole[:231])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        assert torch.equal(operator.normal((50_001,), 1, 2, CPU), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", WHOLE)
def test_labels_get_their_own_means_and_spreads(dtype, generator):
    codes = torch.from_numpy(generator.integers(0, 5, (1, 1, 9, 11, 13))).to(dtype)
    codes[0, 0, 0, 0, :2] = torch.tensor([100, 7]).to(dtype)  # beyond the tables
    means, spreads = torch.from_numpy(generator.uniform(1, 9, (2, 5))).float()
    expected = reference.label_image_reference(codes, means, spreads, SEED, OFFSET)
    noise = reference.normal_reference((9, 11, 13), SEED, OFFSET, CPU)
    assert torch.equal(expected[0, 0, 0, 0, :2], means[4] + spreads[4] * noise[0, 0, :2])
    found = operator.label_image(codes, means, spreads, SEED, OFFSET)
    assert found.dtype == torch.float32 and found.shape == codes.shape
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.slow
def test_nobody_waits_for_a_gpu():
    """A tensor on the device "meta" has no values, and cannot be asked for one."""
    for dtype in (torch.uint8, torch.int16):
        labels = torch.empty(1, 1, 16, 20, dtype=dtype, device="meta")
        pair = draw_pair(labels, labels, ImageRanges(thickest=3, largest_crop=0.2), WarpRanges(), Draws(1, "meta"))
        assert pair.fixed.shape == labels.shape and pair.fixed.is_meta


def test_numbers_have_their_distributions():
    numbers = operator.uniform((200_000,), 11, 0, CPU).double().numpy()
    assert numbers.min() >= 0 and numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 0.01
    normals = operator.normal((200_000,), 11, 1, CPU).double().numpy()
    assert stats.kstest(normals, "norm").pvalue > 0.01
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs((normals**power).mean() - moment) < 3 * np.sqrt(variance / normals.size)
    for word in range(4):  # each of the four by itself
        assert stats.kstest(normals[word::4], "norm").pvalue > 0.005


def test_draws_are_independent_of_each_other():
    count = 40_000
    draws = [operator.normal((count,), seed, offset, CPU) for seed, offset in [(0, 0), (0, 1), (1, 0), (2**32, 2**32)]]
    rows = torch.cat([torch.stack(draws), draws[0].view(-1, 4).T.repeat(1, 4), draws[0].roll(4)[None]])
    correlation = torch.corrcoef(rows).fill_diagonal_(0).abs()
    # The four words of a draw were repeated to its length: there are a quarter as many independent ones.
    assert correlation[:4, :4].max() < 4 / count**0.5 and correlation[8, :4].max() < 4 / count**0.5
    assert correlation[4:8, 4:8].max() < 4 / (count / 4) ** 0.5
    squares = torch.corrcoef(rows.square()).fill_diagonal_(0).abs()
    assert squares[:4, :4].max() < 4 / count**0.5 and squares[4:8, 4:8].max() < 4 / (count / 4) ** 0.5


def test_normals_are_box_and_mullers_in_double_precision():
    words = reference.words_reference(40_000, 5, 6, CPU).double().view(-1, 2, 2)
    radius = (-2 * (((words[..., 0] / 256).floor() + 1) / 2**24).log()).sqrt()
    angle = 2 * torch.pi * (words[..., 1] / 256).floor() / 2**24
    expected = torch.stack([radius * angle.cos(), radius * angle.sin()], 2).flatten()
    found = operator.normal((40_000,), 5, 6, CPU)
    torch.testing.assert_close(found.double(), expected, rtol=5e-7, atol=1e-7)


def test_the_largest_and_smallest_words_give_numbers():
    ends = torch.tensor([1, 2, 2**23, 2**24 - 1, 2**24])
    torch.testing.assert_close(reference._logarithm(ends).double(), (ends / 2**24).log().double(), rtol=3e-7, atol=0)
    turns = torch.tensor([0, 2**21, 2**22, 2**23, 3 * 2**22, 2**24 - 1])
    angles = 2 * torch.pi * turns.double() / 2**24
    cosine, sine = reference._circle(turns)
    torch.testing.assert_close(cosine.double(), angles.cos(), rtol=0, atol=1e-7)
    torch.testing.assert_close(sine.double(), angles.sin(), rtol=0, atol=1e-7)


def test_each_draw_takes_the_next_number_of_the_counter():
    draws = Draws(4)
    found = [normal((6,), draws), normal((6,), draws)]
    assert draws.offset == 2 and not torch.equal(*found)
    assert torch.equal(found[1], operator.normal((6,), 4, 1, CPU))
    assert number(2, 5, Draws(4)) == pytest.approx(float(uniform(2, 5, Draws(4), (1,))))
    assert stats.kstest([normal_number(draws) for _ in range(500)], "norm").pvalue > 0.01
