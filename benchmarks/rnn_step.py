"""A training step of the project's recurrent network, against PyTorch in eager mode: 64 words of 8 letters, Adam.

    python -m benchmarks.rnn_step                  # on the processor as one device
    python -m benchmarks.rnn_step --devices 2      # the words shared among two

Both start from the same weights. They take turns, so that a busy machine slows down both, and their losses are
compared. Ours takes the steps of a round in one call, as the recipe does (`LoopConfig.steps_per_call`). PyTorch is
given the letters as one-hot vectors, as the project does.
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
from flaxformer_edu import convert
from flaxformer_edu.data import ALPHABET, LANGUAGES
from flaxformer_edu.models import CharRNN, CharRNNConfig
from flaxformer_edu.training import (
    Optimizer,
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
from tests.twins.course_twins import LanguageIDModel

WORDS, LENGTH, LEARNING_RATE = 64, 8, 1e-3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    devices: int = 1
    rounds: int = 30
    steps: int = 10  # in a row, in each round


def our_steps(model: CharRNN, words: np.ndarray, labels: np.ndarray, steps: int) -> Callable[[], float]:
    """Takes some steps of training and returns the last one's loss."""

    def loss_fn(model: CharRNN, batch: dict[str, Any], rngs: nnx.Rngs) -> tuple[jax.Array, dict[str, jax.Array]]:
        return cross_entropy(model(batch["words"], rngs=rngs), batch["labels"]).mean(), {}

    mesh = data_mesh(WORDS)
    graphdef, params = split_model(model)
    adam = Optimizer(name="adam", learning_rate=LEARNING_RATE).build(1)
    step = compile_step(make_step(graphdef, adam, loss_fn), mesh, steps_per_call=steps)
    state = replicate(new_state(params, adam), mesh)
    batches = share({"words": np.stack([words] * steps), "labels": np.stack([labels] * steps)}, mesh, stacked=True)

    def run() -> float:
        nonlocal state
        state, metrics = step(state, batches)
        return float(metrics["loss"][-1])

    return run


def torch_steps(twin: LanguageIDModel, words: np.ndarray, labels: np.ndarray, steps: int) -> Callable[[], float]:
    """The same in PyTorch."""
    adam = torch.optim.Adam(twin.parameters(), lr=LEARNING_RATE)
    letters = torch.nn.functional.one_hot(torch.tensor(words).long(), len(ALPHABET)).float().movedim(1, 0).contiguous()
    targets = torch.tensor(labels).long()

    def run() -> float:
        for _ in range(steps):
            adam.zero_grad()
            loss = torch.nn.functional.cross_entropy(twin.run(letters), targets)
            loss.backward()
            adam.step()
        return loss.item()

    return run


def milliseconds(run: Callable[[], float], steps: int) -> tuple[float, float]:
    """A step's time, on the average of some, and the last one's loss."""
    start = time.perf_counter()
    loss = run()
    return 1e3 * (time.perf_counter() - start) / steps, loss


def measure(settings: Settings) -> dict[str, Any]:
    """Medians over the rounds, and the median of the rounds' ratios."""
    random = np.random.default_rng(0)
    words = random.integers(0, len(ALPHABET), (WORDS, LENGTH), dtype=np.int32)
    labels = random.integers(0, len(LANGUAGES), WORDS, dtype=np.int32)
    model = CharRNN(CharRNNConfig.project(alphabet=ALPHABET, languages=tuple(LANGUAGES)), rngs=nnx.Rngs(0))
    twin = LanguageIDModel()
    weights = convert.to_torch(model, layout="cs188")
    twin.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    runs = [f(m, words, labels, settings.steps) for f, m in ((our_steps, model), (torch_steps, twin))]

    times = []
    for turn in range(settings.rounds + 1):
        (ours, our_loss), (theirs, their_loss) = (milliseconds(run, settings.steps) for run in runs)
        if turn == 0:  # compiles, and so is not counted; later the float32 runs drift apart
            losses = {"loss": our_loss, "pytorch_loss": their_loss}
        else:
            times.append((ours, theirs))
    ours_ms, theirs_ms = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "devices": settings.devices,
        "ours_ms": round(ours_ms, 2),
        "pytorch_ms": round(theirs_ms, 2),
        "times_faster": round(statistics.median(theirs / ours for ours, theirs in times), 2),
        f"after_{settings.steps}_steps": losses,
    }


def main(settings: Settings) -> None:
    """Measure and print, as JSON."""
    use_devices(settings.devices)
    print(json.dumps(measure(settings)))


if __name__ == "__main__":
    main(checked(tyro.cli(Settings, prog="python -m benchmarks.rnn_step", description=__doc__)))
