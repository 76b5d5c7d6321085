"""Record the dropout masks that a PyTorch model draws, so that ours can replay them. Importing this needs torch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class RecordDropout(TorchFunctionMode):
    """While active, every dropout of every PyTorch model notes its mask in `masks`, True where an element is kept.

    The masks are those that the model would have drawn anyway. `layers.RecordedMasks(recording.masks)` replays them.

    >>> with RecordDropout() as recording:
    ...     expected = torch_model(torch_images)
    >>> logits = model(images, rngs=RecordedMasks(recording.masks))
    """

    def __init__(self):
        super().__init__()
        self.masks: list[np.ndarray] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.dropout:
            return self._dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        keep = torch.empty_like(input).bernoulli_(1 - p)
        self.masks.append(keep.bool().cpu().numpy())
        return input.mul_(keep).div_(1 - p) if inplace else input * keep / (1 - p)
