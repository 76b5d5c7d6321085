"""Losses against PyTorch, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.training import accuracy, captioning_loss, cross_entropy, translation_loss, word_accuracy

pytestmark = pytest.mark.no_nnx


def example(*shape, classes=7):
    generator = np.random.default_rng(0)
    return 3 * generator.normal(size=(*shape, classes)), generator.integers(0, classes, shape)


def ours(loss, logits, labels, **options):
    return loss(jnp.asarray(logits), jnp.asarray(labels), **options)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_and_its_gradient(float64, smoothing):
    logits, labels = example(5)
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs, torch.tensor(labels), label_smoothing=smoothing, reduction="none"
    )
    expected.sum().backward()
    loss, gradient = jax.value_and_grad(lambda x: ours(cross_entropy, x, labels, label_smoothing=smoothing).sum())(
        logits
    )
    losses = ours(cross_entropy, logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(losses, expected.detach(), atol=1e-12)
    np.testing.assert_allclose(loss, expected.sum().item(), atol=1e-12)
    np.testing.assert_allclose(gradient, theirs.grad, atol=1e-12)


@pytest.mark.parametrize(("given", "expected"), [("bfloat16", "float32"), ("float32", "float32"), ("float64",) * 2])
def test_the_loss_is_float32_at_least(float64, given, expected):
    logits, labels = example(5)
    assert cross_entropy(jnp.asarray(logits, given), jnp.asarray(labels)).dtype == expected


def test_captioning_loss_counts_padding_as_zero(float64):
    """CS231n's transformer_temporal_softmax_loss: masked losses, then the mean over all N * T."""
    logits, words = example(3, 4)
    words[0, 2:], words[2, 1:] = 0, 0
    theirs = torch.tensor(logits, requires_grad=True)
    losses = torch.nn.functional.cross_entropy(theirs.reshape(12, 7), torch.tensor(words).reshape(12), reduction="none")
    expected = torch.mean(losses * (torch.tensor(words).reshape(12) != 0).float())
    expected.backward()
    loss, gradient = jax.value_and_grad(captioning_loss)(jnp.asarray(logits), jnp.asarray(words))
    np.testing.assert_allclose(loss, expected.item(), atol=1e-12)
    np.testing.assert_allclose(gradient, theirs.grad, atol=1e-12)


@pytest.mark.parametrize(("smoothing", "padding"), [(0.0, 0), (0.1, 0), (0.1, 3)])
def test_translation_loss_leaves_padding_out(float64, smoothing, padding):
    logits, tokens = example(3, 4)
    tokens[0, 2:], tokens[2, 1:] = padding, padding
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        theirs.reshape(12, 7), torch.tensor(tokens).reshape(12), ignore_index=padding, label_smoothing=smoothing
    )
    expected.backward()
    options = {"label_smoothing": smoothing, "padding_id": padding}
    loss, gradient = jax.value_and_grad(lambda x: ours(translation_loss, x, tokens, **options))(logits)
    np.testing.assert_allclose(loss, expected.item(), atol=1e-12)
    np.testing.assert_allclose(gradient, theirs.grad, atol=1e-12)


def test_another_padding_id(float64):
    logits, words = example(3, 4)
    moved = np.roll(logits, 2, axis=-1)
    expected = ours(captioning_loss, logits, words)
    np.testing.assert_allclose(ours(captioning_loss, moved, (words + 2) % 7, padding_id=2), expected)


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50, width=32), st.floats(0, 1, width=32))
def test_a_constant_added_to_all_logits_changes_nothing(shift, smoothing):
    logits, labels = example(5)
    logits = logits.astype(np.float32)
    one, other = (ours(cross_entropy, x, labels, label_smoothing=smoothing) for x in (logits, logits + shift))
    np.testing.assert_allclose(one, other, atol=3e-5)


def test_a_label_outside_the_classes_is_seen():
    assert np.isnan(cross_entropy(jnp.zeros((1, 3)), jnp.array([3]))).all()


def test_accuracies():
    logits = jnp.array([[[0.0, 2.0, 1.0], [0.0, 0.0, 5.0], [9.0, 0.0, 0.0]]])
    words = jnp.array([[1, 1, 0]])
    np.testing.assert_array_equal(accuracy(logits, words), [[1, 0, 1]])
    assert word_accuracy(logits, words) == 0.5
    assert word_accuracy(logits, jnp.zeros_like(words)) == 0
