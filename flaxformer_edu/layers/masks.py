"""Masks, all boolean: of attention, True = attend, broadcastable to `batch head query key`; of dropout, True = keep."""

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from flaxformer_edu.errors import InputError

Mask = Bool[Array | np.ndarray, "..."]


def causal_mask(length: int) -> Bool[Array, "length length"]:
    """Each query attends to keys at its own position and before it."""
    return jnp.tri(length, dtype=bool)


def padding_mask(ids: Int[Array, "batch length"], padding_id: int = 0) -> Bool[Array, "batch 1 1 length"]:
    """No query attends to keys that are padding."""
    return (ids != padding_id)[:, None, None, :]


def check_mask(mask: Mask, scores: tuple[int, ...]) -> None:
    """Raise InputError unless `mask` is boolean and fits the scores' `batch head query key` without ambiguity.

    Three axes are refused: NumPy's rules would read a `batch query key` mask as `head query key`.
    """
    if mask.dtype != bool:
        raise InputError(f"mask has dtype {mask.dtype}, expected bool, True = attend: write mask != 0 or mask == 0")
    fits = mask.ndim in (2, 4) and all(
        given in (1, wanted) for given, wanted in zip(mask.shape[::-1], scores[::-1], strict=False)
    )
    if not fits:
        raise InputError(
            f"mask has shape {mask.shape}, expected (query, key) or (batch, head, query, key) = {scores}, where any "
            "axis may be 1; for a different mask per batch element write mask[:, None]"
        )


class RecordedMasks:
    """Replays masks, one per call, in the order of the model's calls: PyTorch's, say, so that both sides drop the same.

    Raises InputError where the model asks for another shape than the next mask has, or for more masks than there are.
    """

    def __init__(self, masks: Iterable[Mask]):
        self._masks: Iterator[tuple[int, Mask]] = enumerate(masks)

    def keep(self, shape: tuple[int, ...], probability: float) -> Mask:
        """The next recorded mask; `probability` played its part when it was drawn."""
        del probability
        index, mask = next(self._masks, (None, None))
        if mask is None:
            raise InputError(f"the model asks for one more dropout mask, of shape {shape}, but the recording has ended")
        if mask.shape != shape:
            raise InputError(
                f"dropout mask {index} has shape {mask.shape}, the model asks for {shape}: "
                "is their order different, or the input?"
            )
        return mask
