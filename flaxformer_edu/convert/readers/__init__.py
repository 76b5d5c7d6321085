"""Checkpoints in and out without PyTorch: files of named arrays, mapped into memory, never executed.

`read` takes PyTorch's zip files (.pt, .pth, .bin), .safetensors, both also sharded with an index, and NumPy's .npz as
Google's Vision Transformers come in; `write` makes .safetensors and PyTorch files. A stranger's file runs nothing, and
takes at most 128 MiB and sixteen times its own size in memory, whatever it claims to hold.
"""

from flaxformer_edu.convert.readers.reading import read
from flaxformer_edu.convert.readers.writing import write

__all__ = ["read", "write"]
