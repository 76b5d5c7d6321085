"""The Vision Transformer: an image as a sequence of patches."""

from typing import Unpack

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import check_shape
from flaxformer_edu.layers import (
    ConvStem,
    Encoder,
    LearnedPositions,
    LinearOptions,
    PatchEmbedding,
    Randomness,
    SinusoidalPositions,
    SinusoidalPositions2D,
    dropout,
    layer_norm,
)
from flaxformer_edu.models.vit_config import ViTConfig

Images = Float[Array | np.ndarray, "batch height _width channel"]

STEMS: dict[str, type[PatchEmbedding | ConvStem]] = {"linear": PatchEmbedding, "convolutions": ConvStem}


class VisionTransformer(nnx.Module):
    """Patches, positions, an encoder, and a linear classifier of what it gives (Dosovitskiy et al. 2020).

    `ViTConfig` says what is classified, the mean over the patches or a class token, and all else that differs between
    published models. Learned positions and tokens are drawn from N(0, 0.02^2), whatever draws the kernels.
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        options = {"kernel_init": config.kernel_init, **options}
        self.config, self.prefix, self.patches_only = config, config.prefix, config.positions_of_patches_only
        c = config
        self.patch_embedding = STEMS[c.stem](c.patch_size, c.channels, c.width, rngs=rngs, **options)

        self.class_token = _token(c.width, rngs=rngs, **options) if c.class_token else None
        self.distillation_token = _token(c.width, rngs=rngs, **options) if c.distilled else None
        self.positions = _positions(c, rngs=rngs, **options)
        self.encoder = Encoder(c, c.layers, final_norm=c.final_norm == "tokens", rngs=rngs, **options)
        pooled = c.width * (2 if c.pooling == "both" else 1)
        self.norm = layer_norm(pooled, c.norm_epsilon, rngs=rngs, **options) if c.final_norm == "pooled" else None

        self.representation = _linear(pooled, c.representation, rngs=rngs, **options)
        self.head = _linear(c.representation or pooled, c.classes, rngs=rngs, **options)
        self.distilled_head = _linear(c.width, c.classes, rngs=rngs, **options) if c.distilled else None

    def __call__(self, images: Images, *, rngs: Randomness | None = None) -> Float[Array, "batch class"]:
        """Logits; of a distilled model, the mean of its two classifiers'; without a classifier, the pooled vector.

        Raises InputError for images of another size than the config's.
        """
        logits = self.heads(images, rngs=rngs)
        return logits[0] if len(logits) == 1 else (logits[0] + logits[1]) / 2

    def heads(self, images: Images, *, rngs: Randomness | None = None) -> tuple[Float[Array, "batch class"], ...]:
        """The logits of each classifier: one, or, of a distilled model, that of the class token and the teacher's."""
        tokens = self.tokens(images, rngs=rngs)
        x = self.pool(tokens)
        x = x if self.representation is None else jnp.tanh(self.representation(x))
        x = x if self.head is None else self.head(x)
        return (x,) if self.distilled_head is None else (x, self.distilled_head(tokens[:, 1]))

    def pool(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch pooled"]:
        """What is classified, of all that the encoder gives."""
        first, mean = tokens[:, 0], tokens[:, self.prefix :].mean(axis=1)
        x = {"class": first, "mean": mean, "both": jnp.concatenate([first, mean], axis=-1)}[self.config.pooling]
        return x if self.norm is None else self.norm(x)

    def tokens(self, images: Images, *, rngs: Randomness | None = None) -> Float[Array, "batch length width"]:
        """What the encoder makes of each token: class token and distillation token, where there are such, patches."""
        return self.encoder(self.embed(images, rngs=rngs), rngs=rngs)

    def embed(self, images: Images, *, rngs: Randomness | None = None) -> Float[Array, "batch length width"]:
        """What the encoder is given: the tokens in front, and the patches' embeddings, with their positions."""
        c = self.config
        size = c.image_size
        check_shape("images", images.shape, "batch height width channel", height=size, width=size, channel=c.channels)
        x = self.patch_embedding(images)
        x = self._prepend(self._locate(x)) if self.patches_only else self._locate(self._prepend(x))
        return dropout(x, c.dropout, rngs)

    def _locate(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        return x if self.positions is None else self.positions(x)

    def _prepend(self, x: Float[Array, "batch patch width"]) -> Float[Array, "batch length width"]:
        tokens = [token for token in (self.class_token, self.distillation_token) if token is not None]
        prefix = [jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, token.size)) for token in tokens]
        return jnp.concatenate([*prefix, x], axis=1)

    def attention_maps(self, images: Images) -> Float[Array, "layer batch head length length"]:
        """How much each token attends to each other, in every layer and head."""
        return self.encoder.attention_maps(self.embed(images))


def _token(width: int, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]) -> nnx.Param:
    return nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (width,), options.get("param_dtype", jnp.float32)))


def _linear(inputs: int, outputs: int | None, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]) -> nnx.Linear | None:
    return None if outputs is None else nnx.Linear(inputs, outputs, rngs=rngs, **options)


def _positions(
    c: ViTConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]
) -> LearnedPositions | SinusoidalPositions | SinusoidalPositions2D | None:
    """The layer that adds positions to the tokens, if the config has any."""
    length = c.patches + (0 if c.positions_of_patches_only else c.prefix)
    if c.positions == "learned":
        return LearnedPositions(length, c.width, rngs=rngs, **options)
    if c.positions == "sinusoidal":
        return SinusoidalPositions(length, c.width)
    if c.positions == "sinusoidal_2d":
        return SinusoidalPositions2D(c.image_size // c.patch_size, c.width)
    return None
