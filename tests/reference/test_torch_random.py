"""TorchGenerator against the installed PyTorch, and its MKL stream against answers recorded from MKL itself."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.errors import InputError
from flaxformer_edu.reference import TorchGenerator
from flaxformer_edu.reference.torch_random import MCG31M1_MODULUS, _mcg31m1, _multiply_add

pytestmark = pytest.mark.no_nnx

SEEDS = (0, 1, 231, 2**31, 2**32 - 1)
SIZES = (*range(1, 41), 1_000, 100_003)
Shape = tuple[int, ...]


class Draw(NamedTuple):
    """The same draw on both sides, and the largest absolute error from 16 elements on (0: equal to the bit)."""

    ours: Callable[[TorchGenerator, Shape], np.ndarray]
    theirs: Callable[[torch.Generator, Shape], torch.Tensor]
    tolerance: float = 0.0


def empty64(shape: Shape) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64)


def integers(low: int, high: int) -> Draw:
    return Draw(lambda g, s: g.randint(low, high, s), lambda t, s: torch.randint(low, high, s, generator=t))


def scalar_bernoulli(t: torch.Generator, shape: Shape, p: float) -> torch.Tensor:
    return torch.empty(shape).bernoulli_(p, generator=t).bool()


def tensor_bernoulli(t: torch.Generator, shape: Shape, p: float) -> torch.Tensor:
    """With a float64 tensor of probabilities PyTorch uses the generic stream on every processor."""
    return torch.empty(shape).bernoulli_(torch.full(shape, p, dtype=torch.float64), generator=t).bool()


def native_stream() -> str:
    """Which stream the installed PyTorch's dropout uses on this processor."""
    mask = scalar_bernoulli(torch.Generator().manual_seed(231), (1_000,), 0.5).numpy()
    streams = {name: TorchGenerator(231, dropout=name).keep((1_000,), 0.5) for name in ("generic", "mkl")}
    return next((name for name, ours in streams.items() if np.array_equal(ours, mask)), "neither")


NATIVE = native_stream()
assert NATIVE != "neither", "the installed PyTorch draws scalar Bernoulli masks from a stream that we do not know"
STREAMS = {f"{NATIVE}, by a number": (NATIVE, scalar_bernoulli), "generic, by a tensor": ("generic", tensor_bernoulli)}

DRAWS = {
    "rand": Draw(lambda g, s: g.rand(*s), lambda t, s: torch.rand(s, generator=t)),
    "rand64": Draw(
        lambda g, s: g.rand(*s, dtype=np.float64), lambda t, s: torch.rand(s, generator=t, dtype=torch.float64)
    ),
    "uniform": Draw(lambda g, s: g.uniform(s, -0.1, 0.7), lambda t, s: torch.empty(s).uniform_(-0.1, 0.7, generator=t)),
    "uniform64": Draw(
        lambda g, s: g.uniform(s, -0.1, 0.7, dtype=np.float64),
        lambda t, s: empty64(s).uniform_(-0.1, 0.7, generator=t),
    ),
    "randn": Draw(lambda g, s: g.randn(*s), lambda t, s: torch.randn(s, generator=t), 3e-6),
    "randn64": Draw(
        lambda g, s: g.randn(*s, dtype=np.float64),
        lambda t, s: torch.randn(s, generator=t, dtype=torch.float64),
        1e-14,
    ),
    "normal": Draw(
        lambda g, s: g.normal(s, 0.3, 0.02), lambda t, s: torch.empty(s).normal_(0.3, 0.02, generator=t), 3e-6
    ),
    "normal64": Draw(
        lambda g, s: g.normal(s, 0.3, 0.02, dtype=np.float64),
        lambda t, s: empty64(s).normal_(0.3, 0.02, generator=t),
        1e-14,
    ),
    "digits": integers(0, 10),
    "largest range of one word": integers(-5, 2**28 - 6),
    "smallest range of two words": integers(-5, 2**28 - 5),
    "more than 32 bits": integers(3, 2**32 + 3),
    "as many as 64 bits": integers(-(2**63), 2**63 - 1),
}


def compare(name: str, draw: Draw, shape: Shape, g: TorchGenerator, t: torch.Generator):
    ours, theirs = draw.ours(g, shape), draw.theirs(t, shape).numpy()
    assert (ours.shape, ours.dtype) == (shape, theirs.dtype), name
    if not draw.tolerance or not ours.size:
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    elif ours.size < 16:
        np.testing.assert_array_max_ulp(ours, theirs, maxulp=1)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=draw.tolerance, err_msg=name)


def generators(seed: int, stream: str) -> tuple[TorchGenerator, torch.Generator, dict[str, Draw]]:
    """Ours, theirs, and the draws to mix, with this stream's way to draw a mask."""
    dropout, bernoulli = STREAMS[stream]
    masks = {
        f"keep {p}": Draw(lambda g, s, p=p: g.keep(s, p), lambda t, s, p=p: bernoulli(t, s, p)) for p in (0.0, 0.9, 1.0)
    }
    return TorchGenerator(seed, dropout=dropout), torch.Generator().manual_seed(seed), DRAWS | masks


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_long_programs_of_all_draws_and_sizes(seed: int, stream: str):
    g, t, draws = generators(seed, stream)
    program = [(name, size) for size in SIZES for name in draws]
    for choice in np.random.default_rng(seed).permutation(len(program)):
        name, size = program[choice]
        compare(f"{name} of {size}", draws[name], (size,), g, t)


@pytest.mark.parametrize("stream", STREAMS)
@settings(deadline=None)
@given(seed=st.integers(-(2**63), 2**64 - 1), data=st.data())
def test_any_seed_and_any_mixture(stream: str, seed: int, data: st.DataObject):
    g, t, draws = generators(seed, stream)
    shapes = st.one_of(st.integers(0, 70).map(lambda size: (size,)), st.lists(st.integers(0, 5), max_size=3).map(tuple))
    steps = data.draw(st.lists(st.tuples(st.sampled_from(sorted(draws)), shapes), max_size=12))
    for name, shape in [*steps, ("randn", ()), ("more than 32 bits", (1,))]:
        compare(f"{name} of {shape}", draws[name], shape, g, t)


@pytest.mark.parametrize("between", [*DRAWS, "keep 0.9"])
@pytest.mark.parametrize("size", [0, 1, 2, 100])
def test_the_second_normal_of_a_pair_survives_other_draws(between: str, size: int):
    g, t, draws = generators(231, next(iter(STREAMS)))
    for name, shape in [("randn", ()), (between, (size,)), ("randn", ()), ("randn", ())]:
        compare(f"{name} around {between}", draws[name], shape, g, t)


@pytest.mark.parametrize("seed", [-1, -231, -(2**63), 2**32, 2**32 + 231, 2**63 - 1, 2**64 - 1])
def test_seeds_beyond_32_bits(seed: int):
    compare("rand", DRAWS["rand"], (100,), TorchGenerator(seed), torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(
    bounds=st.tuples(*[st.floats(-1e6, 1e6)] * 2).map(sorted),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32),
)
def test_uniform_between_any_bounds(bounds: list[float], dtype: type[np.floating], seed: int):
    theirs = torch.from_numpy(np.empty(50, dtype)).uniform_(*bounds, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_array_equal(TorchGenerator(seed).uniform((50,), *bounds, dtype=dtype), theirs.numpy())


def test_uniform_over_a_range_that_rounds_up_to_its_end_stays_below_it():
    low, high = 1.0, float(np.nextafter(np.float32(1), np.float32(2)))
    values = TorchGenerator(0).uniform((1_000,), low, high)
    assert (values == low).all()
    np.testing.assert_array_equal(
        values, torch.empty(1_000).uniform_(low, high, generator=torch.Generator().manual_seed(0))
    )


@given(bounds=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2, unique=True).map(sorted))
def test_randint_between_any_bounds(bounds: list[int]):
    compare("randint", integers(*bounds), (20,), TorchGenerator(1), torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stream", STREAMS)
@settings(deadline=None)
@given(p=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_masks_of_any_probability(stream: str, p: float, seed: int):
    dropout, bernoulli = STREAMS[stream]
    theirs = bernoulli(torch.Generator().manual_seed(seed), (50,), p)
    np.testing.assert_array_equal(TorchGenerator(seed, dropout=dropout).bernoulli((50,), p), theirs.numpy())


def test_a_mask_equals_what_dropout_keeps():
    torch.manual_seed(231)
    kept = torch.nn.functional.dropout(torch.ones(4, 5, 6), 0.3) != 0
    np.testing.assert_array_equal(TorchGenerator(231, dropout=NATIVE).keep((4, 5, 6), 1 - 0.3), kept.numpy())


@pytest.mark.parametrize("draw", ["randn", "uniform", "keep 0.9"])
def test_ten_million_elements(draw: str):
    g, t, draws = generators(231, next(iter(STREAMS)))
    compare(draw, draws[draw], (10_000_000,), g, t)


# Recorded from MKL 2026.2: vslNewStream(VSL_BRNG_MCG31, first word of the seed) and viRngBernoulli, 100,003 elements.
@pytest.mark.parametrize(
    ("seed", "p", "first_64", "kept", "checksum"),
    [
        (231, 0.9, "fffbfedfef7fffff", 90105, 0x31FFB4D2),
        (231, 0.5, "7569f895ec65d756", 50164, 0x9300A013),
        (0, 0.1, "8124002102000800", 9808, 0xC530138B),
        (2**32 - 1, 0.5, "99214df39b104360", 50277, 0x09E8405A),
        (2**32 - 1, 0.9, "bff7ffffdfdff7f3", 90042, 0x5BDDAC06),
    ],
)
def test_mkl_stream_equals_mkl(seed: int, p: float, first_64: str, kept: int, checksum: int):
    mask = TorchGenerator(seed, dropout="mkl").bernoulli((100_003,), p)
    assert np.packbits(mask[:64]).tobytes().hex() == first_64
    assert mask.sum() == kept
    assert zlib.crc32(np.packbits(mask).tobytes()) == checksum


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.562988084071776, False), (0.562988132238388, False), (0.5629881322383882, True), (0.5629881620407104, True)],
)
def test_mkl_compares_in_float32(p: float, kept: bool):
    """Recorded from MKL too. The first number of seed 231 is 0.56298808407177... as a float64, and rounded to float32
    0.5629881024; of these probabilities the first two lie above both, but round to the latter."""
    assert TorchGenerator(231, dropout="mkl").bernoulli((), p).item() is kept


@pytest.mark.parametrize("seed", [0, 1, MCG31M1_MODULUS - 1, MCG31M1_MODULUS, 2 * MCG31M1_MODULUS, 2**32 - 1])
def test_mcg31m1_one_step_at_a_time(seed: int):
    states = [seed % (2**31 - 1) or 1]
    for _ in range(299):
        states.append(1132489760 * states[-1] % (2**31 - 1))
    for size in (1, 2, 3, 255, 256, 257, 300):
        assert _mcg31m1(seed, size).tolist() == states[:size]


def test_the_mkl_stream_takes_one_word_a_mask_and_none_where_there_is_nothing_to_keep():
    mkl, plain = TorchGenerator(1, dropout="mkl"), TorchGenerator(1)
    mkl.keep((0, 3), 0.5)
    mkl.keep((7, 3), 0.0)
    plain.rand(1)
    assert (mkl.rand(5) == plain.rand(5)).all()


def is_nearest(value: np.floating, exact: Fraction) -> bool:
    """No neighbour is nearer, and of two equally near ones this is the even one."""
    off = abs(Fraction(float(value)) - exact)
    bits = {np.float32: np.int32, np.float64: np.int64}[type(value)]
    for neighbour in (np.nextafter(value, -np.inf), np.nextafter(value, np.inf)):
        distance = abs(Fraction(float(neighbour)) - exact)
        if distance < off or (distance == off and value.view(bits) % 2):
            return False
    return True


def ordinary(dtype: type[np.floating]) -> st.SearchStrategy[tuple[np.floating, np.floating, np.floating]]:
    """A fraction and two numbers that it is multiplied with and added to."""
    width = 32 if dtype == np.float32 else 64
    number = st.floats(2.0**-20, 2.0**20, width=width) | st.floats(-(2.0**20), -(2.0**-20), width=width)
    return st.tuples(st.floats(2.0**-20, 1, width=width), number, number).map(lambda three: tuple(map(dtype, three)))


@given(numbers=ordinary(np.float32) | ordinary(np.float64))
def test_multiply_add_rounds_once(numbers: tuple[np.floating, ...]):
    x, factor, term = numbers
    exact = Fraction(float(x)) * Fraction(float(factor)) + Fraction(float(term))
    assert is_nearest(_multiply_add(np.array([x]), factor, term)[0], exact)


def test_multiply_add_where_rounding_twice_goes_wrong():
    """The exact sum lies 2**-64 below the middle of two float32s; as a float64 it is that middle."""
    x, factor = np.float32((1 + 2.0**-20) * 2.0**-12), np.float32((1 - 2.0**-20) * 2.0**-12)
    term = np.float32(1 + 2.0**-23)
    assert np.float32(float(x) * float(factor) + float(term)) == 1 + 2.0**-22
    assert _multiply_add(np.array([x]), factor, term)[0] == term


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TorchGenerator(2**64), "seed 18446744073709551616"),
        (lambda: TorchGenerator(-(2**63) - 1), "-2\\*\\*63 to 2\\*\\*64 - 1"),
        (lambda: TorchGenerator(0, dropout="amd"), '"amd" is unknown: say "generic".* or "mkl"'),
        (lambda: TorchGenerator(0).bernoulli((2,), 1.5), "p=1.5"),
        (lambda: TorchGenerator(0).keep((2,), -0.1), "p=-0.1"),
        (lambda: TorchGenerator(0).keep((2,), float("nan")), "p=nan"),
        (lambda: TorchGenerator(0).randint(3, 3, (2,)), "randint from 3 to 3: expected low < high"),
        (lambda: TorchGenerator(0).randint(0, 2**63, (2,)), "64 bits"),
        (lambda: TorchGenerator(0).rand(2, -1), "shape \\(2, -1\\)"),
        (lambda: TorchGenerator(0).uniform((2,), 1.0, 0.0), "from 1.0 to 0.0: expected low <= high"),
        (lambda: TorchGenerator(0).uniform((2,), 0.0, 1e39), "the range of float32"),
        (lambda: TorchGenerator(0).normal((2,), 0.0, -1.0), "std=-1.0"),
        (lambda: TorchGenerator(0).randn(2, dtype=np.float16), "float32 or float64"),
    ],
)
def test_wrong_input_is_told(call: Callable[[], object], message: str):
    with pytest.raises(InputError, match=message):
        call()


def test_importing_it_does_not_import_torch():
    code = "import sys, flaxformer_edu.reference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
