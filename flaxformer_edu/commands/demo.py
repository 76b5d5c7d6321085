"""`flaxformer-edu demo`: what the package does, in two minutes; each figure is held against its bar."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from flaxformer_edu import plots
from flaxformer_edu.commands import verify
from flaxformer_edu.data import (
    ArrayDataset,
    Batches,
    CaptionDataset,
    PictureReader,
    caption_dataset,
    decode_captions,
    evaluation_batches,
    load_coco,
    load_digits,
    picture_set,
)
from flaxformer_edu.decode import write_captions
from flaxformer_edu.files import make_folder
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.training import LoopConfig, Optimizer, TrainResult, captioning, classification, fit, use_devices


@dataclass(frozen=True)
class Result:
    """A figure that was measured, the bar it must meet, and whether it does."""

    what: str
    figure: str
    bar: str
    ok: bool


def run(out: Path) -> int:
    """Run all parts and print the summary; 1 if a bar is missed, else 0."""
    use_devices(2)
    make_folder(out)
    console = Console()
    results: list[Result] = []
    for title, part in PARTS.items():
        console.rule(title)
        results += part(out, console)
    console.rule("Summary")
    console.print(summary(results))
    console.print(f"pictures in {out}: " + ", ".join(sorted(path.name for path in out.glob("*.png"))), markup=False)
    return 0 if all(result.ok for result in results) else 1


def verify_tensors(out: Path, console: Console) -> list[Result]:
    """The published tensors."""
    del out
    rows = verify.collect()
    console.print(verify.table(rows))
    passed = sum(row.ok for row in rows)
    return [Result("published tensors reproduced", f"{passed} of {len(rows)}", "18 of 18", passed == len(rows) == 18)]


def overfit_captions(out: Path, console: Console) -> list[Result]:
    """The course's overfitting task: 50 captions, 100 epochs; then captions for pictures seen and unseen."""
    with console.status("drawing the pictures"):
        folder = picture_set()
        data = load_coco(folder, max_train=50)
    train = caption_dataset(data, "train")
    config = CaptioningConfig.cs231n(vocab=len(data["idx_to_word"]), features=data["train_features"].shape[1])
    batches = Batches(train, batch_size=25, seed=0)
    trained = fit(
        CaptioningTransformer(config, rngs=nnx.Rngs(0)),
        captioning().loss_fn,
        Optimizer(name="adam", learning_rate=1e-3, schedule="cosine"),
        batches,
        LoopConfig(steps=100 * batches.steps_per_epoch),
        console=console,
    )
    plots.save_figure(plots.training_curves({"": trained.rows}), out / "captioning_curves.png")

    words, features = data["idx_to_word"], data["train_features"]
    texts = write_captions(trained.model, features[train.image_idxs], words)
    with PictureReader(folder) as reader:
        seen = [reader.read(data["train_urls"][index]) for index in train.image_idxs[:3]]
        unseen = [reader.read(url) for url in data["val_urls"][:3]]
    guesses = write_captions(trained.model, data["val_features"][:3], words)
    titles = [f"seen: {text}" for text in texts[:3]] + [f"unseen: {text}" for text in guesses]
    plots.save_figure(plots.captioned_pictures([*seen, *unseen], titles), out / "captions.png")

    exact = sum(ours == theirs for ours, theirs in zip(texts, references(data, train), strict=True))
    loss = trained.rows[-1]["loss"]
    return [
        Result("captioning loss after 100 epochs on 50 captions", f"{loss:.4f}", "below 0.05", loss < 0.05),
        Result("of these, captioned word for word", f"{exact} of 50", "at least 48", exact >= 48),
    ]


def references(data: dict[str, Any], dataset: CaptionDataset) -> list[str]:
    """The captions themselves, without the words that mark start and end."""
    texts = decode_captions(dataset.captions, data["idx_to_word"])
    return [text.removeprefix("<START> ").removesuffix(" <END>") for text in texts]


def overfit_digits(out: Path, console: Console) -> list[Result]:
    """A ViT overfits 64 digits."""
    del out
    digits = load_digits()["train"]
    batch = replace(digits, name="64 digits", arrays=digits.take(np.arange(64)))
    trained = train_digits(batch, batch, console, batch_size=64, epochs=60)
    accuracy = trained.rows[-1]["eval_accuracy"]
    return [Result("ViT's accuracy on one batch it overfits", f"{accuracy:.2f}", "1.00", accuracy == 1)]


def learn_digits(out: Path, console: Console) -> list[Result]:
    """A ViT on 1,438 handwritten digits, tested on the 359 others; and where it looks."""
    digits = load_digits()
    trained = train_digits(digits["train"], digits["test"], console, batch_size=32, epochs=30)
    plots.save_figure(plots.training_curves({"": trained.rows}), out / "digits_curves.png")

    images = digits["test"]["images"][:4]
    normalised = digits["test"].pixels.normalise(images)
    predicted = trained.model(normalised).argmax(-1)
    titles = [f"a {digit}?" for digit in predicted]
    attended = plots.attention_received(images, trained.model.attention_maps(normalised), titles)
    plots.save_figure(attended, out / "attention.png")
    accuracy = trained.rows[-1]["eval_accuracy"]
    return [Result("ViT's accuracy on held-out digits", f"{accuracy:.4f}", "at least 0.97", accuracy >= 0.97)]


def train_digits(
    train: ArrayDataset, test: ArrayDataset, console: Console, *, batch_size: int, epochs: int
) -> TrainResult:
    """The digits preset, AdamW with warm-up and cosine, evaluated five times on the way."""
    task = classification(prepare=train.pixels.normalise, label_smoothing=0.1)
    batches = Batches(train, batch_size, seed=0)
    steps = epochs * batches.steps_per_epoch
    return fit(
        VisionTransformer(ViTConfig.digits(), rngs=nnx.Rngs(0)),
        task.loss_fn,
        Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.1, schedule="cosine", warmup_steps=steps // 20),
        batches,
        LoopConfig(steps=steps, evaluate_every=-(-steps // 5), steps_per_call=10, ema_decay=0.98),
        evaluate_fn=task.evaluate_fn,
        validation=lambda: evaluation_batches(test, 360),
        console=console,
    )


def summary(results: list[Result]) -> Table:
    """Each figure against its bar."""
    table = Table("", "measured", "bar", "verdict")
    for result in results:
        verdict = "[green]met[/green]" if result.ok else "[red]MISSED[/red]"
        table.add_row(result.what, result.figure, result.bar, verdict)
    return table


PARTS: dict[str, Callable[[Path, Console], list[Result]]] = {
    "18 tensors that the course prints": verify_tensors,
    "A captioner overfits 50 captions": overfit_captions,
    "A Vision Transformer overfits one batch": overfit_digits,
    "A Vision Transformer learns handwritten digits": learn_digits,
}
