"""Counted random numbers: the published vectors, statistics, and the same numbers from every kernel."""

import numpy as np
import pytest
import torch
from scipy import stats
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import philox as operator
from regcore.kernels import shading
from regcore.kernels.launch import reference_only
from regcore.synthesis.intensities import ImageRanges, WarpRanges, draw_pair
from regcore.synthesis.noise import Draws, normal, normal_number, number, uniform
from regcore.synthesis.shapes import random_shapes

SHADING = (shading._shade, shading._stretch)
OPERATORS = (operator._normal, operator._uniform, operator._label_image)
CPU = torch.device("cpu")
SEED, OFFSET = 0x9D2C5680_12345678, 2**40 + 3  # all words differ, and the highest bit is set
SEED -= 2**64
#: Counter, key and words of philox4x32-10 in ``kat_vectors`` of the authors' Random123.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def like(*shape):
    return torch.empty(1, device=DEVICE).expand(shape)


# ---- words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_words_are_the_published_ones(counter, key, words):
    seed = key[1] << 32 | key[0]
    assert operator.philox(counter, seed) == words
    tensors = operator.philox([torch.tensor([c]) for c in counter], seed)
    assert tuple(int(word) for word in tensors) == words


@needs_triton
@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_words_of_the_gpu_kernel_are_the_published_ones(counter, key, words):
    import triton
    import triton.language as tl

    from regcore.kernels.gpu.philox import philox

    @triton.jit
    def kernel(given, out, PHILOX: tl.constexpr):
        i = tl.arange(0, 4)
        c0, c1 = tl.load(given + 0 * i).to(tl.uint32), tl.load(given + 0 * i + 1).to(tl.uint32)
        c2, c3 = tl.load(given + 0 * i + 2).to(tl.uint32), tl.load(given + 0 * i + 3).to(tl.uint32)
        k0, k1 = tl.load(given + 0 * i + 4).to(tl.uint32), tl.load(given + 0 * i + 5).to(tl.uint32)
        a, b, c, d = PHILOX(c0, c1, c2, c3, k0, k1)
        found = tl.where(i == 0, a, tl.where(i == 1, b, tl.where(i == 2, c, d)))
        tl.store(out + i, found.to(tl.int64))

    out = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    kernel[(1,)](torch.tensor([*counter, *key], device=DEVICE), out, philox)
    assert tuple(out.tolist()) == words


# ---- one stream, whoever makes it


@pytest.mark.parametrize("shape", [(1,), (7, 5), (1, 1, 9, 4, 33), (1025,)])
def test_kernels_draw_what_the_reference_does(shape):
    numbers = [operator.uniform_reference(shape, SEED, OFFSET, CPU)]
    normals = [operator.normal_reference(shape, SEED, OFFSET, CPU)]
    numbers.append(operator.uniform(shape, SEED, OFFSET, CPU))
    normals.append(operator.normal(shape, SEED, OFFSET, CPU))
    if not needs_triton.args[0]:
        with on_triton(*OPERATORS):
            numbers.append(torch.ops.regcore.philox_uniform(like(*shape), SEED, OFFSET).cpu())
            normals.append(torch.ops.regcore.philox_normal(like(*shape), SEED, OFFSET).cpu())
    for found in numbers[1:]:
        assert torch.equal(found, numbers[0])
    for found in normals[1:]:
        torch.testing.assert_close(found, normals[0], rtol=2e-6, atol=2e-7)
    assert operator.number_reference(SEED, OFFSET) == float(numbers[0].flatten()[0])


def test_numbers_depend_on_neither_shape_nor_threads():
    whole = operator.normal((50_001,), 1, 2, CPU)
    assert torch.equal(operator.normal((3, 7, 11), 1, 2, CPU).flatten(), whole[:231])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        assert torch.equal(operator.normal((50_001,), 1, 2, CPU), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", operator.WHOLE)
def test_labels_get_their_own_means_and_spreads(dtype, generator):
    codes = torch.from_numpy(generator.integers(0, 5, (1, 1, 9, 11, 13))).to(dtype)
    codes[0, 0, 0, 0, :2] = torch.tensor([100, 7]).to(dtype)  # beyond the tables
    means, spreads = torch.from_numpy(generator.uniform(1, 9, (2, 5))).float()
    expected = operator.label_image_reference(codes, means, spreads, SEED, OFFSET)
    noise = operator.normal_reference((9, 11, 13), SEED, OFFSET, CPU)
    assert torch.equal(expected[0, 0, 0, 0, :2], means[4] + spreads[4] * noise[0, 0, :2])
    found = [operator.label_image(codes, means, spreads, SEED, OFFSET)]
    if not needs_triton.args[0]:
        with on_triton(*OPERATORS):
            tensors = [x.to(DEVICE) for x in (codes, means, spreads)]
            found.append(torch.ops.regcore.label_image(*tensors, SEED, OFFSET).cpu())
    for image in found:
        assert image.dtype == torch.float32 and image.shape == codes.shape
        torch.testing.assert_close(image, expected, rtol=1e-6, atol=1e-5)


@needs_triton
def test_a_pair_is_the_same_on_a_gpu_and_a_cpu():
    """Label maps up to ties of rounded positions, images where the labels are equal."""
    plain, warps = ImageRanges(b_K=0), WarpRanges(r_v=(4,), b_v=1)
    labels = random_shapes((12, 14), Draws(5), labels=4, resolution=4)
    pairs = [draw_pair(labels, labels, plain, warps, Draws(3))]
    with reference_only():
        pairs.append(draw_pair(labels, labels, plain, warps, Draws(3)))
    with on_triton(*OPERATORS):
        pairs.append(draw_pair(labels.to(DEVICE), labels.to(DEVICE), plain, warps, Draws(3, DEVICE)))
    for pair in pairs[1:]:
        equal = pair.fixed_labels.cpu() == pairs[0].fixed_labels
        assert equal.float().mean() > 0.99
        assert (pair.fixed.cpu() - pairs[0].fixed)[equal].abs().max() < 1e-4


def test_nobody_waits_for_a_gpu():
    """A tensor on the device "meta" has no values, and cannot be asked for one."""
    for dtype in (torch.uint8, torch.int16):
        labels = torch.empty(1, 1, 16, 20, dtype=dtype, device="meta")
        pair = draw_pair(labels, labels, ImageRanges(thickest=3, largest_crop=0.2), WarpRanges(), Draws(1, "meta"))
        assert pair.fixed.shape == labels.shape and pair.fixed.is_meta


@needs_triton
@pytest.mark.parametrize(("space", "coarse"), [((5, 9, 34), (2, 3, 4)), ((7, 40), (3, 2)), ((4, 5, 6), (4, 5, 6))])
def test_bias_field_clipping_normalisation_and_power_are_the_references(space, coarse, generator):
    image = torch.from_numpy(generator.uniform(-20, 200, (1, 1, *space))).float().to(DEVICE)
    field = torch.from_numpy(0.5 * generator.standard_normal((1, 1, *coarse))).float().to(DEVICE)
    expected, ends = shading.shade_reference(image, field, 255)
    raised = shading.stretch_reference(expected, ends, 0.7)
    with on_triton(*SHADING):
        found = torch.ops.regcore.shade(image, field, 255)
        torch.testing.assert_close(found, (expected, ends), rtol=2e-6, atol=1e-5)
        stretched = torch.ops.regcore.stretch(found[0], found[1], 0.7)
    torch.testing.assert_close(stretched, raised, rtol=0, atol=3e-6)
    assert float(stretched.min()) == 0 and float(stretched.max()) == 1


@needs_triton
def test_an_image_of_one_value_is_zero():
    with on_triton(*SHADING):
        flat = torch.ops.regcore.shade(torch.full((1, 1, 4, 5), 3.0, device=DEVICE), like(1, 1, 2, 2) * 0, 255)
        assert not torch.ops.regcore.stretch(*flat, 0.7).any()


# ---- statistics


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
    words = operator.words_reference(40_000, 5, 6, CPU).double().view(-1, 2, 2)
    radius = (-2 * (((words[..., 0] / 256).floor() + 1) / 2**24).log()).sqrt()
    angle = 2 * torch.pi * (words[..., 1] / 256).floor() / 2**24
    expected = torch.stack([radius * angle.cos(), radius * angle.sin()], 2).flatten()
    found = operator.normal((40_000,), 5, 6, CPU)
    torch.testing.assert_close(found.double(), expected, rtol=5e-7, atol=1e-7)


def test_the_largest_and_smallest_words_give_numbers():
    ends = torch.tensor([1, 2, 2**23, 2**24 - 1, 2**24])
    torch.testing.assert_close(operator._logarithm(ends).double(), (ends / 2**24).log().double(), rtol=3e-7, atol=0)
    turns = torch.tensor([0, 2**21, 2**22, 2**23, 3 * 2**22, 2**24 - 1])
    angles = 2 * torch.pi * turns.double() / 2**24
    cosine, sine = operator._circle(turns)
    torch.testing.assert_close(cosine.double(), angles.cos(), rtol=0, atol=1e-7)
    torch.testing.assert_close(sine.double(), angles.sin(), rtol=0, atol=1e-7)


def test_each_draw_takes_the_next_number_of_the_counter():
    draws = Draws(4)
    found = [normal((6,), draws), normal((6,), draws)]
    assert draws.offset == 2 and not torch.equal(*found)
    assert torch.equal(found[1], operator.normal((6,), 4, 1, CPU))
    assert number(2, 5, Draws(4)) == pytest.approx(float(uniform(2, 5, Draws(4), (1,))))
    assert stats.kstest([normal_number(draws) for _ in range(500)], "norm").pvalue > 0.01


# ---- operators


@needs_triton
def test_the_operators_are_registered_as_torch_wants_it():
    codes = torch.randint(4, (1, 1, 5, 6), dtype=torch.uint8, device=DEVICE)
    tables = torch.rand(2, 4, device=DEVICE)
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.philox_normal.default, (like(3, 5), SEED, OFFSET))
        torch.library.opcheck(torch.ops.regcore.philox_uniform.default, (like(3, 5), SEED, OFFSET))
        torch.library.opcheck(torch.ops.regcore.label_image.default, (codes, *tables, SEED, OFFSET))
    image, field = torch.rand(1, 1, 5, 6, device=DEVICE), torch.rand(1, 1, 2, 3, device=DEVICE)
    with on_triton(*SHADING):
        torch.library.opcheck(torch.ops.regcore.shade.default, (image, field, 255.0))
        torch.library.opcheck(torch.ops.regcore.stretch.default, (image, torch.ones(2, device=DEVICE), 0.7))


@needs_triton
def test_the_kernels_compile_within_their_budget():
    types = dict.fromkeys(("means", "spreads", "out"), "*fp32") | {"labels": "*u8"}
    types |= dict.fromkeys(["count", "codes", "k0", "k1", "o0", "o1"], "i32")
    constants = {"COUNTERS": 128}
    assert_within_budget(
        "regcore.kernels.gpu.philox",
        [
            Budget("normal_kernel", types, constants, registers=32, instructions=220),
            Budget("uniform_kernel", types, constants, registers=24, instructions=130),
            Budget("label_image_kernel", types, constants, registers=40, instructions=300),
        ],
    )
    types = dict.fromkeys(["image", "field", "out", "ends"], "*fp32")
    types |= dict.fromkeys(["depth", "height", "width", "planes", "rows", "columns", "count"], "i32")
    types |= dict.fromkeys(["brightest", "ratio_z", "ratio_y", "ratio_x", "exponent"], "fp32")
    assert_within_budget(
        "regcore.kernels.gpu.shading",
        [
            Budget("shade_kernel", types, {"BLOCK_Y": 8, "BLOCK_X": 32}, registers=40, instructions=360),
            Budget("stretch_kernel", types, {"VOXELS": 1024}, registers=44, instructions=430),
        ],
    )
