"""Patches: their order, and images that cannot be cut."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import PatchEmbedding, patchify


def test_patches_come_row_by_row():
    images = jnp.arange(2 * 6 * 9 * 3).reshape(2, 6, 9, 3).astype(float)
    patches = patchify(images, 3)
    assert patches.shape == (2, 6, 3, 3, 3)
    np.testing.assert_array_equal(patches[1, 4], images[1, 3:6, 3:6])


def test_embedding_is_a_strided_convolution():
    layer = PatchEmbedding(4, 3, 5, rngs=nnx.Rngs(0))
    conv = nnx.Conv(3, 5, (4, 4), strides=4, padding="VALID", rngs=nnx.Rngs(1))
    conv.kernel[...], conv.bias[...] = layer.projection.kernel[...], layer.projection.bias[...]
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 3)), jnp.float32)
    np.testing.assert_allclose(layer(images), conv(images).reshape(2, 6, 5), atol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 10, 8, 3), "10 x 8 pixels is not divisible into patches of 4 x 4"),
        ((8, 8, 3), r"expected \(batch, height, width, channel=3\)"),
        ((1, 3, 8, 8), "channel=3"),
    ],
)
def test_errors(shape, message):
    with pytest.raises(InputError, match=message):
        PatchEmbedding(4, 3, 5, rngs=nnx.Rngs(0))(jnp.ones(shape))
