"""Counter-based random numbers; the equations are in :mod:`regcore.kernels.philox.reference`.

A thread computes all four numbers of a counter and writes them next to each other.  A product of two words is one
instruction that gives both halves.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from regcore.kernels.philox import reference as shared

#: Counters per program, four numbers each: one per thread, so that its numbers and labels stay in the thread.
COUNTERS = 128

M0, M1 = tl.constexpr(shared.M0), tl.constexpr(shared.M1)
W0, W1 = tl.constexpr(shared.W0), tl.constexpr(shared.W1)
ROUNDS = tl.constexpr(shared.ROUNDS)
LOGARITHM = tl.constexpr(shared.LOGARITHM)
SINE, COSINE = tl.constexpr(shared.SINE), tl.constexpr(shared.COSINE)
LOG2_HIGH, LOG2_LOW = tl.constexpr(shared.LOG2_HIGH), tl.constexpr(shared.LOG2_LOW)
ROOT_HALF = tl.constexpr(shared.ROOT_HALF)
ANGLE, UNIT = tl.constexpr(shared.ANGLE), tl.constexpr(shared.UNIT)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of counters (c0, c1, c2, c3), uint32."""
    for _ in tl.static_range(ROUNDS):
        first = c0.to(tl.uint64) * M0
        second = c2.to(tl.uint64) * M1
        c0 = (second >> 32).to(tl.uint32) ^ c1 ^ k0
        c1 = second.to(tl.uint32)
        c2 = (first >> 32).to(tl.uint32) ^ c3 ^ k1
        c3 = first.to(tl.uint32)
        k0 = tl.add(k0, W0, sanitize_overflow=False)
        k1 = tl.add(k1, W1, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def words(k0, k1, o0, o1, COUNTERS: tl.constexpr):
    """The four words of this program's counters, from halves of key and offset passed as int32."""
    index = (tl.program_id(0) * COUNTERS + tl.arange(0, COUNTERS)).to(tl.uint32)
    zero = tl.zeros_like(index)
    c2, c3 = zero + o0.to(tl.uint32, bitcast=True), zero + o1.to(tl.uint32, bitcast=True)
    return philox(index, zero, c2, c3, zero + k0.to(tl.uint32, bitcast=True), zero + k1.to(tl.uint32, bitcast=True))


@triton.jit
def normal_pair(first, second):
    """Two normal numbers from two words, by Box and Muller."""
    u = ((first >> 8) + 1).to(tl.int32).to(tl.float32) * UNIT
    bits = u.to(tl.int32, bitcast=True) + (0x3F800000 - ROOT_HALF)
    exponent = ((bits >> 23) - 127).to(tl.float32)
    f = ((bits & 0x7FFFFF) + ROOT_HALF).to(tl.float32, bitcast=True) - 1
    square = f * f
    value = tl.full(f.shape, LOGARITHM[0], tl.float32)
    for k in tl.static_range(1, 9):
        value = value * f + LOGARITHM[k]
    value = value * f * square + exponent * LOG2_LOW
    value = value - 0.5 * square + f + exponent * LOG2_HIGH
    radius = tl.sqrt(-2 * value)
    turn = (second >> 8).to(tl.int32)
    quadrant = (turn + (1 << 21)) >> 22
    angle = (turn - (quadrant << 22)).to(tl.float32) * ANGLE
    square = angle * angle
    sine = ((SINE[0] * square + SINE[1]) * square + SINE[2]) * square * angle + angle
    cosine = ((COSINE[0] * square + COSINE[1]) * square + COSINE[2]) * square * square - 0.5 * square + 1
    odd = (quadrant & 1) == 1
    a = tl.where(odd, sine, cosine)
    b = tl.where(odd, cosine, sine)
    return radius * tl.where(((quadrant + 1) & 2) == 2, -a, a), radius * tl.where((quadrant & 2) == 2, -b, b)


@triton.jit
def side_by_side(a, b, c, d):
    """a₀ b₀ c₀ d₀ a₁ b₁ …"""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def normals(k0, k1, o0, o1, COUNTERS: tl.constexpr):
    """This program's 4 COUNTERS normal numbers."""
    first, second, third, fourth = words(k0, k1, o0, o1, COUNTERS)
    a, b = normal_pair(first, second)
    c, d = normal_pair(third, fourth)
    return side_by_side(a, b, c, d)


@triton.jit(do_not_specialize=["k0", "k1", "o0", "o1"])
def normal_kernel(out, count, k0, k1, o0, o1, COUNTERS: tl.constexpr):
    here = tl.program_id(0) * 4 * COUNTERS + tl.arange(0, 4 * COUNTERS)
    tl.store(out + here, normals(k0, k1, o0, o1, COUNTERS), here < count)


@triton.jit(do_not_specialize=["k0", "k1", "o0", "o1"])
def uniform_kernel(out, count, k0, k1, o0, o1, COUNTERS: tl.constexpr):
    here = tl.program_id(0) * 4 * COUNTERS + tl.arange(0, 4 * COUNTERS)
    first, second, third, fourth = words(k0, k1, o0, o1, COUNTERS)
    found = side_by_side(first >> 8, second >> 8, third >> 8, fourth >> 8)
    tl.store(out + here, found.to(tl.int32).to(tl.float32) * UNIT, here < count)


@triton.jit(do_not_specialize=["k0", "k1", "o0", "o1"])
def label_image_kernel(labels, means, spreads, out, count, codes, k0, k1, o0, o1, COUNTERS: tl.constexpr):
    """``out`` = ``means`` + ``spreads`` · N(0, 1) of each of ``count`` labels, which are read once."""
    here = tl.program_id(0) * 4 * COUNTERS + tl.arange(0, 4 * COUNTERS)
    mask = here < count
    code = tl.load(labels + here, mask, 0)
    code = tl.minimum(tl.maximum(code.to(tl.int64), 0), codes - 1).to(tl.int32)
    value = tl.load(means + code) + tl.load(spreads + code) * normals(k0, k1, o0, o1, COUNTERS)
    tl.store(out + here, value, mask)


def normal(like: Tensor, seed: int, offset: int) -> Tensor:
    out = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    if out.numel():
        normal_kernel[grid(out)](out, out.numel(), *halves(seed), *halves(offset), COUNTERS=COUNTERS)
    return out


def uniform(like: Tensor, seed: int, offset: int) -> Tensor:
    out = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    if out.numel():
        uniform_kernel[grid(out)](out, out.numel(), *halves(seed), *halves(offset), COUNTERS=COUNTERS)
    return out


def label_image(labels: Tensor, means: Tensor, spreads: Tensor, seed: int, offset: int) -> Tensor:
    labels, means, spreads = labels.contiguous(), means.contiguous(), spreads.contiguous()
    out = torch.empty(labels.shape, dtype=torch.float32, device=labels.device)
    if out.numel():
        label_image_kernel[grid(out)](
            labels, means, spreads, out, out.numel(), means.numel(), *halves(seed), *halves(offset), COUNTERS=COUNTERS
        )
    return out


def grid(out: Tensor) -> tuple[int]:
    return (triton.cdiv(out.numel(), 4 * COUNTERS),)


def halves(number: int) -> tuple[int, int]:
    """The two words of a 64-bit number as int32, so that Triton sees every value with the same type."""
    return _signed(number & shared.LOW), _signed(number >> 32 & shared.LOW)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
