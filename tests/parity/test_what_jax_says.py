"""The README's table "PyTorch says, JAX says": each line that can be computed, computed in both."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
F = torch.nn.functional


def default(function, name):
    function = function.__init__ if inspect.isclass(function) else function
    return inspect.signature(function).parameters[name].default


@pytest.mark.no_nnx
def test_defaults_are_those_of_the_table():
    assert (default(torch.nn.LayerNorm, "eps"), default(nnx.LayerNorm, "epsilon")) == (1e-5, 1e-6)
    assert (default(torch.nn.BatchNorm2d, "momentum"), default(nnx.BatchNorm, "momentum")) == (0.1, 0.99)
    assert (default(torch.nn.Conv2d, "padding"), default(nnx.Conv, "padding")) == (0, "SAME")
    assert (default(torch.optim.AdamW, "weight_decay"), default(optax.adamw, "weight_decay")) == (1e-2, 1e-4)
    assert default(torch.optim.Adam, "eps") == default(optax.adam, "eps") == 1e-8
    assert default(torch.nn.MultiheadAttention, "batch_first") is False
    layer = inspect.signature(torch.nn.TransformerEncoderLayer).parameters
    assert (layer["norm_first"].default, layer["activation"].default, layer["dropout"].default) == (False, F.relu, 0.1)


def test_initial_weights():
    theirs, ours = torch.nn.Linear(400, 300), nnx.Linear(400, 300, rngs=nnx.Rngs(0))
    assert theirs.weight.shape == (300, 400)
    assert ours.kernel.shape == (400, 300)
    assert 0.99 / 20 < theirs.weight.abs().max() <= 1 / 20
    assert 0.9 / 20 < theirs.bias.abs().max() <= 1 / 20
    np.testing.assert_allclose(np.var(ours.kernel[...]), 1 / 400, rtol=0.02)
    assert ours.bias is not None
    assert not ours.bias[...].any()
    np.testing.assert_allclose(torch.nn.Embedding(500, 400).weight.var().item(), 1, rtol=0.02)
    np.testing.assert_allclose(np.var(nnx.Embed(500, 400, rngs=nnx.Rngs(0)).embedding[...]), 1 / 400, rtol=0.02)


@pytest.mark.no_nnx
def test_gelu_variance_and_cross_entropy(float64):
    x = np.random.default_rng(0).normal(size=(6, 5))
    tensor, labels = torch.tensor(x), np.arange(6) % 5
    np.testing.assert_allclose(jax.nn.gelu(x, approximate=False), F.gelu(tensor), rtol=1e-12, atol=1e-15)
    assert np.abs(jax.nn.gelu(x) - F.gelu(tensor).numpy()).max() > 1e-5
    np.testing.assert_allclose(jnp.asarray(x).var(ddof=1), tensor.var(), rtol=1e-12)
    ours = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(x), labels).mean()
    np.testing.assert_allclose(ours, F.cross_entropy(tensor, torch.tensor(labels)), rtol=1e-12)


@pytest.mark.no_nnx
def test_masks_of_the_two_attentions_are_each_other_s_opposite(float64):
    x = torch.tensor(np.random.default_rng(1).normal(size=(1, 4, 8)))
    attend = torch.tril(torch.ones(4, 4, dtype=torch.bool))
    module = torch.nn.MultiheadAttention(8, 1, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        module.out_proj.weight.copy_(torch.eye(8))
    hidden, _ = module(x, x, x, attn_mask=~attend)
    np.testing.assert_allclose(
        hidden.detach(), F.scaled_dot_product_attention(x, x, x, attn_mask=attend), rtol=1e-12, atol=1e-15
    )


def test_batch_norm_s_momentum_is_one_minus_the_other_s():
    x = np.random.default_rng(2).normal(3.0, 1.0, size=(64, 5)).astype(np.float32)
    theirs, ours = torch.nn.BatchNorm1d(5, momentum=0.1), nnx.BatchNorm(5, momentum=0.9, rngs=nnx.Rngs(0))
    theirs(torch.tensor(x))
    ours(jnp.asarray(x))
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, rtol=1e-5)


@pytest.mark.no_nnx
def test_truncated_normals():
    weights = torch.nn.init.trunc_normal_(torch.empty(100_000), std=0.02)
    assert weights.abs().max() > 3 * 0.02
    flax = nnx.initializers.truncated_normal(0.02)(jax.random.key(0), (100_000,))
    assert 1.99 * 0.02 < np.abs(flax).max() <= 2 * 0.02


@pytest.mark.no_nnx
def test_bicubic_kernels_are_not_the_same():
    impulse = np.zeros((1, 1, 8, 1), np.float32)
    impulse[0, 0, 4] = 1
    theirs = F.interpolate(torch.tensor(impulse), size=(16, 1), mode="bicubic").numpy()[0, 0, :, 0]
    ours = np.asarray(jax.image.resize(impulse[0, 0], (16, 1), "cubic"))[:, 0]

    def cubic(x, a):
        x = abs(x)
        return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4) * (x < 2)

    distances = (np.arange(16) + 0.5) / 2 - 4.5
    np.testing.assert_allclose(theirs[4:14], [cubic(x, -0.75) for x in distances][4:14], atol=1e-6)
    np.testing.assert_allclose(ours[4:14], [cubic(x, -0.5) for x in distances][4:14], atol=1e-6)
