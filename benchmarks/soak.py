"""A soak: whether memory and pace stay as they are while one process trains, reads words, and looks at pictures.

    python -m benchmarks.soak                  # a minute of training
    python -m benchmarks.soak --minutes 30

Trains a Vision Transformer on the bundled digits with evaluations and checkpoints, reads 10,000 words of all lengths as
`identify` does, and classifies 1,000 pictures as `classify` does. Memory is the process's own (VmRSS, on Linux). The
first quarter of each is its warm-up; growth is that of a straight line through the rest of it, and the pace that of the
last quarter, of the second's.
"""

import io
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.counts import checked
from flaxformer_edu.commands import identify
from flaxformer_edu.commands.classify import classify
from flaxformer_edu.data import ALPHABET, Batches, Dataset, evaluation_batches, load_digits
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.runs import save_model
from flaxformer_edu.training import LoopConfig, Optimizer, classification, fit

STATUS = Path("/proc/self/status")
MOST_GROWTH, LEAST_PACE = 16.0, 0.8  # MiB; of the second quarter's
TRIAL_STEPS = 200  # by which the pace of training is found out
Sample = tuple[float, float]  # seconds, MiB


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long."""

    minutes: int = 1
    words: int = 10_000
    pictures: int = 1_000


def sample() -> Sample:
    """The time, and the memory that the process has."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return time.perf_counter(), int(lines["VmRSS"].split()[0]) / 1024


class Watched(Batches):
    """Batches that take a sample at every tenth step."""

    def __init__(self, data: Dataset):
        super().__init__(data, 32, seed=0)
        self.samples: list[Sample] = []

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of the step."""
        if step % 10 == 0:
            self.samples.append(sample())
        return super().__call__(step)


def training(minutes: float) -> list[Sample]:
    """Train for about that long, with evaluations and checkpoints."""
    digits = load_digits()
    task = classification("images", prepare=digits["train"].pixels.normalise)

    def run(steps: int) -> list[Sample]:
        source = Watched(digits["train"])
        model = VisionTransformer(ViTConfig.digits(), rngs=nnx.Rngs(0))
        loop = LoopConfig(steps=steps, evaluate_every=1000, save_every=500)
        with tempfile.TemporaryDirectory() as folder:
            fit(
                model,
                task.loss_fn,
                Optimizer(learning_rate=1e-4),
                source,
                loop,
                evaluate_fn=task.evaluate_fn,
                validation=partial(evaluation_batches, digits["test"], 250),
                folder=folder,
                console=Console(file=io.StringIO()),
            )
        return source.samples

    trial = run(TRIAL_STEPS)
    pace = 10 * (len(trial) // 2) / (trial[-1][0] - trial[-1 - len(trial) // 2][0])
    return run(max(400, round(60 * minutes * pace)))


def words(count: int) -> Iterator[Sample]:
    """Identify that many words of 1 to 40 letters, a hundred at a time."""
    network, draw = identify.open_network(None), np.random.default_rng(0)
    for _ in range(0, count, 100):
        lengths = draw.integers(1, 41, 100)
        identify.classify(network, ["".join(draw.choice(list(ALPHABET), length)) for length in lengths])
        yield sample()


def pictures(count: int) -> Iterator[Sample]:
    """Classify that many pictures of about a megapixel, ten at a time."""
    from PIL import Image

    draw, config = np.random.default_rng(0), ViTConfig.cs231n()
    names = [str(label) for label in range(config.classes or 0)]
    with tempfile.TemporaryDirectory() as folder:
        saved, files = Path(folder) / "model", [Path(folder) / f"{number}.png" for number in range(10)]
        notes = {"class_names": names, "mean": (0.5,) * 3, "std": (0.5,) * 3}
        save_model(saved, VisionTransformer(config, rngs=nnx.Rngs(0)), notes=notes)
        for file in files:
            size = (int(draw.integers(800, 1200)), 1000, 3)
            Image.fromarray(draw.integers(0, 256, size, dtype=np.uint8)).save(file, compress_level=1)
        for _ in range(0, count, len(files)):
            with redirect_stdout(io.StringIO()):
                classify(tuple(files), checkpoint=saved)
            yield sample()


def judged(samples: list[Sample]) -> tuple[float, float]:
    """By how many MiB memory grows after the warm-up, and the pace of the last quarter, of the second's."""
    seconds, memory = np.array(samples).T
    quarter = len(samples) // 4
    slope = np.polyfit(np.arange(len(samples) - quarter), memory[quarter:], 1)[0]
    passed = np.diff(seconds[[quarter, 2 * quarter, -1 - quarter, -1]])
    return float(slope * (len(samples) - quarter)), float(passed[0] / passed[2])


def main(settings: Settings) -> int:
    """Print the table; 1 where memory grows or the pace falls, else 0."""
    if not STATUS.exists():
        raise InputError(f"there is no {STATUS}, by which memory is measured: run it on Linux")
    table, failed = Table("what", "samples", "MiB at the end", "MiB grown", "pace", "verdict"), 0
    tasks = {
        f"{settings.minutes} min of training": partial(training, settings.minutes),
        f"{settings.words:,} words": partial(words, settings.words),
        f"{settings.pictures:,} pictures": partial(pictures, settings.pictures),
    }
    for name, run in tasks.items():
        samples = list(run())
        if len(samples) < 8:
            raise InputError(f"{name} are too few to judge by: take at least 8 hundred words and 80 pictures")
        grown, pace = judged(samples)
        flat = grown <= MOST_GROWTH and pace >= LEAST_PACE
        failed += not flat
        figures = str(len(samples)), f"{samples[-1][1]:.0f}", f"{grown:+.1f}", f"{pace:.2f}"
        table.add_row(name, *figures, "flat" if flat else "NOT FLAT")
    Console().print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(checked(tyro.cli(Settings, prog="python -m benchmarks.soak", description=__doc__))))
