"""Convolutions of features: kept off torch's slow path, and on a finer grid without making the finer features.

After nearest-neighbour up-sampling a kernel of three voxels sees only two different ones along each axis.
For even voxels 2i the taps (a, b, c) meet the coarse voxels (i - 1, i, i), for odd ones 2i + 1 (i, i, i + 1):
so a kernel of two, (a, b + c) or (a + b, c), does on the coarse image.  One convolution with 2^D times the
features and kernels of two voxels gives all parities, with (3/2)^D times fewer multiplications; what is
left is to put its features where they belong.

Where a hypernetwork gives every sample weights of its own, ``vmap`` runs the network for all samples at once.  On a GPU
:func:`convolve` then goes to a kernel that convolves each sample with its weights, through the rule that ``vmap`` has
for :func:`sample_convolution`; elsewhere torch makes a convolution in groups of it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from regcore.kernels.launch import has_kernel, jit, on_its_device, run

CONVOLUTION = {4: F.conv2d, 5: F.conv3d}
#: The layout (B, *space, C), in which convolutions are fastest on CPUs and GPUs alike.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
#: Batch 1, and channels times the first two sizes up to this number: torch then leaves oneDNN aside.
SLOW_PATH = 20480


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Convolve ``x`` (B, C, *space) with ``weight`` (F, C, k, ...) and half a kernel of zeros beyond the border.

    On a CPU torch does small 3-D convolutions of one sample far more slowly than it could.  There few
    channels are filled up with zeros to eight, and where that is not enough a sample of zeros is added.
    """
    if _differs_by_sample(x, weight, stride):
        return _of_samples(x, weight, bias)
    function, padding = CONVOLUTION[x.ndim], weight.shape[-1] // 2
    if not x.is_cpu or x.ndim == 4:
        return function(x, weight, bias, stride, padding)
    missing = 8 - x.shape[1]
    if missing > 0:
        more = (0, 0) * 3 + (0, missing)
        x, weight = laid_out(F.pad(x, more)), F.pad(weight, more)
    if x.shape[0] > 1 or math.prod(x.shape[1:4]) > SLOW_PATH:
        return function(x, weight, bias, stride, padding)
    pair = laid_out(torch.cat([x, torch.zeros_like(x)]))
    return function(pair, weight, bias, stride, padding)[:1]


def rectified_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, slope: float = 0.2
) -> Tensor:
    """:func:`convolve` and a LeakyReLU."""
    if _differs_by_sample(x, weight, stride):
        return _of_samples(x, weight, bias, slope)
    return F.leaky_relu(convolve(x, weight, bias, stride), slope)


def sample_convolution_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1) -> Tensor:
    """Convolve each sample with weights of its own: torch's convolution in as many groups as there are samples.

    Parameters
    ----------
    x : Tensor, shape (B, C, *space)
        Half a kernel of zeros lies beyond the border.
    weight : Tensor, shape (B, F, C, k, ...)
        With an odd k.
    bias : Tensor, shape (B, F), optional
    slope : float
        Of a LeakyReLU for negative values; 1 is none.

    Returns
    -------
    Tensor, shape (B, F, *space)
    """
    batch, features = weight.shape[:2]
    bias = None if bias is None else bias.flatten()
    found = CONVOLUTION[x.ndim](
        x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), bias, padding=weight.shape[-1] // 2, groups=batch
    ).reshape(batch, features, *x.shape[2:])
    return found if slope == 1 else F.leaky_relu(found, slope)


def sample_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1) -> Tensor:
    """As :func:`sample_convolution_reference`, by the kernel where it can."""
    if not _has_sample_kernel(x, weight[0], bias):
        return sample_convolution_reference(x, weight, bias, slope)
    return torch.ops.regcore.sample_convolution(x, weight, bias, slope)


def _has_sample_kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel takes samples ``x`` and the ``weight`` (F, C, k, ...) of one of them; no CPU has one."""
    tensors = [weight, x] if bias is None else [bias, weight, x]
    fits = all(tensor.dtype == x.dtype for tensor in tensors) and set(weight.shape[2:]) in ({1}, {3})
    if x.is_cpu or not fits or max(weight.shape[:2]) * math.prod(x.shape[2:]) >= 2**31:
        return False
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    return has_kernel(*tensors, kinds=kinds, operator="sample_convolution")


def _differs_by_sample(x: Tensor, weight: Tensor, stride: int = 1) -> bool:
    """Whether the weights are those of ``vmap``, which has one for each sample, and the kernel takes them."""
    if x.is_cpu or stride != 1 or not torch._C._functorch.is_batchedtensor(weight):
        return False
    return _has_sample_kernel(*_autocast(x, weight, None))


def _of_samples(x: Tensor, weight: Tensor, bias: Tensor | None = None, slope: float = 1) -> Tensor:
    """Under ``vmap``: ``x`` (B, C, *space), all B with the one ``weight`` that is seen here."""
    x, weight, bias = _autocast(x, weight, bias)
    weight = weight.expand(x.shape[0], *weight.shape)
    bias = None if bias is None else bias.expand(x.shape[0], *bias.shape)
    return torch.ops.regcore.sample_convolution(x, weight, bias, slope)


def _autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors in the type that torch would convolve them in."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [None if tensor is None else tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]


def laid_out(tensor: Tensor) -> Tensor:
    """The tensor in the layout of :data:`CHANNELS_LAST`; unlike ``contiguous`` this also works under ``vmap``."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def upsampled_convolution_reference(image: Tensor, weight: Tensor) -> Tensor:
    """Convolve ``image`` (B, C, *space), up-sampled by two, with ``weight`` (F, C, 3, ...) → (B, F, *2 space)."""
    finer = F.interpolate(image, scale_factor=2, mode="nearest")
    return CONVOLUTION[image.ndim](finer, weight, padding=1)


def upsampled_convolution(image: Tensor, weight: Tensor) -> Tensor:
    """As :func:`upsampled_convolution_reference`, by the kernel where it can."""
    if _differs_by_sample(image, weight):
        return _of_samples(F.interpolate(image, scale_factor=2, mode="nearest"), weight)
    if not has_kernel(image, weight):
        return upsampled_convolution_reference(image, weight)
    by_parity = convolve(image, parity_weights(weight))
    return torch.ops.regcore.interleave(by_parity)


def parity_weights(weight: Tensor) -> Tensor:
    """Kernels (F, C, 3, ...) of the finer image as (2^D F, C, 2, ...) of the coarse one.

    Parities are in the order of ``itertools.product((0, 1), repeat=D)``: 0 is even.
    """
    for axis in reversed(range(2, weight.ndim)):
        a, b, c = weight.unbind(axis)
        even, odd = torch.stack([a, b + c], axis), torch.stack([a + b, c], axis)
        weight = torch.cat([even, odd])
    return laid_out(weight)


@jit
def interleave_rows(start, stop, by_parity, out):
    """``out``[2i + p] = ``by_parity``[i + p, p]: (B, z + 1, y + 1, x + 1, 2, 2, 2, F) → (B, 2z, 2y, 2x, F)."""
    depth, height, width, features = out.shape[1:]
    for item in range(start, stop):
        b = item // (depth * height)
        z = item // height % depth
        y = item % height
        source = by_parity[b, z // 2 + z % 2, y // 2 + y % 2]
        row = out[b, z, y]
        for x in range(width):
            values = source[x // 2 + x % 2, z % 2, y % 2, x % 2]
            for feature in range(features):
                row[x, feature] = values[feature]


@jit
def separate_rows(start, stop, fine, out):
    """The transpose of :func:`interleave_rows`: what no voxel was taken from is zero."""
    depth, height, width, features = fine.shape[1:]
    for item in range(start, stop):
        b = item // ((depth // 2 + 1) * (height // 2 + 1))
        i = item // (height // 2 + 1) % (depth // 2 + 1)
        j = item % (height // 2 + 1)
        for pz in range(2):
            for py in range(2):
                z, y = 2 * (i - pz) + pz, 2 * (j - py) + py
                inside = 0 <= z < depth and 0 <= y < height
                for k in range(width // 2 + 1):
                    for px in range(2):
                        x = 2 * (k - px) + px
                        target = out[b, i, j, k, pz, py, px]
                        if inside and 0 <= x < width:
                            values = fine[b, z, y, x]
                            for feature in range(features):
                                target[feature] = values[feature]
                        else:
                            target[:] = 0


@jit
def interleave_flat_rows(start, stop, by_parity, out):
    """:func:`interleave_rows` in 2-D: (B, y + 1, x + 1, 2, 2, F) → (B, 2y, 2x, F)."""
    height, width, features = out.shape[1:]
    for item in range(start, stop):
        b, y = item // height, item % height
        source, row = by_parity[b, y // 2 + y % 2], out[b, y]
        for x in range(width):
            values = source[x // 2 + x % 2, y % 2, x % 2]
            for feature in range(features):
                row[x, feature] = values[feature]


@jit
def separate_flat_rows(start, stop, fine, out):
    """:func:`separate_rows` in 2-D."""
    height, width, features = fine.shape[1:]
    for item in range(start, stop):
        b, j = item // (height // 2 + 1), item % (height // 2 + 1)
        for py in range(2):
            y = 2 * (j - py) + py
            for k in range(width // 2 + 1):
                for px in range(2):
                    x = 2 * (k - px) + px
                    target = out[b, j, k, py, px]
                    if 0 <= y < height and 0 <= x < width:
                        values = fine[b, y, x]
                        for feature in range(features):
                            target[feature] = values[feature]
                    else:
                        target[:] = 0


def fine_shape(by_parity: Tensor) -> tuple[int, ...]:
    space = by_parity.shape[2:]
    return by_parity.shape[0], by_parity.shape[1] // 2 ** len(space), *[2 * (n - 1) for n in space]


def channels_last(tensor: Tensor) -> Tensor:
    """View (B, C, *space), in the layout of that name, as (B, *space, C)."""
    return tensor.contiguous(memory_format=CHANNELS_LAST[tensor.ndim]).movedim(1, -1)


@torch.library.custom_op("regcore::interleave", mutates_args=(), device_types="cpu")
def _interleave(by_parity: Tensor) -> Tensor:
    out = by_parity.new_empty(fine_shape(by_parity)).contiguous(memory_format=CHANNELS_LAST[by_parity.ndim])
    ndim = by_parity.ndim - 2
    source = channels_last(by_parity).unflatten(-1, (*[2] * ndim, out.shape[1]))
    rows = math.prod((out.shape[0], *out.shape[2:-1]))
    run(interleave_rows if ndim == 3 else interleave_flat_rows, rows, out.numel(), source, channels_last(out))
    return out


@_interleave.register_fake
def _(by_parity: Tensor) -> Tensor:
    return by_parity.new_empty(fine_shape(by_parity)).contiguous(memory_format=CHANNELS_LAST[by_parity.ndim])


@torch.library.custom_op("regcore::interleave_backward", mutates_args=(), device_types="cpu")
def _interleave_backward(gradient: Tensor) -> Tensor:
    ndim = gradient.ndim - 2
    space = [n // 2 + 1 for n in gradient.shape[2:]]
    out = gradient.new_empty(gradient.shape[0], *space, *[2] * ndim, gradient.shape[1])
    rows = math.prod((gradient.shape[0], *space[:-1]))
    run(separate_rows if ndim == 3 else separate_flat_rows, rows, out.numel(), channels_last(gradient), out)
    return out.flatten(-ndim - 1).movedim(-1, 1)


@_interleave_backward.register_fake
def _(gradient: Tensor) -> Tensor:
    ndim = gradient.ndim - 2
    shape = gradient.shape[0], gradient.shape[1] * 2**ndim, *[n // 2 + 1 for n in gradient.shape[2:]]
    return gradient.new_empty(shape).contiguous(memory_format=CHANNELS_LAST[gradient.ndim])


def _backward(ctx, gradient: Tensor) -> Tensor:
    return torch.ops.regcore.interleave_backward(gradient)


_interleave.register_autograd(_backward)


def _over_samples(operator):
    """The rule of ``vmap`` for an operator that treats every sample alike: one more axis of samples."""

    def rule(info, in_dims: tuple[int | None, ...], tensor: Tensor) -> tuple[Tensor, int]:
        moved = tensor.movedim(in_dims[0], 0)
        return operator(moved.flatten(0, 1)).unflatten(0, moved.shape[:2]), 0

    return rule


_interleave.register_vmap(_over_samples(torch.ops.regcore.interleave))
_interleave_backward.register_vmap(_over_samples(torch.ops.regcore.interleave_backward))


@torch.library.custom_op("regcore::sample_convolution", mutates_args=(), device_types="cpu")
def _sample_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    return sample_convolution_reference(x, weight, bias, slope).contiguous(memory_format=CHANNELS_LAST[x.ndim])


@_sample_convolution.register_kernel("cuda")
@on_its_device
def _(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    from regcore.kernels.gpu import convolution as gpu

    return gpu.forward(x, weight, bias, slope)


@_sample_convolution.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    return x.new_empty(weight.shape[0], *x.shape[2:], weight.shape[1]).movedim(-1, 1)


@torch.library.custom_op("regcore::sample_convolution_backward", mutates_args=(), device_types="cpu")
def _sample_convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_weight: bool
) -> tuple[Tensor, Tensor]:
    leaves = x.detach().requires_grad_(), weight.detach().requires_grad_()
    with torch.enable_grad():
        value = sample_convolution_reference(*leaves)
        to_x, to_weight = torch.autograd.grad(value, leaves, gradient)
    return (
        to_x.contiguous(memory_format=CHANNELS_LAST[x.ndim]) if for_x else x.new_empty(0),
        to_weight.contiguous() if for_weight else weight.new_empty(0),
    )


@_sample_convolution_backward.register_kernel("cuda")
@on_its_device
def _(gradient: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_weight: bool) -> tuple[Tensor, Tensor]:
    from regcore.kernels.gpu import convolution as gpu

    return (
        gpu.image_gradient(gradient, weight) if for_x else x.new_empty(0),
        gpu.weight_gradient(gradient, x, weight.shape[-1]).to(weight.dtype).contiguous()
        if for_weight
        else weight.new_empty(0),
    )


@_sample_convolution_backward.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_weight: bool) -> tuple[Tensor, Tensor]:
    to_x = x.new_empty(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1) if for_x else x.new_empty(0)
    return to_x, weight.new_empty(weight.shape if for_weight else 0)


def _remember(ctx, inputs, output) -> None:
    x, weight, bias, ctx.slope = inputs
    ctx.save_for_backward(x, weight, output if ctx.slope != 1 else None)
    ctx.has_bias = bias is not None


def _sample_backward(ctx, gradient: Tensor):
    x, weight, output = ctx.saved_tensors
    for_x, for_weight, for_bias, _ = ctx.needs_input_grad
    if ctx.slope != 1:  # the sign of the output is that of what the LeakyReLU was given
        gradient = torch.where(output > 0, gradient, ctx.slope * gradient)
    to_x, to_weight = torch.ops.regcore.sample_convolution_backward(gradient, x, weight, for_x, for_weight)
    to_bias = gradient.flatten(2).sum(2) if ctx.has_bias and for_bias else None
    return to_x if for_x else None, to_weight if for_weight else None, to_bias, None


_sample_convolution.register_autograd(_sample_backward, setup_context=_remember)


@_sample_convolution.register_vmap
def _(info, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None, slope: float):
    """Samples of samples are samples; what all of them share is not copied."""

    def samples(tensor: Tensor | None, axis: int | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.expand(info.batch_size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)
        return tensor.flatten(0, 1) if tensor.shape[1] > 1 else tensor.squeeze(1)

    found = torch.ops.regcore.sample_convolution(
        *[samples(tensor, axis) for tensor, axis in zip((x, weight, bias), in_dims, strict=False)], slope
    )
    return found.unflatten(0, (info.batch_size, -1)), 0
