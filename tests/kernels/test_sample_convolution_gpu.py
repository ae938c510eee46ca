"""The Triton kernels of convolutions with weights for each sample, and the way of a hypernetwork to them."""

import pytest
import torch
from support.triton_tools import (
    DEVICE,
    Budget,
    assert_within_budget,
    compiled,
    needs_triton,
    on_triton,
    value_and_gradients,
)
from torch.func import vmap

from regcore.kernels import convolution
from regcore.kernels import sample_convolution as operator
from regcore.kernels.sample_convolution import reference
from regcore.networks import hypernetwork
from regcore.networks.unet import Architecture, FlowNetwork

pytestmark = [needs_triton, pytest.mark.slow]  # on a CPU through Triton's interpreter


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """On a GPU float32 is multiplied as float32, on either side."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


SMALL = Architecture((3, 3), (3, 3), at_half=(3,), downsampling="max-pool", full_skip="features")
OPERATORS = (operator._sample_convolution, operator._sample_convolution_backward)


def inputs(generator, channels, features, space=(4, 5, 6), kernel=3, batch=2, dtype=torch.float32):
    """Samples, weights and biases; weights are in the layout that a hypernetwork writes them in."""
    x = torch.from_numpy(generator.standard_normal((batch, channels, *space)))
    weight = torch.from_numpy(generator.standard_normal((batch, features, *[kernel] * len(space), channels)))
    bias = torch.from_numpy(generator.standard_normal((batch, features)))
    weight = weight.movedim(-1, 2) / (channels * kernel ** len(space)) ** 0.5
    return [tensor.to(DEVICE, dtype) for tensor in (x, weight, bias)]


def assert_as_close(found, expected, epsilons, dtype):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        atol = epsilons * torch.finfo(dtype).eps * b.abs().max().item()
        torch.testing.assert_close(a, b.to(a.dtype), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("channels", "features", "space", "kernel", "slope"),
    [
        (2, 16, (3, 5, 6), 3, 0.2),
        (16, 5, (2, 3, 4), 3, 1),
        (33, 70, (2, 3, 4), 1, 0.2),
        (5, 16, (5, 34), 3, 1),
        (16, 2, (3, 4), 3, 0.2),
        (48, 2, (3, 4), 1, 1),
    ],
)
def test_each_sample_is_convolved_with_its_own_weights(channels, features, space, kernel, slope, generator):
    tensors = inputs(generator, channels, features, space, kernel)
    expected = value_and_gradients(lambda *x: reference.sample_convolution_reference(*x, slope), *tensors)
    with on_triton(*OPERATORS):
        found = value_and_gradients(lambda *x: torch.ops.regcore.sample_convolution(*x, slope), *tensors)
    assert found[0].movedim(1, -1).is_contiguous()
    assert_as_close(found, expected, 32, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_numbers_of_sixteen_bits_are_summed_in_float32(dtype, generator):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as if they were integers")
    tensors = inputs(generator, 5, 16, (3, 4), dtype=dtype)
    expected = value_and_gradients(reference.sample_convolution_reference, *[x.float() for x in tensors])
    with on_triton(*OPERATORS):
        found = value_and_gradients(lambda *x: torch.ops.regcore.sample_convolution(*x, 1), *tensors)
    assert all(x.dtype == dtype for x in found)
    assert_as_close(found, expected, 2, dtype)


def test_weights_meet_only_one_sample_where_all_are_one(generator):
    from regcore.kernels.not_validated import sample_convolution as gpu

    x, weight, bias = inputs(generator, 5, 3, (2, 3, 4))
    shared = x[:1].expand_as(x)
    assert gpu.innermost(shared)[0].shape[0] == 1
    expected = value_and_gradients(reference.sample_convolution_reference, shared, weight, bias)
    with on_triton(*OPERATORS):
        found = torch.ops.regcore.sample_convolution(shared, weight, bias, 1)
        cotangent = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        to_weight = gpu.weight_gradient(cotangent.to(found), shared, 3)
    assert_as_close([found, to_weight], [expected[0], expected[2]], 32, torch.float32)


def test_what_is_not_a_number_reaches_its_neighbours_alone(generator):
    x, weight, bias = inputs(generator, 2, 3)
    x[0, 1, 0, 2, 2] = float("nan")
    with on_triton(*OPERATORS):
        found = torch.ops.regcore.sample_convolution(x, weight, bias, 0.2)
    expected = torch.zeros_like(found, dtype=torch.bool)
    expected[0, :, :2, 1:4, 1:4] = True
    assert torch.equal(found.isnan(), expected)


def test_the_operator_has_the_gradient_of_finite_differences(generator):
    tensors = [x.requires_grad_() for x in inputs(generator, 2, 2, (2, 3), dtype=torch.float64)]
    with on_triton(*OPERATORS):
        assert torch.autograd.gradcheck(
            lambda *x: torch.ops.regcore.sample_convolution(*x, 0.2), tensors, fast_mode=True, atol=1e-6
        )


def test_the_operator_is_registered_as_torch_wants_it(generator):
    tensors = [x.requires_grad_() for x in inputs(generator, 2, 3, (3, 4))]
    with on_triton(*OPERATORS):
        torch.library.opcheck(torch.ops.regcore.sample_convolution.default, (*tensors, 0.2))
        torch.library.opcheck(torch.ops.regcore.sample_convolution.default, (*tensors[:2], None, 1.0))


# ---- under vmap


@pytest.fixture
def sent_to_kernel(monkeypatch):
    """As on a GPU: whatever has weights for each sample goes to the kernel, here through the interpreter."""
    seen = []

    def sees(x, weight, stride=1):
        differs = stride == 1 and torch._C._functorch.is_batchedtensor(weight)
        seen.append(differs)
        return differs

    monkeypatch.setattr(convolution, "differs_by_sample", sees)
    with on_triton(*OPERATORS):
        yield seen


@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, 0), (1, 2, None)])
def test_vmap_over_weights_is_a_convolution_of_samples(axes, sent_to_kernel, generator):
    x, weight, bias = inputs(generator, 5, 3, (3, 4), batch=3)
    expected = reference.sample_convolution_reference(
        x[:1].expand_as(x) if axes[0] is None else x, weight, bias[:1].expand_as(bias) if axes[2] is None else bias, 0.2
    )
    given = (x[:1] if axes[0] is None else x[:, None]), weight, (bias[0] if axes[2] is None else bias)
    given = [t if a is None else t.movedim(0, a) for t, a in zip(given, axes, strict=True)]
    found = vmap(lambda a, w, b: convolution.rectified_convolution(a, w, b)[0], in_dims=axes)(*given)
    assert sent_to_kernel == [True]
    assert_as_close([found], [expected], 32, torch.float32)


@pytest.mark.parametrize("samples", [1, 2])
def test_a_network_whose_weights_are_written_runs_on_the_kernel(samples, sent_to_kernel):
    """One pair for all rows, or one for each: the same as rows one after the other, and so are the gradients."""
    torch.manual_seed(0)
    made = hypernetwork.Hypernetwork(FlowNetwork(2, SMALL), 1, hidden=[4], generated=["unet"])
    torch.nn.init.normal_(made.network.head.convolution.weight, std=0.1)
    made.to(DEVICE)
    pair = torch.rand(samples, 2, 8, 8, device=DEVICE)
    parameters = [made.weights.weight, made.network.head.convolution.weight]
    outcomes = []
    for run in (hypernetwork.each_alone, hypernetwork.all_at_once):
        weights = made.generate(torch.tensor([[0.1], [0.9]], device=DEVICE))
        value = run(made.network, weights, pair)
        outcomes.append([value.detach(), *torch.autograd.grad(value.square().sum(), parameters)])
    assert sum(sent_to_kernel) == 6, "four convolutions of the U-Net, and the two parts of that with a skip connection"
    assert_as_close(outcomes[1], outcomes[0], 64, torch.float32)


def test_a_cpu_keeps_to_torchs_own_convolution(generator):
    x, weight, bias = (tensor.cpu() for tensor in inputs(generator, 5, 3))
    assert not operator._has_sample_kernel(x, weight[0], bias)
    found = operator.sample_convolution(x, weight, bias, 0.2)
    assert torch.equal(found, reference.sample_convolution_reference(x, weight, bias, 0.2))


# ---- machine code


def budget(kernel, kind, channels, features, registers, instructions, costs):
    """``channels`` and ``features`` in blocks that they fill."""
    found = kernels().plan(channels, 3, 3, costs.columns)
    sizes = ["sample_stride", "tiles", "share", "channels", "features", "depth", "height", "width"]
    types = dict.fromkeys(("image", "weights", "bias", "gradient", "out"), f"*{kind}") | dict.fromkeys(sizes, "i32")
    constants = {**found.constants, "FULL": found.stored == channels, "BLOCK": found.block, "BLOCK_F": features}
    constants |= {"BLOCK_Y": costs.rows, "BLOCK_X": 32, "TYPE": "fp32", "PRECISION": costs.precision, "STAGES": 3}
    if kernel == "forward_kernel":
        constants |= {"BIAS": True, "SLOPE": 0.2}
    else:
        columns = -(-found.columns // 64) * 64
        constants |= {"BLOCK": 64, "COLUMNS": columns, "BLOCK_Y": costs.gradient_rows}
        types["out"] = "*fp32"
    aligned = ("sample_stride", "features", "width") + (("channels",) if channels >= 16 else ())
    return Budget(kernel, types, constants, registers, instructions, aligned=aligned)


def kernels():
    from regcore.kernels.not_validated import sample_convolution

    return sample_convolution


def test_the_kernels_compile_within_their_budget():
    gpu = kernels()
    assert_within_budget(
        "regcore.kernels.not_validated.sample_convolution",
        [
            budget("forward_kernel", "bf16", 32, 32, 96, 760, gpu.SIXTEEN_BITS),
            budget("forward_kernel", "bf16", 2, 16, 80, 980, gpu.SIXTEEN_BITS),
            budget("forward_kernel", "fp32", 32, 32, 128, 1080, gpu.TF32),
            budget("forward_kernel", "fp32", 64, 64, 192, 1640, gpu.TF32X3),
            budget("weight_kernel", "bf16", 32, 32, 168, 1300, gpu.SIXTEEN_BITS),
            budget("weight_kernel", "fp32", 32, 32, 104, 2020, gpu.TF32),
            budget("weight_kernel", "fp32", 64, 64, 192, 2300, gpu.TF32X3),
        ],
    )


def test_products_are_those_of_tensor_cores():
    gpu = kernels()
    budgets = [budget(k, "bf16", 16, 16, 0, 0, gpu.SIXTEEN_BITS) for k in ("forward_kernel", "weight_kernel")]
    found = compiled("regcore.kernels.not_validated.sample_convolution", budgets, opcode=r"\bHG?MMA\.")
    assert all(x["has_opcode"] for x in found)
