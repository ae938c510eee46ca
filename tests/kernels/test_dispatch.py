"""Which of kernel and reference runs."""

import re
from pathlib import Path

import pytest
import torch
from support.kernel_cases import OPERATORS, SHAPES, Entered, inputs_of, needs_numba, per_operator
from support.scripts import run_script

from regcore.kernels import dispatch, reference_only
from regcore.spatial import warp

pytestmark = needs_numba


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@per_operator
def test_narrow_types_are_left_to_the_reference_or_converted(name, dtype, generator):
    """The result is that of float32 but for roundings in the narrow type."""
    shape = SHAPES[0]
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in inputs_of(name, generator, shape)]
    wide = [x.float() if x.is_floating_point() else x for x in inputs]
    with Entered() as entered:
        found = OPERATORS[name](*inputs)
    # A map of integers, whatever the type of the displacement; and images of MIND, which are converted first.
    assert entered.names <= {"label_places", "mind_ssc_descriptor", "mind_ssc_difference"}
    expected = OPERATORS[name](*wide)
    for a, b in zip(*[(x,) if isinstance(x, torch.Tensor) else x for x in (found, expected)], strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=20 * torch.finfo(dtype).eps * b.abs().max())


def test_two_types_are_left_to_the_reference_and_the_image_gives_the_type(generator):
    image, displacement = inputs_of("warp", generator, SHAPES[1])
    with Entered() as entered:
        found = warp(image.float(), displacement)
    assert not entered.names and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), warp(image, displacement), rtol=0, atol=1e-5)


def test_the_reference_can_be_asked_for_within_itself_and_after_an_error(generator):
    image, displacement = inputs_of("warp", generator, SHAPES[1])

    def entered() -> bool:
        with Entered() as mode:
            warp(image, displacement)
        return bool(mode.names)

    assert entered()
    with reference_only():
        assert not entered()
        with reference_only():
            assert not entered()
        assert not entered()
        with pytest.raises(ZeroDivisionError), reference_only():
            1 / 0  # noqa: B018
        assert not entered()
    assert entered()


def test_kernels_that_are_not_used_are_kept_apart():
    """An operator's folder has ``gpu.py`` where that is used; what no GPU has validated is in a folder of its own."""
    room = Path(dispatch.__file__).parent
    used, apart = set(), set()
    for path in room.glob("*/__init__.py"):
        source, operator = path.read_text(), path.parent.name
        named = set(re.findall(r'operator="(\w+)"', source))
        if f"from regcore.kernels.not_validated import {operator} as gpu" in source:
            assert (room / "not_validated" / f"{operator}.py").exists() and not (path.parent / "gpu.py").exists()
            apart |= named
        else:
            assert (path.parent / "gpu.py").exists() == bool(named)
            used |= named
    assert used == set(dispatch.FEWEST_ENTRIES) and apart == set(dispatch.NOT_VALIDATED)


@pytest.mark.slow
def test_triton_is_imported_where_a_gpu_needs_it_and_not_before():
    """Nor are files that import it, by which regcore runs without Triton."""
    script = """
import sys, regcore, regcore.losses, regcore.spatial, regcore.networks, regcore.synthesis.intensities
loaded = [name for name in sys.modules if name.startswith("regcore.kernels.")]
assert "regcore.kernels.shading" in loaded and "regcore.kernels.lncc.cpu" in loaded
assert not [name for name in loaded if "gpu" in name or "not_validated" in name or "triton" in name], loaded
"""
    run_script(script)
