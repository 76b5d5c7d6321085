"""A model, a batch source and losses small enough to compile in no time."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxformer_edu.training import accuracy, cross_entropy

BATCH, FEATURES, CLASSES = 8, 6, 4


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    width: int = 10
    dropout: float = 0.0


class Tiny(nnx.Module):
    """Two linear maps with dropout between them."""

    def __init__(self, config: TinyConfig, *, rngs: nnx.Rngs, dtype=None, param_dtype=jnp.float32):
        self.config = config
        options = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.layers = nnx.List([nnx.Linear(FEATURES, config.width, **options)])
        self.head = nnx.Linear(config.width, CLASSES, **options)

    def __call__(self, x, *, rngs=None):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
            if rngs is not None:
                x *= jax.random.bernoulli(rngs.dropout(), 1 - self.config.dropout, x.shape)
        return self.head(x)


def tiny(seed: int = 0, rate: float = 0.0, **options) -> Tiny:
    return Tiny(TinyConfig(dropout=rate), rngs=nnx.Rngs(seed), **options)


@dataclass
class Source:
    """Noise whose mean depends on the class, as a function of the step."""

    batch_size: int = BATCH
    steps_per_epoch: int = 5
    dtype: type = np.float32

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(step)
        labels = generator.integers(0, CLASSES, self.batch_size, dtype=np.int32)
        noise = generator.normal(size=(self.batch_size, FEATURES)) + 4 * np.eye(CLASSES, FEATURES)[labels]
        return {"inputs": noise.astype(self.dtype), "labels": labels}


def loss_fn(model, batch, rngs):
    logits = model(batch["inputs"], rngs=rngs)
    return cross_entropy(logits, batch["labels"]).mean(), {"accuracy": accuracy(logits, batch["labels"]).mean()}


def evaluate_fn(model, batch):
    logits = model(batch["inputs"])
    return {"loss": cross_entropy(logits, batch["labels"]), "accuracy": accuracy(logits, batch["labels"])}


def validation() -> list[dict[str, np.ndarray]]:
    """Thirteen examples in two batches, the second filled up."""
    source = Source()
    return [{**source(10_000 + i), "mask": np.arange(BATCH) < count} for i, count in enumerate([8, 5])]


def assert_same(left, right) -> None:
    """Every array of two trees is the same, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(left), jax.device_get(right))


def assert_close(left, right, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), left, right)
