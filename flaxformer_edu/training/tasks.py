"""What a model is trained for: the loss of a batch, and what is measured of each example."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from flaxformer_edu.data.augment import cutmix
from flaxformer_edu.training.evaluation import EvaluateFn
from flaxformer_edu.training.losses import accuracy, captioning_loss, cross_entropy, translation_loss, word_accuracy
from flaxformer_edu.training.step import Batch, LossFn, Metrics

Augment = Callable[[Key[Array, ""], Any], Any]  # a random change of a batch's inputs
Prepare = Callable[[Any], Any]  # what is done to a batch's inputs before the model sees them


def unchanged(inputs: Any) -> Any:
    """The inputs themselves."""
    return inputs


@dataclass(frozen=True)
class Task:
    """The functions that `fit` wants: `loss_fn` with dropout, `evaluate_fn` without."""

    loss_fn: LossFn
    evaluate_fn: EvaluateFn


def classification(
    inputs: str = "images",
    *,
    prepare: Prepare = unchanged,
    augment: Augment | None = None,
    mixed: bool = False,
    label_smoothing: float = 0.0,
) -> Task:
    """Batches of `labels` and of what is classified, by default `images`.

    In training the inputs are augmented, then with `mixed` cut from two images each (CutMix: both labels count, by
    their share of the image); in training and evaluation they are prepared: `Pixels.normalise`, say. All of it on the
    device, in the compiled step.
    """

    def loss_fn(model: Any, batch: Batch, rngs: nnx.Rngs) -> tuple[Array, Metrics]:
        x, labels = batch[inputs], batch["labels"]
        x = x if augment is None else augment(rngs.augment(), x)
        x, share = cutmix(rngs.mix(), x) if mixed else (x, None)
        logits = model(prepare(x), rngs=rngs)
        loss = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        if share is not None:
            others = cross_entropy(logits, jnp.roll(labels, 1), label_smoothing=label_smoothing)
            loss = share * loss + (1 - share) * others
        return loss.mean(), {"accuracy": accuracy(logits, labels).mean()}

    def evaluate_fn(model: Any, batch: Batch) -> Metrics:
        logits = model(prepare(batch[inputs]))
        return {"loss": cross_entropy(logits, batch["labels"]), "accuracy": accuracy(logits, batch["labels"])}

    return Task(loss_fn, evaluate_fn)


def captioning(inputs: str = "features", *, prepare: Prepare = unchanged, padding_id: int = 0) -> Task:
    """Batches of `captions` and of what is captioned, by default `features`: each word is predicted from those before.

    The loss is the course's; in evaluation it is the same, one value per caption.
    """

    def predict(model: Any, batch: Batch, **rngs: nnx.Rngs) -> tuple[Array, Array]:
        captions = batch["captions"]
        return model(prepare(batch[inputs]), captions[:, :-1], **rngs), captions[:, 1:]

    def loss_fn(model: Any, batch: Batch, rngs: nnx.Rngs) -> tuple[Array, Metrics]:
        logits, words = predict(model, batch, rngs=rngs)
        metrics = {"word_accuracy": word_accuracy(logits, words, padding_id=padding_id)}
        return captioning_loss(logits, words, padding_id=padding_id), metrics

    def evaluate_fn(model: Any, batch: Batch) -> Metrics:
        logits, words = predict(model, batch)
        losses = cross_entropy(logits, words) * (words != padding_id)
        return {"loss": losses.mean(axis=-1)}

    return Task(loss_fn, evaluate_fn)


def translation(*, label_smoothing: float = 0.0, padding_id: int = 0) -> Task:
    """Batches of `source` and `target`, which begins with the start token: each token is predicted from those before.

    In evaluation `exact_match` is 1 for a target whose every token is the likeliest one: that which greedy decoding
    writes.
    """

    def predict(model: Any, batch: Batch, **rngs: nnx.Rngs) -> tuple[Array, Array]:
        target = batch["target"]
        return model(batch["source"], target[:, :-1], **rngs), target[:, 1:]

    def loss_fn(model: Any, batch: Batch, rngs: nnx.Rngs) -> tuple[Array, Metrics]:
        logits, tokens = predict(model, batch, rngs=rngs)
        loss = translation_loss(logits, tokens, label_smoothing=label_smoothing, padding_id=padding_id)
        return loss, {"word_accuracy": word_accuracy(logits, tokens, padding_id=padding_id)}

    def evaluate_fn(model: Any, batch: Batch) -> Metrics:
        logits, tokens = predict(model, batch)
        real = tokens != padding_id
        right = (accuracy(logits, tokens) == 1) | ~real
        loss = (cross_entropy(logits, tokens) * real).sum(axis=-1) / real.sum(axis=-1)
        return {"loss": loss, "exact_match": right.all(axis=-1).astype(loss.dtype)}

    return Task(loss_fn, evaluate_fn)
