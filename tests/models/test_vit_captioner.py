"""The captioner that sees pixels: what each part sees, decoding, errors; and the convolutional stem."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu import decode
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import ConvStem
from flaxformer_edu.models import VisionTransformer, ViTCaptioner, ViTCaptionerConfig, ViTConfig
from flaxformer_edu.runs import open_model, save_model

CONFIG = ViTCaptionerConfig.small(vocab=9, image_size=16, patch_size=4, max_length=5)


@pytest.fixture(scope="module")
def model() -> ViTCaptioner:
    return ViTCaptioner(CONFIG, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


def test_greedy_takes_the_most_likely_word_at_each_position(model, images):
    words = np.asarray(decode.greedy(model, images))
    assert words.shape == (3, 5)
    given = np.concatenate([np.full((3, 1), CONFIG.start_id), words[:, :-1]], axis=1)
    best = np.asarray(model(images, given).argmax(-1))
    ended = np.cumsum(given == CONFIG.end_id, axis=1) > 0
    np.testing.assert_array_equal(words, np.where(ended, CONFIG.padding_id, best))


def test_every_word_sees_every_patch(model, images):
    words = jnp.array([[1, 4, 5]])

    def first_logit(image):
        return model(image[None], words)[0, 0, 3]

    seen = np.abs(np.asarray(jax.grad(first_logit)(jnp.asarray(images[0])))).reshape(4, 4, 4, 4, 3).sum((1, 3, 4))
    assert (seen > 0).all()
    assert model.encode(images).shape == (3, 16, CONFIG.width)


def test_training_is_random_in_encoder_and_decoder(model, images):
    first, second = (model.encode(images, rngs=nnx.Rngs(dropout=jax.random.key(i))) for i in range(2))
    assert (first != second).any()
    words = jnp.ones((3, 2), int)
    assert (model(images, words) != model(images, words, rngs=nnx.Rngs(dropout=jax.random.key(0)))).any()


def test_opens_from_its_folder(model, images, tmp_path):
    save_model(tmp_path / "saved", model)
    opened, _ = open_model(tmp_path / "saved")
    assert opened.config == CONFIG
    np.testing.assert_array_equal(opened.encode(images), model.encode(images))


def test_no_classifier_is_left_untrained(model):
    assert not any("head" in path for path, _ in nnx.to_flat_state(nnx.state(model)))


def test_vit_without_classes_gives_the_mean_of_its_tokens(images):
    model = VisionTransformer(CONFIG.vision, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(model(images), model.tokens(images).mean(1), atol=1e-6)


class TestConvStem:
    def test_each_patch_sees_its_neighbourhood(self):
        stem = ConvStem(4, 3, 16, rngs=nnx.Rngs(0))
        assert [conv.kernel[...].shape for conv in stem.convolutions] == [(3, 3, 3, 4), (3, 3, 4, 8), (3, 3, 8, 16)]
        image = jnp.asarray(np.random.default_rng(0).normal(size=(16, 24, 3)), jnp.float32)
        assert stem(image[None]).shape == (1, 24, 16)
        seen = np.abs(np.asarray(jax.grad(lambda x: stem(x[None])[0, 8].sum())(image))).sum(-1)  # row 1, column 2
        rows, columns = np.nonzero(seen)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 8, 4, 12)

    def test_presets(self):
        for preset, patches in ((ViTConfig.tuned, 64), (ViTConfig.compact, 256)):

            def tokens(preset=preset):
                return VisionTransformer(preset(), rngs=nnx.Rngs(0)).tokens(jnp.zeros((1, 32, 32, 3)))

            assert jax.eval_shape(tokens).shape == (1, patches, preset().width)


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_patch_size_that_no_halvings_give(self):
        with pytest.raises(InputError, match="patch_size is 6, expected a power of 2"):
            ConvStem(6, 3, 12, rngs=nnx.Rngs(0))

    def test_images_that_do_not_fit(self, model):
        with pytest.raises(InputError, match="10 x 8 pixels is not divisible"):
            ConvStem(4, 3, 16, rngs=nnx.Rngs(0))(jnp.ones((1, 10, 8, 3)))
        with pytest.raises(InputError, match=r"images has shape .* height=16"):
            model(jnp.ones((1, 8, 8, 3)), jnp.ones((1, 2), int))

    def test_an_encoder_that_does_not_fit(self):
        with pytest.raises(InputError, match="vision has classes=10"):
            replace(CONFIG, vision=ViTConfig.tuned())

    def test_no_such_stem(self):
        with pytest.raises(InputError, match="stem is 'holes', expected one of linear, convolutions"):
            replace(ViTConfig.tuned(), stem="holes")
