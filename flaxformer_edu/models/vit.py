"""The Vision Transformer: an image as a sequence of patches."""

from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers import BlockConfig, Encoder, PatchEmbedding, Randomness, SinusoidalPositions, dropout
from flaxformer_edu.layers.options import LinearOptions
from flaxformer_edu.layers.patches import ConvStem


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BlockConfig):
    """A Vision Transformer: its encoder's blocks, and the sizes around them.

    `stem` says what makes patches of an image: one linear map ("linear"), or convolutions ("convolutions", `ConvStem`).
    Without `classes` (None) there is no classifier, and the model gives the mean over the patches. Kernels are drawn
    from N(0, init_std^2), or, where that is None, with a variance of 1 / inputs (LeCun 1998): small patches need that,
    lest the positions drown them.
    """

    image_size: int
    patch_size: int
    channels: int = 3
    classes: int | None
    layers: int
    init_std: float | None = 0.02
    stem: Literal["linear", "convolutions"] = "linear"

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise InputError(
                f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}: "
                "choose a patch size that divides it"
            )
        if self.stem not in STEMS:
            raise InputError(f"stem is {self.stem!r}, expected one of {', '.join(STEMS)}")

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
    def tuned(cls, *, classes: int = 10, image_size: int = 32, channels: int = 3) -> "ViTConfig":
        """For CIFAR-10 on a processor: a convolutional stem that leaves 8 x 8 patches, and pre-norm blocks."""
        return cls(
            image_size=image_size,
            patch_size=4,
            channels=channels,
            classes=classes,
            width=128,
            layers=5,
            heads=4,
            hidden=256,
            norm="pre",
            init_std=None,
            stem="convolutions",
        )

    @classmethod
    def compact(cls, *, classes: int = 10, image_size: int = 32, channels: int = 3) -> "ViTConfig":
        """For CIFAR-10 on an accelerator: the sizes of CCT-7/3x1 (Hassani et al. 2021), 16 x 16 patches."""
        return cls(
            image_size=image_size,
            patch_size=2,
            channels=channels,
            classes=classes,
            width=256,
            layers=7,
            heads=4,
            hidden=512,
            norm="pre",
            init_std=None,
            stem="convolutions",
        )

    @classmethod
    def digits(cls, *, classes: int = 10, image_size: int = 8, channels: int = 1) -> "ViTConfig":
        """A small pre-norm ViT for handwritten digits: scikit-learn's, of four patches, or MNIST's."""
        return cls(
            image_size=image_size,
            patch_size=4,
            channels=channels,
            classes=classes,
            width=128,
            layers=2,
            heads=4,
            hidden=256,
            dropout=0.2,
            norm="pre",
            init_std=None,
        )


STEMS: dict[str, type[PatchEmbedding | ConvStem]] = {"linear": PatchEmbedding, "convolutions": ConvStem}


class VisionTransformer(nnx.Module):
    """Patches, positions, an encoder, the mean over the patches, and a linear classifier (Dosovitskiy et al. 2020)."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        if config.init_std is not None:
            options = {"kernel_init": nnx.initializers.normal(config.init_std), **options}
        self.config = config
        stem = STEMS[config.stem]
        self.patch_embedding = stem(config.patch_size, config.channels, config.width, rngs=rngs, **options)
        self.positions = SinusoidalPositions(config.patches, config.width)
        self.encoder = Encoder(config, config.layers, final_norm=config.norm == "pre", rngs=rngs, **options)
        self.head = None if config.classes is None else nnx.Linear(config.width, config.classes, rngs=rngs, **options)

    def __call__(
        self, images: Float[Array | np.ndarray, "batch height _width channel"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch class"]:
        """Logits. Raises InputError for images of another size than the config's."""
        x = self.tokens(images, rngs=rngs).mean(axis=1)
        return x if self.head is None else self.head(x)

    def tokens(
        self, images: Float[Array | np.ndarray, "batch height _width channel"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch patch width"]:
        """What the encoder makes of each patch."""
        return self.encoder(self.embed(images, rngs=rngs), rngs=rngs)

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
