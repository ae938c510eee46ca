"""Overlap of labels under linear interpolation, and its gradient, without a channel for every label.

A moving label map, taken as K indicator images and warped, gives p_k(x) = Σ_i w_i(x) [M_i(x) = k] with the
eight corners i of the cell that x is drawn from.  All that Dice needs are K sums of each of

    A_k = Σ_x p_k(x) [F(x) = k],    P_k = Σ_x p_k(x),    F_k = Σ_x [F(x) = k].

Their derivatives, a_k = ∂L/∂A_k and b_k = ∂L/∂P_k, turn the gradient with respect to the displacement into
that of warping one image, whose value at corner i is b[M_i] + [M_i = F(x)] a[F(x)].

Label maps hold indices here: 0 ... K - 1, and K for every other label.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import has_kernel, jit, on_its_device, run
from regcore.kernels.warp import as_planes, identity, locate_row, slopes

#: Types a label map may have.
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

#: Most labels that a program on a GPU can count; with more of them the reference runs there.
MOST_COUNTED = 1023


def place_reference(labels: Tensor, codes: Sequence[int]) -> Tensor:
    """Index map of a label map of any shape: the place of each code in the ascending ``codes``, else their number."""
    known = torch.as_tensor(codes, dtype=torch.int64, device=labels.device)
    labels = labels.long()
    place = torch.searchsorted(known, labels).clamp(max=len(codes) - 1)
    return torch.where(known[place] == labels, place, len(codes)).to(place_type(codes))


def place_type(codes: Sequence[int]) -> torch.dtype:
    """The smallest type that holds the indices, so that as many as possible lie close together."""
    return torch.uint8 if len(codes) < 256 else torch.int32


def place(labels: Tensor, codes: Sequence[int]) -> Tensor:
    """As :func:`place_reference`, by the kernel where it can."""
    fits = codes[0] >= 0 and codes[-1] < 2**16 and (labels.is_cpu or labels.numel() < 2**31)
    if fits and has_kernel(labels, kinds=WHOLE, operator="label_places"):
        return torch.ops.regcore.label_places(labels, codes)
    return place_reference(labels, codes)


@jit
def look_up(start, stop, labels, table, out):
    """``out`` = ``table`` at each label; its last entry stands for every label beyond it."""
    last = table.size - 1
    for x in range(start, stop):
        label = np.int64(labels[x])
        out[x] = table[label if 0 <= label < last else last]


def overlaps_reference(
    fixed: Tensor, moving: Tensor, displacement: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums A, P and F, each (B, K), for index maps (B, 1, *space) and a displacement (B, D, *space)."""
    points = identity(displacement.shape[2:], displacement) + displacement
    sizes = moving.shape[2:]
    flat_moving = moving.flatten(1).long()
    flat_fixed = fixed.flatten(1).long()
    both = displacement.new_zeros(len(fixed), count + 1)
    warped = torch.zeros_like(both)
    lower, weights = [], []
    for axis, size in enumerate(sizes):
        along = points[:, axis]
        lower.append(along.detach().nan_to_num().floor().clamp(-1, size - 1))
        above = (along - lower[-1]).clamp(0, 1)
        weights.append((1 - above, above))
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        weight, index, inside = 1, 0, True
        for axis, (side, size) in enumerate(zip(corner, sizes, strict=True)):
            voxel = lower[axis] + side
            weight = weight * weights[axis][side]
            inside = inside & (voxel >= 0) & (voxel < size)
            index = index * size + voxel.clamp(0, size - 1).long()
        # A NaN in the displacement is in the weight, and stays.
        weight = torch.where(inside | weight.isnan(), weight, 0).flatten(1)
        labels = flat_moving.gather(1, index.flatten(1))
        warped = warped.scatter_add(1, labels, weight)
        both = both.scatter_add(1, flat_fixed, torch.where(labels == flat_fixed, weight, 0))
    sizes = torch.zeros_like(both).scatter_add(1, flat_fixed, torch.ones_like(flat_fixed, dtype=both.dtype))
    return both[:, :count], warped[:, :count], sizes[:, :count]


def overlaps(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`overlaps_reference`, by the kernel where it can."""
    fits = min(moving.shape[2:]) > 1 and moving.numel() < 2**31
    if not displacement.is_cpu:
        fits = fits and displacement.numel() < 2**31 and count <= MOST_COUNTED
    together = fixed.device == moving.device == displacement.device
    if fits and together and has_kernel(displacement, operator="label_overlaps"):
        return torch.ops.regcore.label_overlaps(fixed, moving, displacement, count)
    return overlaps_reference(fixed, moving, displacement, count)


@jit
def one_label(labels, i, j, k, m):
    """Whether the eight corners of a cell, at i, j, k, m and one further, share a label."""
    one = np.uint64(1)
    first = labels[i]
    near = (labels[i + one] == first) & (labels[j] == first) & (labels[j + one] == first)
    far = (labels[k] == first) & (labels[k + one] == first) & (labels[m] == first) & (labels[m + one] == first)
    return near & far


@jit
def overlap_planes(start, stop, fixed, moving, displacement, sums):
    """A, P and F of each plane of rows: ``sums`` (planes, 3, K + 1)."""
    depth, height, width = moving.shape[2:]
    rows, columns, length = displacement.shape[2:]
    base = np.empty(length, np.int32)
    w = np.empty((6, length), displacement.dtype)
    down = np.int64(width) if height > 1 else np.int64(0)
    deep = np.int64(height * width)
    for item in range(start, stop):
        b, z = item // rows, item % rows
        labels = moving[b, 0].reshape(depth * height * width)
        sums[item] = 0
        a, p, f = sums[item, 0], sums[item, 1], sums[item, 2]
        for y in range(columns):
            locate_row(displacement, b, z, y, (depth, height, width), False, base, w)
            here = fixed[b, 0, z, y]
            for x in range(length):
                i = np.uint64(base[x])
                j = np.uint64(base[x] + down)
                k = np.uint64(base[x] + deep)
                m = np.uint64(base[x] + deep + down)
                f[here[x]] += 1
                first = labels[i]
                near_low, near_high = w[0, x] * w[2, x], w[0, x] * w[3, x]
                far_low, far_high = w[1, x] * w[2, x], w[1, x] * w[3, x]
                if one_label(labels, i, j, k, m):
                    weight = (near_low + near_high + far_low + far_high) * (w[4, x] + w[5, x])
                    p[first] += weight
                    if first == here[x]:
                        a[first] += weight
                else:
                    for side in range(4):
                        corner = i if side == 0 else j if side == 1 else k if side == 2 else m
                        weight = (
                            near_low if side == 0 else near_high if side == 1 else far_low if side == 2 else far_high
                        )
                        for last in range(2):
                            label = labels[corner + np.uint64(last)]
                            share = weight * w[4 + last, x]
                            p[label] += share
                            if label == here[x]:
                                a[label] += share


@jit
def overlap_gradient_rows(start, stop, fixed, moving, displacement, by_both, by_warped, out):
    """Gradient with respect to the displacement, of tables ``by_both`` and ``by_warped`` (B, K + 1)."""
    depth, height, width = moving.shape[2:]
    axes, rows, columns, length = displacement.shape[1:]
    kind = displacement.dtype.type
    base = np.empty(length, np.int32)
    w = np.empty((6, length), displacement.dtype)
    s = np.zeros((6, length), displacement.dtype)
    value = np.empty(8, displacement.dtype)
    down = np.int64(width) if height > 1 else np.int64(0)
    deep = np.int64(height * width)
    for item in range(start, stop):
        b = item // (rows * columns)
        z = item // columns % rows
        y = item % columns
        locate_row(displacement, b, z, y, (depth, height, width), False, base, w)
        slopes(displacement[b, 0, z, y], kind(z), kind(0), depth, False, s[0], s[1])
        if axes == 3:
            slopes(displacement[b, 1, z, y], kind(y), kind(0), height, False, s[2], s[3])
        slopes(displacement[b, axes - 1, z, y], kind(0), kind(1), width, False, s[4], s[5])
        labels = moving[b, 0].reshape(depth * height * width)
        here = fixed[b, 0, z, y]
        a, p = by_both[b], by_warped[b]
        out_z, out_y, out_x = out[b, 0, z, y], out[b, axes // 2, z, y], out[b, axes - 1, z, y]
        for x in range(length):
            i = np.uint64(base[x])
            j = np.uint64(base[x] + down)
            k = np.uint64(base[x] + deep)
            m = np.uint64(base[x] + deep + down)
            # Inside one label the gradient is zero, but for the rim beyond the border where weights fall off.
            inner = (s[0, x] + s[1, x] == 0) & (s[2, x] + s[3, x] == 0) & (s[4, x] + s[5, x] == 0)
            if inner and one_label(labels, i, j, k, m):
                continue
            for side in range(4):
                corner = i if side == 0 else j if side == 1 else k if side == 2 else m
                for last in range(2):
                    label = labels[corner + np.uint64(last)]
                    value[2 * side + last] = p[label] + (a[label] if label == here[x] else kind(0))
            row_i, row_j = w[4, x] * value[0] + w[5, x] * value[1], w[4, x] * value[2] + w[5, x] * value[3]
            row_k, row_m = w[4, x] * value[4] + w[5, x] * value[5], w[4, x] * value[6] + w[5, x] * value[7]
            out_z[x] = s[0, x] * (w[2, x] * row_i + w[3, x] * row_j) + s[1, x] * (w[2, x] * row_k + w[3, x] * row_m)
            if axes == 3:
                out_y[x] = w[0, x] * (s[2, x] * row_i + s[3, x] * row_j) + w[1, x] * (s[2, x] * row_k + s[3, x] * row_m)
            row_i, row_j = s[4, x] * value[0] + s[5, x] * value[1], s[4, x] * value[2] + s[5, x] * value[3]
            row_k, row_m = s[4, x] * value[4] + s[5, x] * value[5], s[4, x] * value[6] + s[5, x] * value[7]
            out_x[x] = w[0, x] * (w[2, x] * row_i + w[3, x] * row_j) + w[1, x] * (w[2, x] * row_k + w[3, x] * row_m)


@torch.library.custom_op("regcore::label_places", mutates_args=(), device_types="cpu")
def _places(labels: Tensor, codes: Sequence[int]) -> Tensor:
    table = torch.full((codes[-1] + 2,), len(codes), dtype=place_type(codes))
    table[list(codes)] = torch.arange(len(codes), dtype=table.dtype)
    out = torch.empty(labels.shape, dtype=table.dtype)
    run(look_up, labels.numel(), labels.numel(), labels.contiguous().view(-1), table, out.view(-1))
    return out


@_places.register_kernel("cuda")
@on_its_device
def _(labels: Tensor, codes: Sequence[int]) -> Tensor:
    from regcore.kernels.gpu import label_dice as gpu

    return gpu.places(labels, tuple(codes), place_type(codes))


@_places.register_fake
def _(labels: Tensor, codes: Sequence[int]) -> Tensor:
    return torch.empty(labels.shape, dtype=place_type(codes), device=labels.device)


@torch.library.custom_op("regcore::label_overlaps", mutates_args=(), device_types="cpu")
def _overlaps(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    batch = displacement.shape[0]
    fixed, moving, displacement = as_planes(fixed), as_planes(moving), as_planes(displacement)
    planes = batch * displacement.shape[2]
    sums = torch.empty(planes, 3, count + 1, dtype=torch.float64)
    run(overlap_planes, planes, displacement[:, 0].numel(), fixed, moving, displacement, sums)
    sums = sums.view(batch, -1, 3, count + 1).sum(1).to(displacement.dtype)
    return tuple(sums[:, kind, :count].clone() for kind in range(3))


@_overlaps.register_kernel("cuda")
@on_its_device
def _(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    from regcore.kernels.gpu import label_dice as gpu

    return gpu.overlaps(fixed, moving, displacement, count)


@_overlaps.register_fake
def _(fixed: Tensor, moving: Tensor, displacement: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(displacement.new_empty(displacement.shape[0], count) for _ in range(3))


@torch.library.custom_op("regcore::label_overlaps_backward", mutates_args=(), device_types="cpu")
def _overlaps_backward(
    by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor
) -> Tensor:
    out = torch.zeros_like(displacement, memory_format=torch.contiguous_format)
    by_both, by_warped = (torch.nn.functional.pad(table, (0, 1)) for table in (by_both, by_warped))
    arrays = [as_planes(tensor) for tensor in (fixed, moving, displacement)]
    rows = math.prod((out.shape[0], *out.shape[2:-1]))
    run(overlap_gradient_rows, rows, rows * out.shape[-1], *arrays, by_both, by_warped, as_planes(out))
    return out


@_overlaps_backward.register_kernel("cuda")
@on_its_device
def _(by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor) -> Tensor:
    from regcore.kernels.gpu import label_dice as gpu

    return gpu.overlaps_backward(by_both, by_warped, fixed, moving, displacement)


@_overlaps_backward.register_fake
def _(by_both: Tensor, by_warped: Tensor, fixed: Tensor, moving: Tensor, displacement: Tensor) -> Tensor:
    return displacement.new_empty(displacement.shape)


def _remember(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx, by_both: Tensor, by_warped: Tensor, _):
    return None, None, torch.ops.regcore.label_overlaps_backward(by_both, by_warped, *ctx.saved_tensors), None


_overlaps.register_autograd(_backward, setup_context=_remember)
