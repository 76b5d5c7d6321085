"""torchvision beside a PyTorch that it was not built for. Importing this module needs torch."""

import importlib
import warnings
from types import ModuleType

import torch

SCHEMAS: list[torch.library.Library] = []  # kept alive: PyTorch forgets an operator with the library that defines it


def import_torchvision() -> ModuleType:
    """torchvision, also where it is a CUDA build and PyTorch is not: it then misses its own operators.

    No model uses these operators, so that it is enough to name them. timm imports torchvision, too.
    Raises ImportError where it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("torchvision")
        except RuntimeError:
            schemas = torch.library.Library("torchvision", "DEF")
            schemas.define("nms(Tensor a, Tensor b, float c) -> Tensor")
            schemas.define("qnms(Tensor a, Tensor b, float c) -> Tensor")
            SCHEMAS.append(schemas)
            return importlib.import_module("torchvision")
