"""What a caption's words look at: the very weights that the model itself computes when it reads the caption."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.layers import attention
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, ViTCaptioner, ViTCaptionerConfig

CAPTIONS = np.array([[1, 4, 5, 2], [1, 6, 2, 0]])


def features_captioner():
    config = CaptioningConfig.cs231n(vocab=7, features=5, width=8, max_length=4)  # post-norm
    return CaptioningTransformer(config, rngs=nnx.Rngs(0)), (2, 5)


def pixel_captioner():
    config = ViTCaptionerConfig.small(vocab=7, image_size=16, max_length=4)  # pre-norm
    return ViTCaptioner(config, rngs=nnx.Rngs(0)), (2, 16, 16, 3)


@pytest.mark.parametrize("build", [features_captioner, pixel_captioner])
def test_weights_are_those_that_the_model_uses(build, monkeypatch):
    model, shape = build()
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    shown = model.attention_to_memory(inputs, CAPTIONS)
    seen = []

    def recording(*arguments, **options):
        result = original(*arguments, **options)
        seen.append(result[1])
        return result

    original = attention.dot_product_attention
    monkeypatch.setattr(attention, "dot_product_attention", recording)
    model(inputs, CAPTIONS)
    used = seen[-2 * len(model.decoder.blocks) :][1::2]  # behind the encoder's; each block first looks at the words
    memory = 1 if len(shape) == 2 else 4
    assert shown.shape == (2, 2, model.config.heads, 4, memory)
    np.testing.assert_array_equal(shown, jnp.stack(used))
    np.testing.assert_allclose(shown.sum(axis=-1), 1, atol=1e-6)
