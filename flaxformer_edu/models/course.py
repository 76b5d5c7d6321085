"""The small networks that CS188's machine-learning project (Berkeley) teaches before Transformers."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers import LinearOptions, Randomness, causal_mask
from flaxformer_edu.layers.convolution import convolve
from flaxformer_edu.models.config import preset


def perceptron_predict(weights: Float[Array, "1 dimension"], x: Float[Array, "batch dimension"]) -> Int[Array, "batch"]:
    """+1 where the score x . weights is at least 0, else -1."""
    return jnp.where(x @ weights[0] >= 0, 1, -1)


class PerceptronFit(NamedTuple):
    """What perceptron training ends with. `converged` is False where the last pass allowed still made mistakes."""

    weights: Float[Array, "1 dimension"]
    passes: Int[Array, ""]
    converged: Bool[Array, ""]


@jax.jit
def fit_perceptron(
    weights: Float[Array, "1 dimension"],
    x: Float[Array, "example dimension"],
    y: Int[Array, "example"],
    max_passes: int | Int[Array, ""] = 1000,
) -> PerceptronFit:
    """Pass over the examples, in order, adding y x to the weights at each mistake, until a pass makes none.

    Labels are +1 or -1. If a plane through the origin separates them, this ends after finitely many mistakes; otherwise
    it never would, and stops at `max_passes` with `converged` False. Source: Rosenblatt 1958; Novikoff 1962.
    """

    def visit(weights: Array, example: tuple[Array, Array]) -> tuple[Array, Array]:
        x, y = example
        mistaken = perceptron_predict(weights, x[None])[0] != y
        return weights + jnp.where(mistaken, y * x, 0), mistaken

    def one_pass(fit: PerceptronFit) -> PerceptronFit:
        weights, mistaken = jax.lax.scan(visit, fit.weights, (x, y))
        return PerceptronFit(weights, fit.passes + 1, ~mistaken.any())

    def unfinished(fit: PerceptronFit) -> Array:
        return ~fit.converged & (fit.passes < max_passes)

    start = PerceptronFit(weights, jnp.array(0), jnp.array(False))
    return jax.lax.while_loop(unfinished, one_pass, start)


class LinearFit(NamedTuple):
    """The parameters of x . slopes + intercept."""

    slopes: Float[Array, "dimension"]
    intercept: Float[Array, ""]


def fit_linear(
    x: Float[Array, "example dimension"], y: Float[Array, "example"], *, learning_rate: float = 0.5, steps: int = 500
) -> LinearFit:
    """Least squares by gradient descent from zero on half the mean squared error."""

    def loss(fit: LinearFit) -> Array:
        return 0.5 * jnp.mean((x @ fit.slopes + fit.intercept - y) ** 2)

    def descend(_: Array, fit: LinearFit) -> LinearFit:
        return jax.tree.map(lambda value, slope: value - learning_rate * slope, fit, jax.grad(loss)(fit))

    start = LinearFit(jnp.zeros(x.shape[1], x.dtype), jnp.zeros((), x.dtype))
    return jax.lax.fori_loop(0, steps, descend, start)


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """The widths of a multilayer perceptron, from its input to its output."""

    widths: tuple[int, ...]

    def __post_init__(self):
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise InputError(f"widths is {self.widths}, expected at least an input and an output width above 0")

    @classmethod
    def sine(cls, **changes: Any) -> "MLPConfig":
        """The project's non-linear regression, of sin(x) for one x between -2 pi and 2 pi."""
        return preset(cls, changes, widths=(1, 256, 256, 128, 1))

    @classmethod
    def digits(cls, **changes: Any) -> "MLPConfig":
        """The project's digit classification: the 784 pixels of an MNIST image, ten classes."""
        return preset(cls, changes, widths=(784, 256, 128, 10))


class MLP(nnx.Module):
    """Linear maps with ReLU between them."""

    def __init__(self, config: MLPConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config = config
        self.layers = nnx.List([nnx.Linear(*widths, rngs=rngs, **options) for widths in pairwise(config.widths)])

    def __call__(
        self, x: Float[Array, "batch *features"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch out"]:
        """The last layer's output, without ReLU. Inputs with several axes, such as images, are flattened."""
        del rngs  # there is no dropout
        x = x.reshape(x.shape[0], -1)
        check_shape("x", x.shape, "batch feature", feature=self.config.widths[0])
        *hidden, output = self.layers
        for layer in hidden:
            x = jax.nn.relu(layer(x))
        return output(x)


@dataclass(frozen=True, kw_only=True)
class ConvDigitConfig:
    """One kernel over a square image of one channel, then an MLP with these widths up to the classes."""

    image_size: int = 28
    kernel_size: int = 3
    hidden: tuple[int, ...] = (128, 64)
    classes: int = 10

    @property
    def mlp(self) -> MLPConfig:
        """What follows the convolution: 676-128-64-10 by default."""
        convolved = self.image_size - self.kernel_size + 1
        return MLPConfig(widths=(convolved**2, *self.hidden, self.classes))


class ConvDigit(nnx.Module):
    """The project's convolutional digit model: `convolve` with one kernel, which starts as ones, then an MLP."""

    def __init__(self, config: ConvDigitConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config = config
        dtype = options.get("param_dtype", jnp.float32)
        self.kernel = nnx.Param(jnp.ones((config.kernel_size, config.kernel_size), dtype))
        self.mlp = MLP(config.mlp, rngs=rngs, **options)

    def __call__(
        self, images: Float[Array, "batch *pixels"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch class"]:
        """Logits. Images may have a channel axis of one, or be rows of pixels, as in the project."""
        size = self.config.image_size
        check_shape("images", images.reshape(images.shape[0], -1).shape, "batch pixel", pixel=size**2)
        convolved = jax.vmap(convolve, (0, None))(images.reshape(-1, size, size), self.kernel[...])
        return self.mlp(convolved, rngs=rngs)


def causal_attention(
    query: Float[Array, "batch length width"],
    key: Float[Array, "batch length width"],
    value: Float[Array, "batch length width"],
) -> Float[Array, "batch length width"]:
    """Attention as the project states it: softmax(mask(K Q^T / sqrt(width))) V, with one head.

    The usual form, `dot_product_attention`, is softmax(mask(Q K^T / sqrt(width))) V: there, row i holds how well the
    query at i matches each key. Here row i holds how well the key at i matches each query, so that what the project
    calls keys are, in the usual words, the queries, and its queries the keys: `causal_attention(q, k, v)` is the usual
    attention of query k and key q. As both are linear maps of the same input, learnt from the same start, a network
    can do exactly the same with either form; only weights trained with one need the names swapped to serve the other.

    Position i attends to itself and to those before it.
    """
    scores = jnp.einsum("bid,bjd->bij", key, query) / math.sqrt(query.shape[-1])
    scores = jnp.where(causal_mask(query.shape[1]), scores, -jnp.inf)
    return jnp.einsum("bij,bjd->bid", jax.nn.softmax(scores), value)


@dataclass(frozen=True, kw_only=True)
class CausalAttentionConfig:
    """The width of inputs and outputs."""

    width: int


class CausalAttention(nnx.Module):
    """The project's attention layer: `causal_attention` of three linear maps of the input."""

    def __init__(self, config: CausalAttentionConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config = config
        self.query, self.key, self.value = (
            nnx.Linear(config.width, config.width, rngs=rngs, **options) for _ in range(3)
        )

    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        """What each position gathers from itself and those before it."""
        check_shape("x", x.shape, "batch length width", width=self.config.width)
        return causal_attention(self.query(x), self.key(x), self.value(x))
