"""PyTorch's CPU random numbers without PyTorch: the same seed and the same calls give the same values, in NumPy.

PyTorch draws everything on the CPU from one Mersenne Twister (MT19937, Matsumoto & Nishimura 1998), which NumPy has
too. What is PyTorch's own is how the twister's 32-bit words become numbers; each method below states its rule. The
rules were read in ATen's headers (`DistributionTemplates.h`, `DistributionsHelper.h`, `TransformationHelper.h`, which
every installed PyTorch carries) and are tested against PyTorch 2.13.0.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt32, UInt64
from numpy.typing import DTypeLike

from flaxformer_edu.errors import InputError

BLOCK = 16  # PyTorch transforms normals in blocks of 16; fewer than that are drawn one at a time
WIDE_RANGE = 2**28  # from this many integers on, one integer takes 64 random bits instead of 32
MCG31M1_MULTIPLIER, MCG31M1_MODULUS = 1132489760, 2**31 - 1  # L'Ecuyer 1999, as in Intel's MKL
CHUNK = 2**14  # elements of a piece that stays in the processor's cache: four times as fast as all at once

Operand = np.ndarray | np.floating


class TorchGenerator:
    """The stream of `torch.manual_seed(seed)`, drawn from in the same order by methods of the same names.

    `seed` is what `torch.manual_seed` takes, -2**63 to 2**64 - 1; the twister is seeded with its low 32 bits.

    `dropout` says how `bernoulli`, and so every dropout layer, draws, which in PyTorch depends on the build and the
    processor: "generic" on AMD, Arm and Apple, and everywhere in builds without MKL's random numbers (the x86 wheel of
    2.13.0 is one); "mkl" on Intel processors in builds that have them. All other methods draw alike everywhere.

    Methods return NumPy arrays of the shape asked for; an empty one draws nothing. Raises InputError where PyTorch
    would refuse the arguments.
    """

    def __init__(self, seed: int, *, dropout: str = "generic"):
        if not -(2**63) <= seed < 2**64:
            raise InputError(f"seed {seed} is not one of PyTorch's: pick one from -2**63 to 2**64 - 1")
        if dropout not in ("generic", "mkl"):
            raise InputError(f'dropout="{dropout}" is unknown: say "generic" (AMD, Arm, Apple) or "mkl" (Intel)')
        self.dropout = dropout
        self._twister = np.random.RandomState(seed % 2**32)
        self._spare_normal: float | None = None

    def rand(self, *shape: int, dtype: DTypeLike = np.float32) -> Float[np.ndarray, "..."]:
        """Uniform in [0, 1), as `torch.rand`."""
        return self.uniform(shape, dtype=dtype)

    def uniform(
        self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, *, dtype: DTypeLike = np.float32
    ) -> Float[np.ndarray, "..."]:
        """Uniform in [low, high), as `torch.empty(shape).uniform_(low, high)`.

        A fraction of 24 bits (float64: 53 bits) times `high - low`, plus `low`, with a single rounding; the rare
        result that rounds up to `high` becomes `low`.
        """
        as_type = _float_type(dtype)
        limit = float(np.finfo(as_type).max)
        if not (-limit <= low <= high <= limit and high - low <= limit):
            raise InputError(
                f"uniform from {low} to {high}: expected low <= high, and both in the range of {np.dtype(dtype)}"
            )
        lowest, highest = as_type(low), as_type(high)
        values = _multiply_add(self._fractions(_size(shape), as_type), highest - lowest, lowest)
        values[values == highest] = lowest
        return values.reshape(shape)

    def randn(self, *shape: int, dtype: DTypeLike = np.float32) -> Float[np.ndarray, "..."]:
        """Standard normal, as `torch.randn`."""
        return self.normal(shape, dtype=dtype)

    def normal(
        self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, *, dtype: DTypeLike = np.float32
    ) -> Float[np.ndarray, "..."]:
        """Normal, as `torch.empty(shape).normal_(mean, std)`: Box and Muller (1958), in one of two ways.

        Fewer than 16 elements are computed one at a time in float64, and the second value of a pair waits in the
        generator, through any other draws, for the next such call. From 16 on the array is filled with fractions that
        are transformed in blocks of 16; where the size is no multiple of 16, the last 16 are drawn again. PyTorch
        approximates logarithm, sine and cosine there, so that float32 values agree to 1e-6 and not to the bit.
        """
        as_type, size = _float_type(dtype), _size(shape)
        if not std >= 0:
            raise InputError(f"normal with std={std}: a standard deviation is not negative")
        if size < BLOCK:
            values = _multiply_add(self._few_normals(size), np.float64(std), np.float64(mean)).astype(as_type)
        else:
            values = _multiply_add(self._many_normals(size, as_type), as_type(std), as_type(mean))
        return values.reshape(shape)

    def randint(self, low: int, high: int, shape: tuple[int, ...]) -> Int64[np.ndarray, "..."]:
        """Integers in [low, high), as `torch.randint`: random bits modulo `high - low`, plus `low`."""
        if not -(2**63) <= low < high < 2**63:
            raise InputError(f"randint from {low} to {high}: expected low < high, and both to fit into 64 bits")
        bits = self._words64(_size(shape)) if high - low >= WIDE_RANGE else self._words32(_size(shape))
        offsets = (bits % bits.dtype.type(high - low)).astype(np.uint64)
        return (offsets + np.uint64(low % 2**64)).view(np.int64).reshape(shape)  # two's complement: a sum that wraps

    def bernoulli(self, shape: tuple[int, ...], p: float) -> Bool[np.ndarray, "..."]:
        """True with probability `p`, as `torch.empty(shape).bernoulli_(p)`, by which `nn.Dropout` draws its mask.

        "generic": a 53-bit fraction below `p`. "mkl": one 32-bit word seeds MKL's generator MCG31m1, whose numbers
        divided by 2**31 lie below `p`, both in float32 (so measured with MKL 2021.4 to 2026.2).
        """
        if not 0 <= p <= 1:
            raise InputError(f"bernoulli with p={p}: a probability lies between 0 and 1")
        size = _size(shape)
        if self.dropout == "generic" or size == 0:
            kept = self._fractions(size, np.float64) < p
        else:
            kept = _mcg31m1(int(self._words32(1)[0]), size).astype(np.float32) * np.float32(2**-31) < np.float32(p)
        return kept.reshape(shape)

    def keep(self, shape: tuple[int, ...], probability: float) -> Bool[np.ndarray, "..."]:
        """What to keep: `bernoulli` under the name by which a dropout layer asks any source of masks."""
        return self.bernoulli(shape, probability)

    def _words32(self, size: int) -> UInt32[np.ndarray, " size"]:
        return self._twister.randint(0, 2**32, size, dtype=np.uint32)

    def _words64(self, size: int) -> UInt64[np.ndarray, " size"]:
        """Two words of 32 bits each, the first the high half."""
        high, low = self._words32(2 * size).astype(np.uint64).reshape(size, 2).T
        return high << np.uint64(32) | low

    def _fractions(self, size: int, dtype: type[np.floating]) -> Float[np.ndarray, " size"]:
        """In [0, 1): the low 24 bits of a 32-bit word for float32, the low 53 of a 64-bit one for float64."""
        if dtype == np.float32:
            return (self._words32(size) & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2**-24)
        return (self._words64(size) & np.uint64(2**53 - 1)).astype(np.float64) * 2**-53

    def _few_normals(self, size: int) -> Float[np.ndarray, " size"]:
        values = np.empty(size)
        for position in range(size):
            if self._spare_normal is None:
                u1, u2 = self._fractions(2, np.float64)
                radius, angle = math.sqrt(-2 * math.log1p(-u2)), 2 * math.pi * u1
                values[position], self._spare_normal = radius * math.cos(angle), radius * math.sin(angle)
            else:
                values[position], self._spare_normal = self._spare_normal, None
        return values

    def _many_normals(self, size: int, dtype: type[np.floating]) -> Float[np.ndarray, " size"]:
        values = self._fractions(size, dtype)
        rest = size % BLOCK
        values[: size - rest] = _box_muller(values[: size - rest])
        if rest:
            values[-BLOCK:] = _box_muller(self._fractions(BLOCK, dtype))
        return values


def _box_muller(fractions: Float[np.ndarray, " size"]) -> Float[np.ndarray, " size"]:
    """In each block of 16, element j gives the radius and element j + 8 the angle of the normals j and j + 8."""
    blocks = fractions.reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(-2 * np.log(1 - blocks[:, 0]))
    angle = 2 * math.pi * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _mcg31m1(seed: int, size: int) -> UInt64[np.ndarray, " size"]:
    """The multiplicative generator x -> a x mod m, from x = seed mod m on (1 where that is 0)."""
    states = np.empty(size, np.uint64)
    states[0] = seed % MCG31M1_MODULUS or 1
    done, jump = 1, MCG31M1_MULTIPLIER  # jump = a ** done mod m
    while done < size:
        new = states[done : 2 * done]
        new[:] = states[: len(new)] * np.uint64(jump) % np.uint64(MCG31M1_MODULUS)
        done, jump = 2 * done, jump**2 % MCG31M1_MODULUS
    return states


def _multiply_add(x: Float[np.ndarray, " size"], factor: np.floating, term: np.floating) -> Float[np.ndarray, " size"]:
    """`x * factor + term`, rounded once: the fused instruction, which every x86 with AVX2 has, and every Arm.

    NumPy has no such function. Here products and sums are kept exactly, as pairs of floats, up to a last but one
    rounding "to odd", after which the last one cannot go wrong (Boldo & Melquiond 2008).
    """
    if term == 0:
        return x * factor
    fused = _fused32 if x.dtype == np.float32 else _fused64
    return np.concatenate([fused(piece, factor, term) for piece in np.array_split(x, x.size // CHUNK + 1)])


def _fused32(x: np.ndarray, factor: np.floating, term: np.floating) -> np.ndarray:
    product = x.astype(np.float64) * np.float64(factor)  # exact: 24 times 24 bits fit into 53
    return _sum_to_odd(product, np.float64(term)).astype(np.float32)


def _fused64(x: np.ndarray, factor: np.floating, term: np.floating) -> np.ndarray:
    exponent = np.frexp(max(abs(factor), abs(term)))[1]  # both are scaled below 1, so that nothing overflows on the way
    product, product_error = _exact_product(x, np.ldexp(factor, -exponent))
    small, small_error = _exact_sum(product_error, np.ldexp(term, -exponent))
    total, total_error = _exact_sum(product, small)
    return np.ldexp(total + _sum_to_odd(small_error, total_error), exponent)


def _exact_sum(a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """The rounded sum and what the rounding lost (Knuth's two-sum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _exact_product(a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """The rounded product and what the rounding lost (Dekker 1971), of float64."""
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    product = a * b
    return product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _halves(a: Operand) -> tuple[Operand, Operand]:
    """Two numbers of at most 26 bits each whose sum is a float64."""
    shifted = a * (2.0**27 + 1)
    high = shifted - (shifted - a)
    return high, a - high


def _sum_to_odd(a: Operand, b: Operand) -> np.ndarray:
    """The sum; where it is not exact, that of its two neighbours whose last bit is 1."""
    total, error = _exact_sum(a, b)
    off = (error != 0) & (total.view(np.int64) & 1 == 0)
    return np.where(off, np.nextafter(total, np.copysign(np.inf, error)), total)


def _float_type(dtype: DTypeLike) -> type[np.floating]:
    as_type = np.dtype(dtype).type
    if as_type not in (np.float32, np.float64):
        raise InputError(f"dtype {dtype}: random floats come as float32 or float64; convert them afterwards")
    return as_type


def _size(shape: tuple[int, ...]) -> int:
    if not all(isinstance(length, int | np.integer) and length >= 0 for length in shape):
        raise InputError(f"shape {shape}: expected a tuple of whole numbers, none of them negative")
    return math.prod(shape)
