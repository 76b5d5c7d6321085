"""The captioner and the translator in small, with weights that make them write many different sentences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.layers import Rotary
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, Seq2SeqConfig, Seq2SeqTransformer


def make_captioner(dtype: Any = np.float32, *, vocab: int = 12, max_length: int = 10, **changes: Any):
    """Its words depend on the image, on the position and on all the words before."""
    config = CaptioningConfig(
        vocab=vocab, features=6, width=16, heads=2, hidden=24, layers=2, max_length=max_length, init_std=0.4, **changes
    )
    model = CaptioningTransformer(config, rngs=nnx.Rngs(3), param_dtype=dtype)
    model.output.kernel[...] *= 4
    model.output.bias[...] = model.output.bias[...].at[2].set(4.0)
    return model


def draw(rows: int, *, vocab: int = 12, longest: int = 6, dtype: Any = np.float32, seed: int = 0):
    """Features, and prompts of 0 to `longest` words, none of them special."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, longest + 1, rows)
    prompt = random.integers(3, vocab, (rows, longest))
    return random.normal(size=(rows, 6)).astype(dtype), np.where(np.arange(longest) < lengths[:, None], prompt, 0)


def captioning(rows: int, dtype: Any, **changes: Any) -> tuple[Any, Any, np.ndarray]:
    return make_captioner(dtype, **changes), *draw(rows, dtype=dtype)


def translation(rows: int, dtype: Any) -> tuple[Any, Any, np.ndarray]:
    sizes = {"width": 16, "hidden": 24, "max_length": 10}
    config = Seq2SeqConfig.tiny(source_vocab=9, vocab=12, norm="post", activation="gelu", **sizes)
    model = Seq2SeqTransformer(config, rngs=nnx.Rngs(3), param_dtype=dtype)
    model = jax.tree.map(lambda x: 1.5 * x, model)
    model.output.bias[...] = model.output.bias[...].at[2].set(3.0)
    _, prompt = draw(rows)
    _, source = draw(rows, vocab=9, longest=8, seed=1)
    source[:, 0] = np.maximum(source[:, 0], 3)  # at least one word
    return model, source, prompt


CASES: dict[str, Callable[[int, Any], tuple[Any, Any, np.ndarray]]] = {
    "captioner, post-norm": captioning,
    "captioner, pre-norm": partial(captioning, norm="pre"),
    "captioner, rotary": partial(captioning, rotary=Rotary()),
    "translator": translation,
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Callable[[int, Any], tuple[Any, Any, np.ndarray]]:
    """A function of the number of rows and the type: a model, its inputs, and prompts."""
    return request.param


def log_probs(model: Any, inputs: Any, tokens: np.ndarray) -> np.ndarray:
    """The model's log-probability of every token, given those before it."""
    return np.asarray(_log_probs(model, jnp.asarray(inputs), jnp.asarray(tokens)))


@nnx.jit
def _log_probs(model: Any, inputs: jax.Array, tokens: jax.Array) -> jax.Array:
    start = jnp.full((len(tokens), 1), model.config.start_id)
    logits = model(inputs, jnp.concatenate([start, tokens[:, :-1]], axis=1))
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
