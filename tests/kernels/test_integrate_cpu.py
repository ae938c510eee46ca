"""The Numba kernels of scaling and squaring against the reference."""

import pytest
from support.kernel_cases import assert_kernel_is_reference, needs_numba, normal, per_type

from regcore.spatial import integrate

pytestmark = needs_numba


@per_type
@pytest.mark.parametrize("shape", [(9, 6), (2, 2), (2, 7), (6, 7, 5), (2, 3, 2)], ids=str)
def test_integrate_is_the_reference(shape, dtype, generator):
    """A rounding of the displacement before a squaring moves the point where the next one looks.

    In float32 that is worth (steps) x (slope) roundings of a position, 2⁻²⁴ · 7 · 50: a few thousand
    roundings at most where velocities are as wild as here.
    """
    for scale, steps in ((0.5, 7), (0.5, 1), (0.5, 2), (3, 5), (40, 6)):
        velocity = scale * normal(generator, 2, len(shape), *shape, dtype=dtype)
        assert_kernel_is_reference(lambda v, steps=steps: integrate(v, steps), [velocity], roundings=2**12)
