"""The tile Vision Transformer: which pixels a tile has, what its layers are made of, and what it looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.layers import patchify
from flaxformer_edu.models import VisionTransformer, ViTConfig

POSITIONS = ["sinusoidal", "rotary", "multiplied", "learned"]


def test_tile_5_is_rows_7_to_13_and_columns_7_to_13():
    model = VisionTransformer(ViTConfig.tiles(), rngs=nnx.Rngs(0))
    image = np.random.default_rng(0).normal(size=(1, 28, 28, 1)).astype(np.float32)
    tiles = patchify(image, model.config.patch_size)
    assert tiles.shape == (1, 16, 7, 7, 1)
    np.testing.assert_array_equal(tiles[0, 5], image[0, 7:14, 7:14])
    changed = image.copy()
    changed[0, 7:14, 7:14] += 1
    differs = (model.embed(jnp.array(changed)) != model.embed(jnp.array(image))).any(axis=-1)[0]
    np.testing.assert_array_equal(np.flatnonzero(differs), [1 + 5])  # behind the class token
    assert model.embed(jnp.array(image)).shape == (1, 17, 64)


@pytest.mark.parametrize("positions", POSITIONS)
def test_parts(positions):
    model = VisionTransformer(ViTConfig.tiles(positions=positions), rngs=nnx.Rngs(0))
    names = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))}
    assert {name for name in names if "blocks/0/attention" in name} == {"encoder/blocks/0/attention/qkv/kernel"}
    assert model.encoder.blocks[1].attention.qkv.kernel.shape == (64, 3 * 64)
    assert len(model.encoder.blocks) == 2
    assert ("positions/embedding" in names) == (positions == "learned")
    hidden = model.encoder.blocks[0].mlp.up(jnp.ones((1, 64)))
    expected = model.encoder.blocks[0].mlp.down(jax.nn.relu(hidden))
    np.testing.assert_array_equal(model.encoder.blocks[0].mlp(jnp.ones((1, 1, 64)))[0], expected)


@pytest.mark.parametrize("positions", POSITIONS)
def test_order_matters(positions):
    """With the tiles in another order the answer is another one, but for the model without positions."""
    images = np.random.default_rng(0).normal(size=(1, 28, 28, 1)).astype(np.float32)
    upside_down = np.concatenate([images[:, 21:], images[:, 14:21], images[:, 7:14], images[:, :7]], axis=1)
    config = ViTConfig.tiles(positions=positions)
    model = VisionTransformer(config, rngs=nnx.Rngs(0))
    assert jnp.abs(model(jnp.array(images)) - model(jnp.array(upside_down))).max() > 1e-4
