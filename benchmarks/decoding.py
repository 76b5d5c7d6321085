"""Greedy captions with a key/value cache, against the course's way in PyTorch: the whole prefix again for every word.

    python -m benchmarks.decoding                  # on the processor as one device
    python -m benchmarks.decoding --devices 2      # the captions shared among two

Both have the same weights, at the sizes of CS231n's assignment. They take turns, so that a busy machine slows down
both, and the captions are compared.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
import tyro
from flax import nnx

from benchmarks.counts import checked
from flaxformer_edu import convert, decode
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer
from flaxformer_edu.training import data_mesh, replicate, share, use_devices
from tests.twins.torch_twins import CaptioningTransformer as Twin

VOCAB, FEATURES, LENGTH = 1004, 512, 30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    devices: int = 1
    captions: tuple[int, ...] = (2, 128)
    rounds: int = 9


def twins() -> tuple[CaptioningTransformer, Twin]:
    """Our model and PyTorch's, with the weights of ours, widened so that the captions differ."""
    config = CaptioningConfig.cs231n(vocab=VOCAB, features=FEATURES, max_length=LENGTH)
    model = jax.tree.map(lambda x: 2 * x, CaptioningTransformer(config, rngs=nnx.Rngs(0)))
    words = {"<NULL>": 0, "<START>": 1, "<END>": 2} | {str(word): word for word in range(3, VOCAB)}
    twin = Twin(words, FEATURES, config.width, num_heads=config.heads, num_layers=config.layers, max_length=LENGTH)
    weights = convert.to_torch(model, layout="cs231n")
    twin.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model, twin.eval()


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes, result and all."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def until_the_end(captions: np.ndarray, end_id: int = 2) -> np.ndarray:
    """The captions with padding behind their end: the course's sampling goes on."""
    ended = np.cumsum(captions == end_id, axis=1) - (captions == end_id) > 0
    return np.where(ended, 0, captions)


def measure(model: CaptioningTransformer, twin: Twin, captions: int, rounds: int) -> dict[str, Any]:
    """Milliseconds, their ratio, and the share of equal captions (near-ties may fall differently in float32)."""
    features = np.random.default_rng(0).normal(size=(captions, FEATURES)).astype(np.float32)
    mesh = data_mesh(captions)
    placed, tensor = replicate(model, mesh), torch.tensor(features)
    shared = share({"features": features}, mesh)["features"]

    def ours() -> jax.Array:
        return decode.greedy(placed, shared, max_length=LENGTH)

    def theirs() -> torch.Tensor:
        return twin.sample(tensor, max_length=LENGTH)

    same = (np.asarray(ours()) == until_the_end(theirs().numpy())).all(axis=1)
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ours_ms, theirs_ms = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return {
        "captions": captions,
        "ours_ms": round(ours_ms, 2),
        "pytorch_ms": round(theirs_ms, 1),
        "times_faster": round(statistics.median(theirs / ours for ours, theirs in times), 1),
        "same_captions": round(float(same.mean()), 3),
    }


def main(settings: Settings) -> None:
    """Measure and print, as JSON."""
    use_devices(settings.devices)
    model, twin = twins()
    for captions in settings.captions:
        print(json.dumps({"devices": settings.devices, **measure(model, twin, captions, settings.rounds)}))


if __name__ == "__main__":
    main(checked(tyro.cli(Settings, description=__doc__)))
