"""The Numba kernels of MIND-SSC against the reference, and what they keep."""

import pytest
import torch
from support.kernel_cases import (
    Entered,
    assert_close,
    assert_kernel_is_reference,
    needs_numba,
    normal,
    per_type,
    saved_by,
    value_and_gradients,
)

from regcore.kernels import reference_only
from regcore.kernels.mind_ssc import cpu
from regcore.losses import mind_ssc, mind_ssc_descriptor, mind_ssc_difference

pytestmark = needs_numba

#: (space, radius, dilation): patches and distances within the image, as long as it, and longer.
CASES = [
    ((9, 8), 2, 2),
    ((9, 8), (0, 4), (3, 1)),
    ((2, 3), 3, 4),
    ((7, 6, 8), 2, 2),
    ((7, 6, 8), (1, 0, 3), (2, 1, 4)),
    ((5, 4, 3), (0, 0, 0), (1, 1, 1)),
    ((2, 1, 2), 3, 4),
    ((1, 5, 6), 2, 2),
    ((6, 5, 1), (3, 1, 1), (1, 6, 1)),
    ((3, 2, 40), (1, 1, 8), (2, 1, 30)),
]
per_case = pytest.mark.parametrize("shape, radius, dilation", CASES, ids=str)


@per_case
@per_type
def test_loss_and_gradients_are_the_reference(shape, radius, dilation, dtype, generator):
    fixed, warped = (offset + normal(generator, 2, 1, *shape, dtype=dtype) for offset in (3, -2))
    assert_kernel_is_reference(lambda f, w: mind_ssc(f, w, radius, dilation), [fixed, warped], roundings=2**8)


@per_case
def test_descriptors_and_their_gradient_are_the_reference(shape, radius, dilation, generator):
    image = normal(generator, 2, 1, *shape)
    assert_kernel_is_reference(lambda x: mind_ssc_descriptor(x, radius, dilation), [image], roundings=2**8)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1), (1, 1, 1)], ids=str)
def test_an_image_along_one_axis_of_two_is_described_but_has_no_gradient(shape, generator):
    """Its two distances are always one of 0 and one of 2 V, whatever the image."""
    image = normal(generator, 2, 1, *shape)
    found, gradient = value_and_gradients(lambda x: mind_ssc_descriptor(x, 1, 2), [image])
    with reference_only():
        assert_close([found], [mind_ssc_descriptor(image, 1, 2)])
    assert gradient.abs().max() < 1e-13


def test_elements_of_a_batch_have_clamped_variances_of_their_own(generator):
    """In the first the variance is clamped from below, in the second from above, and the third is constant."""
    fixed, warped = (normal(generator, 3, 1, 64, 64) for _ in range(2))
    warped[0] *= 0.01
    warped[0, 0, 3, 3] = 10
    warped[1] *= 1e-6
    warped[1, 0, 20, 20] = 1
    warped[2] = 3
    assert_kernel_is_reference(lambda f, w: mind_ssc(f, w, 0, 1), [fixed, warped], roundings=2**16)


@pytest.mark.parametrize("shape", [(12, 11), (9, 8, 10)], ids=["2-D", "3-D"])
def test_a_tied_minimum_shares_its_gradient_evenly(shape, generator):
    """Far from a step the patches of many pairs are exactly alike, and in a constant image all."""
    fixed, warped = normal(generator, 2, 1, *shape), torch.zeros(2, 1, *shape, dtype=torch.float64)
    warped[0, ..., 4:] = 1
    assert_kernel_is_reference(lambda f, w: mind_ssc(f, w, 1, 1), [fixed, warped], roundings=2**10)


def test_an_image_without_contrast_has_no_gradient_where_it_has_no_neighbours(generator):
    """One bright plane: far from it the sums are exactly 0, which a running sum would not leave."""
    image = torch.zeros(1, 1, 24, 9, 9)
    image[:, :, 0] = 1e6 * normal(generator, 1, 1, 9, 9, dtype=torch.float32)
    assert (mind_ssc_descriptor(image)[:, :, 8:] == 1).all()
    fixed = normal(generator, 1, 1, 24, 9, 9, dtype=torch.float32)
    _, gradient = value_and_gradients(lambda x: mind_ssc(fixed, x), [image])
    assert gradient[:, :, :5].any() and not gradient[:, :, 8:].any()


@pytest.mark.parametrize("shape", [(13, 12), (8, 7, 9)], ids=["2-D", "3-D"])
def test_a_mirrored_image_has_the_mirrored_gradient(shape, generator):
    fixed, warped = normal(generator, 1, 1, *shape), normal(generator, 1, 1, *shape)
    loss, *gradients = value_and_gradients(mind_ssc, [fixed, warped])
    for axis in range(2, fixed.ndim):
        mirrored = value_and_gradients(mind_ssc, [fixed.flip(axis), warped.flip(axis)])
        assert_close([mirrored[0], *(x.flip(axis) for x in mirrored[1:])], [loss, *gradients])


def test_one_gradient_is_given_where_one_is_asked_for(generator):
    fixed, warped = normal(generator, 2, 1, 6, 5, 4), normal(generator, 2, 1, 6, 5, 4)
    _, to_fixed, to_warped = value_and_gradients(mind_ssc, [fixed, warped], [torch.tensor(-2.0).double()])
    f, w = fixed.clone().requires_grad_(), warped.clone().requires_grad_()
    (-2 * mind_ssc(f, warped)).backward()
    (-2 * mind_ssc(fixed, w)).backward()
    assert_close([f.grad, w.grad], [to_fixed, to_warped])


def test_what_is_saved_is_one_image_for_the_warped_one(generator):
    """And, where the other image or its descriptor has a gradient, that of the descriptor."""
    fixed, warped = normal(generator, 1, 1, 6, 5, 4), normal(generator, 1, 1, 6, 5, 4)
    assert saved_by(mind_ssc, fixed, warped) == []
    with torch.no_grad():
        assert saved_by(mind_ssc, fixed, warped.requires_grad_()) == []
    assert sum(x.numel() for x in saved_by(mind_ssc, fixed, warped)) == warped.numel()
    assert sum(x.numel() for x in saved_by(mind_ssc, warped, fixed)) == warped.numel()
    known = mind_ssc_descriptor(fixed)
    assert sum(x.numel() for x in saved_by(mind_ssc_difference, known, warped)) == warped.numel()
    assert sum(x.numel() for x in saved_by(mind_ssc, fixed.requires_grad_(), warped)) == (1 + 12 + 1) * warped.numel()


def test_threads_change_no_bit(generator):
    fixed, warped = (normal(generator, 2, 1, 21, 22, 23, dtype=torch.float32) for _ in range(2))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(value_and_gradients(mind_ssc, [fixed, warped]))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@per_type
def test_exponentials_are_as_exact_as_those_of_torch(dtype):
    exponents = torch.linspace(0, 800, 200_001, dtype=torch.float64).to(dtype)
    found = torch.empty_like(exponents)
    memory = torch.empty(len(exponents), dtype=torch.int32)
    cpu.respond(exponents.numpy(), torch.ones_like(exponents).numpy(), memory.numpy(), found.numpy())
    expected = (-exponents.double()).exp()
    kind = torch.finfo(dtype)
    assert ((found.double() - expected).abs() <= kind.eps * expected + 2 * kind.tiny).all()
    assert found[0] == 1 and (found >= 0).all()


def test_images_stored_in_sixteen_bits_are_described_in_float32(generator):
    fixed, warped = (normal(generator, 1, 1, 6, 5, 4).half() for _ in range(2))
    with Entered() as entered:
        loss, to_fixed, to_warped = value_and_gradients(mind_ssc, [fixed, warped])
    assert entered.names
    assert loss.dtype == torch.float32 and to_fixed.dtype == to_warped.dtype == torch.float16
    with reference_only():
        assert_close([loss], [mind_ssc(fixed.float(), warped.float())])
