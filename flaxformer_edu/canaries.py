"""Small programs that XLA is known to have compiled wrongly, run on the compiler at hand.

Each is run compiled and operation by operation ("eager"), and the two are compared. Those that have killed or hung the
process run in a child process. The child runs this file as a script, which imports nothing of the package, so that it
has the switches in this process's XLA_FLAGS and no others.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

TIME_LIMIT = 120.0  # seconds; a child needs about two
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}  # relative to the largest value; the faults are from 2e-3 to infinity


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A program, and what it is run on."""

    name: str
    report: str
    """Where the fault was published."""
    program: Callable[..., jax.Array]
    arguments: Callable[[], tuple[np.ndarray | np.floating, ...]]
    kills: bool = False
    """Whether the fault kills the process."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What running a canary gave."""

    canary: str
    report: str
    outcome: Literal["ok", "wrong", "died", "hung"]
    detail: str
    """By how much the result is wrong, or the last line of a child that died."""

    @property
    def ok(self) -> bool:
        """Whether the compiled program gave what the eager one gives."""
        return self.outcome == "ok"


def sum_propagated_back(embeddings: jax.Array, cotangent: jax.Array) -> jax.Array:
    """A product with a matrix of equal numbers, times one of its factors, summed: the backward pass of a plain sum."""
    width = embeddings.shape[-1]
    return jnp.sum((embeddings @ jnp.full((width, width), cotangent)) * embeddings, axis=-1)


def matrix_times_rows(rows: jax.Array) -> jax.Array:
    """The squared length of each row's product with a matrix, mapped over the rows."""
    matrix = jnp.eye(rows.shape[-1], dtype=rows.dtype)
    return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)


def sum_of_rank_7(left: jax.Array, right: jax.Array) -> jax.Array:
    """The sum of a product over one of seven axes, another of which is 1 long."""
    return jnp.sum(left * right, axis=3)


def sum_of_rank_8(observed: jax.Array, table: jax.Array) -> jax.Array:
    """A broadcast to eight axes, a product and a sum over one of them."""
    likelihood = jnp.sum(observed[..., None, None, None, None, None] * table, axis=2)
    return jnp.log(jnp.maximum(likelihood, np.finfo(np.float32).tiny))


def _normal(*shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def _counted_rows(count: int, dtype: type) -> np.ndarray:
    return np.arange(count, dtype=dtype)[:, None] * np.array([1, 0, 0], dtype)


CANARIES = (
    Canary(
        name="a sum propagated back",
        report="measured here",
        program=sum_propagated_back,
        arguments=lambda: (*_normal((64, 128)), np.float32(0.5)),
    ),
    Canary(
        name="a matrix times rows, float32",
        report="jax-ml/jax#39103",
        program=matrix_times_rows,
        arguments=lambda: (_counted_rows(32_769, np.float32),),
    ),
    Canary(
        name="a matrix times rows, float64",
        report="jax-ml/jax#39103",
        program=matrix_times_rows,
        arguments=lambda: (_counted_rows(16_385, np.float64),),
    ),
    Canary(
        name="a sum of rank 7",
        report="jax-ml/jax#40412",
        program=sum_of_rank_7,
        arguments=lambda: _normal((3, 1, 2, 2, 8, 8, 8), (3, 1, 2, 2, 8, 8, 8)),
        kills=True,
    ),
    Canary(
        name="a sum of rank 8",
        report="jax-ml/jax#39257",
        program=sum_of_rank_8,
        arguments=lambda: (np.ones((10, 4, 6), np.float32), np.ones((10, 4, 6, 9, 9, 9, 9, 9), np.float32)),
        kills=True,
    ),
)


def run() -> Iterator[Verdict]:
    """Run every canary: those that can kill the process on the CPU, the others on JAX's default device."""
    for canary in CANARIES:
        yield run_in_child(canary) if canary.kills else run_here(canary)


def run_here(canary: Canary, compiler_options: dict[str, str] | None = None) -> Verdict:
    """Run a canary in this process, compiled with XLA's `compiler_options` (or as XLA_FLAGS says) and eagerly."""
    arguments = canary.arguments()
    wide = arguments[0].dtype == np.float64
    with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
        arrays = [jnp.asarray(argument) for argument in arguments]
        eager = np.asarray(canary.program(*arrays))
        compiled = np.asarray(jax.jit(canary.program, compiler_options=compiler_options)(*arrays))
    with np.errstate(over="ignore", invalid="ignore"):
        difference = float(np.max(np.abs(compiled - eager)) / np.max(np.abs(eager)))
    ok = difference <= TOLERANCE[eager.dtype.name]  # and NaN is not
    detail = f"differs by {difference:.1e} of the largest value"
    return Verdict(canary=canary.name, report=canary.report, outcome="ok" if ok else "wrong", detail=detail)


def run_in_child(canary: Canary, seconds: float = TIME_LIMIT) -> Verdict:
    """Run a canary on the CPU in a process of its own, which may die, or hang for at most `seconds`."""
    command = [sys.executable, "-P", __file__, canary.name]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    try:
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        detail = f"no answer in {seconds:g} s"
        return Verdict(canary=canary.name, report=canary.report, outcome="hung", detail=detail)
    if child.returncode:
        return Verdict(canary=canary.name, report=canary.report, outcome="died", detail=_last_words(child))
    return Verdict(**json.loads(child.stdout))


def _last_words(child: subprocess.CompletedProcess[str]) -> str:
    if child.returncode < 0:
        return signal.Signals(-child.returncode).name
    return (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]


if __name__ == "__main__":
    print(json.dumps(asdict(run_here(next(canary for canary in CANARIES if canary.name == sys.argv[1])))))
