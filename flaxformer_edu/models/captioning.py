"""Image captioning: a Transformer decoder that attends to an image's features, or to its patches."""

from dataclasses import dataclass
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers import (
    Cache,
    Decoder,
    Linear,
    LinearOptions,
    Position,
    Randomness,
    SinusoidalPositions,
    causal_mask,
    dropout,
)
from flaxformer_edu.models.config import TransformerConfig, preset
from flaxformer_edu.models.vit import Images, VisionTransformer
from flaxformer_edu.models.vit_config import ViTConfig


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig(TransformerConfig):
    """A captioner: its decoder's blocks, and the sizes around them; `final_norm` is the decoder's.

    `features` is the length of an image's feature vector, `vocab` counts the words.
    """

    vocab: int
    features: int
    layers: int
    max_length: int
    padding_id: int = 0
    start_id: int = 1
    end_id: int = 2

    @classmethod
    def cs231n(cls, *, vocab: int, **changes: Any) -> "CaptioningConfig":
        """CS231n's assignment; the sizes are those of its overfitting task."""
        sizes = {"features": 512, "width": 256, "layers": 2, "heads": 2, "hidden": 2048, "max_length": 30}
        return preset(cls, changes, vocab=vocab, **sizes, dropout=0.1, norm="post")


class CaptioningTransformer(nnx.Module):
    """Word embeddings and positions, a decoder attending to the image, and a linear map to the vocabulary.

    Embeddings are drawn from N(0, init_std^2), and so are kernels by default, but the output's kernel as PyTorch draws
    it, U(-1/sqrt(width), 1/sqrt(width)); biases are zero. The padding word's embedding receives no gradient.
    """

    def __init__(self, config: CaptioningConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        options = {"kernel_init": config.kernel_init, **options}
        self.config = config
        self.image = Linear(config.features, config.width, rngs=rngs, **options)
        self.words = nnx.Embed(
            config.vocab,
            config.width,
            embedding_init=nnx.initializers.normal(config.init_std),
            dtype=options.get("dtype"),
            param_dtype=options.get("param_dtype", jnp.float32),
            rngs=rngs,
        )
        self.positions = SinusoidalPositions(config.max_length, config.width)
        self.decoder = Decoder(config, config.layers, final_norm=config.final_norm == "tokens", rngs=rngs, **options)
        uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.output = Linear(config.width, config.vocab, rngs=rngs, **{**options, "kernel_init": uniform})

    def __call__(
        self,
        features: Float[Array | np.ndarray, "batch features"],
        captions: Int[Array | np.ndarray, "batch length"],
        *,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch length vocab"]:
        """Logits of the word that follows each word of `captions`.

        Raises InputError for features of another size, captions longer than `max_length`, and, outside a
        transformation, ids beyond the vocabulary (within one they give NaN).
        """
        return self.decode(captions, self.encode(features), rngs=rngs)

    def encode(self, features: Float[Array | np.ndarray, "batch features"]) -> Float[Array, "batch 1 width"]:
        """The memory that the decoder attends to: one token per image."""
        check_shape("features", features.shape, "batch features", features=self.config.features)
        return self.image(jnp.asarray(features))[:, None]

    def decode(
        self,
        captions: Int[Array | np.ndarray, "batch length"],
        memory: Float[Array, "batch memory width"],
        *,
        rngs: Randomness | None = None,
    ) -> Float[Array, "batch length vocab"]:
        """Logits of the words that follow, given the image's tokens."""
        c = self.config
        check_shape("captions", captions.shape, "batch length", batch=memory.shape[0])
        check_ids("captions", captions, c.vocab)
        x = dropout(self.embed(captions), c.dropout, rngs)
        return self.output(self.decoder(x, memory, causal_mask(captions.shape[1]), rngs=rngs))

    def attention_to_memory(
        self, inputs: Float[Array | np.ndarray, "batch ..."], captions: Int[Array | np.ndarray, "batch length"]
    ) -> Float[Array, "layer batch head length memory"]:
        """Where among the image's tokens the model looks, at each word of `captions`, to find the one that follows."""
        x, mask = self.embed(captions), causal_mask(captions.shape[1])
        return self.decoder.attention_to_memory(x, self.encode(inputs), mask)

    def embed(
        self, words: Int[Array | np.ndarray, "batch length"], start: Position = 0
    ) -> Float[Array, "batch length width"]:
        """The words at positions start, start + 1, ..., as the decoder's input."""
        x = self.words(jnp.asarray(words))
        x = jnp.where((words == self.config.padding_id)[..., None], jax.lax.stop_gradient(x), x)
        return self.positions(x, start)

    def start(self, features: Float[Array | np.ndarray, "batch features"], length: int) -> tuple[Cache, Cache]:
        """What decoding begins with, for captions of at most `length` words: see `decode.CachedDecoder`."""
        return self.decoder.start(self.encode(features), length)

    def step(
        self, words: Int[Array, "batch"], position: Position, memory: Cache, cache: Cache
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """Logits of the words that follow those at `position`, and the cache with them."""
        x, cache = self.decoder.step(self.embed(words[:, None], position), memory, cache, position)
        return self.output(x)[:, 0], cache


def check_ids(name: str, ids: Int[Array | np.ndarray, "..."], vocab: int) -> None:
    """Raise InputError for word ids outside the vocabulary. Under a transformation, where values are unknown, pass."""
    if isinstance(ids, Tracer) or ids.size == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab:
        raise InputError(
            f"{name} holds word ids from {low} to {high}, but the vocabulary has {vocab} words, 0 to {vocab - 1}: "
            "is it the vocabulary that the captions were encoded with?"
        )


@dataclass(frozen=True, kw_only=True)
class ViTCaptionerConfig(CaptioningConfig):
    """The decoder's sizes, and the encoder's in `vision`, whose width is the decoder's `features`."""

    vision: ViTConfig

    def __post_init__(self):
        super().__post_init__()
        if self.vision.classes is not None or self.vision.width != self.features:
            raise InputError(
                f"vision has classes={self.vision.classes} and width={self.vision.width}, expected no classes (None) "
                f"and the width of features={self.features}: the decoder attends to the patches themselves"
            )

    @classmethod
    def small(cls, *, vocab: int, image_size: int = 64, patch_size: int = 8, **changes: Any) -> "ViTCaptionerConfig":
        """Small enough to be trained from nothing on two cores: 8 x 8 patches, four layers, then two of decoder."""
        style = {"width": 128, "heads": 4, "dropout": 0.1, "norm": "pre"}
        sizes = {"image_size": image_size, "patch_size": patch_size, "layers": 4, "hidden": 256, "classes": None}
        vision = ViTConfig(**style, **sizes, init="lecun", stem="convolutions")
        decoder = {"features": 128, "layers": 2, "hidden": 512, "max_length": 30}
        return preset(cls, changes, vocab=vocab, **style, **decoder, vision=vision)


class ViTCaptioner(CaptioningTransformer):
    """A captioner that looks at the picture itself: each word attends to every patch as the encoder leaves it."""

    config: ViTCaptionerConfig

    def __init__(self, config: ViTCaptionerConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        super().__init__(config, rngs=rngs, **options)
        self.vision = VisionTransformer(config.vision, rngs=rngs, **options)

    def __call__(
        self, images: Images, captions: Int[Array | np.ndarray, "batch length"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch length vocab"]:
        """Logits of the word that follows each word of `captions`; errors as in `CaptioningTransformer`."""
        return self.decode(captions, self.encode(images, rngs=rngs), rngs=rngs)

    def encode(self, images: Images, *, rngs: Randomness | None = None) -> Float[Array, "batch patch width"]:
        """The memory that the decoder attends to: one token per patch."""
        return self.image(self.vision.tokens(images, rngs=rngs))

    def start(self, images: Images, length: int) -> tuple[Cache, Cache]:
        """What decoding begins with: see `decode.CachedDecoder`."""
        return self.decoder.start(self.encode(images), length)
