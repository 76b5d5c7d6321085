"""Losses and accuracies, in float32 at least and never narrower than the logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "*batch class"], labels: Int[Array, "*batch"], *, label_smoothing: float = 0.0
) -> Float[Array, "*batch"]:
    """-log softmax(logits)[label], as torch.nn.functional.cross_entropy(reduction="none").

    `label_smoothing` takes that share of the target from the label and spreads it evenly over all classes
    (Szegedy et al. 2016, section 7). A label outside the classes gives NaN.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    chosen = jnp.take_along_axis(log_probs, labels[..., None], axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]
    if label_smoothing == 0:
        return -chosen
    return -(1 - label_smoothing) * chosen - label_smoothing * log_probs.mean(axis=-1)


def captioning_loss(
    logits: Float[Array, "batch length vocab"], words: Int[Array, "batch length"], *, padding_id: int = 0
) -> Float[Array, ""]:
    """CS231n's captioning loss: the mean over all batch * length positions, where padding counts as zero."""
    return jnp.where(words == padding_id, 0, cross_entropy(logits, words)).mean()


def translation_loss(
    logits: Float[Array, "batch length vocab"],
    tokens: Int[Array, "batch length"],
    *,
    label_smoothing: float = 0.0,
    padding_id: int = 0,
) -> Float[Array, ""]:
    """The mean cross-entropy of the real tokens, as torch.nn.functional.cross_entropy(ignore_index=padding_id)."""
    real = tokens != padding_id
    losses = cross_entropy(logits, tokens, label_smoothing=label_smoothing)
    return jnp.where(real, losses, 0).sum() / jnp.maximum(real.sum(), 1)


def accuracy(logits: Float[Array, "*batch class"], labels: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """1 where the largest logit is the label's, 0 elsewhere."""
    return (logits.argmax(axis=-1) == labels).astype(jnp.float32)


def word_accuracy(
    logits: Float[Array, "batch length vocab"], words: Int[Array, "batch length"], *, padding_id: int = 0
) -> Float[Array, ""]:
    """The share of words, padding left aside, that have the largest logit."""
    real = words != padding_id
    return jnp.where(real, accuracy(logits, words), 0).sum() / jnp.maximum(real.sum(), 1)
