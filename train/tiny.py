"""All of training on one page: a Vision Transformer learns to read handwritten digits, in plain JAX, Flax and optax.

For example:
$ python -m train.tiny

Nothing of what trains the model is hidden here: data, model, loss, gradient, update, evaluation. What the recipes call,
`flaxformer_edu.training.fit`, computes the same numbers bit for bit (tests/train/test_train_tiny.py compares them), and
adds what a long training needs: checkpoints, resuming, several devices, a moving average of the parameters.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from jaxtyping import Array, Float, Int

from flaxformer_edu.data import Batches, evaluation_batches, load_digits
from flaxformer_edu.models import VisionTransformer, ViTConfig

SEED = 0
EPOCHS = 15
BATCH_SIZE = 32


def cross_entropy(logits: Float[Array, "batch class"], labels: Int[Array, "batch"]) -> Float[Array, ""]:
    """The mean of -log(probability of the label), the probabilities being softmax(logits)."""
    log_probabilities = jax.nn.log_softmax(logits)
    of_labels = jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
    return -of_labels.mean()


def train(steps: int | None = None) -> tuple[VisionTransformer, list[float]]:
    """The trained model, and the loss of each step."""
    # 1,438 images of 8 x 8 pixels, in a new order every epoch: batches(step) is {"images": uint8, "labels": int32}.
    digits = load_digits()["train"]
    batches = Batches(digits, BATCH_SIZE, seed=SEED)
    steps = steps or EPOCHS * batches.steps_per_epoch

    # A model is its structure, which never changes, and its arrays, which training replaces.
    model = VisionTransformer(ViTConfig.digits(), rngs=nnx.Rngs(SEED))
    structure, params = nnx.split(model)

    # AdamW; the learning rate falls along half a cosine. `memory` holds two running means per parameter.
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, steps), weight_decay=0.1)
    memory = optimizer.init(params)

    def loss_fn(params: Any, batch: dict[str, Array], key: Array) -> Float[Array, ""]:
        model = nnx.merge(structure, params)
        logits = model(digits.pixels.normalise(batch["images"]), rngs=nnx.Rngs(key))  # with rngs: dropout is on
        return cross_entropy(logits, batch["labels"])

    @jax.jit
    def step(params: Any, memory: Any, batch: dict[str, Array], key: Array) -> tuple[Any, Any, Float[Array, ""]]:
        loss, gradient = jax.value_and_grad(loss_fn)(params, batch, key)
        updates, memory = optimizer.update(gradient, memory, params)
        return optax.apply_updates(params, updates), memory, loss

    losses = []
    for i in range(steps):
        key = jax.random.fold_in(jax.random.key(SEED), i)  # different dropout masks in each step, the same in each run
        params, memory, loss = step(params, memory, batches(i), key)
        losses.append(loss)  # JAX goes on without waiting for the number
    return nnx.merge(structure, params), [float(loss) for loss in losses]


def evaluate(model: VisionTransformer) -> float:
    """The share of the 359 held-out digits that the model recognises."""
    digits = load_digits()["test"]
    structure, params = nnx.split(model)

    @jax.jit
    def predict(params: Any, images: Array) -> Int[Array, "batch"]:
        model = nnx.merge(structure, params)
        return model(digits.pixels.normalise(images)).argmax(axis=-1)  # without rngs: dropout is off

    right = [
        (np.asarray(predict(params, batch["images"])) == batch["labels"])[batch["mask"]]  # the last batch is filled up
        for batch in evaluation_batches(digits, batch_size=128)
    ]
    return float(np.concatenate(right).mean())


def main() -> None:
    started = time.monotonic()
    model, losses = train()
    for epoch, part in enumerate(np.array_split(losses, EPOCHS), start=1):
        print(f"epoch {epoch:2}  loss {part.mean():.4f}")
    print(f"accuracy on held-out digits: {evaluate(model):.4f}  ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
