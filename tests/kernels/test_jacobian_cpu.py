"""The Numba kernels of Jacobian determinants and of digital folds against the reference."""

import numpy as np
import pytest
import torch
from support.kernel_cases import (
    assert_kernel_is_reference,
    channels_last,
    needs_numba,
    normal,
    per_shape,
    per_type,
    strided,
)

from regcore.evaluation import digital_folds
from regcore.kernels import jacobian, launch, reference_only
from regcore.spatial import jacobian_determinant

pytestmark = needs_numba


@per_type
@pytest.mark.parametrize("shape", [(2, 2), (2, 7), (9, 6), (2, 2, 2), (5, 2, 3), (6, 5, 4)], ids=str)
def test_the_jacobian_determinant_is_the_reference(shape, dtype, generator):
    """The gradient too: it is taken through the cofactors, not by differentiating the reference."""
    assert_kernel_is_reference(jacobian_determinant, [normal(generator, 2, len(shape), *shape, dtype=dtype)])


@pytest.mark.parametrize("shape", [(3, 3, 3), (6, 5, 9), (3, 8, 4)], ids=str)
def test_digital_folds_are_the_reference(shape, generator, monkeypatch):
    """Counts are equal, and the volume but for the last digits."""
    rows = []
    monkeypatch.setattr(jacobian.cpu, "run", lambda *arguments: rows.append(arguments[1]) or launch.run(*arguments))
    for scale in (0.5, 2.0):
        displacement = scale * normal(generator, 1, 3, *shape)
        for mask in (None, generator.random(shape) < 0.6, np.zeros(shape, bool)):
            found = digital_folds(displacement, mask)
            with reference_only():
                expected = digital_folds(displacement, mask)
            for field in ("voxels", "central", "corners"):
                assert getattr(found, field) == getattr(expected, field)
            assert found.simplices == pytest.approx(expected.simplices, rel=1e-12)
            assert found.volume == pytest.approx(expected.volume, rel=1e-12)
            assert mask is not None or scale < 1 or found.corners > 0
    assert len(rows) == 6  # the kernel ran for each of them


def test_digital_folds_of_a_map_that_only_just_folds_are_the_reference():
    """Whole and half numbers are exact, so that a determinant of 0 is 0 in both."""
    generator = np.random.default_rng(3)
    displacement = torch.from_numpy(generator.integers(-2, 3, (1, 3, 7, 6, 8)) / 2)
    found = digital_folds(displacement)
    with reference_only():
        assert found == digital_folds(displacement)
    assert 0 < found.central < found.voxels


@per_shape
def test_digital_folds_take_any_strides(shape, generator):
    displacement = normal(generator, 1, len(shape), *shape)
    mask = generator.random(shape[::-1]) < 0.5
    expected = digital_folds(displacement, np.ascontiguousarray(mask.T))
    assert (
        expected == digital_folds(strided(displacement), mask.T) == digital_folds(channels_last(displacement), mask.T)
    )


def test_digital_folds_of_narrow_types_are_those_of_float64(generator):
    displacement = normal(generator, 1, 3, 5, 4, 6).half()
    assert digital_folds(displacement) == digital_folds(displacement.double())
