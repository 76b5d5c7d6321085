"""What a Vision Transformer is made of, and the published ones by name."""

from dataclasses import dataclass
from typing import Any, Literal

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import BlockConfig, Multiplied, Rotary

CHOICES = {
    "stem": ("linear", "convolutions"),
    "positions": ("learned", "sinusoidal", "sinusoidal_2d", "none"),
    "pooling": ("class", "mean", "both"),
    "final_norm": ("tokens", "pooled", "none"),
    "init": ("normal", "truncated_normal", "lecun", "xavier"),
}


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BlockConfig):
    """A Vision Transformer: its encoder's blocks, and what stands around them.

    stem: what makes patches of an image: one linear map, or convolutions (`ConvStem`).
    class_token: a learned token in front of the patches; `distilled` adds a second one, with a classifier of its own
        (Touvron et al. 2020, "DeiT").
    positions: what is added to the tokens; "none" where `rotary` turns queries and keys instead.
    prefix_positions: whether the tokens in front of the patches have positions too ("sinusoidal_2d" gives them none).
    pooling: what is classified: the class token, the mean over the patches, or both, one after the other.
    final_norm: normalise each token behind the last block (usual for pre-norm), or the pooled vector, or neither.
    representation: features of a layer with tanh in front of the classifier, None for no such layer.
    classes: None for no classifier: the model then gives the pooled vector.
    init: how kernels are drawn: from N(0, 0.02^2) ("normal"; "truncated_normal" as PyTorch does, at -2 and 2), with
        variance 1 / inputs ("lecun": small patches need that, lest the positions drown them), or as Glorot and Bengio
        2010 ("xavier").
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
    final_norm: Literal["tokens", "pooled", "none"] = "tokens"
    representation: int | None = None
    init: Literal["normal", "truncated_normal", "lecun", "xavier"] = "normal"

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise InputError(
                f"image_size {self.image_size} is not divisible by patch_size {self.patch_size}: "
                "choose a patch size that divides it"
            )
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise InputError(f"{field} is {getattr(self, field)!r}, expected one of {', '.join(choices)}")
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
            final_norm="none",
        )

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
            init="lecun",
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
            init="lecun",
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
            init="lecun",
        )

    @classmethod
    def tiles(
        cls,
        *,
        positions: Literal["sinusoidal", "rotary", "multiplied", "learned"] = "sinusoidal",
        classes: int = 10,
        image_size: int = 28,
        channels: int = 1,
    ) -> "ViTConfig":
        """MNIST's digits as 4 x 4 tiles, by two blocks of one head that do not mix what it saw."""
        return cls(
            image_size=image_size,
            patch_size=7,
            channels=channels,
            classes=classes,
            width=64,
            layers=2,
            heads=1,
            hidden=512,
            norm="pre",
            activation="relu",
            qkv_bias=False,
            merged_qkv=True,
            output_projection=False,
            rotary={"rotary": Rotary(), "multiplied": Multiplied()}.get(positions),
            class_token=True,
            pooling="class",
            positions=positions if positions in ("sinusoidal", "learned") else "none",
            init="lecun",
        )

    @classmethod
    def scratch(cls, *, classes: int = 10, image_size: int = 32, **changes: Any) -> "ViTConfig":
        """The small ViT "from scratch" of many tutorials, for CIFAR-10: no norm behind the last block, tanh GELU."""
        sizes = {"patch_size": 4, "width": 48, "layers": 4, "heads": 4, "hidden": 192, "norm_epsilon": 1e-5}
        return cls._published(
            classes, image_size, **{**sizes, "activation": "gelu_tanh", "final_norm": "none", **changes}
        )

    @classmethod
    def scratch_large(cls, *, classes: int = 10, image_size: int = 32, **changes: Any) -> "ViTConfig":
        """The same, as large as pays off without other data: 10 million parameters."""
        sizes = {"width": 256, "layers": 12, "heads": 4, "hidden": 1024, "dropout": 0.1}
        return cls.scratch(classes=classes, image_size=image_size, **{**sizes, **changes})

    @classmethod
    def ti16(cls, *, classes: int | None = 1000, image_size: int = 224, **changes: Any) -> "ViTConfig":
        """ViT-Tiny with patches of 16 x 16 pixels (Touvron et al. 2020, table 1)."""
        return cls.b16(classes=classes, image_size=image_size, **{"width": 192, "heads": 3, "hidden": 768, **changes})

    @classmethod
    def s16(cls, *, classes: int | None = 1000, image_size: int = 224, **changes: Any) -> "ViTConfig":
        """ViT-Small with patches of 16 x 16 pixels (Touvron et al. 2020, table 1)."""
        return cls.b16(classes=classes, image_size=image_size, **{"width": 384, "heads": 6, "hidden": 1536, **changes})

    @classmethod
    def b16(cls, *, classes: int | None = 1000, image_size: int = 224, **changes: Any) -> "ViTConfig":
        """ViT-Base with patches of 16 x 16 pixels (Dosovitskiy et al. 2020, table 1)."""
        sizes = {"patch_size": 16, "width": 768, "layers": 12, "heads": 12, "hidden": 3072}
        return cls._published(classes, image_size, **{**sizes, **changes})

    @classmethod
    def b32(cls, *, classes: int | None = 1000, image_size: int = 224, **changes: Any) -> "ViTConfig":
        """ViT-Base with patches of 32 x 32 pixels (Dosovitskiy et al. 2020, table 1)."""
        return cls.b16(classes=classes, image_size=image_size, **{"patch_size": 32, **changes})

    @classmethod
    def l16(cls, *, classes: int | None = 1000, image_size: int = 224, **changes: Any) -> "ViTConfig":
        """ViT-Large with patches of 16 x 16 pixels (Dosovitskiy et al. 2020, table 1)."""
        sizes = {"width": 1024, "layers": 24, "heads": 16, "hidden": 4096}
        return cls.b16(classes=classes, image_size=image_size, **{**sizes, **changes})

    @classmethod
    def _published(cls, classes: int | None, image_size: int, **changes: Any) -> "ViTConfig":
        """What published ViTs have in common: class token, learned positions, pre-norm."""
        common = {
            "classes": classes,
            "image_size": image_size,
            "class_token": True,
            "positions": "learned",
            "pooling": "class",
            "norm": "pre",
            "norm_epsilon": 1e-6,
            "init": "truncated_normal",
        }
        return cls(**{**common, **changes})
