"""A model without numbers has the structure, shapes and types of the model itself."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.models.abstract import abstract


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        (VisionTransformer, ViTConfig.digits()),
        (CaptioningTransformer, CaptioningConfig.cs231n(vocab=9, features=4, width=8)),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_abstract_is_the_model_but_for_its_numbers(model_type, config, dtype):
    model = model_type(config, rngs=nnx.Rngs(0), param_dtype=dtype)
    empty = abstract(model_type, config, param_dtype=dtype)
    described = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nnx.state(model))
    assert jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nnx.state(empty)) == described
    assert nnx.graphdef(empty) == nnx.graphdef(model)
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(nnx.state(empty)))
