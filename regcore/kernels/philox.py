"""Random numbers by counting: Philox4x32-10 (Salmon et al., SC 2011), the same on every device.

A draw has a 64-bit seed, the key, and a 64-bit offset.  Its element i is made of word i mod 4 of the four that Philox
makes of the counter (i div 4, 0, offset): of nothing that depends on the shape, on threads or on the device.  Uniform
numbers are the top 24 bits of a word.  Normal ones are Box and Muller's, the cosine and the sine of a pair of words,
with a logarithm, a sine and a cosine of our own (the polynomials of the Cephes library): a GPU's and a CPU's would
differ, and those that are exact everywhere are slow.  So uniform numbers are equal bit for bit, and normal ones up to
the rounding of a few multiplications.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from regcore.kernels.launch import has_kernel, jit, on_its_device, run

#: Factors and steps of the key, by the names of the authors' code.
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = 0xFFFFFFFF
#: Polynomials in f, log(1 + f) = f - f² / 2 + f³ P(f), and in x², sin and cos up to π / 4, highest power first.
LOGARITHM = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
#: log 2 in two parts, of which the first has few bits.
LOG2_HIGH, LOG2_LOW = 0.693359375, -2.12194440e-4
#: Bits of the root of one half; 2π over the number of angles; one over the number of uniform numbers.
ROOT_HALF = 0x3F3504F3
ANGLE = 2 * math.pi / 2**24
UNIT = 2.0**-24
#: Counters whose words a Numba kernel holds at a time.
BLOCK = 256
#: Types of label maps.
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def philox(counter: Sequence, seed: int) -> tuple:
    """The four words of a counter of four: of Python's integers, or of int64 tensors that hold 32-bit ones."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & LOW, seed >> 32 & LOW
    for number in range(ROUNDS):
        if number:
            k0, k1 = k0 + W0 & LOW, k1 + W1 & LOW
        # An int64 product runs over, and its bits are right: those that the shift brings in from the sign are cut off.
        first, second = M0 * c0, M1 * c2
        c0, c1, c2, c3 = second >> 32 & LOW ^ c1 ^ k0, second & LOW, first >> 32 & LOW ^ c3 ^ k1, first & LOW
    return c0, c1, c2, c3


def number_reference(seed: int, offset: int) -> float:
    """Element 0 of :func:`uniform_reference` as a number, without a tensor."""
    return (philox((0, 0, offset & LOW, offset >> 32 & LOW), seed)[0] >> 8) * UNIT


def words_reference(count: int, seed: int, offset: int, device: torch.device) -> Tensor:
    """Words of ``count`` elements and up to three more, int64, shape (counters, 4)."""
    index = torch.arange(-(-count // 4), device=device)
    zero = torch.zeros_like(index)
    return torch.stack(philox((index, zero, zero + (offset & LOW), zero + (offset >> 32 & LOW)), seed), 1)


def uniform_reference(shape: Sequence[int], seed: int, offset: int, device: torch.device) -> Tensor:
    """Draws from U[0, 1): multiples of 2⁻²⁴, float32."""
    count = math.prod(shape)
    words = words_reference(count, seed, offset, device)
    return ((words >> 8).float() * UNIT).flatten()[:count].view(shape)


def normal_reference(shape: Sequence[int], seed: int, offset: int, device: torch.device) -> Tensor:
    """Draws from N(0, 1), float32, none beyond 5.77."""
    count = math.prod(shape)
    first, second = words_reference(count, seed, offset, device).view(-1, 2, 2).unbind(2)
    radius = torch.sqrt(-2 * _logarithm((first >> 8) + 1))
    cosine, sine = _circle(second >> 8)
    return torch.stack([radius * cosine, radius * sine], 2).flatten()[:count].view(shape)


def label_image_reference(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    """``means`` + ``spreads`` · N(0, 1) of each voxel's label, float32.

    Parameters
    ----------
    labels : Tensor of integers
        Codes; those beyond the tables are taken for the nearest that is not.
    means, spreads : Tensor of float32, shape (codes,)
    """
    places = labels.reshape(-1).clamp(0, len(means) - 1).int()
    noise = normal_reference(places.shape, seed, offset, labels.device)
    return (means.index_select(0, places) + spreads.index_select(0, places) * noise).view(labels.shape)


def _logarithm(number: Tensor) -> Tensor:
    """log(number / 2²⁴) for integers from 1 to 2²⁴, float32."""
    bits = (number.float() * UNIT).view(torch.int32) + (0x3F800000 - ROOT_HALF)
    exponent = ((bits >> 23) - 127).float()
    f = ((bits & 0x7FFFFF) + ROOT_HALF).view(torch.float32) - 1
    square = f * f
    value = _polynomial(LOGARITHM, f) * f * square + exponent * LOG2_LOW
    return value - 0.5 * square + f + exponent * LOG2_HIGH


def _circle(number: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2π number / 2²⁴ for integers from 0 to 2²⁴ - 1, float32."""
    quadrant = (number + (1 << 21)) >> 22
    angle = (number - (quadrant << 22)).float() * ANGLE
    square = angle * angle
    sine = _polynomial(SINE, square) * square * angle + angle
    cosine = _polynomial(COSINE, square) * square * square - 0.5 * square + 1
    odd = quadrant % 2 == 1
    a, b = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    return torch.where((quadrant + 1) & 2 == 2, -a, a), torch.where(quadrant & 2 == 2, -b, b)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def uniform(shape: Sequence[int], seed: int, offset: int, device: torch.device) -> Tensor:
    """As :func:`uniform_reference`, by the kernel where it can."""
    like = _like(shape, device)
    if _drawn_by_kernel(like):
        return torch.ops.regcore.philox_uniform(like, seed, offset)
    return uniform_reference(shape, seed, offset, device)


def normal(shape: Sequence[int], seed: int, offset: int, device: torch.device) -> Tensor:
    """As :func:`normal_reference`, by the kernel where it can."""
    like = _like(shape, device)
    if _drawn_by_kernel(like):
        return torch.ops.regcore.philox_normal(like, seed, offset)
    return normal_reference(shape, seed, offset, device)


def label_image(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    """As :func:`label_image_reference`, by the kernel where it can."""
    if labels.device == means.device and labels.dtype in WHOLE and _drawn_by_kernel(_like(labels.shape, means.device)):
        return torch.ops.regcore.label_image(labels, means, spreads, seed, offset)
    return label_image_reference(labels, means, spreads, seed, offset)


def _like(shape: Sequence[int], device: torch.device) -> Tensor:
    """What stands for a result before it is drawn: of its shape, type and device, without its memory."""
    return torch.empty(1, dtype=torch.float32, device=device).expand(tuple(shape))


def _drawn_by_kernel(like: Tensor) -> bool:
    return like.numel() < 2**31 and has_kernel(like, operator="philox_normal")


# In the Numba kernels a work item is a block of counters.  Its words are made first, then its numbers, in loops over
# rows of one word each, which vectorise.

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
    """Box and Muller's two normal numbers of two words; see :func:`_logarithm` and :func:`_circle`."""
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
    """Set ``numbers`` (BLOCK, 4) to those of block ``item``; ``words`` and ``rows`` (4, BLOCK) are room to work in."""
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
            here[:] = numbers.reshape(4 * BLOCK)[: here.size]


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
    """Let ``kernel`` fill ``out``."""
    run(kernel, -(-out.numel() // (4 * BLOCK)), out.numel(), *arguments, out.view(-1))
    return out


@torch.library.custom_op("regcore::philox_normal", mutates_args=(), device_types="cpu")
def _normal(like: Tensor, seed: int, offset: int) -> Tensor:
    """Draws in the shape of ``like``, of which nothing else is looked at."""
    return _blocks(normal_blocks, torch.empty(like.shape, dtype=torch.float32), seed, offset)


@torch.library.custom_op("regcore::philox_uniform", mutates_args=(), device_types="cpu")
def _uniform(like: Tensor, seed: int, offset: int) -> Tensor:
    return _blocks(uniform_blocks, torch.empty(like.shape, dtype=torch.float32), seed, offset)


@torch.library.custom_op("regcore::label_image", mutates_args=(), device_types="cpu")
def _label_image(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    out = torch.empty(labels.shape, dtype=torch.float32)
    tables = labels.reshape(-1), means.contiguous(), spreads.contiguous()
    return _blocks(label_blocks, out, *tables, seed, offset)


@_normal.register_kernel("cuda")
@on_its_device
def _(like: Tensor, seed: int, offset: int) -> Tensor:
    from regcore.kernels.gpu import philox as gpu

    return gpu.normal(like, seed, offset)


@_uniform.register_kernel("cuda")
@on_its_device
def _(like: Tensor, seed: int, offset: int) -> Tensor:
    from regcore.kernels.gpu import philox as gpu

    return gpu.uniform(like, seed, offset)


@_label_image.register_kernel("cuda")
@on_its_device
def _(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    from regcore.kernels.gpu import philox as gpu

    return gpu.label_image(labels, means, spreads, seed, offset)


@_normal.register_fake
@_uniform.register_fake
def _(like: Tensor, seed: int, offset: int) -> Tensor:
    return like.new_empty(like.shape)


@_label_image.register_fake
def _(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    return labels.new_empty(labels.shape, dtype=torch.float32)
