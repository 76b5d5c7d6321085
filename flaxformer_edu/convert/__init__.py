"""PyTorch weights in and out: rules that are their own inverse, strict both ways."""

from flaxformer_edu.convert.huggingface import open_huggingface, save_huggingface
from flaxformer_edu.convert.models import from_torch, load_weights, to_torch
from flaxformer_edu.convert.opening import Opened, open
from flaxformer_edu.convert.presets import find_config
from flaxformer_edu.convert.readers import read, write
from flaxformer_edu.convert.resize import resize_positions
from flaxformer_edu.convert.rules import ConversionError, Layout, Rule, within

__all__ = [
    "ConversionError",
    "Layout",
    "Opened",
    "Rule",
    "find_config",
    "from_torch",
    "load_weights",
    "open",
    "open_huggingface",
    "read",
    "resize_positions",
    "save_huggingface",
    "to_torch",
    "within",
    "write",
]
