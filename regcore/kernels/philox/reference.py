"""Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the same on every device.

A draw has a 64-bit seed, the key, and a 64-bit offset.  Its element i comes from word i mod 4 of the four that Philox
computes from the counter (i div 4, 0, offset), so it does not depend on the shape, threads or device.  Uniform numbers
are the top 24 bits of a word.  Normal ones are Box and Muller's, the cosine and the sine of a pair of words, with our
own logarithm, sine and cosine (the polynomials of the Cephes library): those of GPUs and CPUs differ, and versions that
are exact everywhere are slow.  So uniform numbers are equal bit for bit, and normal ones up to the rounding of a few
multiplications.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Factors and steps of the key, with the names of the authors' code.
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
#: log 2 in two parts, the first with few bits.
LOG2_HIGH, LOG2_LOW = 0.693359375, -2.12194440e-4
#: Bits of the root of one half; 2π over the number of angles; one over the number of uniform numbers.
ROOT_HALF = 0x3F3504F3
ANGLE = 2 * math.pi / 2**24
UNIT = 2.0**-24


def philox(counter: Sequence, seed: int) -> tuple:
    """The four words of a counter of four: of Python integers, or of int64 tensors with 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & LOW, seed >> 32 & LOW
    for number in range(ROUNDS):
        if number:
            k0, k1 = k0 + W0 & LOW, k1 + W1 & LOW
        # An int64 product overflows, but its bits are right; sign bits from the shift are masked.
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
    """Draws from N(0, 1), float32, with absolute values up to 5.77."""
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
        Codes; those outside the tables are clamped to them.
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
