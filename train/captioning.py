"""Train a Transformer to caption pictures: from their features, as in CS231n, or end to end from their pixels.

For example:
$ python -m train.captioning --out runs/overfit
$ python -m train.captioning --data coco_captioning --out runs/course --json figures.json
$ python -m train.captioning --data coco_captioning --preset tuned --bleu --out runs/coco
$ python -m train.captioning --preset pixels --out runs/pixels
$ flaxformer-edu data captions my_pictures captions.json --out my_set
$ python -m train.captioning --data my_set --preset pixels --out runs/mine
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from flax import nnx

from flaxformer_edu.data import CaptionDataset, Pixels, caption_dataset, load_coco, picture_set, read_images
from flaxformer_edu.decode import bleu, check_beam, references, require_sacrebleu, word_for_word, write_captions
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, ViTCaptioner, ViTCaptionerConfig
from flaxformer_edu.training import Optimizer, captioning
from train import recipe

PIXELS = Pixels(mean=(0.5,), std=(0.25,))


@dataclass(frozen=True, kw_only=True)
class Preset(recipe.Preset):
    """A model, and how it is trained; `image_size` is None where the model sees features."""

    model: Callable[..., CaptioningConfig]
    max_train: int | None = None
    image_size: int | None = None
    warmup: float = 0.0
    evaluations: int = 4


def tuned(*, vocab: int, features: int, max_length: int) -> CaptioningConfig:
    """Pre-norm, with more dropout and a smaller feed-forward network than the course's."""
    config = CaptioningConfig.cs231n(vocab=vocab, features=features, heads=4, max_length=max_length)
    return replace(config, norm="pre", hidden=512, dropout=0.2)


adam = Optimizer(name="adam", learning_rate=1e-3, schedule="cosine")
adamw = Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.05, schedule="cosine", decay="weights")
PRESETS = {
    "cs231n": Preset(
        model=CaptioningConfig.cs231n, optimizer=replace(adam, final_fraction=0.3),
        epochs=100, batch_size=25, max_train=50,
    ),
    "tuned": Preset(model=tuned, optimizer=adamw, epochs=10, batch_size=64, warmup=0.05),
    "pixels": Preset(
        model=ViTCaptionerConfig.small, optimizer=adamw, epochs=15, batch_size=50, warmup=0.1, image_size=64
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(recipe.RecipeConfig):
    """The command line."""

    preset: Literal["cs231n", "tuned", "pixels"] = "cs231n"
    """cs231n: the course's overfitting task; tuned: the whole set; pixels: end to end from the pictures."""
    max_train: int | None = None
    """Train on this many captions, 0 for all. Default: the preset's."""
    bleu: bool = False
    """Score what is written of the validation pictures, greedily and by beam search, by BLEU-4 (needs sacrebleu)."""
    beam: int = 4
    """The width of that beam search."""


def scores(model: Any, dataset: CaptionDataset, words: list[str], *, beam: int | None = None) -> dict[str, Any]:
    """How many of the set's pictures get, word for word, a caption that a person wrote for them.

    With the width of a `beam`, also BLEU-4 of the captions decoded greedily and by beam search.
    """
    people = references(dataset, words)
    inputs = next(iter(dataset.tables.values()))[np.array(list(people))]
    inputs = PIXELS.normalise(inputs) if inputs.dtype == np.uint8 else inputs
    captions, theirs = write_captions(model, inputs, words), list(people.values())
    figures: dict[str, Any] = {"pictures": len(people), "word_for_word": word_for_word(captions, theirs)}
    if beam is None:
        return figures
    searched = write_captions(model, inputs, words, beam=beam)
    return {**figures, "bleu4": bleu(captions, theirs), "bleu4_beam": bleu(searched, theirs)}


def run(config: Config) -> None:
    if config.bleu:
        require_sacrebleu()  # better now than after the training
        check_beam(config.beam)
    preset = config.override(PRESETS[config.preset])
    max_train = preset.max_train if config.max_train is None else config.max_train or None
    folder = config.data or picture_set()
    size = preset.image_size
    data = load_coco(folder, max_train=max_train, seed=config.seed, features=size is None)
    words, length = data["idx_to_word"], data["train_captions"].shape[1]
    tables: dict[str, dict[str, np.ndarray]] = {"train": {}, "val": {}}
    if size is not None:
        tables = {split: {"images": read_images(folder, data[f"{split}_urls"], size)[0]} for split in tables}
    train, val = (caption_dataset(data, split, **tables[split]) for split in ("train", "val"))

    sizes = {"image_size": size} if size else {"features": data["train_features"].shape[1]}
    model = preset.model(vocab=len(words), max_length=length, **sizes)
    task = captioning("images", prepare=PIXELS.normalise) if size else captioning()
    network = ViTCaptioner if size else CaptioningTransformer
    started = time.monotonic()
    trained = recipe.train(
        config,
        preset,
        network(model, rngs=nnx.Rngs(config.seed), dtype=recipe.compute_dtype(preset.dtype)),
        task,
        train,
        val,
        notes={"idx_to_word": words, **vars(PIXELS)},
    )
    steps = preset.steps(train)
    losses = [row["loss"] for row in trained.rows if "loss" in row][-(steps // preset.epochs) :]
    figures = {"steps": steps, "loss_of_last_epoch": float(np.mean(losses)), "val_loss": trained.rows[-1]["eval_loss"]}
    if max_train is not None:
        seen = scores(trained.model, train, words)
        figures |= {f"train_{name}": value for name, value in seen.items()}
    unseen = scores(trained.model, val, words, beam=config.beam if config.bleu else None)
    figures |= {f"val_{name}": value for name, value in unseen.items()}
    figures |= {"examples_per_second": trained.examples_per_second, "seconds": time.monotonic() - started}
    recipe.report(f"Captioning, {folder.name}", figures, config.json)


if __name__ == "__main__":
    recipe.main(Config, run, __doc__ or "")
