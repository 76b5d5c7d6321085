"""The models of CS188's project against their PyTorch twins, in float64 to 1e-12."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_close, assert_parity

from flaxformer_edu.convert.layouts import cs188
from flaxformer_edu.layers import convolve
from flaxformer_edu.models import (
    MLP,
    CausalAttention,
    CausalAttentionConfig,
    CharRNN,
    CharRNNConfig,
    ConvDigit,
    ConvDigitConfig,
    MLPConfig,
    fit_linear,
    fit_perceptron,
)
from tests.twins import course_twins

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
SMALL = {"alphabet": "abcdefg", "languages": ("x", "y", "z")}
ONE_LENGTH = np.random.default_rng(0).integers(0, 7, (5, 6))
MIXED = np.where(np.arange(6) < np.array([6, 1, 3, 2, 5])[:, None], ONE_LENGTH, -1)


def parity(model_type, config, twin, inputs, dtype, train=False):
    torch_dtype = torch.float64 if dtype == np.float64 else torch.float32
    with jax.enable_x64(dtype == np.float64):
        model = model_type(config, rngs=nnx.Rngs(0), param_dtype=dtype)
        assert_parity(model, twin.to(torch_dtype), [inputs], train=train, layout=cs188.LAYOUTS[model_type])


@DTYPES
class TestParity:
    def test_regression(self, dtype):
        x = np.random.default_rng(0).normal(size=(6, 1)).astype(dtype)
        torch.manual_seed(0)
        parity(MLP, MLPConfig.sine(), course_twins.MLP((1, 256, 256, 128, 1)), x, dtype)

    def test_digits(self, dtype):
        x = np.random.default_rng(0).random((4, 784)).astype(dtype)
        torch.manual_seed(0)
        parity(MLP, MLPConfig.digits(), course_twins.MLP((784, 256, 128, 10)), x, dtype)

    def test_convolutional_digits(self, dtype):
        x = np.random.default_rng(0).random((4, 784)).astype(dtype)
        torch.manual_seed(0)
        twin = course_twins.DigitConvolutionalModel()
        torch.nn.init.normal_(twin.convolution_weights)
        parity(ConvDigit, ConvDigitConfig(), twin, x, dtype)

    def test_causal_attention(self, dtype):
        x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(dtype)
        torch.manual_seed(0)
        parity(CausalAttention, CausalAttentionConfig(width=8), course_twins.Attention(8, block_size=7), x, dtype)

    @pytest.mark.parametrize("letters", [ONE_LENGTH, MIXED], ids=["one length", "mixed"])
    def test_project_reader(self, letters, dtype):
        torch.manual_seed(0)
        twin = course_twins.LanguageIDModel(7, 3, hidden_size=16)
        parity(CharRNN, CharRNNConfig.project(**SMALL, width=16), twin, letters, dtype)

    @pytest.mark.parametrize(("letters", "train"), [(ONE_LENGTH, False), (MIXED, False), (ONE_LENGTH, True)])
    def test_gated_reader(self, letters, train, dtype):
        torch.manual_seed(0)
        config = CharRNNConfig.gated(**SMALL, width=16)
        twin = course_twins.GatedLanguageIDModel(7, 3, config.window, 16, config.dropout)
        parity(CharRNN, config, twin, letters, dtype, train=train)


def test_convolve_has_the_gradients_of_conv2d():
    random = np.random.default_rng(0)
    image, kernel, weighting = random.normal(size=(7, 9)), random.normal(size=(3, 2)), random.normal(size=(5, 8))
    tensors = [torch.tensor(array, requires_grad=True) for array in (image, kernel)]
    expected = torch.nn.functional.conv2d(tensors[0][None], tensors[1][None, None])[0]
    (expected * torch.tensor(weighting)).sum().backward()
    with jax.enable_x64(True):
        output, pull_back = jax.vjp(convolve, jnp.array(image), jnp.array(kernel))
        gradients = pull_back(jnp.array(weighting))
    assert_close("the output", output, expected.detach().numpy(), 1e-12)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert_close("a gradient", gradient, tensor.grad.numpy(), 1e-12)


@pytest.mark.parametrize("separable", [True, False])
def test_perceptron_makes_the_same_updates(separable, float64):
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4))
    y = np.where(x @ [1.0, -2.0, 0.5, 0.3] >= 0, 1, -1)
    y[0] *= 1 if separable else -1
    twin = course_twins.Perceptron(4).double()
    passes, converged = twin.fit(torch.tensor(x), torch.tensor(y), max_passes=50)
    fit = fit_perceptron(jnp.ones((1, 4)), jnp.array(x), jnp.array(y), 50)
    assert (int(fit.passes), bool(fit.converged)) == (passes, converged)
    assert converged == separable
    assert_close("the weights", fit.weights, twin.w.detach().numpy(), 1e-12)


def test_linear_regression_takes_the_same_steps(float64):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)), random.normal(size=20)
    slopes, intercept = course_twins.fit_linear(torch.tensor(x), torch.tensor(y), 0.1, 30)
    fit = fit_linear(jnp.array(x), jnp.array(y), learning_rate=0.1, steps=30)
    assert_close("the slopes", fit.slopes, slopes.numpy(), 1e-12)
    assert_close("the intercept", fit.intercept, intercept.numpy(), 1e-12)
