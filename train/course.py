"""Train the small networks of CS188's machine-learning project (Berkeley).

For example:
$ python -m train.course perceptron
$ python -m train.course perceptron --noise 0.05
$ python -m train.course linear
$ python -m train.course sine
$ python -m train.course digits --data mnist
$ python -m train.course convolution --data mnist --out runs/convolution

`--data` is a folder with MNIST's four files, or CS188's mnist.npz. Every model prints its figures, and the bar it is
meant to reach.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array
from tyro.conf import Positional

from flaxformer_edu.data import ArrayDataset, Pixels, load_mnist
from flaxformer_edu.models import MLP, ConvDigit, ConvDigitConfig, MLPConfig, fit_linear, fit_perceptron
from flaxformer_edu.training import Optimizer, Task, classification
from train import recipe


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    model: Positional[Literal["perceptron", "linear", "sine", "digits", "convolution"]]
    """What to train. For perceptron and linear, an epoch is a pass over all examples."""
    noise: float = 0.0
    """perceptron: the share of wrong labels; above 0 nothing separates them, and 1,000 passes (--epochs) end it."""
    devices: int = 1
    """Present the processor as this many devices; for networks this small, one is the fastest."""


@dataclass(frozen=True, kw_only=True)
class Preset(recipe.Preset):
    """A network, and how it is trained."""

    model: Callable[..., nnx.Module]
    evaluations: int = 10
    steps_per_call: int = 10


for_mnist = partial(
    Preset,
    optimizer=Optimizer(learning_rate=2e-3, schedule="cosine", weight_decay=0.05),
    epochs=12,
    batch_size=128,
    ema_decay=0.998,
)
PRESETS = {
    "sine": Preset(
        model=partial(MLP, MLPConfig.sine()),
        optimizer=Optimizer(name="adam", learning_rate=2e-3, schedule="cosine"),
        epochs=1000,
        batch_size=50,
    ),
    "digits": for_mnist(model=partial(MLP, MLPConfig.digits())),
    "convolution": for_mnist(model=partial(ConvDigit, ConvDigitConfig())),
}


def perceptron(config: Config) -> dict[str, Any]:
    """500 random points on both sides of a random plane."""
    random = np.random.default_rng(config.seed)
    x, plane = random.normal(size=(500, 3)), random.normal(size=3)
    y = np.where((x @ plane >= 0) == (random.random(500) < config.noise), -1, 1)
    fitted = fit_perceptron(jnp.ones((1, 3)), jnp.array(x, jnp.float32), jnp.array(y), config.epochs or 1000)
    ended = "yes" if fitted.converged else "no: the last pass still made mistakes, so perhaps no plane separates them"
    return {"passes": int(fitted.passes), "weights": np.asarray(fitted.weights).tolist(), "converged": ended}


def linear(config: Config) -> dict[str, Any]:
    """The project's four samples of 7 x0 + 8 x1 + 3."""
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = jnp.array([3.0, 11.0, 10.0, 18.0])
    fitted = fit_linear(x, y, learning_rate=config.learning_rate or 0.5, steps=config.epochs or 500)
    fit = np.array([*fitted.slopes, fitted.intercept])
    error = float(np.abs(fit - [7, 8, 3]).max())
    return {"parameters": fit.tolist(), "largest_error": error, "bar": "7, 8 and 3, to 0.001"}


def sine() -> tuple[ArrayDataset, ArrayDataset, Task]:
    """sin(x) at 200 evenly spaced x between -2 pi and 2 pi; and, to measure by, at 2,000 others."""

    def squared_error(model: Any, batch: dict[str, Any], **rngs: nnx.Rngs) -> Array:
        return ((model(batch["x"], **rngs) - batch["y"]) ** 2)[:, 0]

    def loss_fn(model: Any, batch: dict[str, Any], rngs: nnx.Rngs) -> tuple[Array, dict[str, Array]]:
        return squared_error(model, batch, rngs=rngs).mean(), {}

    def evaluate_fn(model: Any, batch: dict[str, Any]) -> dict[str, Array]:
        return {"loss": squared_error(model, batch)}

    points = (np.linspace(-2 * math.pi, 2 * math.pi, n, dtype=np.float32)[:, None] for n in (200, 2000))
    train, test = (ArrayDataset(name="sine", arrays={"x": x, "y": np.sin(x)}) for x in points)
    return train, test, Task(loss_fn, evaluate_fn)


def mnist(config: Config) -> tuple[ArrayDataset, ArrayDataset, Task]:
    """The digits, their pixels from 0 to 1 as in the project."""
    train, test = load_mnist(config.data).values()
    return train, test, classification(prepare=Pixels().normalise)


def network(config: Config) -> dict[str, Any]:
    """Train one of `PRESETS`, and measure it."""
    preset = config.override(PRESETS[config.model])
    train, test, task = sine() if config.model == "sine" else mnist(config)
    model = preset.model(rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(preset.dtype))
    started = time.monotonic()
    trained = recipe.train(config, preset, model, task, train, test)
    last = trained.rows[-1]
    if config.model == "sine":
        figures = {"mean_squared_error": last["eval_loss"], "bar": "below 0.001"}
    else:
        bar = {"digits": 0.98, "convolution": 0.97}[config.model]
        figures = {"test_accuracy": last["eval_accuracy"], "test_loss": last["eval_loss"], "bar": f"at least {bar}"}
    return {**figures, "steps": preset.steps(train), "seconds": time.monotonic() - started}


def run(config: Config) -> None:
    figures = {"perceptron": perceptron, "linear": linear}.get(config.model, network)(config)
    recipe.report(f"CS188's project: {config.model}", figures, config.json)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
