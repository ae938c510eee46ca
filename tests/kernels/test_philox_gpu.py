"""The Triton kernels of counted random numbers: the published vectors, the reference's numbers, and machine code."""

import pytest
import torch
from support.random_numbers import KNOWN_ANSWERS, OFFSET, SEED
from support.triton_tools import DEVICE, Budget, assert_within_budget, needs_triton, on_triton

from regcore.kernels import philox as operator
from regcore.kernels import reference_only
from regcore.kernels.dispatch import WHOLE
from regcore.kernels.philox import reference
from regcore.synthesis.intensities import ImageRanges, WarpRanges, draw_pair
from regcore.synthesis.noise import Draws
from regcore.synthesis.shapes import random_shapes

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter

CPU = torch.device("cpu")
OPERATORS = (operator._normal, operator._uniform, operator._label_image)


def like(*shape):
    return torch.empty(1, device=DEVICE).expand(shape)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_words_of_the_gpu_kernel_are_the_published_ones(counter, key, words):
    import triton
    import triton.language as tl

    from regcore.kernels.not_validated.philox import philox

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


@pytest.mark.parametrize("shape", [(1,), (7, 5), (1, 1, 9, 4, 33), (1025,)])
def test_kernels_draw_what_the_reference_does(shape):
    with on_triton(*OPERATORS):
        numbers = torch.ops.regcore.philox_uniform(like(*shape), SEED, OFFSET).cpu()
        normals = torch.ops.regcore.philox_normal(like(*shape), SEED, OFFSET).cpu()
    assert torch.equal(numbers, reference.uniform_reference(shape, SEED, OFFSET, CPU))
    torch.testing.assert_close(normals, reference.normal_reference(shape, SEED, OFFSET, CPU), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("dtype", WHOLE)
def test_labels_get_their_own_means_and_spreads(dtype, generator):
    codes = torch.from_numpy(generator.integers(0, 5, (1, 1, 9, 11, 13))).to(dtype)
    codes[0, 0, 0, 0, :2] = torch.tensor([100, 7]).to(dtype)  # beyond the tables
    means, spreads = torch.from_numpy(generator.uniform(1, 9, (2, 5))).float()
    with on_triton(*OPERATORS):
        tensors = [x.to(DEVICE) for x in (codes, means, spreads)]
        found = torch.ops.regcore.label_image(*tensors, SEED, OFFSET).cpu()
    expected = reference.label_image_reference(codes, means, spreads, SEED, OFFSET)
    assert found.dtype == torch.float32 and found.shape == codes.shape
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


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


def test_the_operators_are_registered_as_torch_wants_it():
    codes = torch.randint(4, (1, 1, 5, 6), dtype=torch.uint8, device=DEVICE)
    tables = torch.rand(2, 4, device=DEVICE)
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.philox_normal.default, (like(3, 5), SEED, OFFSET))
        torch.library.opcheck(torch.ops.regcore.philox_uniform.default, (like(3, 5), SEED, OFFSET))
        torch.library.opcheck(torch.ops.regcore.label_image.default, (codes, *tables, SEED, OFFSET))


def test_the_kernels_compile_within_their_budget():
    types = dict.fromkeys(("means", "spreads", "out"), "*fp32") | {"labels": "*u8"}
    types |= dict.fromkeys(["count", "codes", "k0", "k1", "o0", "o1"], "i32")
    constants = {"COUNTERS": 128}
    assert_within_budget(
        "regcore.kernels.not_validated.philox",
        [
            Budget("normal_kernel", types, constants, registers=32, instructions=220),
            Budget("uniform_kernel", types, constants, registers=24, instructions=130),
            Budget("label_image_kernel", types, constants, registers=40, instructions=300),
        ],
    )
