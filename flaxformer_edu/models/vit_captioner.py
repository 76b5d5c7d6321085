"""Image captioning from pixels: a Vision Transformer's encoder in front of the captioning decoder."""

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import Cache, LinearOptions, Randomness
from flaxformer_edu.models.captioning import CaptioningConfig, CaptioningTransformer
from flaxformer_edu.models.config import preset
from flaxformer_edu.models.vit import VisionTransformer
from flaxformer_edu.models.vit_config import ViTConfig

Images = Float[Array | np.ndarray, "batch height _width channel"]


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
