"""The libraries whose Vision Transformers ours are compared with, and what it takes to compare them."""

import contextlib
import warnings
from types import ModuleType

import pytest
import torch
from torch import nn

from tests.twins.libraries import import_torchvision


def library(name: str) -> ModuleType:
    """torchvision, timm, transformers or a module of theirs; the test skips where it is not installed."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        import_torchvision()  # all three of them import it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: make .venv/.test")


def randomised(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with every parameter drawn at random: none is left at zero or one, where a mistake would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.to(dtype).eval()


def giving(module: nn.Module, field: str) -> nn.Module:
    """A module of transformers that gives one field of its answer alone."""
    forward = module.forward
    module.forward = lambda images: getattr(forward(images), field)
    return module
