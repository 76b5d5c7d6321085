"""Tasks: where inputs are found, what is done to them, and when."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaxformer_edu.data import ArrayDataset, Pixels, cutmix, load_digits
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import captioning, classification, cross_entropy
from train import vit

LABELS = np.arange(4, dtype=np.int32)


class Remembers:
    """Its logits are the inputs, which it keeps."""

    def __call__(self, inputs, *, rngs=None):
        self.inputs, self.training = inputs, rngs is not None
        return inputs


def losses(task, batch):
    """In training and evaluation: the model as it was left, and the loss."""
    trained, evaluated = Remembers(), Remembers()
    yield trained, task.loss_fn(trained, batch, nnx.Rngs(0))[0]
    yield evaluated, task.evaluate_fn(evaluated, batch)


def test_inputs_are_found_by_name_and_prepared():
    numbers = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    task = classification("numbers", prepare=lambda x: 2 * x)
    batch = {"numbers": jnp.asarray(numbers), "labels": jnp.asarray(LABELS)}
    (trained, loss), (evaluated, values) = losses(task, batch)
    np.testing.assert_array_equal(trained.inputs, 2 * numbers)
    np.testing.assert_array_equal(evaluated.inputs, 2 * numbers)
    assert (trained.training, evaluated.training) == (True, False)
    np.testing.assert_allclose(loss, values["loss"].mean(), rtol=1e-6)
    assert values["accuracy"].shape == (4,)


def test_augmentation_is_for_training_and_before_the_preparation():
    task = classification("numbers", prepare=lambda x: 2 * x, augment=lambda key, x: x + 1)
    batch = {"numbers": jnp.zeros((4, 4)), "labels": jnp.asarray(LABELS)}
    (trained, _), (evaluated, _) = losses(task, batch)
    assert (np.asarray(trained.inputs) == 2).all()
    assert (np.asarray(evaluated.inputs) == 0).all()


def test_both_labels_of_a_mixed_image_count():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 1)), jnp.float32)
    labels = jnp.asarray(LABELS)

    def first_pixels(images):
        return images[:, 0, :4, 0]

    task = classification(prepare=first_pixels, mixed=True, label_smoothing=0.1)
    mixed, share = cutmix(nnx.Rngs(0).mix(), images)
    logits = first_pixels(mixed)
    own, others = (cross_entropy(logits, x, label_smoothing=0.1) for x in (labels, jnp.roll(labels, 1)))
    (_, loss), (evaluated, _) = losses(task, {"images": images, "labels": labels})
    assert 0 < share.min() < 1
    np.testing.assert_allclose(loss, (share * own + (1 - share) * others).mean(), rtol=1e-6)
    np.testing.assert_array_equal(evaluated.inputs, first_pixels(images))


def test_captions_of_prepared_pictures():
    seen = []

    def model(pictures, words, *, rngs=None):
        seen.append(pictures)
        return jnp.zeros((*words.shape, 5))

    batch = {"images": jnp.full((2, 3, 3, 1), 255, jnp.uint8), "captions": jnp.array([[1, 3, 2], [1, 4, 2]])}
    task = captioning("images", prepare=Pixels(mean=(0.5,), std=(0.25,)).normalise)
    task.loss_fn(model, batch, nnx.Rngs(0))
    task.evaluate_fn(model, batch)
    assert len(seen) == 2
    assert all((np.asarray(pictures) == 2).all() for pictures in seen)


@pytest.mark.parametrize("preset", ["digits", "tuned", "compact"])
def test_the_loss_on_the_page_of_train_vit_is_that_of_classification(preset):
    digits, settings, source = load_digits()["train"], vit.PRESETS[preset], vit.SOURCES["cifar10"]
    model = VisionTransformer(replace(ViTConfig.digits(), width=16, hidden=16, layers=1), rngs=nnx.Rngs(0))
    batch = jax.tree.map(jnp.asarray, digits.take(np.arange(8)))
    library = classification(
        prepare=digits.pixels.normalise,
        augment=source.augment if settings.augment else None,
        mixed=settings.mixed,
        label_smoothing=settings.label_smoothing,
    )
    page = vit.task_of(settings, source, digits.pixels)
    pairs = [[task.loss_fn(model, batch, nnx.Rngs(3)), task.evaluate_fn(model, batch)] for task in (page, library)]
    jax.tree.map(np.testing.assert_array_equal, *pairs)


def test_a_data_set_says_how_its_pixels_are_normalised():
    """By its training split's mean and standard deviation, to the printed digits; 0 to 1 where nothing is said."""
    digits = load_digits()["train"]
    images = digits.pixels.normalise(digits["images"])
    np.testing.assert_allclose((images.mean(), images.std()), (0, 1), atol=2e-3)
    plain = ArrayDataset(name="own", arrays={"images": np.full((1, 2, 2, 3), 255, np.uint8)})
    np.testing.assert_array_equal(plain.pixels.normalise(plain["images"]), np.ones((1, 2, 2, 3)))
