"""Interleaving of the features of all parities on the finer grid, and its transpose, in Numba; a work item is a row."""

import math

from torch import Tensor

from regcore.kernels.launch import jit, run
from regcore.kernels.layout import CHANNELS_LAST, channels_last


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
    """The transpose of :func:`interleave_rows`; entries that no voxel was taken from are zero."""
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


def interleave(by_parity: Tensor) -> Tensor:
    """Interleave features of all parities: (B, 2^D F, *(n + 1)) → (B, F, *2n)."""
    out = by_parity.new_empty(fine_shape(by_parity)).contiguous(memory_format=CHANNELS_LAST[by_parity.ndim])
    ndim = by_parity.ndim - 2
    source = channels_last(by_parity).unflatten(-1, (*[2] * ndim, out.shape[1]))
    rows = math.prod((out.shape[0], *out.shape[2:-1]))
    run(interleave_rows if ndim == 3 else interleave_flat_rows, rows, out.numel(), source, channels_last(out))
    return out


def separate(gradient: Tensor) -> Tensor:
    """The transpose of :func:`interleave`."""
    ndim = gradient.ndim - 2
    space = [n // 2 + 1 for n in gradient.shape[2:]]
    out = gradient.new_empty(gradient.shape[0], *space, *[2] * ndim, gradient.shape[1])
    rows = math.prod((gradient.shape[0], *space[:-1]))
    run(separate_rows if ndim == 3 else separate_flat_rows, rows, out.numel(), channels_last(gradient), out)
    return out.flatten(-ndim - 1).movedim(-1, 1)
