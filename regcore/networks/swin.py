"""The encoder of TransMorph: a Swin transformer (Liu et al., ICCV 2021) on patches, in two and three dimensions.

Tokens have the shape (B, *grid, C).  Attention works within windows; every second block shifts them by half, so that
tokens on both sides of a window's border meet.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from regcore.networks.unet import convolution


class SwinEncoder(nn.Module):
    """Image pair → features at every stage, the finest first [1]_.

    Parameters
    ----------
    ndim : {2, 3}
        D.
    window : sequence of int
        Tokens along each axis of a window.
    embed : int
        Features of the first stage; each stage has twice as many as the previous one.
    depths, heads : sequence of int
        Blocks of each stage, and heads of their attention.
    patch : int
        Voxels along each axis of a patch, which becomes a token.
    drop_path : float
        Probability of stochastic depth (dropping a block's residuals in training) in the last block; it grows linearly
        from 0 in the first.
    checkpointing : bool
        Recompute blocks in the backward pass, to save memory.
    in_channels : int
        2 for a pair of grey-scale images.

    References
    ----------
    .. [1] Liu, Lin, Cao, Hu, Wei, Zhang, Lin and Guo, "Swin Transformer: Hierarchical vision transformer using shifted
       windows", ICCV 2021.

    Examples
    --------
    >>> import torch
    >>> from regcore.networks.swin import SwinEncoder
    >>> encoder = SwinEncoder(2, window=(2, 2), embed=8, depths=(1, 1), heads=(2, 2))
    >>> [tuple(features.shape) for features in encoder(torch.zeros(1, 2, 32, 32))]
    [(1, 8, 8, 8), (1, 16, 4, 4)]
    """

    def __init__(
        self,
        ndim: int,
        window: Sequence[int],
        embed: int = 96,
        depths: Sequence[int] = (4, 4, 5),
        heads: Sequence[int] = (8, 8, 8),
        patch: int = 4,
        drop_path: float = 0.3,
        checkpointing: bool = False,
        in_channels: int = 2,
    ):
        super().__init__()
        self.checkpointing = checkpointing
        self.widths = [embed * 2**stage for stage in range(len(depths))]
        self.patches = convolution(ndim)(in_channels, embed, patch, stride=patch)
        self.norm = nn.LayerNorm(embed)
        blocks = itertools.count()
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(width, count, window, block % 2 == 1, drop_path * next(blocks) / max(1, sum(depths) - 1))
                for block in range(depth)
            )
            for width, depth, count in zip(self.widths, depths, heads, strict=True)
        )
        self.merging = nn.ModuleList(Merging(ndim, width) for width in self.widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.widths)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, pair: Tensor) -> list[Tensor]:
        """Map (B, in_channels, *space) to (B, C, *grid) for each stage; sizes must be multiples of a patch."""
        tokens = self.norm(self.patches(pair).movedim(1, -1))
        found = []
        for number, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            for block in stage.children():
                if self.checkpointing and torch.is_grad_enabled():
                    tokens = checkpoint(block, tokens, use_reentrant=False)
                else:
                    tokens = block(tokens)
            found.append(norm(tokens).movedim(-1, 1))
            if number < len(self.merging):
                tokens = self.merging[number](tokens)
        return found


class Block(nn.Module):
    """Attention within windows, then a perceptron of each token, both as residuals."""

    def __init__(self, width: int, heads: int, window: Sequence[int], shifted: bool, drop_path: float):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads cannot share {width} features")
        self.window, self.shifted, self.drop_path = tuple(window), shifted, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, self.window)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._dropped(self._attended(self.norm1(tokens)))
        return tokens + self._dropped(self.perceptron(self.norm2(tokens)))

    def _attended(self, tokens: Tensor) -> Tensor:
        grid, window = tokens.shape[1:-1], self.window
        missing = [-n % w for n, w in zip(grid, window, strict=True)]
        tokens = F.pad(tokens, [0, 0, *itertools.chain(*((0, m) for m in reversed(missing)))])
        padded = tokens.shape[1:-1]
        # A window as large as the grid need not be shifted.
        shift = [w // 2 if self.shifted and n > w else 0 for n, w in zip(padded, window, strict=True)]
        axes = list(range(1, tokens.ndim - 1))
        if any(shift):
            tokens = tokens.roll([-s for s in shift], axes)
        mask = window_mask(tuple(padded), window, tuple(shift), tokens.device) if any(shift) else None
        parts = self.attention(partition(tokens, window), mask)
        tokens = unpartition(parts, window, tokens.shape)
        if any(shift):
            tokens = tokens.roll(shift, axes)
        return tokens[(slice(None), *(slice(n) for n in grid))]

    def _dropped(self, residual: Tensor) -> Tensor:
        """Stochastic depth: in training, drop the whole residual of a sample at random."""
        if not self.training or self.drop_path == 0:
            return residual
        kept = torch.rand(len(residual), *[1] * (residual.ndim - 1), device=residual.device) >= self.drop_path
        return residual * kept / (1 - self.drop_path)


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a bias for each head and each offset between tokens."""

    offsets: Tensor

    def __init__(self, width: int, heads: int, window: tuple[int, ...]):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        offsets = [2 * w - 1 for w in window]
        self.bias = nn.Parameter(torch.empty(math.prod(offsets), heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.register_buffer("offsets", window_offsets(window), persistent=False)

    def forward(self, parts: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within each of (B · windows, tokens, C); ``mask`` (windows, tokens, tokens) is added to the logits."""
        count, tokens, width = parts.shape
        q, k, v = self.qkv(parts).view(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.bias[self.offsets].permute(2, 0, 1)[None]  # (1, heads, tokens, tokens)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(count // len(mask), 1, 1, 1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.project(found.transpose(1, 2).reshape(count, tokens, width))


class Merging(nn.Module):
    """Merge neighbouring tokens, two along each axis, into one with twice the features; odd grids are padded."""

    def __init__(self, ndim: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(2**ndim * width)
        self.reduce = nn.Linear(2**ndim * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        grid = tokens.shape[1:-1]
        tokens = F.pad(tokens, [0, 0, *itertools.chain(*((0, n % 2) for n in reversed(grid)))])
        corners = [
            tokens[(slice(None), *(slice(start, None, 2) for start in corner))]
            for corner in itertools.product((0, 1), repeat=len(grid))
        ]
        return self.reduce(self.norm(torch.cat(corners, -1)))


def partition(tokens: Tensor, window: Sequence[int]) -> Tensor:
    """(B, *grid, C) → (B · windows, tokens of a window, C)."""
    ndim, shape = len(window), [tokens.shape[0]]
    for n, w in zip(tokens.shape[1:-1], window, strict=True):
        shape += [n // w, w]
    order = [0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), 2 * ndim + 1]
    parts = tokens.reshape(*shape, tokens.shape[-1]).permute(order)
    return parts.reshape(-1, math.prod(window), tokens.shape[-1])


def unpartition(parts: Tensor, window: Sequence[int], shape: Sequence[int]) -> Tensor:
    """The inverse of :func:`partition`, to tokens of ``shape`` (B, *grid, C)."""
    ndim = len(window)
    counts = [n // w for n, w in zip(shape[1:-1], window, strict=True)]
    order = [0, *itertools.chain(*((1 + axis, 1 + ndim + axis) for axis in range(ndim))), 2 * ndim + 1]
    return parts.view(shape[0], *counts, *window, shape[-1]).permute(order).reshape(shape)


def window_offsets(window: Sequence[int]) -> Tensor:
    """Index of the offset between any two tokens of a window, (tokens, tokens)."""
    places = torch.stack(torch.meshgrid(*[torch.arange(w) for w in window], indexing="ij")).flatten(1)
    apart = places[:, :, None] - places[:, None, :]
    index = torch.zeros(apart.shape[1:], dtype=torch.long)
    for distance, w in zip(apart, window, strict=True):
        index = index * (2 * w - 1) + distance + w - 1
    return index


@functools.lru_cache(maxsize=32)
def window_mask(grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device) -> Tensor:
    """0 where two tokens of a shifted window are neighbours, -inf where only the shift has brought them together.

    Shape (windows, tokens, tokens).
    """
    regions = torch.zeros(1, *grid, 1)
    for axis, (n, w, s) in enumerate(zip(grid, window, shift, strict=True)):
        along = torch.arange(n)
        part = (along >= n - w).int() + (along >= n - s).int() if s else torch.zeros(n, dtype=torch.int)
        regions = regions * 3 + part.view([-1 if a == axis + 1 else 1 for a in range(len(grid) + 2)])
    parts = partition(regions, window)[..., 0]
    apart = parts[:, :, None] != parts[:, None, :]
    return torch.zeros(apart.shape).masked_fill_(apart, -torch.inf).to(device)
