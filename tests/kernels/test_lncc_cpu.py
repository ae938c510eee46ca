"""The Numba kernels of local correlation against the reference, and what they keep."""

import pytest
import torch
from support.kernel_cases import (
    SHAPES,
    Entered,
    assert_close,
    assert_kernel_is_reference,
    inputs_of,
    needs_numba,
    normal,
    per_type,
    rough,
    saved_by,
    value_and_gradients,
)

from regcore.losses import lncc

pytestmark = needs_numba


@per_type
@pytest.mark.parametrize("variant", ["ants", "voxelmorph"])
@pytest.mark.parametrize("shape", [(11, 6), (2, 2), (8, 5, 7), (2, 3, 2)], ids=str)
def test_lncc_is_the_reference(shape, variant, dtype, generator):
    """Windows odd, even and larger than the image; more than one channel and image."""
    fixed, moving = (offset + rough(generator, 2, 2, *shape, dtype=dtype) for offset in (0.5, 4))
    for window in (2, 3, 4, 9):
        assert_kernel_is_reference(lambda f, m, w=window: lncc(f, m, w, variant), [fixed, moving], roundings=2**12)


@pytest.mark.parametrize("variant", ["ants", "voxelmorph"])
@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1, 8)], ids=str)
def test_lncc_of_an_image_one_voxel_thin_is_the_reference(shape, variant, generator):
    fixed, moving = 3 + normal(generator, 1, 1, *shape), normal(generator, 1, 1, *shape)
    assert_kernel_is_reference(lambda f, m: lncc(f, m, 3, variant), [fixed, moving], roundings=2**12)


@pytest.mark.parametrize("shape", [(130, 4), (110, 3, 4), (3, 50, 900)], ids=str)
def test_lncc_of_long_images_is_the_reference(shape, generator):
    """Long along each axis in turn: the kernel's work is cut up along planes and along rows."""
    fixed, moving = (5 + normal(generator, 1, 1, *shape, dtype=torch.float32) for _ in range(2))
    for window in (4, 9):
        assert_kernel_is_reference(lambda f, m, w=window: lncc(f, m, w), [fixed, moving], roundings=2**12)


def test_lncc_gives_one_gradient_where_one_is_asked_for(generator):
    fixed, moving = normal(generator, 1, 1, 6, 5, 4), normal(generator, 1, 1, 6, 5, 4)
    _, to_fixed, to_moving = value_and_gradients(lncc, [fixed, moving], [torch.tensor(-2.0).double()])
    f, m = fixed.clone().requires_grad_(), moving.clone().requires_grad_()
    (-2 * lncc(f, moving)).backward()
    (-2 * lncc(fixed, m)).backward()
    assert_close([f.grad, m.grad], [to_fixed, to_moving])


def test_lncc_takes_images_of_integers(generator):
    fixed, moving = (torch.from_numpy(generator.integers(0, 255, (1, 1, 6, 5, 4))) for _ in range(2))
    with Entered() as entered:
        found = lncc(fixed.to(torch.uint8), moving.to(torch.int16), 3)
    assert not entered.names
    assert found.item() == pytest.approx(lncc(fixed.double(), moving.double(), 3).item(), rel=1e-6)


def test_lncc_keeps_one_image_for_each_gradient(generator):
    fixed, moving = inputs_of("lncc", generator, SHAPES[1])
    assert saved_by(lncc, fixed, moving) == []
    with torch.no_grad():
        assert saved_by(lncc, fixed, moving.requires_grad_()) == []
    assert sum(x.numel() for x in saved_by(lncc, fixed, moving)) == moving.numel()
    assert sum(x.numel() for x in saved_by(lncc, fixed.requires_grad_(), moving)) == 2 * moving.numel()
