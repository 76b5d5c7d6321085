"""What the configs of all Transformers have in common, and how presets are changed."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from flax import nnx
from jax.nn.initializers import Initializer

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import BlockConfig

Config = TypeVar("Config")
Init = Literal["normal", "truncated_normal", "lecun", "xavier"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(BlockConfig):
    """The blocks' settings, and those that every model adds.

    final_norm: normalise each token after the last block ("tokens"), in classifiers the pooled vector instead
        ("pooled"), or neither ("none"). None becomes "tokens" for pre-norm blocks, whose sum nothing else normalises,
        and "none" for post-norm blocks.
    init: how kernels are drawn: from N(0, init_std^2) ("normal"; "truncated_normal" as PyTorch does, at -2 and 2), with
        variance 1 / inputs ("lecun": small patches need that, or the positions drown them), or as Glorot and Bengio
        2010 ("xavier"). The model's docstring says what is drawn otherwise.
    init_std: the standard deviation for "normal" and "truncated_normal".
    """

    final_norm: Literal["tokens", "none"] | None = None
    init: Init = "normal"
    init_std: float = 0.02

    def __post_init__(self):
        super().__post_init__()
        if self.final_norm is None:
            object.__setattr__(self, "final_norm", "tokens" if self.norm == "pre" else "none")
        for field in dataclasses.fields(self):
            choices, value = choices_of(field.type), getattr(self, field.name)
            if choices and value not in choices:
                raise InputError(f"{field.name} is {value!r}, expected one of {', '.join(choices)}")

    @property
    def kernel_init(self) -> Initializer:
        """What draws kernels."""
        std = self.init_std
        return {
            "normal": nnx.initializers.normal(std),
            "truncated_normal": nnx.initializers.truncated_normal(std, lower=-2 / std, upper=2 / std),
            "lecun": nnx.initializers.lecun_normal(),
            "xavier": nnx.initializers.xavier_uniform(),
        }[self.init]


def preset(config: type[Config], changes: dict[str, Any], **fields: Any) -> Config:
    """A config of these fields, with changes. Raises InputError for a change of a field that it does not have."""
    names = [field.name for field in dataclasses.fields(config)]  # pyright: ignore[reportArgumentType]
    if unknown := [name for name in changes if name not in names]:
        raise InputError(f"{config.__name__} has no field {', '.join(unknown)}: its fields are {', '.join(names)}")
    return config(**{**fields, **changes})


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The words of a field whose type is a Literal, or a Literal or None; of any other, none."""
    options = get_args(annotation)
    words = [word for option in options for word in get_args(option) or [option] if isinstance(word, str)]
    return tuple(words)
