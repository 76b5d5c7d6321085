"""A small convolutional network, to compare Vision Transformers with."""

from dataclasses import dataclass
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from flaxformer_edu.errors import InputError, check_shape
from flaxformer_edu.layers import ACTIVATIONS, LinearOptions, Randomness, dropout
from flaxformer_edu.models.config import preset

GROUPS = 8  # of channels that are normalised together
gelu = ACTIVATIONS["gelu"]


@dataclass(frozen=True, kw_only=True)
class ConvNetConfig:
    """A residual network: `blocks` says how many blocks each stage has.

    The first stage works on the whole image with `width` channels; each other halves its side and doubles the channels.
    """

    image_size: int
    channels: int = 3
    classes: int
    width: int
    blocks: tuple[int, ...]
    dropout: float = 0.0

    def __post_init__(self):
        if self.width % GROUPS:
            raise InputError(
                f"width is {self.width}, expected a multiple of {GROUPS}: channels are normalised in groups"
            )
        if self.image_size % 2 ** (len(self.blocks) - 1):
            raise InputError(
                f"image_size {self.image_size} cannot be halved {len(self.blocks) - 1} times: choose fewer stages"
            )

    @classmethod
    def small(cls, **changes: Any) -> "ConvNetConfig":
        """For CIFAR-10 on a processor: about as many parameters as `ViTConfig.tuned`."""
        return preset(cls, changes, image_size=32, classes=10, width=32, blocks=(1, 1, 1))


class ConvBlock(nnx.Module):
    """x + conv(gelu(norm(conv(gelu(norm(x)))))): two convolutions of 3 x 3 pixels and a shortcut around them.

    Where channels or resolution change, the shortcut is a convolution of one pixel.
    Sources: He et al. 2016, "Identity mappings in deep residual networks"; Wu and He 2018, "Group normalization", which
    needs no statistics over the batch.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.norm1 = group_norm(inputs, rngs=rngs, **options)
        self.conv1 = nnx.Conv(inputs, outputs, (3, 3), strides=stride, padding=1, rngs=rngs, **options)
        self.norm2 = group_norm(outputs, rngs=rngs, **options)
        self.conv2 = nnx.Conv(outputs, outputs, (3, 3), padding=1, rngs=rngs, **options)
        changes = inputs != outputs or stride != 1
        self.shortcut = nnx.Conv(inputs, outputs, (1, 1), strides=stride, rngs=rngs, **options) if changes else None

    def __call__(
        self, x: Float[Array, "batch height _width channel"]
    ) -> Float[Array, "batch out_height out_width out_channel"]:
        """The next feature map."""
        h = self.conv1(gelu(self.norm1(x)))
        h = self.conv2(gelu(self.norm2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class ConvNet(nnx.Module):
    """A convolution, stages of residual blocks, the mean over the image, and a linear classifier."""

    def __init__(self, config: ConvNetConfig, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]):
        self.config = c = config
        self.stem = nnx.Conv(c.channels, c.width, (3, 3), padding=1, rngs=rngs, **options)
        blocks, inputs = [], c.width
        for stage, count in enumerate(c.blocks):
            for block in range(count):
                outputs, stride = c.width << stage, 2 if stage > 0 and block == 0 else 1
                blocks.append(ConvBlock(inputs, outputs, stride=stride, rngs=rngs, **options))
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.norm = group_norm(inputs, rngs=rngs, **options)
        self.head = nnx.Linear(inputs, c.classes, rngs=rngs, **options)

    def __call__(
        self, images: Float[Array | np.ndarray, "batch height _width channel"], *, rngs: Randomness | None = None
    ) -> Float[Array, "batch class"]:
        """Logits. Raises InputError for images of another size than the config's."""
        c = self.config
        size = c.image_size
        check_shape("images", images.shape, "batch height width channel", height=size, width=size, channel=c.channels)
        x = self.stem(jnp.asarray(images))
        for block in self.blocks:
            x = block(x)
        return self.head(dropout(gelu(self.norm(x)).mean(axis=(1, 2)), c.dropout, rngs))


def group_norm(channels: int, *, rngs: nnx.Rngs, **options: Unpack[LinearOptions]) -> nnx.GroupNorm:
    """Group normalisation as PyTorch computes it."""
    return nnx.GroupNorm(
        channels,
        GROUPS,
        epsilon=1e-5,
        use_fast_variance=False,
        dtype=options.get("dtype"),
        param_dtype=options.get("param_dtype", jnp.float32),
        rngs=rngs,
    )
