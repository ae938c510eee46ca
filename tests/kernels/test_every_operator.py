"""What holds for every operator that has a Numba kernel: as an operator of torch, and for any layout and batch.

What an operator computes is tested elsewhere, against independent implementations; that a kernel agrees with its
reference, in the test of that operator.
"""

import pytest
import torch
from support.kernel_cases import (
    LABELS,
    OPERATORS,
    SHAPES,
    Entered,
    assert_close,
    between_voxels,
    channels_last,
    inputs_of,
    label_map,
    needs_numba,
    normal,
    per_context,
    per_operator,
    per_shape,
    per_type,
    saved_by,
    strided,
    value_and_gradients,
)

from regcore.checks import NotFiniteError
from regcore.kernels import diffusion as diffusion_kernel
from regcore.kernels import integrate as integrate_kernel
from regcore.kernels import jacobian, label_dice, reference_only
from regcore.kernels import lncc as lncc_kernel
from regcore.kernels import mind_ssc as mind_kernel
from regcore.kernels import warp as warp_kernel
from regcore.losses import soft_dice

pytestmark = needs_numba


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


@per_operator
@per_shape
def test_gradients_are_those_of_finite_differences(name, shape, generator):
    small = tuple(n - 2 for n in shape)
    inputs = inputs_of(name, generator, small, batch=2)
    leaves = [x.requires_grad_(x.is_floating_point()) for x in inputs]
    with Entered() as entered:
        assert torch.autograd.gradcheck(OPERATORS[name], leaves)
    assert entered.names


#: Operators whose derivative is an operator of its own.
DERIVED = {"integrate", "diffusion", "jacobian_determinant", "mind_ssc_descriptor"}


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
    reach = [1] * len(shape)
    described = image[:, :1].repeat(1, {2: 4, 3: 12}[len(shape)], *reach)
    yield ops.mind_ssc_descriptor.default, (image[:, :1], reach, reach)
    yield ops.mind_ssc_descriptor_backward.default, (described, image[:, :1], reach, reach)
    for wanted in ((True, True), (False, True), (False, False)):
        yield ops.mind_ssc_difference.default, (described, image[:, :1], reach, reach, *wanted)
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


@pytest.mark.slow
@per_shape
def test_operators_are_registered_as_torch_wants_them(shape, generator):
    """Schemas tell what is changed, shapes are known without computing, autograd is found under tracing."""
    for operator, arguments in calls(generator, shape):
        checks = ["test_schema", "test_faketensor"]
        torch.library.opcheck(operator, arguments, test_utils=checks)
        if operator.name().removeprefix("regcore::") in DERIVED:
            arguments = (arguments[0].requires_grad_(), *arguments[1:])
            torch.library.opcheck(
                operator, arguments, test_utils=[*checks, "test_autograd_registration", "test_aot_dispatch_dynamic"]
            )
            arguments[0].requires_grad_(False)


@pytest.mark.parametrize("name", ["warp", "integrate", "lncc", "mind_ssc", "soft_dice", "diffusion"])
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


@per_operator
@per_shape
@per_type
def test_an_item_does_not_depend_on_its_place_in_the_batch(name, shape, dtype, generator):
    """Of losses that average over the batch the gradient is a quarter, which is exact."""
    inputs = inputs_of(name, generator, shape, batch=4, channels=2, dtype=dtype)
    averages = name.startswith(("lncc", "mind_ssc", "diffusion"))

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
        reach = [1] * len(shape)
        assert mind_kernel.mind_ssc(image, broken_image, reach, reach).isnan()
        assert mind_kernel.mind_ssc(broken_image, image, reach, reach).isnan()
        _, warped, _ = label_dice.overlaps(labels, labels, broken_field, 1)
        assert warped.isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@per_context
@per_operator
def test_what_is_not_finite_is_refused_by_name(name, context, value, generator):
    inputs = inputs_of(name, generator, SHAPES[1])
    inputs[-1][0, 0, 1, 2, 3] = value
    argument = {"warp": "displacement", "warp-edge": "displacement", "integrate": "velocity", "diffusion": "field"}
    argument |= {"mind_ssc": "warped", "descriptor": "image"}
    functions = {**OPERATORS, "overlaps": lambda fixed, moving, u: soft_dice(fixed, moving, u, LABELS)}
    with context(), pytest.raises(NotFiniteError) as caught:
        functions[name](*inputs)
    expected = argument.get(name, "moving" if name.startswith("lncc") else "displacement")
    assert f"{expected} {tuple(inputs[-1].shape)} holds 1 values" in str(caught.value)


@per_shape
@pytest.mark.parametrize("name", ["integrate", "diffusion", "jacobian", "warp", "descriptor"])
def test_the_backward_keeps_the_inputs_and_nothing_else(name, shape, generator):
    inputs = [x.requires_grad_() for x in inputs_of(name, generator, shape)]
    saved = saved_by(OPERATORS[name], *inputs)
    assert [x.data_ptr() for x in saved] == [x.data_ptr() for x in inputs]
    with reference_only():
        assert len(saved_by(OPERATORS[name], *inputs)) > len(saved)
