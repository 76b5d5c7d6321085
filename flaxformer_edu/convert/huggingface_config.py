"""transformers' config.json of a Vision Transformer, field by field, into our configuration and back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flaxformer_edu.errors import InputError
from flaxformer_edu.models import ViTConfig

ARCHITECTURES = ("ViTForImageClassification", "ViTModel")
ACTIVATIONS = {  # the first name of each is the one that is written
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True)
class Field:
    """What config.json calls one of our fields, its default there, and what it may be."""

    ours: str
    default: Any
    expected: str
    accepts: Callable[[Any], bool]


def _size(ours: str, default: int) -> Field:
    return Field(ours, default, "a whole number above 0", lambda value: type(value) is int and value > 0)


def _rate(ours: str) -> Field:
    return Field(ours, 0.0, "a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


FIELDS = {
    "hidden_size": _size("width", 768),
    "num_hidden_layers": _size("layers", 12),
    "num_attention_heads": _size("heads", 12),
    "intermediate_size": _size("hidden", 3072),
    "hidden_act": Field("activation", "gelu", f"one of {', '.join(ACTIVATIONS)}", lambda v: str(v) in ACTIVATIONS),
    "hidden_dropout_prob": _rate("dropout"),
    "attention_probs_dropout_prob": _rate("attention_dropout"),
    "layer_norm_eps": Field("norm_epsilon", 1e-12, "a number above 0", lambda value: is_number(value) and value > 0),
    "image_size": _size("image_size", 224),
    "patch_size": _size("patch_size", 16),
    "num_channels": _size("channels", 3),
    "qkv_bias": Field("qkv_bias", True, "true or false", lambda value: isinstance(value, bool)),
}
OTHER_FIELDS = {"architectures", "model_type", "id2label", "label2id", "num_labels", "pooler_output_size", "pooler_act"}
# Without effect on what the model computes from images: names, the loss, storage, initialisation, other tasks.
HARMLESS = {
    *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "task_specific_params"),
    *("torch_dtype", "dtype", "torchscript", "use_cache", "return_dict", "use_return_dict", "output_attentions"),
    *("output_hidden_states", "chunk_size_feed_forward", "gradient_checkpointing", "tie_word_embeddings"),
    *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "finetuning_task"),
    *("initializer_range", "encoder_stride", "problem_type"),
}


def read_config(path: Path, described: dict[str, Any], weights: Mapping[str, Any]) -> ViTConfig:
    """Our configuration, of every field of config.json; the weights' names tell which layers stand at the end.

    Raises InputError for another model, a field that is neither understood nor harmless, or a value that cannot be.
    """
    _check_kind(path, described)
    values = {field.ours: _value(path, described, name, field) for name, field in FIELDS.items()}
    layers = sum(name.endswith("layernorm_before.weight") for name in weights)
    if layers != values["layers"]:
        raise InputError(f"{path}: num_hidden_layers is {values['layers']}, but the weights have {layers} layers")
    classifier = any(name.startswith("classifier.") for name in weights)
    pooler = not classifier and any(name.startswith("pooler.") for name in weights)
    return ViTConfig.b16(
        **{**values, "activation": ACTIVATIONS[values["activation"]]},
        hidden_dropout=0.0,
        classes=_class_count(path, described) if classifier else None,
        representation=_pooler_size(path, described, values["width"]) if pooler else None,
    )


def read_class_names(path: Path, described: dict[str, Any], classes: int) -> tuple[str, ...]:
    """The names in id2label, or those that transformers gives where there are none."""
    labels = described.get("id2label") or {str(i): f"LABEL_{i}" for i in range(classes)}
    try:
        return tuple(str(labels[str(i)]) for i in range(classes))
    except KeyError as error:
        raise InputError(f"{path}: id2label has no name for class {error}, expected those from 0 on") from None


def describe_config(config: ViTConfig, class_names: Any = None) -> dict[str, Any]:
    """config.json. Raises InputError unless transformers' ViT computes what a model of our configuration does."""
    _check_expressible(config)
    activations = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    values = {name: getattr(config, field.ours) for name, field in FIELDS.items()}
    values["hidden_act"] = activations[config.activation]
    if config.attention_dropout is None:
        values["attention_probs_dropout_prob"] = config.dropout
    described = {"architectures": [ARCHITECTURES[config.classes is None]], "model_type": "vit", **values}
    if config.representation is not None:
        described |= {"pooler_output_size": config.representation, "pooler_act": "tanh"}
    return described if config.classes is None else {**described, **_labels(config.classes, class_names)}


def _check_kind(path: Path, described: dict[str, Any]) -> None:
    kind, architectures = described.get("model_type"), described.get("architectures") or [ARCHITECTURES[0]]
    if kind != "vit":
        raise InputError(f"{path}: model_type is {kind!r:.60}, and of Hugging Face's models only 'vit' is known")
    if not isinstance(architectures, list) or not set(map(str, architectures)) <= set(ARCHITECTURES):
        raise InputError(f"{path}: architectures is {architectures!r:.60}, expected one of {', '.join(ARCHITECTURES)}")
    unknown = [name for name in described if name not in {*FIELDS, *OTHER_FIELDS, *HARMLESS}]
    if unknown:
        raise InputError(
            f"{path} has {', '.join(f'{name:.60} = {described[name]!r:.40}' for name in unknown[:5])}, which is not "
            "understood: if it does not change what the model computes, take it out of the file"
        )


def _value(path: Path, described: dict[str, Any], name: str, field: Field) -> Any:
    value = described.get(name, field.default)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:  # height and width
        value = value[0]
    if not field.accepts(value):
        raise InputError(f"{path}: {name} is {value!r:.60}, expected {field.expected}")
    return value


def _class_count(path: Path, described: dict[str, Any]) -> int:
    labels = described.get("id2label")
    known = len(labels) if isinstance(labels, dict) else 2  # transformers' default
    count = described.get("num_labels", known)
    if type(count) is not int or count < 1 or not (labels is None or (isinstance(labels, dict) and count == known)):
        raise InputError(f"{path}: id2label and num_labels disagree, or are no names and no number of classes")
    return count


def _pooler_size(path: Path, described: dict[str, Any], width: int) -> int:
    size, activation = described.get("pooler_output_size") or width, described.get("pooler_act", "tanh")
    if type(size) is not int or size < 1 or activation != "tanh":
        raise InputError(
            f"{path}: the pooler has {size!r:.40} features and the activation {activation!r:.40}, expected a whole "
            "number above 0 and 'tanh'"
        )
    return size


def _check_expressible(config: ViTConfig) -> None:
    """Raise InputError, naming the fields, unless all that transformers cannot say is as its ViT has it."""
    free = {*(field.ours for field in FIELDS.values()), "classes", "representation", "merged_qkv"}
    training_alone = {"hidden_dropout", "drop_path", "init", "init_std"}
    theirs = ViTConfig.b16(**{name: getattr(config, name) for name in free | training_alone})
    strange = [
        f"{field.name} = {getattr(config, field.name)!r}"
        for field in fields(config)
        if getattr(config, field.name) != getattr(theirs, field.name)
    ]
    if config.classes is not None and config.representation is not None:
        strange.append(f"representation = {config.representation} in front of a classifier")
    if strange:
        raise InputError(
            f"transformers' ViT has no {', '.join(strange)}: write the weights alone, to a .safetensors or .pth file"
        )


def _labels(classes: int, class_names: Any) -> dict[str, Any]:
    names = class_names or [f"LABEL_{i}" for i in range(classes)]
    if len(names) != classes:
        raise InputError(f"there are {len(names)} class names for {classes} classes")
    ids = {str(i): name for i, name in enumerate(names)}
    return {"id2label": ids, "label2id": {name: int(i) for i, name in ids.items()}}
