"""The blocks' linear map is Flax's: the same parameters, outputs and gradients, for any number of axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.layers import Linear


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 3, 5), (2, 2, 3, 5)])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.usefixtures("float64")
def test_equals_flax(shape, use_bias):
    options = {"use_bias": use_bias, "param_dtype": jnp.float64, "bias_init": nnx.initializers.normal(1.0)}
    ours, theirs = (kind(5, 4, rngs=nnx.Rngs(0), **options) for kind in (Linear, nnx.Linear))
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape))

    def gradients(layer):
        graphdef, state = nnx.split(layer)
        return jax.grad(lambda state, x: jnp.sum(jnp.tanh(nnx.merge(graphdef, state)(x))), argnums=(0, 1))(state, x)

    assert ours(x).shape == theirs(x).shape
    np.testing.assert_allclose(ours(x), theirs(x), rtol=0, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), gradients(ours), gradients(theirs))


def test_computes_in_the_type_that_is_asked_for():
    x = jnp.ones((2, 3, 5))
    assert Linear(5, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x).dtype == jnp.bfloat16
    assert Linear(5, 4, rngs=nnx.Rngs(0))(x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_has_derivatives_in_both_directions():
    """A barrier stands behind the map: tangents and second derivatives pass it."""
    layer, x = Linear(3, 3, rngs=nnx.Rngs(0)), jnp.arange(3.0)
    np.testing.assert_allclose(jax.jacfwd(layer)(x), layer.kernel[...].T, rtol=1e-6)
    hessian = jax.hessian(lambda x: jnp.sum(layer(x) ** 2))(x)
    np.testing.assert_allclose(hessian, 2 * layer.kernel[...] @ layer.kernel[...].T, rtol=1e-5)
