"""Counter-based random numbers in Numba.

A work item is a block of counters.  First its words are computed, then its numbers, in loops over rows of one word
each, which vectorise.
"""

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import jit, run
from regcore.kernels.philox.reference import (
    ANGLE,
    COSINE,
    LOG2_HIGH,
    LOG2_LOW,
    LOGARITHM,
    M0,
    M1,
    ROOT_HALF,
    ROUNDS,
    SINE,
    UNIT,
    W0,
    W1,
)

#: Counters whose words a kernel stores at once.
BLOCK = 256


_SINE, _COSINE = tuple(np.float32(c) for c in SINE), tuple(np.float32(c) for c in COSINE)
_LOGARITHM = tuple(np.float32(c) for c in LOGARITHM)
_LOG2_HIGH, _LOG2_LOW = np.float32(LOG2_HIGH), np.float32(LOG2_LOW)
_ANGLE, _UNIT = np.float32(ANGLE), np.float32(UNIT)
_ONE, _HALF = np.float32(1), np.float32(0.5)


@jit
def count_words(first, seed, offset, words):
    """Set ``words`` (4, n) to those of the counters from ``first`` on."""
    a, b, c, d = words[0], words[1], words[2], words[3]
    for i in range(a.size):
        c0, c1 = np.uint32(first + i), np.uint32(0)
        c2, c3 = np.uint32(offset), np.uint32(offset >> 32)
        k0, k1 = np.uint32(seed), np.uint32(seed >> 32)
        for _ in range(ROUNDS):
            p = np.uint64(np.uint32(M0)) * np.uint64(c0)
            q = np.uint64(np.uint32(M1)) * np.uint64(c2)
            c0 = np.uint32(q >> np.uint64(32)) ^ c1 ^ k0
            c1 = np.uint32(q)
            c2 = np.uint32(p >> np.uint64(32)) ^ c3 ^ k1
            c3 = np.uint32(p)
            k0 = np.uint32(k0 + np.uint32(W0))
            k1 = np.uint32(k1 + np.uint32(W1))
        a[i], b[i], c[i], d[i] = c0, c1, c2, c3


@jit
def normal_pairs(first, second, cosines, sines):
    """Two normal numbers from two words, by Box and Muller; see :mod:`regcore.kernels.philox.reference`."""
    for i in range(first.size):
        u = np.float32(np.int32((first[i] >> np.uint32(8)) + np.uint32(1))) * _UNIT
        bits = np.float32(u).view(np.int32) + np.int32(0x3F800000 - ROOT_HALF)
        exponent = np.float32((bits >> np.int32(23)) - np.int32(127))
        f = np.int32((bits & np.int32(0x7FFFFF)) + np.int32(ROOT_HALF)).view(np.float32) - _ONE
        square = f * f
        value = _LOGARITHM[0]
        for k in range(1, 9):
            value = value * f + _LOGARITHM[k]
        value = value * f * square + exponent * _LOG2_LOW
        value = value - _HALF * square + f + exponent * _LOG2_HIGH
        radius = np.sqrt(np.float32(-2) * value)
        turn = np.int32(second[i] >> np.uint32(8))
        quadrant = (turn + np.int32(1 << 21)) >> np.int32(22)
        angle = np.float32(turn - (quadrant << np.int32(22))) * _ANGLE
        square = angle * angle
        sine = ((_SINE[0] * square + _SINE[1]) * square + _SINE[2]) * square * angle + angle
        cosine = ((_COSINE[0] * square + _COSINE[1]) * square + _COSINE[2]) * square * square - _HALF * square + _ONE
        odd = (quadrant & np.int32(1)) != 0
        a = sine if odd else cosine
        b = cosine if odd else sine
        cosines[i] = radius * (-a if ((quadrant + np.int32(1)) & np.int32(2)) != 0 else a)
        sines[i] = radius * (-b if (quadrant & np.int32(2)) != 0 else b)


@jit
def block_of_normals(item, seed, offset, words, rows, numbers):
    """Set ``numbers`` (BLOCK, 4) to those of block ``item``; ``words`` and ``rows`` (4, BLOCK) are work space."""
    count_words(item * BLOCK, seed, offset, words)
    normal_pairs(words[0], words[1], rows[0], rows[1])
    normal_pairs(words[2], words[3], rows[2], rows[3])
    for i in range(BLOCK):
        for word in range(4):
            numbers[i, word] = rows[word, i]


@jit
def normal_blocks(start, stop, seed, offset, out):
    words = np.empty((4, BLOCK), np.uint32)
    rows = np.empty((4, BLOCK), np.float32)
    numbers = np.empty((BLOCK, 4), np.float32)
    for item in range(start, stop):
        here = out[4 * BLOCK * item : 4 * BLOCK * (item + 1)]
        if here.size == 4 * BLOCK:
            block_of_normals(item, seed, offset, words, rows, here.reshape(BLOCK, 4))
        else:
            block_of_normals(item, seed, offset, words, rows, numbers)
            flat = numbers.reshape(4 * BLOCK)
            for i in range(here.size):
                here[i] = flat[i]


@jit
def uniform_blocks(start, stop, seed, offset, out):
    words = np.empty((4, BLOCK), np.uint32)
    for item in range(start, stop):
        count_words(item * BLOCK, seed, offset, words)
        here = out[4 * BLOCK * item : 4 * BLOCK * (item + 1)]
        for i in range(here.size):
            here[i] = np.float32(np.int32(words[i % 4, i // 4] >> np.uint32(8))) * _UNIT


@jit
def label_blocks(start, stop, labels, means, spreads, seed, offset, out):
    words = np.empty((4, BLOCK), np.uint32)
    rows = np.empty((4, BLOCK), np.float32)
    numbers = np.empty((BLOCK, 4), np.float32)
    noise = numbers.reshape(4 * BLOCK)
    last = means.size - 1
    for item in range(start, stop):
        block_of_normals(item, seed, offset, words, rows, numbers)
        here = out[4 * BLOCK * item : 4 * BLOCK * (item + 1)]
        codes = labels[4 * BLOCK * item : 4 * BLOCK * (item + 1)]
        for i in range(here.size):
            code = min(max(np.int64(codes[i]), 0), last)
            here[i] = means[code] + spreads[code] * noise[i]


def _blocks(kernel, out: Tensor, *arguments) -> Tensor:
    """Fill ``out`` with ``kernel``."""
    run(kernel, -(-out.numel() // (4 * BLOCK)), out.numel(), *arguments, out.view(-1))
    return out


def normal(like: Tensor, seed: int, offset: int) -> Tensor:
    """Draws in the shape of ``like``, whose values do not matter."""
    return _blocks(normal_blocks, torch.empty(like.shape, dtype=torch.float32), seed, offset)


def uniform(like: Tensor, seed: int, offset: int) -> Tensor:
    return _blocks(uniform_blocks, torch.empty(like.shape, dtype=torch.float32), seed, offset)


def label_image(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    out = torch.empty(labels.shape, dtype=torch.float32)
    tables = labels.reshape(-1), means.contiguous(), spreads.contiguous()
    return _blocks(label_blocks, out, *tables, seed, offset)
