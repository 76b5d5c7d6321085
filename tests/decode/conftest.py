"""The captioner in small, with weights that make it write many different sentences, and its prompts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.layers import Rotary
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer

STYLES: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm": {"norm": "pre"},
    "rotary": {"rotary": Rotary()},
}


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


@pytest.fixture(params=STYLES.values(), ids=STYLES.keys())
def style(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def log_probs(model: Any, inputs: Any, tokens: np.ndarray) -> np.ndarray:
    """The model's log-probability of every token, given those before it."""
    start = jnp.full((len(tokens), 1), model.config.start_id)
    logits = model(inputs, jnp.concatenate([start, tokens[:, :-1]], axis=1))
    return np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(tokens)[..., None], axis=-1)[..., 0]
