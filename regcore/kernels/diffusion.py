"""Mean squared forward difference of a field, plain or weighted, and its gradient, each in one reading of the field."""

import math

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import has_gpu_kernel, has_kernel, jit, on_its_device, run


def diffusion_reference(field: Tensor) -> Tensor:
    """Mean over the axes of the mean squared forward difference of ``field`` (B, C, *space)."""
    axes = range(2, field.ndim)
    return torch.stack([field.diff(dim=axis).square().mean() for axis in axes]).mean()


def diffusion(field: Tensor) -> Tensor:
    """As :func:`diffusion_reference`, by the kernel where it can."""
    fits = min(field.shape[2:]) > 1 and field.numel() < 2**31
    if fits and has_kernel(field, operator="diffusion"):
        return torch.ops.regcore.diffusion(field)
    return diffusion_reference(field)


def weighted_diffusion_reference(field: Tensor, weight: Tensor) -> Tensor:
    """As :func:`diffusion_reference`, each difference times ``weight`` (B, 1, *space) at the voxel in front."""
    total = 0
    for axis in range(2, field.ndim):
        squared_length = field.diff(dim=axis).square().sum(1, keepdim=True)
        total = total + (weight.narrow(axis, 1, squared_length.shape[axis]) * squared_length).mean()
    return total / field.shape[1] ** 2


def weighted_diffusion(field: Tensor, weight: Tensor) -> Tensor:
    """As :func:`weighted_diffusion_reference`, by the kernel where it can; there is none for a CPU."""
    if field.numel() < 2**31 and has_gpu_kernel(weight, field, operator="weighted_diffusion"):
        return torch.ops.regcore.weighted_diffusion(field, weight)
    return weighted_diffusion_reference(field, weight)


@jit
def square_differences(start, stop, field, sums):
    """Sums of squared differences along (Z, Y, X) in each plane of ``field`` (N, Z, Y, X)."""
    depth, height, width = field.shape[1:]
    total = np.empty((3, width))
    for item in range(start, stop):
        volume, z = field[item // depth], item % depth
        total[:] = 0
        along_z, along_y, along_x = total[0], total[1], total[2]
        for y in range(height):
            row = volume[z, y]
            if z + 1 < depth:
                ahead = volume[z + 1, y]
                for x in range(width):
                    along_z[x] += (ahead[x] - row[x]) ** 2
            if y + 1 < height:
                ahead = volume[z, y + 1]
                for x in range(width):
                    along_y[x] += (ahead[x] - row[x]) ** 2
            ahead = row[1:]
            for x in range(width - 1):
                along_x[x] += (ahead[x] - row[x]) ** 2
        for axis in range(3):
            sums[item, axis] = total[axis].sum()


@jit
def set_differences(here, below, above, before, after, left, right, scales, out):
    scale_z, scale_y, scale_x = scales
    for x in range(out.size):
        out[x] = (
            scale_z * ((here[x] - below[x]) + (here[x] - above[x]))
            + scale_y * ((here[x] - before[x]) + (here[x] - after[x]))
            + scale_x * ((here[x] - left[x]) + (here[x] - right[x]))
        )


@jit
def difference_planes(start, stop, field, scales, out):
    """Gradient: ``scales`` (of Z, Y, X) times what each voxel differs by from its two neighbours."""
    depth, height, width = field.shape[1:]
    for item in range(start, stop):
        volume, z = field[item // depth].reshape(depth, height * width), item % depth
        target = out[item // depth, z].reshape(height * width)
        # At a border the neighbour is the voxel itself.
        plane, below, above = volume[z], volume[max(z - 1, 0)], volume[min(z + 1, depth - 1)]
        # The first row, all inner ones, the last: within each, neighbours are a fixed number of voxels away.
        for first, last in ((0, 1), (1, height - 1), (height - 1, height)):
            back, ahead = width if first > 0 else 0, width if last < height else 0
            i, j = first * width + 1, last * width - 1
            if i < j:
                set_differences(
                    plane[i:j], below[i:j], above[i:j], plane[i - back : j - back], plane[i + ahead : j + ahead],
                    plane[i - 1 : j - 1], plane[i + 1 : j + 1], scales, target[i:j],
                )  # fmt: skip
        # At the two ends of a row the loop above looked into the next one.
        for y in range(height):
            back, ahead = width if y > 0 else 0, width if y < height - 1 else 0
            for i, neighbour in ((y * width, 1), (y * width + width - 1, -1)):
                target[i] = (
                    scales[0] * ((plane[i] - below[i]) + (plane[i] - above[i]))
                    + scales[1] * ((plane[i] - plane[i - back]) + (plane[i] - plane[i + ahead]))
                    + scales[2] * (plane[i] - plane[i + neighbour])
                )


def volumes(field: Tensor) -> Tensor:
    """View (B, C, *space) as (B · C, Z, Y, X), with Z = 1 in 2-D."""
    space = field.shape[2:]
    return field.reshape(-1, *([1] * (3 - len(space))), *space)


def numbers(field: Tensor) -> list[int]:
    """How many differences there are along (Z, Y, X), times the number of axes; 0 for no axis."""
    space = field.shape[2:]
    return [0] * (3 - len(space)) + [field.numel() // size * (size - 1) * len(space) for size in space]


def shares(field: Tensor) -> list[float]:
    """One over :func:`numbers`; 0 for no axis."""
    return [1 / number if number else 0.0 for number in numbers(field)]


@torch.library.custom_op("regcore::diffusion", mutates_args=(), device_types="cpu")
def _diffusion(field: Tensor) -> Tensor:
    array = volumes(field.contiguous())
    planes = array.shape[0] * array.shape[1]
    sums = torch.empty(planes, 3, dtype=torch.float64)
    run(square_differences, planes, field.numel(), array, sums)
    return (sums.sum(0) @ torch.tensor(shares(field), dtype=torch.float64)).to(field.dtype)


@_diffusion.register_kernel("cuda")
@on_its_device
def _(field: Tensor) -> Tensor:
    from regcore.kernels.gpu import diffusion as gpu

    return gpu.value(field, None, numbers(field))


@_diffusion.register_fake
def _(field: Tensor) -> Tensor:
    return field.new_empty(())


@torch.library.custom_op("regcore::diffusion_backward", mutates_args=(), device_types="cpu")
def _diffusion_backward(gradient: Tensor, field: Tensor) -> Tensor:
    array = volumes(field.contiguous())
    out = torch.empty_like(array)
    kind = out.numpy().dtype.type
    scales = tuple(kind(2 * share * gradient.item()) for share in shares(field))
    run(difference_planes, math.prod(array.shape[:2]), field.numel(), array, scales, out)
    return out.view(field.shape)


@_diffusion_backward.register_kernel("cuda")
@on_its_device
def _(gradient: Tensor, field: Tensor) -> Tensor:
    from regcore.kernels.gpu import diffusion as gpu

    return gpu.gradients(gradient, field, None, numbers(field))[0]


@_diffusion_backward.register_fake
def _(gradient: Tensor, field: Tensor) -> Tensor:
    return field.new_empty(field.shape)


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(ctx, gradient: Tensor) -> Tensor:
    return torch.ops.regcore.diffusion_backward(gradient, ctx.saved_tensors[0])


_diffusion.register_autograd(_backward, setup_context=_remember)


@torch.library.custom_op("regcore::weighted_diffusion", mutates_args=(), device_types="cuda")
@on_its_device
def _weighted_diffusion(field: Tensor, weight: Tensor) -> Tensor:
    from regcore.kernels.gpu import diffusion as gpu

    return gpu.value(field, weight, numbers(field))


@_weighted_diffusion.register_fake
def _(field: Tensor, weight: Tensor) -> Tensor:
    return field.new_empty(())


@torch.library.custom_op("regcore::weighted_diffusion_backward", mutates_args=(), device_types="cuda")
@on_its_device
def _weighted_diffusion_backward(
    gradient: Tensor, field: Tensor, weight: Tensor, for_field: bool, for_weight: bool
) -> tuple[Tensor, Tensor]:
    from regcore.kernels.gpu import diffusion as gpu

    to_field, to_weight = gpu.gradients(gradient, field, weight, numbers(field), for_field, for_weight)
    return to_field, to_weight.to(weight.dtype)


@_weighted_diffusion_backward.register_fake
def _(gradient: Tensor, field: Tensor, weight: Tensor, for_field: bool, for_weight: bool) -> tuple[Tensor, Tensor]:
    return field.new_empty(field.shape if for_field else 0), weight.new_empty(weight.shape if for_weight else 0)


def _remember_both(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _weighted_backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    for_field, for_weight = ctx.needs_input_grad
    to_field, to_weight = torch.ops.regcore.weighted_diffusion_backward(
        gradient, *ctx.saved_tensors, for_field, for_weight
    )
    return to_field if for_field else None, to_weight if for_weight else None


_weighted_diffusion.register_autograd(_weighted_backward, setup_context=_remember_both)
