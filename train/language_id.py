"""Train a recurrent network to tell which language a word is from.

For example:
$ python -m train.language_id --preset project --data lang_id.npz --out runs/project
$ python -m train.language_id --data lang_id.npz
$ python -m train.language_id --out runs/languages
$ flaxformer-edu identify --model runs/languages hyvää päivää

`--data` is CS188's lang_id.npz; without it the bundled word list is used. Prints the accuracy on words that were not
trained on, and which language is taken for which.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from flaxformer_edu.convert import to_torch
from flaxformer_edu.convert.layouts.cs188 import LAYOUTS
from flaxformer_edu.convert.readers import write
from flaxformer_edu.data import ArrayDataset, Batches, evaluation_batches, load_lang_id
from flaxformer_edu.data.words import load_words
from flaxformer_edu.models.language_id import CharRNN, CharRNNConfig
from flaxformer_edu.training import LoopConfig, Optimiser, accuracy, cross_entropy, fit, recipe


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A network, and how it is trained."""

    model: Callable[..., CharRNNConfig]
    optimiser: Optimiser
    epochs: int
    batch_size: int
    ema_decay: float | None = None
    dtype: str = "float32"


PRESETS = {
    "project": Preset(model=CharRNNConfig.project, optimiser=Optimiser(name="adam"), epochs=25, batch_size=64),
    "gated": Preset(
        model=CharRNNConfig.gated,
        optimiser=Optimiser(learning_rate=4e-3, schedule="cosine", warmup_steps=200),
        epochs=20,
        batch_size=128,
        ema_decay=0.995,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    preset: Literal["project", "gated"] = "gated"
    """project is the network of CS188's project; gated is a stronger one."""
    devices: int = 1
    """Present the processor as so many devices; for networks this small, one is the fastest."""
    save: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the trained weights to this file (.safetensors or .pth), under the names of the PyTorch twin."""


def run(config: Config) -> None:
    preset = config.override(PRESETS[config.preset])
    words = load_lang_id(config.data) if config.data else load_words()
    languages = tuple(words["train"].class_names)
    model = preset.model(alphabet="".join(words["train"].metadata["chars"]), languages=languages)
    batches = Batches(words["train"], preset.batch_size, seed=config.seed)
    steps = preset.epochs * batches.steps_per_epoch
    loop = LoopConfig(
        steps=steps, seed=config.seed, evaluate_every=batches.steps_per_epoch, steps_per_call=8,
        ema_decay=preset.ema_decay, best_metric="accuracy", best_is="highest",
    )  # fmt: skip
    started = time.monotonic()
    trained = fit(
        CharRNN(model, rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(preset.dtype)),
        loss_fn,
        preset.optimiser,
        batches,
        loop,
        evaluate_fn=evaluate_fn,
        validation=lambda: evaluation_batches(words["dev"], 500),
        folder=config.out,
        tensorboard=config.tensorboard,
        settings=config.settings,
    )
    seconds = time.monotonic() - started
    counts = {split: confusion(trained.model, words[split]) for split in ("dev", "test")}
    figures = {f"{split}_accuracy": float(np.trace(table) / table.sum()) for split, table in counts.items()}
    Console().print(confusion_table(counts["test"], languages))
    recipe.report(f"Language of a word, {config.preset}", {**figures, "steps": steps, "seconds": seconds}, config.json)
    if config.save:
        write(config.save, to_torch(trained.model, layout=LAYOUTS[CharRNN]))


def loss_fn(model: CharRNN, batch: dict[str, Any], rngs: nnx.Rngs) -> tuple[Float[Array, ""], dict[str, Any]]:
    """The mean cross-entropy of a batch, and its accuracy."""
    logits = model(batch["words"], rngs=rngs)
    return cross_entropy(logits, batch["labels"]).mean(), {"accuracy": accuracy(logits, batch["labels"]).mean()}


def evaluate_fn(model: CharRNN, batch: dict[str, Any]) -> dict[str, Float[Array, "batch"]]:
    """The same, a value a word."""
    logits = model(batch["words"])
    return {"loss": cross_entropy(logits, batch["labels"]), "accuracy": accuracy(logits, batch["labels"])}


def confusion(model: CharRNN, words: ArrayDataset) -> Int[np.ndarray, "class class"]:
    """How many words of each language (row) are taken for each (column)."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(words["labels"], model(words["words"]).argmax(axis=-1))


def confusion_table(counts: Int[np.ndarray, "class class"], languages: tuple[str, ...]) -> Table:
    """The counts, and the share of each language's words that is recognised."""
    table = Table("", *languages, "recognised", title="Test words of each language (row), taken for each (column)")
    for name, row, right in zip(languages, counts, np.diag(counts), strict=True):
        table.add_row(name, *map(str, row), f"{right / row.sum():.3f}")
    return table


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
