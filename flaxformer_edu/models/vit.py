"""The Vision Transformer: an image as a sequence of patches."""

from dataclasses import dataclass
from typing import Unpack

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers import BlockConfig, Encoder, PatchEmbedding, Randomness, SinusoidalPositions, dropout
from flaxformer_edu.layers.options import LinearOptions


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BlockConfig):
    """A Vision Transformer: its encoder's blocks, and the sizes around them.

    Kernels are drawn from N(0, init_std^2), or, where that is None, with a variance of 1 / inputs (LeCun 1998): small
    patches need that, lest the positions drown them.
    """

    image_size: int
    patch_size: int
    channels: int = 3
    classes: int
    layers: int
    init_std: float | None = 0.02

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise InputError(
                f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}: "
                "choose a patch size that divides it"
            )

    @classmethod
    def cs231n(cls, *, classes: int = 10, image_size: int = 32, channels: int = 3, patch_size: int = 8) -> "ViTConfig":
        """CS231n's assignment: post-norm, mean over the patches, for CIFAR-10 unless sizes say otherwise."""
        return cls(
            image_size=image_size,
            patch_size=patch_size,
            channels=channels,
            classes=classes,
            width=128,
            layers=6,
            heads=4,
            hidden=256,
            dropout=0.1,
            norm="post",
        )

    @property
    def patches(self) -> int:
        """How many patches an image is cut into."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def digits(cls, *, classes: int = 10) -> "ViTConfig":
        """A small pre-norm ViT for scikit-learn's digits: four patches of 4 x 4 pixels."""
        return cls(
            image_size=8,
            patch_size=4,
            channels=1,
            classes=classes,
            width=128,
            layers=2,
            heads=4,
            hidden=256,
            dropout=0.2,
            norm="pre",
            init_std=None,
        )


class VisionTransformer(nnx.Module):
    """Patches, positions, an encoder, the mean over the patches, and a linear classifier (Dosovitskiy et al. 2020)."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        if config.init_std is not None:
            options = {"kernel_init": nnx.initializers.normal(config.init_std), **options}
        self.config = config
        self.patch_embedding = PatchEmbedding(config.patch_size, config.channels, config.width, rngs=rngs, **options)
        self.positions = SinusoidalPositions(config.patches, config.width)
        self.encoder = Encoder(config, config.layers, final_norm=config.norm == "pre", rngs=rngs, **options)
        self.head = nnx.Linear(config.width, config.classes, rngs=rngs, **options)

    def __call__(
        self, images: Float[Array | np.ndarray, "batch height _width channel"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch class"]:
        """Logits. Raises InputError for images of another size than the config's."""
        x = self.encoder(self.embed(images, rngs=rngs), rngs=rngs)
        return self.head(x.mean(axis=1))

    def embed(
        self, images: Float[Array | np.ndarray, "batch height _width channel"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch patch width"]:
        """What the encoder is given: the patches' embeddings with their positions."""
        c = self.config
        size = c.image_size
        check_shape("images", images.shape, "batch height width channel", height=size, width=size, channel=c.channels)
        return dropout(self.positions(self.patch_embedding(images)), c.dropout, rngs)

    def attention_maps(
        self, images: Float[Array | np.ndarray, "batch height _width channel"]
    ) -> Float[Array, "layer batch head patch patch"]:
        """How much each patch attends to each other, in every layer and head."""
        return self.encoder.attention_maps(self.embed(images))
