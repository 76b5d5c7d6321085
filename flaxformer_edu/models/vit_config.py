"""The configuration of a Vision Transformer, with the published ones by name."""

from dataclasses import dataclass
from typing import Any, Literal

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import Multiplied, Rotary
from flaxformer_edu.models.config import TransformerConfig, preset


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    """A Vision Transformer: its encoder's blocks, and what stands around them.

    stem: what makes patches of an image: one linear map, or convolutions (`ConvStem`).
    class_token: a learned token in front of the patches; `distilled` adds a second one, with a classifier of its own
        (Touvron et al. 2020, "DeiT").
    positions: what is added to the tokens; "none" where `rotary` turns queries and keys instead.
    prefix_positions: whether the tokens in front of the patches have positions too ("sinusoidal_2d" gives them none).
    pooling: what is classified: the class token, the mean over the patches, or both, one after the other.
    representation: features of a layer with tanh in front of the classifier, None for no such layer.
    classes: None for no classifier: the model then gives the pooled vector.

    Presets take any field as a keyword argument: `ViTConfig.b16(classes=10, image_size=384)`.
    """

    image_size: int
    patch_size: int
    channels: int = 3
    classes: int | None
    layers: int
    stem: Literal["linear", "convolutions"] = "linear"
    class_token: bool = False
    distilled: bool = False
    positions: Literal["learned", "sinusoidal", "sinusoidal_2d", "none"] = "sinusoidal"
    prefix_positions: bool = True
    pooling: Literal["class", "mean", "both"] = "mean"
    final_norm: Literal["tokens", "pooled", "none"] | None = None
    representation: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise InputError(
                f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}: "
                "choose a patch size above 0 that divides it"
            )
        if not self.class_token and (self.pooling != "mean" or self.distilled):
            wants = "distilled=True" if self.distilled else f"pooling={self.pooling!r}"
            raise InputError(f"{wants} needs a class token: set class_token=True, or pool by the mean")
        if self.distilled and (self.classes is None or self.pooling != "class"):
            raise InputError("a distilled model classifies its class and distillation tokens: set pooling and classes")

    @property
    def patches(self) -> int:
        """How many patches an image is cut into."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def prefix(self) -> int:
        """How many tokens stand in front of the patches."""
        return self.class_token + self.distilled

    @property
    def positions_of_patches_only(self) -> bool:
        """Whether the tokens in front are left without positions: those of rows and columns cannot hold them."""
        return not self.prefix_positions or self.positions == "sinusoidal_2d"

    @classmethod
    def cs231n(cls, **changes: Any) -> "ViTConfig":
        """CS231n's assignment, for CIFAR-10: post-norm, mean over the patches."""
        sizes = {"image_size": 32, "patch_size": 8, "classes": 10, "width": 128, "layers": 6, "heads": 4, "hidden": 256}
        return preset(cls, changes, **sizes, dropout=0.1, norm="post")

    @classmethod
    def tuned(cls, **changes: Any) -> "ViTConfig":
        """For CIFAR-10 on a processor: a convolutional stem that leaves 8 x 8 patches, and pre-norm blocks."""
        sizes = {"image_size": 32, "patch_size": 4, "classes": 10, "width": 128, "layers": 5, "heads": 4, "hidden": 256}
        return preset(cls, changes, **sizes, norm="pre", init="lecun", stem="convolutions")

    @classmethod
    def compact(cls, **changes: Any) -> "ViTConfig":
        """For CIFAR-10 on an accelerator: the sizes of CCT-7/3x1 (Hassani et al. 2021), 16 x 16 patches."""
        sizes = {"patch_size": 2, "width": 256, "layers": 7, "hidden": 512}
        return cls.tuned(**{**sizes, **changes})

    @classmethod
    def digits(cls, **changes: Any) -> "ViTConfig":
        """A small pre-norm ViT for handwritten digits: scikit-learn's, of four patches, or MNIST's."""
        sizes = {"image_size": 8, "patch_size": 4, "classes": 10, "width": 128, "layers": 2, "heads": 4, "hidden": 256}
        return preset(cls, changes, **sizes, channels=1, dropout=0.2, norm="pre", init="lecun")

    @classmethod
    def tiles(
        cls, *, positions: Literal["sinusoidal", "rotary", "multiplied", "learned"] = "sinusoidal", **changes: Any
    ) -> "ViTConfig":
        """MNIST's digits as 4 x 4 tiles, for two blocks of one head without an output projection."""
        sizes = {"image_size": 28, "patch_size": 7, "classes": 10, "width": 64, "layers": 2, "heads": 1, "hidden": 512}
        attention = {"qkv_bias": False, "merged_qkv": True, "output_projection": False}
        where = {
            "positions": positions if positions in ("sinusoidal", "learned") else "none",
            "rotary": {"rotary": Rotary(), "multiplied": Multiplied()}.get(positions),
        }
        style = {"norm": "pre", "activation": "relu", "init": "lecun", "class_token": True, "pooling": "class"}
        return preset(cls, changes, **sizes, channels=1, **attention, **where, **style)

    @classmethod
    def scratch(cls, **changes: Any) -> "ViTConfig":
        """The small ViT "from scratch" of many tutorials, for CIFAR-10: no norm after the last block, tanh GELU."""
        sizes = {"image_size": 32, "patch_size": 4, "classes": 10, "width": 48, "layers": 4, "heads": 4, "hidden": 192}
        style = {"norm_epsilon": 1e-5, "activation": "gelu_tanh", "final_norm": "none"}
        return cls.b16(**{**sizes, **style, **changes})

    @classmethod
    def scratch_large(cls, **changes: Any) -> "ViTConfig":
        """The same, as large as pays off without other data: 10 million parameters."""
        sizes = {"width": 256, "layers": 12, "heads": 4, "hidden": 1024, "dropout": 0.1}
        return cls.scratch(**{**sizes, **changes})

    @classmethod
    def ti16(cls, **changes: Any) -> "ViTConfig":
        """ViT-Tiny with patches of 16 x 16 pixels (Touvron et al. 2020, table 1)."""
        return cls.b16(**{"width": 192, "heads": 3, "hidden": 768, **changes})

    @classmethod
    def s16(cls, **changes: Any) -> "ViTConfig":
        """ViT-Small with patches of 16 x 16 pixels (Touvron et al. 2020, table 1)."""
        return cls.b16(**{"width": 384, "heads": 6, "hidden": 1536, **changes})

    @classmethod
    def b16(cls, **changes: Any) -> "ViTConfig":
        """ViT-Base with patches of 16 x 16 pixels (Dosovitskiy et al. 2020, table 1).

        What all published ViTs share is here too: class token, learned positions, pre-norm, ImageNet's 1000 classes.
        """
        sizes = {"image_size": 224, "patch_size": 16, "classes": 1000, "width": 768, "layers": 12, "heads": 12}
        tokens = {"class_token": True, "pooling": "class", "positions": "learned"}
        style = {"norm": "pre", "norm_epsilon": 1e-6, "init": "truncated_normal"}
        return preset(cls, changes, **sizes, hidden=3072, **tokens, **style)

    @classmethod
    def b32(cls, **changes: Any) -> "ViTConfig":
        """ViT-Base with patches of 32 x 32 pixels (Dosovitskiy et al. 2020, table 1)."""
        return cls.b16(**{"patch_size": 32, **changes})

    @classmethod
    def l16(cls, **changes: Any) -> "ViTConfig":
        """ViT-Large with patches of 16 x 16 pixels (Dosovitskiy et al. 2020, table 1)."""
        return cls.b16(**{"width": 1024, "layers": 24, "heads": 16, "hidden": 4096, **changes})
