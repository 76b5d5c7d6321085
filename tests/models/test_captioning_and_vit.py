"""The course's two models as users meet them: presets, shapes and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.errors import InputError
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.models.abstract import abstract

TINY_VIT = ViTConfig(
    image_size=8, patch_size=4, classes=3, width=8, layers=2, heads=2, hidden=16, dropout=0.1, final_norm="none"
)
TINY_CAPTIONING = CaptioningConfig.cs231n(vocab=7, features=5, width=8, max_length=6)


def count(model_type, config):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(model_type, config))))


def test_parameter_counts_of_the_presets():
    assert count(VisionTransformer, ViTConfig.cs231n()) == 820_874
    assert count(CaptioningTransformer, CaptioningConfig.cs231n(vocab=1004)) == 3_803_884


def test_training_is_random_and_evaluation_is_not():
    model = VisionTransformer(TINY_VIT, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(images), model(images))
    first, second = (model(images, rngs=nnx.Rngs(dropout=jax.random.key(i))) for i in range(2))
    assert (first != second).all()
    np.testing.assert_array_equal(first, model(images, rngs=nnx.Rngs(dropout=jax.random.key(0))))


def test_attention_maps():
    maps = VisionTransformer(TINY_VIT, rngs=nnx.Rngs(0)).attention_maps(jnp.ones((2, 8, 8, 3)))
    assert maps.shape == (2, 2, 2, 4, 4)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)


def test_captions_do_not_see_the_future():
    model = CaptioningTransformer(TINY_CAPTIONING, rngs=nnx.Rngs(0))
    features = jax.random.normal(jax.random.key(0), (1, 5))
    logits = model(features, jnp.array([[1, 4, 5, 6]]))
    changed = model(features, jnp.array([[1, 4, 3, 3]]))
    np.testing.assert_array_equal(logits[:, :2], changed[:, :2])
    assert (logits[:, 2:] != changed[:, 2:]).any()


def test_padding_embedding_gets_no_gradient():
    graphdef, params = nnx.split(CaptioningTransformer(TINY_CAPTIONING, rngs=nnx.Rngs(0)))

    def loss(params):
        return (nnx.merge(graphdef, params)(jnp.ones((1, 5)), jnp.array([[1, 4, 0, 0]])) ** 2).sum()

    gradient = jax.grad(loss)(params)["words"]["embedding"][...]
    assert (gradient[0] == 0).all()
    assert (gradient[4] != 0).any()


def test_configs_name_their_fields():
    with pytest.raises(TypeError):
        ViTConfig(32, 8)
    with pytest.raises(AttributeError):
        TINY_VIT.width = 3


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_image_not_divisible_by_patches(self):
        with pytest.raises(InputError, match="image_size 30 is not divisible by patch_size 8"):
            ViTConfig.cs231n(image_size=30)

    @pytest.mark.parametrize("shape", [(1, 3, 8, 8), (8, 8, 3), (1, 16, 16, 3), (1, 8, 8, 1)])
    def test_wrong_images(self, shape):
        model = VisionTransformer(TINY_VIT, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match=r"images has shape .* height=8, width=8, channel=3"):
            model(jnp.ones(shape))
        with pytest.raises(InputError, match="images has shape"):
            jax.jit(lambda x: model(x))(jnp.ones(shape))

    @pytest.mark.parametrize("bad", [-1, 7, 1000])
    def test_caption_ids_out_of_range(self, bad):
        model = CaptioningTransformer(TINY_CAPTIONING, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match="the vocabulary has 7 words, 0 to 6"):
            model(jnp.ones((1, 5)), jnp.array([[1, bad]]))

    def test_caption_longer_than_the_table(self):
        model = CaptioningTransformer(TINY_CAPTIONING, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match="7 tokens is longer than the position table of 6"):
            model(jnp.ones((1, 5)), jnp.ones((1, 7), int))

    def test_features_and_captions_that_do_not_fit(self):
        model = CaptioningTransformer(TINY_CAPTIONING, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match="features=5"):
            model(jnp.ones((1, 4)), jnp.ones((1, 3), int))
        with pytest.raises(InputError, match="captions has shape"):
            model(jnp.ones((2, 5)), jnp.ones((3, 3), int))
        with pytest.raises(InputError, match="captions has shape"):
            model(jnp.ones((2, 5)), jnp.ones((3,), int))
