"""Weights of PyTorch, Hugging Face and Google in and out: rules that are their own inverse, strict both ways.

`open` returns the model in any file or folder, or of a published name. Step by step: `read` a file's tensors,
`find_config` or your own configuration, `from_torch`; and back, `to_torch` and `write`, or `export`, which makes sure
that the other library computes the same. A `Layout` of `Rule`s describes
a model of your own.
"""

from flaxformer_edu.convert.exporting import check_export, export
from flaxformer_edu.convert.huggingface import open_huggingface, save_huggingface
from flaxformer_edu.convert.inference import find_config
from flaxformer_edu.convert.layouts import find_layout
from flaxformer_edu.convert.models import from_torch, load_weights, to_torch
from flaxformer_edu.convert.opening import Opened, open
from flaxformer_edu.convert.readers import read, write
from flaxformer_edu.convert.resize import convention_of, resize_positions
from flaxformer_edu.convert.rules import ConversionError, Layout, Rule, within

__all__ = [
    "ConversionError",
    "Layout",
    "Opened",
    "Rule",
    "check_export",
    "convention_of",
    "export",
    "find_config",
    "find_layout",
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
