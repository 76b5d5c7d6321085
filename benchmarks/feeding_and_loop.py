"""How fast batches are made, and what the training loop adds to the bare jitted step of the course's ViT.

    python -m benchmarks.feeding_and_loop                  # on the processor as one device
    python -m benchmarks.feeding_and_loop --devices 2

The bare step is compiled by hand and runs on a batch that lies on the device already; the loop makes its batches,
carries them over, writes metrics and shows progress. The two alternate, so that a busy machine slows down both, and
the processor's time is measured beside the clock's, which other programs disturb less.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from benchmarks.counts import checked
from flaxformer_edu.data import ArrayDataset, Batches
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import (
    LoopConfig,
    Optimizer,
    cross_entropy,
    data_mesh,
    fit,
    replicate,
    share,
    split_model,
    use_devices,
)

OPTIMIZER = Optimizer(name="adam", learning_rate=1e-4)
WARM_UP_STEPS = 10  # steps before measuring


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    devices: int = 1
    steps: int = 60
    rounds: int = 5
    batch_size: int = 64


def now() -> np.ndarray:
    """Seconds by the clock, and seconds that this process kept processors busy."""
    return np.array([time.perf_counter(), time.process_time()])


@dataclass
class Timed:
    """A batch source that notes when it is asked for a batch."""

    source: Batches
    times: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self):
        self.batch_size, self.steps_per_epoch = self.source.batch_size, self.source.steps_per_epoch

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch."""
        self.times.append(now())
        return self.source(step)


def loss_fn(model: VisionTransformer, batch: dict[str, jax.Array], rngs: nnx.Rngs) -> tuple[jax.Array, dict]:
    """Cross-entropy of pictures that are normalised on the device."""
    images = batch["images"].astype(jnp.float32) / 127.5 - 1
    return cross_entropy(model(images, rngs=rngs), batch["labels"]).mean(), {}


def pictures(count: int) -> ArrayDataset:
    """Noise of CIFAR-10's size."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, count, dtype=np.int32)
    return ArrayDataset(name="noise", arrays={"images": images, "labels": labels})


def images_per_second(dataset: ArrayDataset, batch_size: int = 128) -> float:
    """The rate of the batch source alone, over three epochs."""
    source = Batches(dataset, batch_size, seed=0)
    steps = 3 * source.steps_per_epoch
    start = time.perf_counter()
    for step in range(steps):
        source(step)
    return steps * batch_size / (time.perf_counter() - start)


def bare_seconds(model: VisionTransformer, source: Batches) -> Callable[[int], np.ndarray]:
    """A function of the number of steps that runs the bare step that often, and returns the seconds per step."""
    mesh = data_mesh(source.batch_size)
    graphdef, params = split_model(model)
    optimizer = OPTIMIZER.build(1)
    batch = share(source(0), mesh)

    @partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        params, memory, count = state

        def loss_of(params):
            return loss_fn(nnx.merge(graphdef, params), batch, nnx.Rngs(jax.random.fold_in(jax.random.key(0), count)))

        (loss, _), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, updates), memory, count + 1), loss

    state = replicate(jax.tree.map(jnp.array, (params, optimizer.init(params), jnp.zeros((), jnp.int32))), mesh)

    def measure(steps: int) -> np.ndarray:
        nonlocal state
        start = now()
        for _ in range(steps):
            state, loss = step(state, batch)
        jax.block_until_ready(loss)
        return (now() - start) / steps

    measure(WARM_UP_STEPS)
    return measure


def loop_seconds(model: VisionTransformer, source: Batches, steps: int) -> np.ndarray:
    """The seconds that a step of `fit` takes, files and all, once it is compiled and under way."""
    timed = Timed(source)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, loss_fn, OPTIMIZER, timed, LoopConfig(steps=WARM_UP_STEPS + steps + 1), folder=Path(folder) / "run")
    return (timed.times[WARM_UP_STEPS + steps] - timed.times[WARM_UP_STEPS]) / steps


def main(settings: Settings) -> None:
    """Measure and print, as JSON."""
    use_devices(settings.devices)
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        dataset = pictures(50_000)
        source = Batches(dataset, settings.batch_size, seed=0)
        model = VisionTransformer(ViTConfig.cs231n(), rngs=nnx.Rngs(0))
        bare = bare_seconds(model, source)
        rounds = [(bare(settings.steps), loop_seconds(model, source, settings.steps)) for _ in range(settings.rounds)]
    bare_ms, loop_ms = 1e3 * np.median(rounds, axis=0)
    added = 100 * np.median([loop / bare - 1 for bare, loop in rounds], axis=0)
    report = {
        "devices": jax.device_count(),
        "images_per_second_from_the_source": round(images_per_second(dataset)),
        "bare_step_ms": bare_ms.round(2).tolist(),
        "loop_step_ms": loop_ms.round(2).tolist(),
        "added_percent": added.round(2).tolist(),
        "columns": ["clock", "processor"],
        "rounds_ms": (1e3 * np.array(rounds)).round(1).tolist(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(checked(tyro.cli(Settings, description=__doc__)))
