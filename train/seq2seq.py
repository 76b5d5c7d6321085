"""Train a Transformer to turn one text into another: generated tasks, or pairs of your own.

For example:
$ python -m train.seq2seq --task dates --out runs/dates
$ python -m train.seq2seq --task reverse --beam 4 --json figures.json
$ python -m train.seq2seq --pairs words.tsv --out runs/words
$ python -m train.seq2seq --pairs sentences.tsv --subwords 8000 --preset base --out runs/sentences
$ flaxformer-edu translate --checkpoint runs/dates "the 3rd of may 1998"

A line of the file of pairs is a text, a tab, and what is to be made of it. Prints how many of the pairs held out, whose
first texts were not trained on, come out exactly.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from flax import nnx
from tyro.conf import arg

from flaxformer_edu.data import (
    LONGEST,
    Characters,
    Pair,
    Subwords,
    Vocabulary,
    generated_pairs,
    pair_dataset,
    read_pairs,
)
from flaxformer_edu.decode import check_beam, exact_match, translate_texts
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import Seq2SeqConfig, Seq2SeqTransformer
from flaxformer_edu.training import Optimizer, translation
from train import recipe

EXAMPLES = 100_000  # to train on, a small set's often, unless a number of epochs is given


@dataclass(frozen=True, kw_only=True)
class Preset(recipe.Preset):
    """A model, and how it is trained."""

    model: Callable[..., Seq2SeqConfig]
    warmup: float = 0.0
    epochs: int = 0  # as many as make `EXAMPLES`
    label_smoothing: float = 0.0


PRESETS = {
    "tiny": Preset(
        model=Seq2SeqConfig.tiny,
        optimizer=Optimizer(name="adam", learning_rate=2e-3, betas=(0.9, 0.98), schedule="cosine"),
        batch_size=64, warmup=0.1,
    ),
    "base": Preset(
        model=Seq2SeqConfig.base,
        optimizer=Optimizer(
            name="adam", learning_rate=7e-4, betas=(0.9, 0.98), epsilon=1e-9, schedule="inverse_sqrt"
        ),
        batch_size=256, warmup=0.04, epochs=20, label_smoothing=0.1,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    task: Literal["dates", "reverse", "copy", "sort"] | None = None
    """dates in English to be written in figures; strings of 1 to 20 digits to be reversed, copied or sorted."""
    data: Annotated[Path | None, arg(name="pairs", metavar="FILE")] = None
    """Learn the pairs of this file instead, one per line, with a tab between the two texts."""
    subwords: int | None = None
    """Learn a vocabulary of this many sub-words (needs the package tokenizers). Default: a token is a character."""
    preset: Literal["tiny", "base"] = "tiny"
    """tiny learns the tasks in minutes on two cores; base is the model of Vaswani et al. 2017."""
    beam: int = 1
    """The width of the beam search that writes what is scored; 1 is greedy decoding."""


def load_pairs(config: Config) -> dict[str, list[Pair]]:
    """The splits `train` and `test` of the task or of the file."""
    if config.data is not None and config.task is None:
        return read_pairs(config.data)
    if config.task is not None and config.data is None:
        return generated_pairs(config.task, seed=config.seed)
    raise InputError("nothing to learn, or too much: choose either --task (dates, say) or --pairs FILE")


def learn_vocabulary(pairs: dict[str, list[Pair]], subwords: int | None) -> Vocabulary:
    """Of both sides' texts in one: all their characters, or sub-words of those to be trained on."""
    texts = {split: [text for pair in pairs[split] for text in pair] for split in pairs}
    characters = Characters.of(text for split in texts.values() for text in split)
    if subwords is None:
        return characters
    return Subwords.learn(texts["train"], subwords, alphabet=characters.alphabet)


def run(config: Config) -> None:
    check_beam(config.beam)
    preset = config.override(PRESETS[config.preset])
    pairs = load_pairs(config)
    vocabulary = learn_vocabulary(pairs, config.subwords)
    name = config.task or "pairs"
    data = {split: pair_dataset(f"{name}/{split}", pairs[split], vocabulary) for split in pairs}
    length = max(max(d["source"].shape[1], d["target"].shape[1] - 1) for d in data.values())
    model = preset.model(source_vocab=len(vocabulary), vocab=len(vocabulary), max_length=length)
    task = translation(label_smoothing=preset.label_smoothing)
    epochs = preset.epochs or max(1, round(EXAMPLES / len(data["train"])))
    preset = replace(preset, epochs=epochs)
    steps = preset.steps(data["train"])
    started = time.monotonic()
    trained = recipe.train(
        config,
        preset,
        Seq2SeqTransformer(model, rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(preset.dtype)),
        task,
        data["train"],
        data["test"],
        optimizer=replace(preset.optimizer, warmup_steps=max(1, round(preset.warmup * steps))),
        evaluate_every=math.ceil(steps / 4),
        best_metric="exact_match",
        notes={"vocabulary": vocabulary.notes},
    )
    seconds = time.monotonic() - started
    figures = {"steps": steps, "test_loss": trained.rows[-1]["eval_loss"], "test_pairs": len(pairs["test"])}
    figures["exact_match"] = score(trained.model, pairs["test"], vocabulary, config.beam)
    if config.task in ("copy", "reverse", "sort"):
        longest = [pair for pair in pairs["test"] if len(pair[0]) == LONGEST]
        figures[f"exact_match_of_{LONGEST}_digits"] = score(trained.model, longest, vocabulary, config.beam)
    figures |= {"examples_per_second": trained.examples_per_second, "seconds": seconds}
    recipe.report(f"From text to text, {name}", figures, config.json)


def score(model: Seq2SeqTransformer, pairs: list[Pair], vocabulary: Vocabulary, beam: int) -> float:
    """The share of pairs whose second text comes out exactly."""
    sources, wanted = zip(*pairs, strict=True)
    return exact_match(translate_texts(model, sources, vocabulary, beam=beam), wanted)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
