"""What PyTorch gives, to compare with: its random numbers here, without PyTorch."""

from flaxformer_edu.reference.torch_random import TorchGenerator

__all__ = ["TorchGenerator"]
