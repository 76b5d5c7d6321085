"""A training run of PyTorch's, with what it takes to follow it step by step: in memory, or as one small file."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from flaxformer_edu.convert import read, write
from flaxformer_edu.errors import InputError
from flaxformer_edu.reference import TorchGenerator

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Draw:
    """A dropout mask as PyTorch draws it, once in every step.

    The generator fills an array of this `shape` with True with the probability `keep`; its axes, taken in the order
    `axes`, are those of the mask. They are not in place where a layer is given a transposed tensor: PyTorch follows the
    order of memory.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    keep: float

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """The mask's, as the layer sees it."""
        return tuple(self.shape[axis] for axis in self.axes)

    def mask(self, generator: TorchGenerator) -> Bool[np.ndarray, "..."]:
        """The next mask of the generator's stream."""
        return generator.keep(self.shape, self.keep).transpose(self.axes)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingCurve:
    """What `record_training` noted.

    losses: one per step; that of step 0 is the loss of the initial weights.
    dtype: of the parameters.
    seed, stream: of PyTorch's generator, and how it draws dropout ("generic" or "mkl", see `TorchGenerator`).
    draws: the dropout masks of a step, in the order of their drawing.
    weight_digests: of each initial weight, by PyTorch's name; batch_digests: of each step's batch.
    weights, batches: themselves, the batches by their digests; empty where they were not kept.
    """

    losses: Float64[np.ndarray, "step"]
    dtype: str
    seed: int
    stream: str
    draws: tuple[Draw, ...]
    weight_digests: Mapping[str, str]
    batch_digests: tuple[str, ...]
    weights: Arrays = field(default_factory=dict[str, np.ndarray])
    batches: Mapping[str, Arrays] = field(default_factory=dict[str, Arrays])

    def masks(self) -> Iterator[list[Bool[np.ndarray, "..."]]]:
        """Each step's dropout masks, drawn without PyTorch."""
        generator = TorchGenerator(self.seed, dropout=self.stream)
        for _ in self.losses:
            yield [draw.mask(generator) for draw in self.draws]

    def batch(self, step: int) -> Arrays:
        """The batch of a step. Raises InputError where the batches were not kept."""
        if not self.batches:
            raise InputError("the curve was recorded without its batches: hand in the function that gave them")
        return self.batches[self.batch_digests[step]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a .npz file, which appears when it is complete. Raises InputError where that fails."""
        about = {name: getattr(self, name) for name in HEADER_FIELDS} | {"draws": [asdict(draw) for draw in self.draws]}
        batches = {f"{key}/{name}": x for key, batch in self.batches.items() for name, x in batch.items()}
        groups = {"weights": self.weights, "batches": batches}
        arrays = {f"{group}/{name}": x for group, its in groups.items() for name, x in its.items()}
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        write(path, {"about": text, "losses": self.losses, **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TrainingCurve":
        """What `save` wrote. Raises InputError, naming the file, where it is missing, damaged or something else."""
        arrays = read(path)
        try:
            about = json.loads(arrays["about"].tobytes())
            draws = [Draw(tuple(draw["shape"]), tuple(draw["axes"]), float(draw["keep"])) for draw in about["draws"]]
            batches: dict[str, dict[str, np.ndarray]] = {}
            for name, x in _group(arrays, "batches").items():
                key, _, name = name.partition("/")
                batches.setdefault(key, {})[name] = x
            curve = cls(
                losses=np.array(arrays["losses"], np.float64),
                dtype=str(about["dtype"]),
                seed=int(about["seed"]),
                stream=str(about["stream"]),
                draws=tuple(draws),
                weight_digests=dict(about["weight_digests"]),
                batch_digests=tuple(about["batch_digests"]),
                weights=_group(arrays, "weights"),
                batches=batches,
            )
            curve.check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(f"{path} holds no training curve ({reason:.200}): record it again") from error
        return curve

    def check(self) -> None:
        """Raise ValueError where the parts contradict each other."""
        TorchGenerator(self.seed, dropout=self.stream)
        if self.losses.ndim != 1 or not 0 < len(self.losses) == len(self.batch_digests):
            raise InputError(f"{self.losses.shape} losses of {len(self.batch_digests)} batches")
        if self.batches and not self.batches.keys() >= set(self.batch_digests):
            raise InputError("some batches are missing")
        if self.weights and self.weights.keys() != self.weight_digests.keys():
            raise InputError("some weights are missing")
        if any(sorted(draw.axes) != list(range(len(draw.shape))) or not 0 <= draw.keep <= 1 for draw in self.draws):
            raise InputError("a dropout mask that cannot be")


HEADER_FIELDS = ("dtype", "seed", "stream", "weight_digests", "batch_digests")


def digest(arrays: Mapping[str, Any]) -> str:
    """A digest of the arrays' names, types, shapes and values."""
    state = hashlib.sha256()
    for name, x in sorted(arrays.items()):
        x = np.asarray(x)
        state.update(f"{name} {x.dtype} {x.shape} ".encode())
        state.update(x.tobytes())
    return state.hexdigest()[:32]


def _group(arrays: Arrays, group: str) -> dict[str, np.ndarray]:
    prefix = f"{group}/"
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
