"""A pretrained ViT with a new head, and an optimizer that moves lower layers less."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import LayerWise, Optimizer, split_model, with_new_head

CONFIG = ViTConfig.scratch(
    image_size=8, width=8, layers=2, heads=2, hidden=8, classes=5, representation=6, final_norm="tokens"
)
SGD = Optimizer(name="sgd", learning_rate=1.0)


def test_a_new_head_keeps_the_rest_and_knows_nothing():
    model = VisionTransformer(CONFIG, rngs=nnx.Rngs(0))
    tuned = with_new_head(model, 3)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(tuned(images), np.zeros((2, 3)))
    np.testing.assert_array_equal(tuned.tokens(images), model.tokens(images))
    assert (tuned.config.classes, tuned.config.representation) == (3, None)
    assert model.config.classes == 5


def updates(decay):
    model = with_new_head(VisionTransformer(CONFIG, rngs=nnx.Rngs(0)), 3)
    params = split_model(model)[1]
    optimizer = LayerWise(optimizer=SGD, layers=2, decay=decay).build(1)
    ones = jax.tree.map(jnp.ones_like, params)
    return optimizer.update(ones, optimizer.init(params), params)[0]


@pytest.mark.parametrize("decay", [1.0, 0.5, 0.0])
def test_steps_shrink_with_the_distance_from_the_classifier(decay):
    found = updates(decay)
    blocks = found["encoder"]["blocks"]
    steps = [found["head"], found["encoder"]["norm"], blocks[1], blocks[0], found["patch_embedding"]]
    steps += [found["class_token"], found["positions"]]
    for part, distance in zip(steps, [0, 0, 1, 2, 3, 3, 3], strict=True):
        for leaf in jax.tree.leaves(part):
            np.testing.assert_allclose(leaf, -(decay**distance))


def test_frozen_layers_stand_still_in_adam_too():
    params = split_model(with_new_head(VisionTransformer(CONFIG, rngs=nnx.Rngs(0)), 3))[1]
    adam = LayerWise(optimizer=Optimizer(name="adamw", weight_decay=0.1), layers=2, decay=0).build(1)
    moved = optax.apply_updates(params, adam.update(params, adam.init(params), params)[0])
    assert isinstance(moved, dict)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), moved, params)
    assert all(jax.tree.leaves({name: part for name, part in same.items() if name not in ("head", "encoder")}))
    assert all(jax.tree.leaves(same["encoder"]["blocks"]))


def test_decay_out_of_range():
    with pytest.raises(InputError, match=r"decay is 1\.5"):
        LayerWise(optimizer=SGD, layers=2, decay=1.5)
