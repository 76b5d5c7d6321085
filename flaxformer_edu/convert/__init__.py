"""PyTorch weights in and out: rules that are their own inverse, strict both ways."""

from flaxformer_edu.convert.models import from_torch, load_weights, to_torch
from flaxformer_edu.convert.readers import read, write
from flaxformer_edu.convert.rules import ConversionError, Layout, Rule, within

__all__ = ["ConversionError", "Layout", "Rule", "from_torch", "load_weights", "read", "to_torch", "within", "write"]
