"""What it costs to keep XLA's wrong fusions off: training steps with the switch's values, each in fresh processes.

    python -m benchmarks.guard
    python -m benchmarks.guard --rounds 10 --json guard.json

"as shipped" is what XLA does by itself, and wrong in some releases; "-reduce" keeps the reductions from YNNPACK; "off"
is the guard: nothing goes to YNNPACK. XLA reads its switches once in a process, so each round starts a process for each
value, in an order that is rotated from round to round. The steps are the course's ViT on 64 pictures, the course's
captioner on 25 captions, and the project's recurrent network on 64 words.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from flax import nnx

from benchmarks.counts import checked
from flaxformer_edu.compiler import JAXLIB, VARIABLE, YNNPACK
from flaxformer_edu.data import ALPHABET, LANGUAGES
from flaxformer_edu.files import write_json
from flaxformer_edu.models import (
    CaptioningConfig,
    CaptioningTransformer,
    CharRNN,
    CharRNNConfig,
    VisionTransformer,
    ViTConfig,
)
from flaxformer_edu.training import (
    Optimizer,
    captioning_loss,
    compile_step,
    cross_entropy,
    data_mesh,
    make_step,
    new_state,
    replicate,
    share,
    split_model,
    use_devices,
)

VALUES = {"as shipped": YNNPACK.shipped, "-reduce": "-reduce", "off": YNNPACK.cure}
WARM_UP_STEPS = 5  # steps before measuring
VOCAB, CAPTION = 1004, 17

Loss = Callable[[Any, dict[str, jax.Array], nnx.Rngs], tuple[jax.Array, dict[str, jax.Array]]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    rounds: int = 5  # processes for each value
    steps: int = 30  # in each process
    json: Path | None = None  # also write the report to this file
    one_process: bool = False  # only time the steps with XLA_FLAGS as it is, and print the milliseconds


def classification_loss(model: Any, batch: dict[str, jax.Array], rngs: nnx.Rngs) -> tuple[jax.Array, dict]:
    """Cross-entropy of pictures or of words."""
    return cross_entropy(model(batch["inputs"], rngs=rngs), batch["labels"]).mean(), {}


def caption_loss(model: Any, batch: dict[str, jax.Array], rngs: nnx.Rngs) -> tuple[jax.Array, dict]:
    """Each word of the captions from those before."""
    captions = batch["captions"]
    return captioning_loss(model(batch["inputs"], captions[:, :-1], rngs=rngs), captions[:, 1:]), {}


def cases() -> dict[str, tuple[nnx.Module, Loss, dict[str, np.ndarray]]]:
    """Of each training step the model, the loss and a batch."""
    random = np.random.default_rng(0)
    images = random.standard_normal((64, 32, 32, 3)).astype(np.float32)
    captions = random.integers(1, VOCAB, (25, CAPTION), dtype=np.int32)
    features = random.standard_normal((25, 512)).astype(np.float32)
    words = random.integers(0, len(ALPHABET), (64, 8), dtype=np.int32)
    labels = random.integers(0, len(LANGUAGES), 64, dtype=np.int32)
    vit = VisionTransformer(ViTConfig.cs231n(), rngs=nnx.Rngs(0))
    captioner = CaptioningTransformer(CaptioningConfig.cs231n(vocab=VOCAB), rngs=nnx.Rngs(0))
    rnn = CharRNN(CharRNNConfig.project(alphabet=ALPHABET, languages=tuple(LANGUAGES)), rngs=nnx.Rngs(0))
    return {
        "ViT": (vit, classification_loss, {"inputs": images, "labels": labels}),
        "captioner": (captioner, caption_loss, {"inputs": features, "captions": captions}),
        "recurrent network": (rnn, classification_loss, {"inputs": words, "labels": labels}),
    }


def time_steps(model: nnx.Module, loss: Loss, batch: dict[str, np.ndarray], steps: int) -> list[float]:
    """The milliseconds of each step, once the program is compiled and warm."""
    mesh = data_mesh(len(batch["inputs"]))
    graphdef, params = split_model(model)
    adam = Optimizer(name="adam", learning_rate=1e-4).build(1)
    step = compile_step(make_step(graphdef, adam, loss), mesh)
    state, batch = replicate(new_state(params, adam), mesh), share(batch, mesh)
    times = []
    for _ in range(WARM_UP_STEPS + steps):
        start = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(1e3 * (time.perf_counter() - start))
    return times[WARM_UP_STEPS:]


def fresh_process(value: str, steps: int) -> dict[str, list[float]]:
    """The milliseconds of each case's steps, with the switch set to `value`."""
    command = [sys.executable, "-m", "benchmarks.guard", "--one-process", "--steps", str(steps)]
    environment = {**os.environ, VARIABLE: f"{os.environ.get(VARIABLE, '')} --{YNNPACK.switch}={value}"}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Of each case and value a step's median and quartiles, and the median of the rounds' ratios to "as shipped"."""
    turns: list[dict[str, dict[str, list[float]]]] = []
    for turn in range(settings.rounds):
        order = [list(VALUES)[(turn + k) % len(VALUES)] for k in range(len(VALUES))]
        turns.append({name: fresh_process(VALUES[name], settings.steps) for name in order})
    rows = []
    for case in turns[0]["off"]:
        shipped = [statistics.median(turn["as shipped"][case]) for turn in turns]
        for name in VALUES:
            times = [milliseconds for turn in turns for milliseconds in turn[name][case]]
            medians = [statistics.median(turn[name][case]) for turn in turns]
            first, median, third = (round(quartile, 2) for quartile in statistics.quantiles(times, n=4))
            ratio = statistics.median(mine / theirs for mine, theirs in zip(medians, shipped, strict=True))
            row = {"step": case, "fusions": name, "ms": median, "quartiles": [first, third], "ratio": round(ratio, 3)}
            rows.append(row)
    return rows


def main(settings: Settings) -> None:
    """Measure and print, as JSON."""
    if settings.one_process:
        use_devices(1)
        print(json.dumps({name: time_steps(*case, settings.steps) for name, case in cases().items()}))
        return
    rows = measure(settings)
    for row in rows:
        print(json.dumps(row))
    if settings.json is not None:
        report = {"jaxlib": JAXLIB, "rounds": settings.rounds, "steps": settings.steps, "rows": rows}
        write_json(settings.json, report)


if __name__ == "__main__":
    main(checked(tyro.cli(Settings, prog="python -m benchmarks.guard", description=__doc__)))
