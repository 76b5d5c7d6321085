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
from jaxtyping import Int
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

from flaxformer_edu.convert import to_torch, write
from flaxformer_edu.data import ArrayDataset, load_lang_id, load_words
from flaxformer_edu.models import CharRNN, CharRNNConfig
from flaxformer_edu.training import Optimizer, classification
from train import recipe


@dataclass(frozen=True, kw_only=True)
class Preset(recipe.Preset):
    """A network, and how it is trained."""

    model: Callable[..., CharRNNConfig]
    steps_per_call: int = 8


PRESETS = {
    "project": Preset(model=CharRNNConfig.project, optimizer=Optimizer(name="adam"), epochs=25, batch_size=64),
    "gated": Preset(
        model=CharRNNConfig.gated,
        optimizer=Optimizer(learning_rate=4e-3, schedule="cosine", warmup_steps=200),
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
    """Present the processor as this many devices; for networks this small, one is the fastest."""
    save: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the trained weights to this file (.safetensors or .pth), under the names of the PyTorch twin."""


def run(config: Config) -> None:
    preset = config.override(PRESETS[config.preset])
    words = load_lang_id(config.data) if config.data else load_words()
    languages = tuple(words["train"].class_names)
    model = preset.model(alphabet="".join(words["train"].metadata["chars"]), languages=languages)
    started = time.monotonic()
    trained = recipe.train(
        config,
        preset,
        CharRNN(model, rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(preset.dtype)),
        classification("words"),
        words["train"],
        words["dev"],
        best_metric="accuracy",
    )
    seconds = time.monotonic() - started
    counts = {split: confusion(trained.model, words[split]) for split in ("dev", "test")}
    figures: dict[str, Any] = {
        f"{split}_accuracy": float(np.trace(table) / table.sum()) for split, table in counts.items()
    }
    figures |= {"steps": preset.steps(words["train"]), "seconds": seconds}
    Console(markup=False).print(confusion_table(counts["test"], languages))
    recipe.report(f"Language of a word, {config.preset}", figures, config.json)
    if config.save:
        write(config.save, to_torch(trained.model, layout="cs188"))


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
