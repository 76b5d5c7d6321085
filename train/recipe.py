"""What the recipes in `train/` have in common: their options, and how their figures and failures are reported."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax.numpy as jnp
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from flaxformer_edu import door
from flaxformer_edu.data import Batches, Dataset, evaluation_batches
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import check_target, write_json
from flaxformer_edu.training import LoopConfig, Optimizer, OptimizerConfig, Task, TrainResult, fit, use_devices

# Options that change nothing about the trained model: a run may be resumed with others.
FREE_OPTIONS = ("data", "out", "devices", "json", "tensorboard", "beam")
# The least and the greatest that numbers may be, where it is not 1 (whole ones) or 0, and LARGEST.
LIMITS = {"noise": (0, 1), "seed": (0, 2**32 - 1), "max_train": (0, 2**31 - 1), "devices": (1, 1024)}
LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """Options of every recipe."""

    data: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the data is, if not in the cache."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Keep checkpoints, metrics and curves here; a run that the folder holds already is resumed."""
    epochs: int | None = None
    """Default: the preset's."""
    batch_size: int | None = None
    """Default: the preset's."""
    learning_rate: float | None = None
    """The highest one of the schedule. Default: the preset's."""
    evaluate_every: int | None = None
    """In steps; a checkpoint is written too. Default: the preset's."""
    save_every: int | None = None
    """Write checkpoints also in between, every so many steps."""
    seed: int = 0
    """What parameters, batches, dropout and augmentation are drawn from."""
    devices: int = min(2, os.cpu_count() or 1)
    """Present the processor as this many devices, which share each batch; without effect on GPUs and TPUs."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """The type of the computation; parameters stay float32. Default: the preset's."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard too, into the --out folder."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the figures to this file too."""

    def check(self) -> None:
        """Raise InputError for a number that no recipe can use, and for a file that could not be written at the end."""
        for name, value in vars(self).items():
            option = "--" + name.replace("_", "-")
            if name in ("json", "save") and value is not None:
                check_target(value)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            least, most = LIMITS.get(name, (0 if isinstance(value, float) else 1, LARGEST))
            if not least <= value <= most:  # nor is NaN
                raise InputError(f"{option} is {value}, expected {least} to {most:,}")

    def override(self, preset: Any) -> Any:
        """The preset (a dataclass) with what the command line says otherwise."""
        self.check()  # recipes called from Python, without main(), come this way
        given = {name: getattr(self, name) for name in ("epochs", "batch_size", "dtype")}
        if self.learning_rate is not None:
            given["optimizer"] = dataclasses.replace(preset.optimizer, learning_rate=self.learning_rate)
        return dataclasses.replace(preset, **{name: value for name, value in given.items() if value is not None})

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in FREE_OPTIONS}


Config = TypeVar("Config", bound=RecipeConfig)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a model is trained; recipes add what is theirs.

    warmup: the share of all steps in which the learning rate rises; None for the optimizer's own number of steps.
    evaluations: about how many there are, at most one per epoch; None for one per epoch.
    """

    optimizer: Optimizer
    epochs: int
    batch_size: int
    warmup: float | None = None
    evaluations: int | None = None
    steps_per_call: int = 1
    ema_decay: float | None = None
    dtype: str = "float32"

    def steps(self, data: Dataset) -> int:
        """The number of updates."""
        return self.epochs * (len(data) // self.batch_size)


def train(
    config: RecipeConfig,
    preset: Preset,
    model: nnx.Module,
    task: Task,
    data: Dataset,
    held_out: Dataset,
    *,
    optimizer: OptimizerConfig | None = None,
    evaluate_every: int | None = None,
    best_metric: str = "loss",
    notes: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train the model by `fit`, as the preset and the command line say.

    `optimizer` and `evaluate_every` (in steps) replace what the preset says; the command line replaces both.
    """
    batches = Batches(data, preset.batch_size, seed=config.seed)
    steps, epoch = preset.steps(data), batches.steps_per_epoch
    if optimizer is None and preset.warmup is not None:
        optimizer = dataclasses.replace(preset.optimizer, warmup_steps=round(preset.warmup * steps))
    if config.evaluate_every is not None:
        evaluate_every = config.evaluate_every
    elif evaluate_every is None:
        evaluate_every = max(epoch, steps // (preset.evaluations or preset.epochs))
    loop = LoopConfig(
        steps=steps,
        seed=config.seed,
        evaluate_every=evaluate_every,
        save_every=config.save_every,
        steps_per_call=preset.steps_per_call,
        ema_decay=preset.ema_decay,
        best_metric=best_metric,
        best_is="lowest" if best_metric == "loss" else "highest",
    )
    return fit(
        model,
        task.loss_fn,
        optimizer or with_short_warmup(preset.optimizer, steps),
        batches,
        loop,
        evaluate_fn=task.evaluate_fn,
        validation=partial(evaluation_batches, held_out, 250),
        folder=config.out,
        tensorboard=config.tensorboard,
        settings=config.settings,
        notes=notes,
    )


def with_short_warmup(optimizer: Optimizer, steps: int) -> Optimizer:
    """The optimizer; where its warm-up is longer than half of a run, as short as a tenth of it, which is said."""
    if 2 * optimizer.warmup_steps <= steps:
        return optimizer
    shorter = max(1, steps // 10)
    Console(stderr=True).print(
        f"the run has {steps} steps: its warm-up takes {shorter} of them, not {optimizer.warmup_steps}",
        highlight=False,
        soft_wrap=True,
    )
    return dataclasses.replace(optimizer, warmup_steps=shorter)


def compute_dtype(name: str) -> Any:
    """What to hand to a model as `dtype`: None, promotion, for float32."""
    return None if name == "float32" else jnp.dtype(name)


def report(title: str, figures: Mapping[str, Any], file: Path | None) -> None:
    """Print the figures as a table, and write them to the file if there is one."""
    table = Table(title=title, show_header=False)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    Console(markup=False).print(table)
    if file is not None:
        write_json(file, dict(figures))


def main(config_class: type[Config], run: Callable[[Config], int | None], description: str) -> None:
    """Run a recipe from the command line: wrong input becomes one line on standard error and exit status 2."""

    def program() -> int | None:
        config = tyro.cli(config_class, description=description)
        config.check()
        use_devices(config.devices)
        return run(config)

    door.through(program)
