"""The Numba kernels of interpolation against the reference."""

import pytest
import torch
from support.kernel_cases import (
    WARPS,
    assert_kernel_is_reference,
    displacements,
    needs_numba,
    normal,
    per_border,
    per_type,
    value_and_gradients,
)

from regcore.spatial import warp

pytestmark = needs_numba


@per_border
@per_type
def test_warp_is_the_reference(border, dtype, generator):
    for moving, fixed, batch, channels in WARPS:
        image = normal(generator, batch, channels, *moving, dtype=dtype)
        for displacement in displacements(generator, batch, fixed, dtype):
            assert_kernel_is_reference(lambda m, u: warp(m, u, border=border), [image, displacement])


def test_one_displacement_warps_a_whole_batch(generator):
    image, displacement = normal(generator, 3, 2, 5, 4), normal(generator, 1, 2, 6, 7)
    assert_kernel_is_reference(warp, [image, displacement])


@pytest.mark.parametrize("wanted", [(True, False), (False, True)], ids=["image", "displacement"])
def test_warp_gives_one_gradient_where_one_is_asked_for(wanted, generator):
    image, displacement = normal(generator, 1, 2, 5, 4, 3), normal(generator, 1, 3, 4, 5, 3)
    both = value_and_gradients(warp, [image, displacement], [torch.ones(1, 2, 4, 5, 3).double()])[1:]
    leaves = [x.clone().requires_grad_(want) for x, want in zip((image, displacement), wanted, strict=True)]
    warp(*leaves).sum().backward()
    for leaf, want, expected in zip(leaves, wanted, both, strict=True):
        assert torch.equal(leaf.grad, expected) if want else leaf.grad is None
