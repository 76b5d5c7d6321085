"""Reading attention weights: followed through the layers, and as shares of the patches of an image."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def attention_rollout(
    maps: Float[Array | np.ndarray, "layer batch head length length"],
) -> Float[Array, "batch length length"]:
    """How much of each input token reaches each token after the last layer, along all paths through the layers.

    A layer passes on 0.5 W + 0.5 I, W being the mean of its heads' weights and I the residual connection; the layers'
    products are multiplied, the last one leftmost. Rows add up to 1, as those of W do.
    Source: Abnar and Zuidema 2020, "Quantifying attention flow in transformers", section 3.
    """
    mixed = (jnp.asarray(maps).mean(axis=2) + jnp.eye(maps.shape[-1])) / 2
    rollout = mixed[0]
    for layer in mixed[1:]:
        rollout = layer @ rollout
    return rollout


def patch_shares(
    weights: Float[Array | np.ndarray, "*batch length length"], *, prefix: int, class_token: bool
) -> Float[Array, "*batch patch"]:
    """How much attention each patch gets from the tokens that are classified; what goes to the patches adds up to 1.

    These are the class token (the first one), or, without it, all the patches, whose mean is classified: then it is
    the attention that a patch receives. `prefix` tokens stand in front of the patches, and are left out.
    """
    rows = jnp.asarray(weights)[..., :1, :] if class_token else jnp.asarray(weights)[..., prefix:, :]
    received = rows.mean(axis=-2)[..., prefix:]
    return received / received.sum(axis=-1, keepdims=True)
