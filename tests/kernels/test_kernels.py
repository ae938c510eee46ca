"""The kernels against their plain-torch references, and how they behave as operators of torch.

What an operator computes is tested elsewhere, against independent implementations; here the kernel has to
agree with the reference, whatever the sizes, strides, threads and borders.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from support.paths import TESTS
from torch.utils._python_dispatch import TorchDispatchMode

import regcore
from regcore.checks import NotFiniteError
from regcore.evaluation import digital_folds
from regcore.kernels import diffusion as diffusion_kernel
from regcore.kernels import integrate as integrate_kernel
from regcore.kernels import jacobian, label_dice, launch, reference_only
from regcore.kernels import lncc as lncc_kernel
from regcore.kernels import warp as warp_kernel
from regcore.losses import diffusion, lncc, soft_dice
from regcore.spatial import integrate, jacobian_determinant, warp

pytestmark = pytest.mark.skipif(launch.numba is None, reason="without Numba regcore has no kernels")

SHAPES = [(7, 5), (5, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
per_type = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
per_border = pytest.mark.parametrize("border", ["zero", "edge"])
per_context = pytest.mark.parametrize("context", [nullcontext, reference_only], ids=["kernel", "reference"])
LABELS = (3, 0, 7)


def normal(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape)).to(dtype)


def rough(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    """Noise in which neighbours along an axis differ by 0.2 or more.

    A window of two voxels scores 1 whatever they hold, and its derivative is the difference of two numbers
    that grow without limit as the two come close.
    """
    board = np.indices(shape[2:]).sum(0) % 2
    return torch.from_numpy(board + generator.uniform(-0.4, 0.4, shape)).to(dtype)


def between_voxels(generator, *shape, dtype=torch.float64) -> torch.Tensor:
    """Displacements up to two voxels long, each 0.2 voxels or more away from a whole number."""
    whole = generator.integers(-2, 2, shape)
    return torch.from_numpy(whole + generator.uniform(0.2, 0.8, shape)).to(dtype)


def label_map(generator, batch: int, shape, dtype=torch.uint8) -> torch.Tensor:
    """Labels 0, 3, 5 and 7 in blocks, so that some cells hold one label and some hold several."""
    coarse = generator.integers(0, 4, (batch, 1, *[(n + 1) // 2 for n in shape]))
    for axis, size in enumerate(shape, start=2):
        coarse = np.take(coarse.repeat(2, axis), np.arange(size), axis)
    return torch.from_numpy(np.array([0, 3, 5, 7])[coarse]).to(dtype)


def overlaps(fixed, moving, displacement):
    """The differentiable sums of the labels' kernel, (batch, label) each."""
    codes = torch.tensor(sorted(LABELS))
    places = label_dice.place(fixed, codes), label_dice.place(moving, codes)
    return label_dice.overlaps(*places, displacement, len(codes))[:2]


#: Every differentiable operator, as a function of the inputs that ``inputs_of`` makes for it.
OPERATORS = {
    "warp": warp,
    "warp-edge": lambda image, displacement: warp(image, displacement, border="edge"),
    "integrate": lambda velocity: integrate(velocity, 3),
    "lncc": lambda fixed, moving: lncc(fixed, moving, 3),
    "lncc-voxelmorph": lambda fixed, moving: lncc(fixed, moving, 4, "voxelmorph"),
    "overlaps": overlaps,
    "diffusion": diffusion,
    "jacobian": jacobian_determinant,
}
per_operator = pytest.mark.parametrize("name", OPERATORS)


def inputs_of(name, generator, shape, batch=1, channels=1, dtype=torch.float64) -> list[torch.Tensor]:
    field = between_voxels(generator, batch, len(shape), *shape, dtype=dtype)
    if name.startswith("warp"):
        return [normal(generator, batch, channels, *shape, dtype=dtype), field]
    if name.startswith("lncc"):
        return [normal(generator, batch, channels, *shape, dtype=dtype) + offset for offset in (3, -2)]
    if name == "overlaps":
        return [label_map(generator, batch, shape), label_map(generator, batch, shape), field]
    return [field]


def value_and_gradients(function, inputs, cotangents=None) -> list[torch.Tensor]:
    """Values of ``function``, and its gradients with respect to each floating input, in that input's place."""
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
    values = function(*leaves)
    values = [values] if isinstance(values, torch.Tensor) else list(values)
    if cotangents is None:
        source = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(v.shape, dtype=v.dtype, generator=source) for v in values]
    gradients = torch.autograd.grad(values, [x for x in leaves if x.requires_grad], cotangents)
    return [*(v.detach() for v in values), *gradients]


class Entered(TorchDispatchMode):
    """Names of regcore's operators called in the context, and the entries of the largest tensor any call made."""

    def __init__(self):
        super().__init__()
        self.names, self.largest = set(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        namespace, _, name = function.name().partition("::")
        if namespace == "regcore":
            self.names.add(name)
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


def assert_close(found, expected, roundings: int = 64) -> None:
    """Each tensor within some roundings of its largest entry: a blend or a sum of a few dozen terms makes no more."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=roundings * torch.finfo(b.dtype).eps * b.abs().max().item())


def assert_kernel_is_reference(function, inputs, roundings: int = 64) -> None:
    """The same value and gradients, the kernel's forward and backward having run in one case and not in the other."""
    with Entered() as entered:
        found = value_and_gradients(function, inputs)
    assert entered.names
    with Entered() as entered, reference_only():
        expected = value_and_gradients(function, inputs)
    assert not entered.names
    assert_close(found, expected, roundings)


# ---- the same numbers as the reference

#: (moving, fixed, batch, channels): odd sizes, two voxels, one voxel in the fixed grid, larger and smaller.
WARPS = [
    ((7, 5), (6, 9), 2, 3),
    ((2, 2), (4, 3), 1, 1),
    ((9, 2), (1, 5), 1, 2),
    ((5, 4, 6), (4, 7, 3), 2, 2),
    ((2, 2, 2), (3, 2, 5), 3, 1),
    ((3, 5, 2), (2, 1, 1), 1, 1),
]


def displacements(generator, batch, shape, dtype):
    """Fractions of a voxel, a few voxels, far out of the image, and whole numbers, where the slope jumps."""
    for scale in (0.4, 3, 1e3):
        yield scale * normal(generator, batch, len(shape), *shape, dtype=dtype)
    yield torch.from_numpy(generator.integers(-3, 4, (batch, len(shape), *shape))).to(dtype)


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


@per_type
def test_label_overlaps_are_the_reference(dtype, generator):
    for moving, fixed, batch, _ in WARPS:
        maps = [label_map(generator, batch, fixed), label_map(generator, batch, moving)]
        for displacement in displacements(generator, batch, fixed, dtype):
            assert_kernel_is_reference(overlaps, [*maps, displacement])


@per_shape
def test_the_sizes_of_the_fixed_labels_are_counted_alike(shape, generator):
    fixed, moving = (label_map(generator, 2, shape) // 2 for _ in range(2))  # indices, not codes: 0 ... 3
    displacement = normal(generator, 2, len(shape), *shape)
    with Entered() as entered:
        _, _, sizes = label_dice.overlaps(fixed, moving, displacement, 4)
    assert entered.names
    assert sizes.tolist() == [[(one == label).sum().item() for label in range(4)] for one in fixed]


@per_type
@pytest.mark.parametrize("shape", [(2, 2), (2, 7), (9, 6), (2, 2, 2), (5, 2, 3), (6, 5, 4)], ids=str)
def test_diffusion_is_the_reference(shape, dtype, generator):
    for channels in (1, len(shape)):
        field = 5 * normal(generator, 2, channels, *shape, dtype=dtype)
        assert_kernel_is_reference(diffusion_kernel.diffusion, [field])


@per_type
@pytest.mark.parametrize("shape", [(2, 2), (2, 7), (9, 6), (2, 2, 2), (5, 2, 3), (6, 5, 4)], ids=str)
def test_the_jacobian_determinant_is_the_reference(shape, dtype, generator):
    """The gradient too: it is taken through the cofactors, not by differentiating the reference."""
    assert_kernel_is_reference(jacobian_determinant, [normal(generator, 2, len(shape), *shape, dtype=dtype)])


@pytest.mark.parametrize("shape", [(3, 3, 3), (6, 5, 9), (3, 8, 4)], ids=str)
def test_digital_folds_are_the_reference(shape, generator, monkeypatch):
    """Counts are equal, and the volume but for the last digits."""
    rows = []
    monkeypatch.setattr(jacobian, "run", lambda *arguments: rows.append(arguments[1]) or launch.run(*arguments))
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


# ---- how the numbers lie in memory


def strided(x: torch.Tensor) -> torch.Tensor:
    """The same values, every other entry of a larger tensor, axes in another order in memory."""
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1]).transpose(1, -2).contiguous().transpose(1, -2)
    wide[..., ::2] = x
    return wide[..., ::2]


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


@per_operator
@per_shape
@pytest.mark.parametrize("layout", [strided, channels_last])
def test_strides_change_nothing(name, shape, layout, generator):
    """Nor do those of the gradient that arrives."""
    inputs = inputs_of(name, generator, shape, batch=2, channels=2)
    expected = value_and_gradients(OPERATORS[name], inputs)
    moved = [layout(x) for x in inputs]
    assert all(torch.equal(x, y) for x, y in zip(inputs, moved, strict=True))
    assert not any(x.is_contiguous() for x in moved if x.shape[1] > 1)
    for a, b in zip(value_and_gradients(OPERATORS[name], moved), expected, strict=True):
        assert torch.equal(a, b)

    source = torch.Generator().manual_seed(1)
    count = len(expected) - sum(x.is_floating_point() for x in inputs)
    cotangents = [torch.randn(v.shape, dtype=v.dtype, generator=source) for v in expected[:count]]
    cotangents = [layout(c) if c.ndim == len(shape) + 2 else c for c in cotangents]
    for a, b in zip(value_and_gradients(OPERATORS[name], inputs, cotangents), expected, strict=True):
        assert torch.equal(a, b)


@per_operator
@per_shape
def test_expanded_inputs_and_gradients_are_taken(name, shape, generator):
    """One image seen twice; and a sum hands back a gradient of ones that is a single number in memory."""
    inputs = [x.expand(2, *x.shape[1:]) for x in inputs_of(name, generator, shape)]
    found = value_and_gradients(OPERATORS[name], inputs)
    for a, b in zip(found, value_and_gradients(OPERATORS[name], [x.contiguous() for x in inputs]), strict=True):
        assert torch.equal(a, b)
    values = found[: len(found) - sum(x.is_floating_point() for x in inputs)]
    ones = [torch.ones((), dtype=v.dtype).expand(v.shape) for v in values]
    summed = value_and_gradients(OPERATORS[name], inputs, ones)
    for a, b in zip(summed, value_and_gradients(OPERATORS[name], inputs, [o.contiguous() for o in ones]), strict=True):
        assert torch.equal(a, b)


@per_operator
@per_shape
def test_inputs_and_the_gradient_that_arrives_are_left_alone(name, shape, generator):
    inputs = inputs_of(name, generator, shape)
    kept = [x.clone() for x in inputs]
    leaves = [x.requires_grad_(x.is_floating_point()) for x in inputs]
    values = OPERATORS[name](*leaves)
    values = [values] if isinstance(values, torch.Tensor) else list(values)
    arriving = [torch.full_like(v, 2.5) for v in values]
    torch.autograd.backward(values, arriving)
    assert all(torch.equal(x, y) for x, y in zip(inputs, kept, strict=True))
    assert all((x == 2.5).all() for x in arriving)


@per_shape
def test_digital_folds_take_any_strides(shape, generator):
    displacement = normal(generator, 1, len(shape), *shape)
    mask = generator.random(shape[::-1]) < 0.5
    expected = digital_folds(displacement, np.ascontiguousarray(mask.T))
    assert (
        expected == digital_folds(strided(displacement), mask.T) == digital_folds(channels_last(displacement), mask.T)
    )


# ---- operators of torch


@per_operator
@per_shape
def test_gradients_are_those_of_finite_differences(name, shape, generator):
    small = tuple(n - 2 for n in shape)
    inputs = inputs_of(name, generator, small, batch=2)
    leaves = [x.requires_grad_(x.is_floating_point()) for x in inputs]
    with Entered() as entered:
        assert torch.autograd.gradcheck(OPERATORS[name], leaves)
    assert entered.names


def calls(generator, shape):
    """Every operator that is registered, and arguments for it."""
    ops = torch.ops.regcore
    image, field = normal(generator, 2, 2, *shape), between_voxels(generator, 2, len(shape), *shape)
    labels = [label_map(generator, 2, shape) % 3 for _ in range(2)]
    tables = normal(generator, 2, 3), normal(generator, 2, 3)
    yield ops.warp.default, (image, field, False)
    yield ops.warp.default, (image, field, True)
    yield ops.integrate.default, (field, 3, False)
    yield ops.lncc.default, (image, image.flip(2), 3, "ants", True, True)
    yield ops.lncc.default, (image, image.flip(2), 3, "voxelmorph", False, True)
    yield ops.lncc.default, (image, image.flip(2), 3, "ants", False, False)
    yield ops.label_overlaps.default, (*labels, field, 3)
    yield ops.diffusion.default, (field,)
    yield ops.jacobian_determinant.default, (field,)
    for wanted in ((True, True), (True, False), (False, True)):
        yield ops.warp_backward.default, (image, image, field, False, *wanted)
    yield ops.integrate_backward.default, (field, field, 3, False)
    yield ops.label_overlaps_backward.default, (*tables, *labels, field)
    yield ops.diffusion_backward.default, (torch.ones((), dtype=torch.float64), field)
    if len(shape) == 3:
        yield ops.digital_folds.default, (field[:1], torch.from_numpy(generator.random(shape) < 0.5))


@per_shape
def test_operators_are_registered_as_torch_wants_them(shape, generator):
    """Schemas tell what is changed, shapes are known without computing, autograd is found under tracing."""
    for operator, arguments in calls(generator, shape):
        checks = ["test_schema", "test_faketensor"]
        torch.library.opcheck(operator, arguments, test_utils=checks)
        if operator.name() in {"regcore::integrate", "regcore::diffusion", "regcore::jacobian_determinant"}:
            arguments = (arguments[0].requires_grad_(), *arguments[1:])
            torch.library.opcheck(
                operator, arguments, test_utils=[*checks, "test_autograd_registration", "test_aot_dispatch_dynamic"]
            )
            arguments[0].requires_grad_(False)


@pytest.mark.parametrize("name", ["warp", "integrate", "lncc", "soft_dice", "diffusion"])
def test_a_compiled_function_is_one_graph_and_gives_the_same(name, generator):
    shape = SHAPES[1]
    fixed, moving = label_map(generator, 1, shape), label_map(generator, 1, shape)
    functions = {**OPERATORS, "soft_dice": lambda displacement: soft_dice(fixed, moving, displacement, LABELS)}
    inputs = inputs_of(name, generator, shape)
    expected = value_and_gradients(functions[name], inputs)
    compiled = torch.compile(functions[name], fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = value_and_gradients(compiled, inputs)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@per_operator
def test_second_derivatives_are_right_or_refused(name, generator):
    """They are never silently zero."""
    inputs = inputs_of(name, generator, (4, 3))
    leaves = [x.requires_grad_(x.is_floating_point()) for x in inputs]
    wanted = [x for x in leaves if x.requires_grad]

    def second():
        values = OPERATORS[name](*leaves)
        total = values.square().sum() if isinstance(values, torch.Tensor) else sum(v.square().sum() for v in values)
        first = torch.autograd.grad(total, wanted, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), wanted)

    with reference_only():
        expected = second()
    assert any(e.abs().max() > 1e-6 for e in expected)
    try:
        found = second()
    except RuntimeError as error:
        assert "regcore" in str(error)
    else:
        assert_close(found, expected, roundings=2**16)


@per_operator
def test_operators_run_in_inference_mode(name, generator):
    inputs = inputs_of(name, generator, SHAPES[0])
    expected = OPERATORS[name](*inputs)
    with torch.inference_mode():
        found = OPERATORS[name](*inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


# ---- independence of threads, batch and surroundings


@pytest.fixture
def restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


#: Larger than what one thread gets three times over; many rows, many planes, and many voxels for torch's own sums.
LARGE = [(230, 210), (150, 140, 3), (40, 36, 34), (6000, 3, 2)]


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(shape, generator, restore_threads):
    assert np.prod(shape) > 2 * launch.VOXELS_PER_THREAD
    for name, function in OPERATORS.items():
        inputs = inputs_of(name, generator, shape, dtype=torch.float32)
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(function, inputs))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert torch.equal(a, b), name
    if len(shape) == 3 and min(shape) > 2:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(digital_folds(inputs[0].double()))
        assert found[0] == found[1] == found[2]


@per_operator
@per_shape
@per_type
def test_an_item_does_not_depend_on_its_place_in_the_batch(name, shape, dtype, generator):
    """Of losses that average over the batch the gradient is a quarter, which is exact."""
    inputs = inputs_of(name, generator, shape, batch=4, channels=2, dtype=dtype)
    averages = name.startswith(("lncc", "diffusion"))

    def values_and_gradients(items):
        values = OPERATORS[name](*[x[items] for x in leaves])
        values = (values,) if isinstance(values, torch.Tensor) else values
        wanted = [x for x in leaves if x.requires_grad]
        gradients = torch.autograd.grad([v.sum() for v in values], wanted)
        return [v.detach() for v in values], [g[items] for g in gradients]

    leaves = [x.requires_grad_(x.is_floating_point()) for x in inputs]
    whole_values, whole_gradients = values_and_gradients(slice(None))
    for item in range(4):
        values, gradients = values_and_gradients(slice(item, item + 1))
        if not averages:
            assert all(torch.equal(a[item : item + 1], b) for a, b in zip(whole_values, values, strict=True))
        for a, b in zip(whole_gradients, gradients, strict=True):
            assert torch.equal(a[item : item + 1], b / 4 if averages else b)


def everything(names=tuple(OPERATORS)) -> dict[str, list[torch.Tensor]]:
    """Value and gradients of every operator in two and three dimensions, on one thread or two."""
    generator = np.random.default_rng(5)
    found = {}
    for shape in ((24, 20, 18), (7, 5)):  # the first is large enough for two threads
        for name in names:
            found[f"{name} {shape}"] = value_and_gradients(OPERATORS[name], inputs_of(name, generator, shape))
        displacement = normal(generator, 1, len(shape), *shape)
        folds = digital_folds(displacement)
        found[f"folds {shape}"] = [torch.tensor([folds.central, folds.corners, folds.simplices, folds.volume])]
    return found


def run_script(script: str, *arguments, **environment) -> None:
    """Run ``script`` in a Python of its own that can import this module; a hang or an error fails the test."""
    paths = os.pathsep.join([str(TESTS), str(TESTS / "kernels"), str(Path(regcore.__file__).parents[1])])
    result = subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_without_numba_everything_gives_the_same(tmp_path):
    """But for the last digits, over which a long sum in another order decides."""
    script = """
import sys
sys.modules["numba"] = None
import torch, test_kernels
assert test_kernels.launch.numba is None
with test_kernels.Entered() as entered:
    torch.save(test_kernels.everything(), sys.argv[1])
assert not entered.names
"""
    run_script(script, tmp_path / "found.pt")
    without, found = torch.load(tmp_path / "found.pt", weights_only=True), everything()
    assert without.keys() == found.keys()
    for name, values in found.items():
        assert_close(without[name], values, roundings=2**12)


def test_kernels_run_in_a_forked_child_after_they_ran_in_the_parent():
    """Torch's own threads do not survive a fork: 2^15 numbers or more, as in the Jacobian's gradient, hang."""
    script = """
import os, torch, test_kernels
torch.set_num_threads(2)
names = [name for name in test_kernels.OPERATORS if name != "jacobian"]
expected = test_kernels.everything(names)
child = os.fork()
if child == 0:
    found = test_kernels.everything(names)
    same = all(torch.equal(a, b) for name in found for a, b in zip(found[name], expected[name], strict=True))
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert test_kernels.everything(names).keys() == expected.keys()
"""
    run_script(script)


def test_kernels_run_in_several_python_threads_at_once(restore_threads):
    torch.set_num_threads(2)
    expected = everything()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: everything(), range(8)):
            for name, values in found.items():
                assert all(torch.equal(a, b) for a, b in zip(values, expected[name], strict=True)), name


def test_kernels_compile_where_nothing_can_be_cached(tmp_path):
    """No folder is writable: not the one asked for, not that of the sources, not the user's."""
    package = tmp_path / "regcore"
    shutil.copytree(Path(regcore.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "kernels" / "__pycache__").write_text("a file, and no folder")
    (tmp_path / "file").touch()
    script = """
import torch, regcore
from regcore.kernels import diffusion, launch
assert regcore.__file__.startswith(__import__("sys").argv[1])
assert launch.numba is not None and "Null" in type(diffusion.square_differences._cache).__name__
assert diffusion.diffusion(torch.arange(6.0).view(1, 1, 2, 3)).item() == 5
"""
    below = str(tmp_path / "file" / "below")
    run_script(
        script,
        tmp_path,
        PYTHONPATH=str(tmp_path),
        PYTHONDONTWRITEBYTECODE="1",
        NUMBA_CACHE_DIR=below,
        XDG_CACHE_HOME=below,
        HOME=below,
    )


# ---- which of the two runs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@per_operator
def test_narrow_types_are_left_to_the_reference(name, dtype, generator):
    """The result is that of float32 but for roundings in the narrow type."""
    shape = SHAPES[0]
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in inputs_of(name, generator, shape)]
    wide = [x.float() if x.is_floating_point() else x for x in inputs]
    with Entered() as entered:
        found = OPERATORS[name](*inputs)
    assert entered.names <= {"label_places"}  # a map of integers, whatever the type of the displacement
    expected = OPERATORS[name](*wide)
    for a, b in zip(*[(x,) if isinstance(x, torch.Tensor) else x for x in (found, expected)], strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=20 * torch.finfo(dtype).eps * b.abs().max())


def test_digital_folds_of_narrow_types_are_those_of_float64(generator):
    displacement = normal(generator, 1, 3, 5, 4, 6).half()
    assert digital_folds(displacement) == digital_folds(displacement.double())


def test_two_types_are_left_to_the_reference_and_the_image_gives_the_type(generator):
    image, displacement = inputs_of("warp", generator, SHAPES[1])
    with Entered() as entered:
        found = warp(image.float(), displacement)
    assert not entered.names and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), warp(image, displacement), rtol=0, atol=1e-5)


def test_lncc_takes_images_of_integers(generator):
    fixed, moving = (torch.from_numpy(generator.integers(0, 255, (1, 1, 6, 5, 4))) for _ in range(2))
    with Entered() as entered:
        found = lncc(fixed.to(torch.uint8), moving.to(torch.int16), 3)
    assert not entered.names
    assert found.item() == pytest.approx(lncc(fixed.double(), moving.double(), 3).item(), rel=1e-6)


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


# ---- what is not a number


@per_shape
@per_context
def test_what_is_not_a_number_shows_in_the_result(shape, context, generator):
    """A compiled function checks no argument: its result has to tell.  So the operators are called unchecked here."""
    voxel = (0, 0, *[2] * len(shape))
    image = normal(generator, 1, 1, *shape)
    field = normal(generator, 1, len(shape), *shape)
    broken_image, broken_field = image.clone(), field.clone()
    broken_image[voxel] = broken_field[voxel] = float("nan")
    labels = torch.zeros(1, 1, *shape, dtype=torch.uint8)
    with context():
        for edge in (False, True):
            warped = warp_kernel.warp(image, broken_field, edge)
            assert warped[voxel].isnan() and warped.isnan().sum() == 1
            assert integrate_kernel.integrate(broken_field, 3)[(slice(None), *voxel[1:])].isnan().all()
        assert jacobian.determinant(broken_field).isnan().any()
        assert diffusion_kernel.diffusion(broken_field).isnan()
        for variant in ("ants", "voxelmorph"):
            assert lncc_kernel.lncc(image, broken_image, 3, variant, False).isnan()
            assert lncc_kernel.lncc(broken_image, image, 3, variant, False).isnan()
        _, warped, _ = label_dice.overlaps(labels, labels, broken_field, 1)
        assert warped.isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@per_context
@per_operator
def test_what_is_not_finite_is_refused_by_name(name, context, value, generator):
    inputs = inputs_of(name, generator, SHAPES[1])
    inputs[-1][0, 0, 1, 2, 3] = value
    argument = {"warp": "displacement", "warp-edge": "displacement", "integrate": "velocity", "diffusion": "field"}
    functions = {**OPERATORS, "overlaps": lambda fixed, moving, u: soft_dice(fixed, moving, u, LABELS)}
    with context(), pytest.raises(NotFiniteError) as caught:
        functions[name](*inputs)
    expected = argument.get(name, "moving" if name.startswith("lncc") else "displacement")
    assert f"{expected} {tuple(inputs[-1].shape)} holds 1 values" in str(caught.value)


# ---- memory


def saved_by(function, *inputs) -> list[torch.Tensor]:
    """Tensors that the backward of ``function`` keeps."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        function(*inputs)
    return saved


@per_shape
@pytest.mark.parametrize("name", ["integrate", "diffusion", "jacobian", "warp"])
def test_the_backward_keeps_the_inputs_and_nothing_else(name, shape, generator):
    inputs = [x.requires_grad_() for x in inputs_of(name, generator, shape)]
    saved = saved_by(OPERATORS[name], *inputs)
    assert [x.data_ptr() for x in saved] == [x.data_ptr() for x in inputs]
    with reference_only():
        assert len(saved_by(OPERATORS[name], *inputs)) > len(saved)


def test_lncc_keeps_one_image_for_each_gradient(generator):
    fixed, moving = inputs_of("lncc", generator, SHAPES[1])
    assert saved_by(lncc, fixed, moving) == []
    with torch.no_grad():
        assert saved_by(lncc, fixed, moving.requires_grad_()) == []
    assert sum(x.numel() for x in saved_by(lncc, fixed, moving)) == moving.numel()
    assert sum(x.numel() for x in saved_by(lncc, fixed.requires_grad_(), moving)) == 2 * moving.numel()


@per_context
def test_the_memory_of_soft_dice_does_not_grow_with_the_number_of_labels(context, generator):
    """With one-hot images of 60 labels the largest tensor would be 60 images."""
    shape = (12, 11, 10)
    maps = [torch.from_numpy(generator.integers(0, 60, (1, 1, *shape))) for _ in range(2)]
    displacement = normal(generator, 1, 3, *shape).requires_grad_()
    largest, kept = [], []
    for count in (2, 60):
        with context(), Entered() as entered:
            soft_dice(*maps, displacement, range(count)).backward()
            kept.append(sum(x.numel() for x in saved_by(soft_dice, *maps, displacement, range(count))))
        largest.append(entered.largest)
    assert largest[0] == largest[1] <= displacement.numel()
    assert kept[1] - kept[0] < 60 * 50  # a few numbers for each label
