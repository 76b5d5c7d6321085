"""Does compiling change the numbers? Every shipped model compiled, against itself one operation after the other.

    python -m benchmarks.jit_equals_eager                    # a table: the worst of each kind
    python -m benchmarks.jit_equals_eager --large --json     # with realistic sizes too; every case

Loss and gradient in evaluation and in training, the compiled training step, and the loops that decode and fit, all in
float64. "Eager" is `jax.disable_jit()`: each operation is compiled by itself, and loops run in Python. Exit status 1
where a difference exceeds 1e-13 of an array's largest value. The flags that hold are those of the environment
(XLA_FLAGS) and of the package.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from jaxtyping import Array, PyTree
from rich.console import Console
from rich.table import Table

from benchmarks.jit_cases import BATCH, LARGE, SMALL, VOCAB, Case, normal
from flaxformer_edu import decode
from flaxformer_edu.models import fit_linear, fit_perceptron
from flaxformer_edu.training import Optimizer, TrainState, compile_step, data_mesh, make_step, new_state, split_model

TOLERANCE = 1e-13
NEGLIGIBLE = 1e-12  # of the gradients around it: beyond what float64 can tell from zero
STEPS = 3


def difference(compiled: PyTree, eager: PyTree) -> float:
    """The largest difference of two trees of arrays, relative to the largest value of its array; inf for NaN.

    Some gradients are zero but for rounding: a key's bias adds the same to all scores of a row, which softmax does not
    see, and what is left is the rounding of sums whose terms are as large as those of the arrays around. Such an array
    (`NEGLIGIBLE` beside the layer that it is part of) is measured in units of the largest value of that layer.
    """
    paths, left = zip(*jax.tree_util.tree_leaves_with_path(compiled), strict=True)
    left, right = ([np.asarray(x, np.float64) for x in leaves] for leaves in (left, jax.tree.leaves(eager)))
    largest = [float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in right]
    worst = 0.0
    for path, ours, reference, own in zip(paths, left, right, largest, strict=True):
        layer = path[:-2]
        around = max(size for other, size in zip(paths, largest, strict=True) if other[: len(layer)] == layer)
        unit = own if own > NEGLIGIBLE * around else around
        apart = distance(ours, reference)
        worst = max(worst, apart / unit if unit else np.inf if apart else 0.0)
    return worst


def distance(left: np.ndarray, right: np.ndarray) -> float:
    """The largest distance of two entries at the same place: 0 of equal infinities, inf of anything and NaN."""
    apart = left != right
    return float(np.nan_to_num(np.abs(left[apart] - right[apart]), nan=np.inf, posinf=np.inf).max(initial=0))


def value_and_grad(case: Case, *, training: bool) -> Callable[[PyTree, PyTree], tuple[Array, PyTree]]:
    """The loss, and the gradients of all parameters, as a function of the parameters and the batch."""
    graphdef = split_model(case.model)[0]

    def loss(params: PyTree, batch: PyTree) -> Array:
        rngs = nnx.Rngs(dropout=jax.random.key(7)) if training else None
        return case.loss(nnx.merge(graphdef, params), batch, rngs)

    return jax.value_and_grad(loss)


def loss_and_gradients(case: Case, *, training: bool) -> float:
    """Their difference, compiled and eager; dropout has the same key on both sides."""
    function, params = value_and_grad(case, training=training), split_model(case.model)[1]
    compiled = jax.jit(function)(params, case.batch)
    with jax.disable_jit():
        eager = function(params, case.batch)
    return difference(compiled, eager)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a case is trained for some steps."""

    case: str
    optimizer: Optimizer
    accumulate: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    steps_per_call: int = 1


STEP_CASES: dict[str, Steps] = {
    "adam, clipped, averaged": Steps(
        case="vit tiles, rotary",
        optimizer=Optimizer(name="adam", learning_rate=1e-2, weight_decay=1e-3),
        clip_norm=0.1,
        ema_decay=0.9,
    ),
    "adamw, cosine, in parts": Steps(
        case="captioner, post-norm",
        optimizer=Optimizer(
            name="adamw",
            learning_rate=1e-2,
            epsilon=1e-3,  # 1e-8 makes updates of 1e-11 of the key biases' gradients, which are rounding, of 1e-17
            decay="weights",
            schedule="cosine",
            warmup_steps=1,
        ),
        accumulate=2,
    ),
    "sgd, everything, in one call": Steps(
        case="reader gated",
        optimizer=Optimizer(name="sgd", learning_rate=1e-2, momentum=0.9),
        accumulate=2,
        clip_norm=0.1,
        ema_decay=0.9,
        steps_per_call=STEPS,
    ),
}


def training_steps(steps: Steps) -> float:
    """The difference of the state and of the metrics after some steps, compiled and eager."""
    case = SMALL[steps.case]()
    graphdef, params = split_model(case.model)
    optimizer = steps.optimizer.build(STEPS)

    def loss_fn(model: Any, batch: PyTree, rngs: nnx.Rngs) -> tuple[Array, PyTree]:
        return case.loss(model, batch, rngs), {}

    ema = steps.ema_decay
    options = {"accumulate": steps.accumulate, "clip_norm": steps.clip_norm, "ema_decay": ema}
    step = make_step(graphdef, optimizer, loss_fn, **options)
    batches = [{name: jnp.asarray(np.roll(x, i, axis=0)) for name, x in case.batch.items()} for i in range(STEPS)]

    def run(step: Callable[..., Any], batches: list[PyTree]) -> PyTree:
        state, metrics = new_state(params, optimizer, seed=3, ema=ema is not None), []
        for batch in batches:
            state, values = step(state, batch)
            metrics.append(values)
        return state, metrics

    compiled = compile_step(step, data_mesh(BATCH), steps_per_call=steps.steps_per_call)
    stacked = [jax.tree.map(lambda *x: jnp.stack(x), *batches)] if steps.steps_per_call > 1 else batches
    state, metrics = run(compiled, stacked)
    with jax.disable_jit():
        expected, values = run(step, batches)
    metrics = {name: jnp.hstack([x[name] for x in metrics]) for name in metrics[0]}
    values = {name: jnp.hstack([x[name] for x in values]) for name in values[0]}
    return max(difference(*pair) for pair in ((metrics, values), *parts_of_state(state, expected)))


def parts_of_state(state: TrainState, expected: TrainState) -> Iterator[tuple[PyTree, PyTree]]:
    """What the two states hold, parameters, optimizers' memories and so on, each to be measured by itself."""
    for name, value in vars(state).items():
        if value is not None:
            yield value, getattr(expected, name)


def decoded(model: Any, inputs: Array, prompt: np.ndarray) -> tuple[PyTree, PyTree]:
    """What decoding writes, greedily, drawn and by beams, and with what (log-)probabilities."""
    length = model.config.max_length
    options = {"prompt": prompt, "max_length": length - 1}
    drawing = {"key": jax.random.key(5), "temperature": 0.8, "top_k": 9, "top_p": 0.95}
    greedy, sample = decode.greedy(model, inputs, **options), decode.sample(model, inputs, **drawing, **options)
    beams = decode.beam_search(model, inputs, width=3, length_penalty=0.6, **options)
    return (greedy, sample, beams.tokens), (log_probs(model, inputs, sample), beams.scores)


def log_probs(model: Any, inputs: Array, tokens: Array) -> Array:
    """The log-probabilities of all words at each position of `tokens`, by the cached steps that decoding takes."""
    memory, cache = model.start(inputs, tokens.shape[1])

    def advance(cache: PyTree, position: Array) -> tuple[PyTree, Array]:
        logits, cache = model.step(tokens[:, position], position, memory, cache)
        return cache, jax.nn.log_softmax(logits)

    return jax.lax.scan(advance, cache, jnp.arange(tokens.shape[1]))[1]


def decoding(case: Case) -> float:
    """The difference of the log-probabilities, compiled and eager; inf where a token differs."""
    prompt = np.array([[3, 4], [5, 0], [0, 0], [VOCAB - 1, 0]])
    run = partial(decoded, prompt=prompt)
    inputs = jnp.asarray(case.batch["inputs"])
    tokens, numbers = jax.jit(run)(case.model, inputs)
    with jax.disable_jit():
        expected, values = run(case.model, inputs)
    same = all(np.array_equal(a, b) for a, b in zip(tokens, expected, strict=True))
    return difference(numbers, values) if same else np.inf


def fitting() -> float:
    """The same of the course's two fits, which loop until they are done."""
    x = normal(20, 3)
    inputs = jnp.zeros((1, 3)), jnp.asarray(x), jnp.where(x @ np.array([1.0, -2.0, 0.5]) >= 0, 1, -1)

    def fits(weights: Array, x: Array, y: Array) -> PyTree:
        return fit_perceptron(weights, x, y)._asdict(), fit_linear(x, y.astype(x.dtype), steps=20)._asdict()

    compiled = jax.jit(fits)(*inputs)
    with jax.disable_jit():
        eager = fits(*inputs)
    return difference(compiled, eager)


Measure = Callable[[], float]
WRITERS = ("captioner, post-norm", "captioner, pre-norm, rotary", "captioner of pixels", "translator base, tied")


def measures(*, large: bool) -> dict[str, dict[str, Measure]]:
    """All that is compared: by kind, by case."""
    cases = {**SMALL, **LARGE} if large else SMALL

    def gradients(name: str, training: bool) -> float:
        return loss_and_gradients(cases[name](), training=training)

    def writing(name: str) -> float:
        return decoding(cases[name]())

    return {
        "evaluation": {name: partial(gradients, name, False) for name in cases},
        "training": {name: partial(gradients, name, True) for name in cases},
        "step": {name: partial(training_steps, steps) for name, steps in STEP_CASES.items()},
        "loop": {"course fits": fitting, **{name: partial(writing, name) for name in WRITERS}},
    }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to compare, and how to print it."""

    large: bool = False
    json: bool = False


def main(settings: Settings) -> int:
    """Compare all, and print the worst of each kind."""
    jax.config.update("jax_enable_x64", True)
    found: dict[str, dict[str, float]] = {}
    for kind, named in measures(large=settings.large).items():
        found[kind] = {}
        for name, measure in named.items():
            found[kind][name] = measure()
            print(f"{kind}: {name}: {found[kind][name]:.1e}", file=sys.stderr, flush=True)
    worst = {kind: max(values, key=values.__getitem__) for kind, values in found.items()}
    failed = any(values[worst[kind]] > TOLERANCE for kind, values in found.items())
    if settings.json:
        print(json.dumps({"jax": jax.__version__, "tolerance": TOLERANCE, "failed": failed, "differences": found}))
        return int(failed)
    table = Table("kind", "cases", "worst difference", "of", title=f"jit against eager, float64, jax {jax.__version__}")
    for kind, values in found.items():
        table.add_row(kind, str(len(values)), f"{values[worst[kind]]:.1e}", worst[kind])
    Console().print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, prog="python -m benchmarks.jit_equals_eager", description=__doc__)))
