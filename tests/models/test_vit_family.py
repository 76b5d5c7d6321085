"""The Vision Transformer's family: what each field of its config does, and the presets' parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu import convert
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import SinusoidalPositions2D, drop_path, sinusoidal_positions
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.models.abstract import abstract

SIZES = {"image_size": 8, "patch_size": 4, "channels": 3, "width": 8, "layers": 3, "heads": 2, "hidden": 12}
IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
COUNTS = {
    "cs231n": 820_874,
    "tuned": 757_194,
    "compact": 3_991_562,
    "digits": 268_682,
    "tiles": 161_354,
    "scratch": 119_098,
    "scratch_large": 9_509_130,
    "ti16": 5_717_416,
    "s16": 22_050_664,
    "b16": 86_567_656,
    "b32": 88_224_232,
    "l16": 304_326_632,
}


def tiny(**changes):
    return ViTConfig.b16(**{**SIZES, "classes": 5, **changes})


def vit(**changes):
    return VisionTransformer(tiny(**changes), rngs=nnx.Rngs(0))


def training(model, seed=0, images=IMAGES):
    return np.asarray(model(images, rngs=nnx.Rngs(dropout=jax.random.key(seed))))


@pytest.mark.parametrize("preset", COUNTS)
def test_parameter_counts_of_the_presets(preset):
    model = abstract(VisionTransformer, getattr(ViTConfig, preset)())
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == COUNTS[preset]


def test_a_merged_projection_gives_the_same_numbers():
    separate = vit()
    weights = convert.to_torch(separate, layout="timm")
    merged = convert.from_torch(VisionTransformer, tiny(merged_qkv=True), weights, layout="timm")
    assert merged.encoder.blocks[0].attention.qkv.kernel.shape == (8, 24)
    np.testing.assert_allclose(merged(IMAGES), separate(IMAGES), atol=1e-6)
    np.testing.assert_allclose(merged.attention_maps(IMAGES), separate.attention_maps(IMAGES), atol=1e-6)


class TestPooling:
    def test_class_token(self):
        model = vit()
        tokens = model.tokens(IMAGES)
        np.testing.assert_array_equal(model.pool(tokens), tokens[:, 0])

    def test_mean_over_the_patches_alone(self):
        model = vit(pooling="mean")
        tokens = model.tokens(IMAGES)
        assert tokens.shape == (4, 1 + 4, 8)
        np.testing.assert_allclose(model.pool(tokens), tokens[:, 1:].mean(axis=1), atol=1e-6)

    def test_both_one_after_the_other(self):
        model = vit(pooling="both")
        tokens = model.tokens(IMAGES)
        both = jnp.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1)], axis=-1)
        np.testing.assert_allclose(model.pool(tokens), both, atol=1e-6)
        assert model.head.kernel.shape == (16, 5)

    def test_the_pooled_vector_normalised(self):
        model = vit(pooling="mean", final_norm="pooled")
        pooled = model.pool(model.tokens(IMAGES))
        np.testing.assert_allclose(pooled.mean(-1), 0, atol=1e-6)
        assert model.encoder.norm is None

    def test_no_classifier(self):
        model = vit(classes=None)
        np.testing.assert_array_equal(model(IMAGES), model.pool(model.tokens(IMAGES)))


class TestPositions:
    def test_two_dimensions_tell_row_and_column_apart(self):
        table = np.asarray(SinusoidalPositions2D(3, 8)(jnp.zeros((1, 9, 8))))[0].reshape(3, 3, 8)
        axis = sinusoidal_positions(3, 4)
        for row in range(3):
            for column in range(3):
                np.testing.assert_allclose(table[row, column], np.concatenate([axis[row], axis[column]]), atol=1e-6)
        assert len(np.unique(table.reshape(9, 8).round(4), axis=0)) == 9

    def test_tokens_in_front_may_go_without(self):
        model = vit(positions="sinusoidal_2d")
        np.testing.assert_array_equal(model.embed(IMAGES)[:, 0], jnp.tile(model.class_token[...], (4, 1)))
        model = vit(prefix_positions=False)
        assert model.positions.embedding.shape == (4, 8)
        np.testing.assert_array_equal(model.embed(IMAGES)[:, 0], jnp.tile(model.class_token[...], (4, 1)))

    def test_every_token_has_one_otherwise(self):
        model = vit(distilled=True)
        assert model.positions.embedding.shape == (2 + 4, 8)
        expected = model.distillation_token[...] + model.positions.embedding[1]
        np.testing.assert_allclose(model.embed(IMAGES)[0, 1], expected, atol=1e-7)

    def test_two_dimensions_need_a_width_divisible_by_four(self):
        with pytest.raises(InputError, match="width 6 is not divisible by 4"):
            vit(positions="sinusoidal_2d", width=6)


class TestDistilled:
    def test_two_classifiers(self):
        model = vit(distilled=True)
        own, teachers = model.heads(IMAGES)
        tokens = model.tokens(IMAGES)
        np.testing.assert_allclose(own, model.head(tokens[:, 0]), atol=1e-6)
        np.testing.assert_allclose(teachers, model.distilled_head(tokens[:, 1]), atol=1e-6)
        np.testing.assert_allclose(model(IMAGES), (own + teachers) / 2, atol=1e-6)
        assert (own != teachers).all()


class TestDropout:
    def test_drop_path_takes_whole_examples_at_its_rate(self):
        x = jnp.ones((4000, 3, 2))
        dropped = np.asarray(drop_path(x, 0.3, nnx.Rngs(dropout=jax.random.key(0))))
        kept = dropped[:, 0, 0] > 0
        np.testing.assert_allclose(dropped, np.broadcast_to(kept[:, None, None] / 0.7, x.shape), rtol=1e-6)
        assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / 4000)

    def test_drop_path_treats_examples_apart_and_leaves_evaluation_alone(self):
        model, plain = vit(drop_path=0.5), vit()
        np.testing.assert_array_equal(model(IMAGES), plain(IMAGES))
        same = np.repeat(IMAGES[:1], 16, axis=0)
        logits = training(model, images=same)
        assert len(np.unique(logits.round(5), axis=0)) > 3
        assert (training(model, seed=1, images=same) != logits).any()

    def test_drop_path_rises_with_depth(self):
        rates = [block.config.drop_path for block in vit(drop_path=0.4).encoder.blocks]
        np.testing.assert_allclose(rates, [0, 0.2, 0.4])
        assert [block.config.drop_path for block in vit(drop_path=0.4, layers=1).encoder.blocks] == [0]

    @pytest.mark.parametrize(
        ("changes", "calls"),
        [
            ({"dropout": 0.1}, 1 + 3 * 4),  # embedding; weights, output, hidden, output
            ({"dropout": 0.1, "attention_dropout": 0.0, "hidden_dropout": 0.0}, 1 + 3 * 2),
            ({"attention_dropout": 0.1}, 3),
            ({"hidden_dropout": 0.1}, 3),
            ({"drop_path": 0.1}, 2 * 2),
        ],
    )
    def test_each_rate_is_that_of_its_places(self, changes, calls):
        class Counting:
            count = 0

            def keep(self, shape, probability):
                assert probability == pytest.approx(0.9) or "drop_path" in changes
                self.count += 1
                return np.ones(shape, bool)

        counting = Counting()
        vit(**changes)(IMAGES, rngs=counting)
        assert counting.count == calls


class TestInitialisation:
    @pytest.mark.parametrize("init", ["normal", "truncated_normal"])
    def test_standard_deviation(self, init):
        kernel = np.asarray(vit(init=init, width=64, hidden=256).encoder.blocks[0].mlp.up.kernel[...])
        assert kernel.std() == pytest.approx(0.02, rel=0.03)
        assert abs(kernel.mean()) < 5 * 0.02 / np.sqrt(kernel.size)

    def test_lecun_and_xavier_follow_the_sizes(self):
        lecun = np.asarray(vit(init="lecun", width=64, hidden=256).encoder.blocks[0].mlp.up.kernel[...])
        assert lecun.std() == pytest.approx(1 / np.sqrt(64), rel=0.03)
        xavier = np.asarray(vit(init="xavier", width=64, hidden=256).encoder.blocks[0].mlp.up.kernel[...])
        assert xavier.std() == pytest.approx(np.sqrt(2 / (64 + 256)), rel=0.03)
        assert np.abs(xavier).max() <= np.sqrt(6 / (64 + 256))

    def test_tokens_and_positions(self):
        model = vit(width=512, distilled=True)
        for parameter in (model.class_token, model.distillation_token, model.positions.embedding):
            assert np.asarray(parameter[...]).std() == pytest.approx(0.02, rel=0.15)
        assert (model.class_token[...] != model.distillation_token[...]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "first"}, "pooling is 'first', expected one of class, mean, both"),
        ({"stem": "pooling"}, "stem is 'pooling', expected one of linear, convolutions"),
        ({"positions": "2d"}, "positions is '2d', expected one of learned, sinusoidal"),
        ({"final_norm": "last"}, "final_norm is 'last', expected one of tokens, pooled, none"),
        ({"init": "zeros"}, "init is 'zeros', expected one of normal, truncated_normal"),
        ({"norm": "sandwich"}, "norm is 'sandwich', expected 'pre' or 'post'"),
        ({"class_token": False}, "pooling='class' needs a class token"),
        ({"class_token": False, "pooling": "both"}, "pooling='both' needs a class token"),
        ({"class_token": False, "pooling": "mean", "distilled": True}, "distilled=True needs a class token"),
        ({"distilled": True, "pooling": "mean"}, "a distilled model classifies its class and distillation tokens"),
        ({"distilled": True, "classes": None}, "a distilled model classifies its class and distillation tokens"),
        ({"image_size": 9}, "image_size 9 is not divisible by patch_size 4"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_configs_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        tiny(**changes)


@pytest.mark.usefixtures("unchecked")
def test_sizes_that_do_not_fit_each_other():
    with pytest.raises(InputError, match="width 8 is not divisible by 3 heads"):
        vit(heads=3)
    with pytest.raises(InputError, match="unknown activation 'swish'"):
        vit(activation="swish")
