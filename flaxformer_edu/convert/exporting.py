"""A model's weights as a file for another library, refused where that would compute something else from them."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from flax import nnx

from flaxformer_edu.convert.layouts import find_layout
from flaxformer_edu.convert.models import to_torch
from flaxformer_edu.convert.presets import base_config
from flaxformer_edu.convert.readers import write
from flaxformer_edu.convert.rules import match, parameter_shapes
from flaxformer_edu.convert.told import one_block, told_by_tensors
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs.description import encode

METADATA = "flaxformer_edu"  # the key in a .safetensors file under which our own configuration stands
NOT_COMPUTED = {  # fields that say how a model is trained, kept or begun, not what it computes
    *("dropout", "attention_dropout", "hidden_dropout", "drop_path", "init", "init_std", "merged_qkv"),
}
# What each library's module is built with for a value that differs from its default; any other it cannot compute.
EPSILON = {"norm_epsilon": {...: "norm_layer=partial(nn.LayerNorm, eps={})"}}
ARGUMENTS: dict[str, dict[str, dict[Any, str]]] = {
    "torchvision": EPSILON,
    "timm": {
        **EPSILON,
        "activation": dict.fromkeys(("relu", "gelu_tanh", "silu", "quick_gelu"), "act_layer={!r}"),
        "pooling": {"mean": "global_pool='avg', fc_norm=False"},
        "norm": {"res_post": "block_fn=ResPostBlock"},
    },
    "hf_vit": {
        "norm_epsilon": {...: "layer_norm_eps={}"},
        "activation": {"relu": "hidden_act='relu'", "gelu_tanh": "hidden_act='gelu_pytorch_tanh'"},
    },
}


def export(path: str | os.PathLike[str], model: nnx.Module, *, layout: str, built_with: Iterable[str] = ()) -> None:
    """Write the weights under the names of `layout`, after `check_export`; a .safetensors file keeps our config too.

    >>> convert.export("vit.pth", model, layout="timm", built_with=["norm_epsilon"])
    """
    check_export(model, layout, built_with)
    config = getattr(model, "config", None)
    kept = {METADATA: json.dumps({"layout": layout, "config": encode(config)})} if isinstance(config, ViTConfig) else {}
    write(path, to_torch(model, layout=layout), metadata=kept)


def check_export(model: nnx.Module, layout: str, built_with: Iterable[str] = ()) -> None:
    """Raise InputError where the library's module, holding these weights, computes something else, naming the fields.

    Fields in `built_with` are those in which the module is built otherwise than by default: only the ones that it
    takes as arguments can be.
    """
    if not isinstance(model, VisionTransformer):
        return
    ours, theirs = model.config, _their_config(model.config, layout)
    names = [field.name for field in fields(ours) if field.name not in NOT_COMPUTED]
    differing = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    arguments = {name: _argument(layout, name, getattr(ours, name)) for name in differing}
    never = [name for name, argument in arguments.items() if argument is None]
    if never:
        raise InputError(
            f"from weights under the names of {layout} its module computes {_values(theirs, never)}, whatever it is "
            f"built with, and this model has {_values(ours, never)}: choose another layout, or a folder of our own"
        )
    unsaid = [name for name in differing if name not in set(built_with)]
    if unsaid:
        built = ", ".join(str(arguments[name]) for name in unsaid)
        raise InputError(
            f"from weights under the names of {layout} its module computes {_values(theirs, unsaid)} unless it is "
            f"built otherwise, this model has {_values(ours, unsaid)}, and a file of weights cannot say so: build the "
            f"module with {built} and repeat this with --built-with {' '.join(unsaid)}; or write a folder (our own, or "
            "one for transformers, --target-layout hf_vit)"
        )


def _their_config(config: ViTConfig, layout: str) -> ViTConfig:
    """What a reader who knows the tensors, the number of heads and the library's defaults takes the model for."""
    told = told_by_tensors(_hollow(config, layout), layout)
    sizes = {name: getattr(config, name) for name in ("width", "layers", "heads", "hidden", "patch_size", "image_size")}
    return replace(base_config(layout), **{**told, **sizes})


def _hollow(config: ViTConfig, layout: str) -> Mapping[str, np.ndarray]:
    """Tensors of the names and shapes that are written, which take no memory; of the blocks, those of the first."""
    model = one_block(config)
    shapes = parameter_shapes(model)
    matches = match(find_layout(layout, model), shapes)
    return {name: np.broadcast_to(np.float32(0), m.torch_shape(shapes)) for m in matches for name in m.torch}


def _argument(layout: str, name: str, value: Any) -> str | None:
    """How the module is built for that value of a field; None where it cannot be."""
    values = ARGUMENTS.get(layout, {}).get(name, {})
    argument = values.get(value, values.get(...))
    return None if argument is None else argument.format(value)


def _values(config: ViTConfig, names: Iterable[str]) -> str:
    return ", ".join(f"{name} = {getattr(config, name)!r}" for name in names)
