"""What happens to images on the device, and how they get there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.data import CIFAR10_PIXELS, random_crop, random_flip

pytestmark = pytest.mark.no_nnx


@pytest.fixture(scope="module")
def images() -> jax.Array:
    values = np.random.default_rng(0).integers(0, 256, (64, 8, 6, 3), dtype=np.uint8)
    return jnp.asarray(values)


def test_normalise_is_the_formula(images: jax.Array):
    expected = (np.asarray(images, np.float64) / 255 - CIFAR10_PIXELS.mean) / CIFAR10_PIXELS.std
    result = jax.jit(CIFAR10_PIXELS.normalise)(images)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_each_image_is_mirrored_or_not(images: jax.Array):
    flipped = np.asarray(random_flip(jax.random.key(0), images))
    same = (flipped == np.asarray(images)).all((1, 2, 3))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < mirrored.sum() < 48
    other = np.asarray(random_flip(jax.random.key(1), images))
    assert (flipped != other).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), padding=st.integers(0, 3))
def test_each_image_is_a_window_of_its_padded_self(seed: int, padding: int):
    values = np.random.default_rng(seed).integers(1, 256, (16, 5, 4, 2), dtype=np.uint8)
    cropped = np.asarray(random_crop(jax.random.key(seed), jnp.asarray(values), padding))
    assert cropped.dtype == np.uint8
    padded = np.pad(values, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for image, crop in zip(padded, cropped, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape).reshape(-1, *crop.shape)
        assert (windows == crop).all((1, 2, 3)).sum() == 1


def test_every_shift_occurs_equally_often():
    markers = np.zeros((5000, 3, 3, 1), np.uint8)
    markers[:, 1, 1] = 1
    cropped = np.asarray(random_crop(jax.random.key(0), jnp.asarray(markers), 1))
    counts = cropped.sum((0, 3), dtype=int)
    assert counts.sum() == 5000
    assert np.abs(counts - 5000 / 9).max() < 5 * np.sqrt(5000 / 9)
