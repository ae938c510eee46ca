"""The Numba kernels of diffusion against the reference."""

import pytest
from support.kernel_cases import assert_kernel_is_reference, needs_numba, normal, per_type

from regcore.kernels import diffusion as diffusion_kernel

pytestmark = needs_numba


@pytest.mark.slow
@per_type
@pytest.mark.parametrize("shape", [(2, 2), (2, 7), (9, 6), (2, 2, 2), (5, 2, 3), (6, 5, 4)], ids=str)
def test_diffusion_is_the_reference(shape, dtype, generator):
    for channels in (1, len(shape)):
        field = 5 * normal(generator, 2, channels, *shape, dtype=dtype)
        assert_kernel_is_reference(diffusion_kernel.diffusion, [field])
