"""The courses' two overfitting tasks, trained in PyTorch and here, dropout on: how far apart are the losses?

    python -m benchmarks.training_side_by_side --out curves.png
    python -m benchmarks.training_side_by_side --captions coco_captioning --images cifar-10-batches-py

Captioning: 50 captions in batches of 25, the course's captioner, Adam (1e-3). ViT: 64 images, the course's Vision
Transformer, Adam (1e-3, L2 1e-3). Both sides have the same initial weights, which are drawn from the seed, batches and
dropout masks. Without folders the captions, features and images are random numbers, of the sizes in the course's files.
Exit status 1 where a loss differs by more than 1e-10 (float64) or 1e-3 (float32) of its value.

Training can be chaotic, and then every rounding grows. On captions as simple as those that `flaxformer-edu data fetch
pictures` draws, PyTorch's own float32 leaves its float64 by a quarter in 100 steps, once the loss is below 0.1.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import torch
import torch.nn.functional as F
import tyro
from flax import nnx

from benchmarks.counts import checked
from flaxformer_edu import compare, plots
from flaxformer_edu.data import CIFAR10_PIXELS, Batches, caption_dataset, load_cifar10, load_coco
from flaxformer_edu.files import write_json
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from flaxformer_edu.reference import TorchGenerator, torch_weights
from flaxformer_edu.training import captioning_loss, cross_entropy
from tests.twins import torch_twins

Batch = dict[str, Any]
VOCAB, FEATURES, LENGTH = 1004, 512, 17  # of the course's captions


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to train, and how often."""

    seeds: int = 5
    steps: int = 100
    dtypes: tuple[str, ...] = ("float64", "float32")
    captions: Path | None = None  # a folder in the layout of coco_captioning
    images: Path | None = None  # cifar-10-batches-py
    out: Path | None = None  # for the curves of the seed that differs most
    json: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Both sides of a training: `ours` makes a model of a type of parameters."""

    ours: Callable[[str], nnx.Module]
    theirs: torch.nn.Module
    batches: Callable[[int], Batch]
    loss: Callable[..., Any]
    torch_loss: Callable[..., torch.Tensor]
    optimizer: optax.GradientTransformation
    weight_decay: float = 0.0

    def run(self, dtype: str, seed: int, steps: int) -> compare.TrainingReport:
        """Train both."""
        with jax.enable_x64(dtype == "float64"):
            return compare.training(
                self.ours(dtype),
                self.theirs.to(getattr(torch, dtype)),
                self.batches,
                loss=self.loss,
                optimizer=self.optimizer,
                torch_loss=self.torch_loss,
                torch_optimizer=lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=self.weight_decay),
                steps=steps,
                seed=seed,
                layout="cs231n",
            )


def captioning(folder: Path | None, seed: int) -> Task:
    """The course's captioner memorises 50 captions."""
    data = random_captions(seed) if folder is None else load_coco(folder, max_train=50, seed=seed)
    words, (_, features), (_, length) = data["word_to_idx"], data["train_features"].shape, data["train_captions"].shape
    config = CaptioningConfig.cs231n(vocab=len(words), features=features, max_length=length)
    c = config
    twin = torch_twins.CaptioningTransformer(words, features, c.width, c.heads, c.layers, length)
    weights = torch_weights.captioning_transformer(
        TorchGenerator(seed), vocab=c.vocab, features=features, width=c.width, layers=c.layers
    )

    def loss(model: Any, batch: Batch, rngs: Any) -> tuple[jax.Array, Batch]:
        captions = batch["captions"]
        return captioning_loss(model(batch["features"], captions[:, :-1], rngs=rngs), captions[:, 1:]), {}

    def torch_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        captions = batch["captions"]
        logits, targets = model(batch["features"], captions[:, :-1]).flatten(0, 1), captions[:, 1:].flatten()
        return (F.cross_entropy(logits, targets, reduction="none") * (targets != 0)).mean()

    return Task(
        ours=lambda dtype: CaptioningTransformer(config, rngs=nnx.Rngs(0), param_dtype=np.dtype(dtype)),
        theirs=with_weights(twin, weights),
        batches=Batches(caption_dataset(data, "train"), 25, seed),
        loss=loss,
        torch_loss=torch_loss,
        optimizer=optax.adam(1e-3),
    )


def vit(folder: Path | None, seed: int) -> Task:
    """The course's Vision Transformer memorises 64 images."""
    images, labels = random_images(seed) if folder is None else cifar10_images(folder, seed)
    batch = {"images": (images / 255 - CIFAR10_PIXELS.mean) / CIFAR10_PIXELS.std, "labels": labels}

    def loss(model: Any, batch: Batch, rngs: Any) -> tuple[jax.Array, Batch]:
        return cross_entropy(model(batch["images"], rngs=rngs), batch["labels"]).mean(), {}

    def torch_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(model(batch["images"]), batch["labels"])

    return Task(
        ours=lambda dtype: VisionTransformer(ViTConfig.cs231n(), rngs=nnx.Rngs(0), param_dtype=np.dtype(dtype)),
        theirs=with_weights(torch_twins.VisionTransformer(), torch_weights.vision_transformer(TorchGenerator(seed))),
        batches=lambda step: batch,
        loss=loss,
        torch_loss=torch_loss,
        optimizer=optax.chain(optax.add_decayed_weights(1e-3), optax.adam(1e-3)),
        weight_decay=1e-3,
    )


def random_captions(seed: int) -> dict[str, Any]:
    """What `load_coco` gives of 50 captions: 5 to 15 random words between the start and the end, and padding."""
    random = np.random.default_rng(seed)
    captions, lengths = random.integers(4, VOCAB, (50, LENGTH)), random.integers(5, LENGTH - 1, 50)
    positions = np.arange(LENGTH)
    captions[:, 0] = 1
    captions[positions == lengths[:, None] + 1] = 2
    captions[positions > lengths[:, None] + 1] = 0
    return {
        "train_captions": captions,
        "train_image_idxs": np.arange(50),
        "train_features": random.normal(size=(50, FEATURES)),
        "word_to_idx": {"<NULL>": 0, "<START>": 1, "<END>": 2} | {str(word): word for word in range(3, VOCAB)},
    }


def random_images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """64 images of the size of CIFAR-10's, and labels."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (64, 32, 32, 3)), random.integers(0, 10, 64)


def cifar10_images(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """64 images of the training set."""
    train = load_cifar10(folder)["train"]
    chosen = train.take(np.random.default_rng(seed).permutation(len(train))[:64])
    return chosen["images"], chosen["labels"]


def with_weights(twin: torch.nn.Module, weights: dict[str, np.ndarray]) -> torch.nn.Module:
    """The twin, starting from these."""
    twin.load_state_dict({name: torch.tensor(x) for name, x in weights.items()})
    return twin


def runs(settings: Settings) -> Iterator[tuple[str, int, compare.TrainingReport]]:
    """Each task in each type, from each seed."""
    for seed in range(settings.seeds):
        for name, task in {
            "captioning": captioning(settings.captions, seed),
            "ViT": vit(settings.images, seed),
        }.items():
            for dtype in settings.dtypes:
                yield f"{name}, {dtype}", seed, task.run(dtype, seed, settings.steps)


def main(settings: Settings) -> int:
    """Print a line per run and the worst of each kind; 1 where any run differs, else 0."""
    worst: dict[str, compare.TrainingReport] = {}
    figures: dict[str, dict[str, Any]] = {}
    for name, seed, report in runs(settings):
        print(f"{name}, seed {seed}: {report.summary}", flush=True)
        if name not in worst or report.largest > worst[name].largest:
            worst[name] = report
            figures[name] = {"largest": report.largest, "seed": seed, "last_loss": report.theirs[-1]}
    print(json.dumps(figures))
    if settings.json is not None:
        write_json(settings.json, figures)
    if settings.out is not None:
        plots.save_figure(plots.side_by_side(worst), settings.out)
    return 0 if all(report.agrees for report in worst.values()) else 1


if __name__ == "__main__":
    sys.exit(main(checked(tyro.cli(Settings, prog="python -m benchmarks.training_side_by_side", description=__doc__))))
