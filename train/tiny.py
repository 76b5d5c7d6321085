"""A Vision Transformer learns to read handwritten digits: all of it on this page, in plain JAX, Flax and optax.

For example:
$ python -m train.tiny

Data, model, loss, gradient, update, evaluation; the package only keeps XLA's known faults away. What the recipes call,
`flaxformer_edu.training.fit`, trains this model to the same numbers bit for bit, and the model is the package's
`VisionTransformer` (tests/train/test_train_tiny.py). From here on read training/step.py, models/vit.py and layers/.
"""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float
from sklearn.datasets import load_digits

SEED, EPOCHS, BATCH_SIZE = 0, 12, 32
PATCH, WIDTH, HEADS, HIDDEN, LAYERS, CLASSES, DROPOUT = 4, 128, 4, 256, 2, 10, 0.2

# 1,797 images of 8 x 8 pixels from 0 to 16, and what digits they show; a fifth of them is held out.
PIXELS, DIGITS = load_digits(return_X_y=True)
IMAGES, LABELS = PIXELS.reshape(-1, 8, 8, 1).astype(np.float32) / 8 - 1, DIGITS.astype(np.int32)
TEST, TRAIN = np.split(np.random.default_rng(SEED).permutation(len(LABELS)), [len(LABELS) // 5])
STEPS_PER_EPOCH = len(TRAIN) // BATCH_SIZE

Tokens = Float[Array, "batch length width"]


def dropout(x: Tokens, rngs: nnx.Rngs | None) -> Tokens:
    """Some features zeroed at random and the others enlarged, in training; in evaluation, without `rngs`, all kept."""
    if rngs is None:
        return x
    kept = jax.random.bernoulli(rngs.dropout(), 1 - DROPOUT, x.shape)
    return jnp.where(kept, x / (1 - DROPOUT), 0)


class Block(nnx.Module):
    """An encoder block: tokens look at each other, then each is thought over by itself."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
        self.query, self.key, self.value, self.out = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(4))
        self.up, self.down = nnx.Linear(WIDTH, HIDDEN, rngs=rngs), nnx.Linear(HIDDEN, WIDTH, rngs=rngs)

    def __call__(self, x: Tokens, rngs: nnx.Rngs | None) -> Tokens:
        """x + attention(norm(x)), and of that again x + network(norm(x))."""
        x = x + dropout(self.attend(self.norm1(x)), rngs)
        hidden = jax.nn.gelu(self.up(self.norm2(x)), approximate=False)
        return x + dropout(self.down(hidden), rngs)

    def attend(self, x: Tokens) -> Tokens:
        """softmax(Q K^T / sqrt(dim)) V in every head (Vaswani et al. 2017, equation 1)."""
        projected = (self.query(x), self.key(x), self.value(x))
        q, k, v = (rearrange(y, "batch length (head dim) -> batch length head dim", head=HEADS) for y in projected)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        heads = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        return self.out(rearrange(heads, "batch length head dim -> batch length (head dim)"))


class ViT(nnx.Module):
    """Patches become tokens, the tokens pass through the blocks, and their mean is classified."""

    def __init__(self, rngs: nnx.Rngs):
        self.patches = nnx.Linear(PATCH * PATCH, WIDTH, rngs=rngs)
        self.positions = nnx.Param(0.02 * rngs.params.normal(((8 // PATCH) ** 2, WIDTH)))
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, images: Float[Array, "batch 8 8 1"], rngs: nnx.Rngs | None = None) -> Float[Array, "batch 10"]:
        """Logits. With `rngs`, in training, features are dropped."""
        cut = "batch (row y) (column x) 1 -> batch (row column) (y x)"
        x = dropout(self.patches(rearrange(images, cut, y=PATCH, x=PATCH)) + self.positions[...], rngs)
        for block in self.blocks:
            x = block(x, rngs)
        return self.head(self.norm(x).mean(axis=1))


def batch_of(step: int) -> dict[str, np.ndarray]:
    """The images and labels of step 0, 1, 2, ...: every epoch has an order of its own."""
    epoch, place = divmod(step, STEPS_PER_EPOCH)
    order = np.random.default_rng((SEED, epoch)).permutation(TRAIN)
    chosen = order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]
    return {"images": IMAGES[chosen], "labels": LABELS[chosen]}


def loss_of(model: ViT, batch: dict[str, Array], rngs: nnx.Rngs) -> Float[Array, ""]:
    """The mean of -log(probability of the label), the probabilities being softmax(logits)."""
    log_probabilities = jax.nn.log_softmax(model(batch["images"], rngs))
    return -jnp.take_along_axis(log_probabilities, batch["labels"][:, None], axis=-1).mean()


def train(steps: int = EPOCHS * STEPS_PER_EPOCH) -> tuple[ViT, list[float]]:
    """The trained model, and the loss of each step."""
    # A model is its structure, which never changes, and its parameters, which training replaces.
    structure, params = nnx.split(ViT(nnx.Rngs(SEED)))

    # AdamW, whose learning rate falls along half a cosine; `memory` holds two running means of each gradient.
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, steps), weight_decay=0.1)
    memory = optimizer.init(params)

    @jax.jit
    def step(params: Any, memory: Any, batch: dict[str, Array], key: Array) -> tuple[Any, Any, Float[Array, ""]]:
        def loss_fn(params: Any) -> Float[Array, ""]:
            return loss_of(nnx.merge(structure, params), batch, nnx.Rngs(key))

        loss, gradient = jax.value_and_grad(loss_fn)(params)
        updates, memory = optimizer.update(gradient, memory, params)
        return optax.apply_updates(params, updates), memory, loss

    losses = []
    for i in range(steps):
        key = jax.random.fold_in(jax.random.key(SEED), i)  # what is dropped differs in each step
        params, memory, loss = step(params, memory, batch_of(i), key)
        losses.append(loss)  # JAX goes on without waiting for the number
    return nnx.merge(structure, params), [float(loss) for loss in losses]


def evaluate(model: ViT) -> float:
    """The share of the held-out digits that the model recognises."""
    structure, params = nnx.split(model)
    logits = jax.jit(lambda params, images: nnx.merge(structure, params)(images))(params, IMAGES[TEST])
    return float((logits.argmax(axis=-1) == LABELS[TEST]).mean())


def main() -> None:
    started = time.monotonic()
    model, losses = train()
    for epoch, part in enumerate(np.array_split(losses, EPOCHS), start=1):
        print(f"epoch {epoch:2}  loss {part.mean():.4f}")
    print(f"accuracy on held-out digits: {evaluate(model):.4f}  ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
