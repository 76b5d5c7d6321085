"""What PyTorch and the courses give, to compare with, computed here without PyTorch.

`TorchGenerator` draws PyTorch's random numbers, `torch_weights` the weights that its modules start from.
`published_tensors` are what the courses print, `RECIPES` recompute them with our layers, `verify` compares the two.
"""

from flaxformer_edu.reference import torch_weights
from flaxformer_edu.reference.published import DROPOUT, SEED, Published, compare, published_tensors, verify
from flaxformer_edu.reference.recipes import RECIPES
from flaxformer_edu.reference.torch_random import TorchGenerator

__all__ = [
    "DROPOUT",
    "RECIPES",
    "SEED",
    "Published",
    "TorchGenerator",
    "compare",
    "published_tensors",
    "torch_weights",
    "verify",
]
