"""Convolutions with weights of their own for each sample: products of matrices that are gathered as they are used.

A tile of voxels times the taps of the kernel and the channels that they meet is one factor, the weights are the other.
Channels are innermost in memory.  Weights come as matrices, a row for each feature, whose columns are the taps and
within each tap the channels, filled up with zeros to whole blocks, so that no load of a weight needs a mask.  Where
there are few channels a block of columns takes several taps.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.layout import channels_last
from regcore.kernels.triton_launch import arithmetic

#: Voxels along a row that one program does, and most features.
VOXELS, FEATURES = 32, 64
#: Columns of the gradient of the weights that one program makes.
GRADIENT_COLUMNS = 64
#: Programs that the voxels of all samples are shared by when that gradient is made, each with a sum of its own.
SLABS = 128
#: Tiles that are loaded ahead.
STAGES = 3


class Cost(NamedTuple):
    """What a kind of arithmetic leaves room for in registers and shared memory.

    Attributes
    ----------
    precision : str
        How factors of 32 bits are multiplied.
    rows, gradient_rows : int
        Rows of voxels that one program does, of a convolution and of the gradient of its weights.
    columns : int
        Most columns of the weights' matrix that are taken at a time.
    """

    precision: str
    rows: int
    gradient_rows: int
    columns: int


SIXTEEN_BITS = Cost("tf32", 4, 4, 64)
#: What torch's own convolutions do in float32 by default, and three products of the same kind, which round as float32.
TF32, TF32X3 = Cost("tf32", 4, 2, 64), Cost("tf32x3", 2, 1, 32)
DOUBLE = Cost("ieee", 1, 1, 16)


def cost(image: Tensor) -> Cost:
    if image.dtype == torch.float32:
        return TF32 if torch.backends.cudnn.allow_tf32 else TF32X3
    return DOUBLE if image.dtype == torch.float64 else SIXTEEN_BITS


class Plan(NamedTuple):
    """How a convolution of ``channels`` is cut into blocks.

    Attributes
    ----------
    kernel : int
        Voxels of the kernel along an axis, 1 or 3.
    axes : int
        Axes that it extends over.
    stored : int
        Channels and the zeros that fill them up, for each tap.
    block : int
        Columns, taps and channels, that are taken at a time.
    """

    kernel: int
    axes: int
    stored: int
    block: int

    @property
    def columns(self) -> int:
        """Of the whole matrix."""
        return triton.cdiv(self.kernel**self.axes * self.stored, self.block) * self.block

    @property
    def constants(self) -> dict[str, int]:
        return {
            "KERNEL": self.kernel,
            "KERNEL_Z": self.kernel if self.axes == 3 else 1,
            "STORED": self.stored,
            "COLUMNS": self.columns,
        }


def plan(channels: int, kernel: int, axes: int, most: int) -> Plan:
    """Blocks of at most ``most`` columns."""
    if channels <= 8:
        stored = triton.next_power_of_2(channels)
        whole = triton.next_power_of_2(kernel**axes * stored)
        return Plan(kernel, axes, stored, min(most, 32, max(16, whole)))
    sixteens = triton.cdiv(channels, 16) * 16
    return Plan(kernel, axes, sixteens, next(n for n in (64, 32, 16) if n <= most and sixteens % n == 0))


@triton.jit
def tile_of(block, across, height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """Rows and columns of the voxels of a tile, (voxels,) each, and which of them exist."""
    voxel = tl.arange(0, BLOCK_Y * BLOCK_X)
    y = (block // across) * BLOCK_Y + voxel // BLOCK_X
    x = (block % across) * BLOCK_X + voxel % BLOCK_X
    return y, x, (y < height) & (x < width)


@triton.jit
def tap_of(number, KERNEL: tl.constexpr, KERNEL_Z: tl.constexpr):
    """The steps along Z, Y and X to the voxel that a tap meets."""
    dz = number // (KERNEL * KERNEL) - KERNEL_Z // 2
    dy = number // KERNEL % KERNEL - KERNEL // 2
    return dz, dy, number % KERNEL - KERNEL // 2


@triton.jit
def gathered(
    image, column, z, y, x, exists, channels, depth, height, width,
    KERNEL: tl.constexpr, KERNEL_Z: tl.constexpr, STORED: tl.constexpr, BLOCK: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """What voxels (V,) meet in the columns from ``column`` on, (V, BLOCK): zero beyond the border and the channels."""
    columns = column + tl.arange(0, BLOCK)[None, :]
    tap = column // STORED if STORED % BLOCK == 0 else columns // STORED  # one, or one for each column
    channel = columns - tap * STORED
    dz, dy, dx = tap_of(tap, KERNEL, KERNEL_Z)
    inside = exists[:, None] & (z + dz >= 0) & (z + dz < depth)
    inside = inside & (y[:, None] + dy >= 0) & (y[:, None] + dy < height)
    inside = inside & (x[:, None] + dx >= 0) & (x[:, None] + dx < width)
    if STORED % BLOCK != 0:
        inside = inside & (tap < KERNEL_Z * KERNEL * KERNEL)
    if FULL:  # a number that is known when this is compiled: several channels are loaded at once
        channels = STORED
    else:
        inside = inside & (channel < channels)
    here = ((z * height + y) * width + x) * channels
    shift = ((dz * height + dy) * width + dx) * channels + channel
    return tl.load(image + (here[:, None] + shift), inside, 0)


@triton.jit
def forward_kernel(
    image, weights, bias, out, sample_stride, channels, features, depth, height, width,
    KERNEL: tl.constexpr, KERNEL_Z: tl.constexpr, STORED: tl.constexpr, COLUMNS: tl.constexpr, FULL: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
    BIAS: tl.constexpr, SLOPE: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``out`` (B, Z, Y, X, F) = leaky ReLU of ``image`` (B, Z, Y, X, C) * ``weights`` (B, F, columns) + ``bias``.

    ``weights`` and ``bias`` have rows for whole blocks of features; ``sample_stride`` is 0 where all samples are one.
    """
    y, x, exists = tile_of(tl.program_id(0), tl.cdiv(width, BLOCK_X), height, width, BLOCK_Y, BLOCK_X)
    z = tl.program_id(1)
    blocks = tl.cdiv(features, BLOCK_F)
    b = (tl.program_id(2) // blocks).to(tl.int64)
    feature = tl.program_id(2) % blocks * BLOCK_F + tl.arange(0, BLOCK_F)
    image += b * sample_stride
    weights += b * (blocks * BLOCK_F * COLUMNS)
    total = tl.zeros((BLOCK_Y * BLOCK_X, BLOCK_F), TYPE)
    for column in tl.range(0, COLUMNS, BLOCK, num_stages=STAGES):
        voxels = gathered(
            image, column, z, y, x, exists, channels, depth, height, width, KERNEL, KERNEL_Z, STORED, BLOCK, FULL
        )
        factors = tl.load(weights + feature[None, :] * COLUMNS + (column + tl.arange(0, BLOCK))[:, None])
        total = tl.dot(voxels, factors, total, input_precision=PRECISION, out_dtype=TYPE)
    if BIAS:
        total += tl.load(bias + b * (blocks * BLOCK_F) + feature)[None, :].to(TYPE)
    if SLOPE != 1:
        total = tl.where(total < 0, total * SLOPE, total)
    target = out + b * features * depth * height * width + ((z * height + y) * width + x)[:, None] * features
    tl.store(target + feature[None, :], total, exists[:, None] & (feature < features)[None, :])


@triton.jit
def weight_kernel(
    image, gradient, out, sample_stride, tiles, share, channels, features, depth, height, width,
    KERNEL: tl.constexpr, KERNEL_Z: tl.constexpr, STORED: tl.constexpr, COLUMNS: tl.constexpr, FULL: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """``out`` (B, slabs, columns, F): the gradient of the weights from ``share`` of the ``tiles`` of each sample.

    Programs that read the same voxels, for other columns, follow each other.
    """
    column = tl.program_id(0) % (COLUMNS // BLOCK) * BLOCK
    blocks = tl.cdiv(features, BLOCK_F)
    feature = tl.program_id(0) // (COLUMNS // BLOCK) * BLOCK_F + tl.arange(0, BLOCK_F)
    slab = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    image += b * sample_stride
    gradient += b * features * depth * height * width
    across = tl.cdiv(width, BLOCK_X)
    in_plane = tl.cdiv(height, BLOCK_Y) * across
    total = tl.zeros((BLOCK, BLOCK_F), TYPE)
    for tile in tl.range(slab * share, tl.minimum((slab + 1) * share, tiles), num_stages=STAGES):
        z = tile // in_plane
        y, x, exists = tile_of(tile - z * in_plane, across, height, width, BLOCK_Y, BLOCK_X)
        voxels = gathered(
            image, column, z, y, x, exists, channels, depth, height, width, KERNEL, KERNEL_Z, STORED, BLOCK, FULL
        )
        here = ((z * height + y) * width + x)[:, None] * features + feature[None, :]
        incoming = tl.load(gradient + here, exists[:, None] & (feature < features)[None, :], 0)
        total = tl.dot(tl.trans(voxels), incoming, total, input_precision=PRECISION, out_dtype=TYPE)
    target = out + (b * tl.num_programs(1) + slab) * (COLUMNS * blocks * BLOCK_F)
    target += (column + tl.arange(0, BLOCK))[:, None] * (blocks * BLOCK_F)
    tl.store(target + feature[None, :], total)


def forward(image: Tensor, weight: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    """``image`` (B, C, *space), ``weight`` (B, F, C, k, ...), ``bias`` (B, F) → (B, F, *space), channels innermost."""
    batch, features = weight.shape[:2]
    costs = cost(image)
    found = plan(image.shape[1], weight.shape[-1], image.ndim - 2, costs.columns)
    last, sample_stride = innermost(image)
    out = image.new_empty(batch, *last.shape[1:-1], features)
    depth, height, width = three_axes(last)
    block, blocks = feature_blocks(features)
    more = block * blocks - features
    grid = triton.cdiv(height, costs.rows) * triton.cdiv(width, VOXELS), depth, batch * blocks
    biases = out if bias is None else F.pad(bias, (0, more)).contiguous()
    forward_kernel[grid](
        last, matrix(weight, found, more), biases, out, sample_stride,
        image.shape[1], features, depth, height, width, **found.constants, FULL=found.stored == image.shape[1],
        BLOCK=found.block, BLOCK_F=block, BLOCK_Y=costs.rows, BLOCK_X=VOXELS, BIAS=bias is not None, SLOPE=slope,
        TYPE=arithmetic(image), PRECISION=costs.precision, STAGES=STAGES,
    )  # fmt: skip
    return out.movedim(-1, 1)


def image_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """Gradient with respect to the image: a convolution with the mirrored kernels, features and channels exchanged."""
    mirrored = weight.flip(tuple(range(3, weight.ndim))).transpose(1, 2)
    return forward(gradient, mirrored, None, 1.0)


def weight_gradient(gradient: Tensor, image: Tensor, kernel: int) -> Tensor:
    """Gradient with respect to the weights, (B, F, C, k, ...) in the type of the arithmetic.

    Programs sum over slabs of the image, and torch over the slabs in float64: the same bits every time.
    """
    channels, axes = image.shape[1], image.ndim - 2
    batch, features = gradient.shape[:2]
    costs = cost(image)
    found = plan(channels, kernel, axes, costs.columns)
    # Columns are independent here, and more of them at a time are fewer passes over the voxels.
    block = max(found.block, min(GRADIENT_COLUMNS, triton.next_power_of_2(found.columns)))
    columns = triton.cdiv(found.columns, block) * block
    last, sample_stride = innermost(image)
    depth, height, width = three_axes(last)
    block_f, blocks = feature_blocks(features)
    tiles = triton.cdiv(height, costs.gradient_rows) * triton.cdiv(width, VOXELS) * depth
    share = triton.cdiv(tiles, max(1, SLABS // batch))
    slabs = triton.cdiv(tiles, share)
    kind = torch.float64 if image.dtype == torch.float64 else torch.float32
    partial = torch.empty(batch, slabs, columns, blocks * block_f, dtype=kind, device=image.device)
    weight_kernel[columns // block * blocks, slabs, batch](
        last, channels_last(gradient), partial, sample_stride, tiles, share, channels, features, depth, height, width,
        **{**found.constants, "COLUMNS": columns}, FULL=found.stored == channels, BLOCK=block, BLOCK_F=block_f,
        BLOCK_Y=costs.gradient_rows, BLOCK_X=VOXELS, TYPE=arithmetic(image), PRECISION=costs.precision, STAGES=STAGES,
    )  # fmt: skip
    total = partial.sum(1, dtype=torch.float64).to(kind)[:, : kernel**axes * found.stored, :features]
    taps = total.unflatten(1, (*[kernel] * axes, found.stored))[..., :channels, :]
    return taps.movedim(-1, 1).movedim(-1, 2)


def innermost(image: Tensor) -> tuple[Tensor, int]:
    """The image as (B, *space, C) and the step from sample to sample; samples that are all one stay one."""
    if image.shape[0] > 1 and image.stride(0) == 0:
        return channels_last(image[:1]), 0
    last = channels_last(image)
    return last, last[0].numel()


def matrix(weight: Tensor, found: Plan, more: int) -> Tensor:
    """Weights (B, F, C, k, ...) as (B, F + ``more``, columns)."""
    weight = weight.movedim(2, -1)
    weight = F.pad(weight, (0, found.stored - weight.shape[-1])).flatten(2)
    return F.pad(weight, (0, found.columns - weight.shape[-1], 0, more)).contiguous()


def three_axes(last: Tensor) -> tuple[int, int, int]:
    """Depth, height and width of (B, *space, C); an image has one plane."""
    depth, height, width = last.shape[1:-1] if last.ndim == 5 else (1, *last.shape[1:-1])
    return depth, height, width


def feature_blocks(features: int) -> tuple[int, int]:
    """Features of a block, and how many blocks they are in."""
    block = min(FEATURES, max(16, triton.next_power_of_2(features)))
    return block, triton.cdiv(features, block)
