"""The small networks: what they compute, and what they say about input that cannot work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import causal_mask, convolve, dot_product_attention
from flaxformer_edu.models import (
    MLP,
    CausalAttention,
    CausalAttentionConfig,
    ConvDigit,
    ConvDigitConfig,
    MLPConfig,
    causal_attention,
    fit_linear,
    fit_perceptron,
    perceptron_predict,
)


@pytest.mark.no_nnx
class TestPerceptron:
    def test_a_score_of_zero_counts_as_plus_one(self):
        x = jnp.array([[1.0, 1.0], [2.0, -1.0], [-1.0, -1.0], [0.0, 0.0]])
        assert perceptron_predict(jnp.array([[1.0, -1.0]]), x).tolist() == [1, 1, 1, 1]
        assert perceptron_predict(jnp.array([[1.0, 1.0]]), x).tolist() == [1, 1, -1, 1]

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 2**32 - 1))
    def test_separates_what_a_plane_separates(self, seed):
        random = np.random.default_rng(seed)
        plane = random.normal(size=4)
        x = random.normal(size=(30, 4))
        x += 0.1 * np.sign(x @ plane)[:, None] * plane / np.linalg.norm(plane)  # nothing closer to it than 0.1
        y = np.where(x @ plane >= 0, 1, -1)
        fit = fit_perceptron(jnp.ones((1, 4)), jnp.array(x, jnp.float32), jnp.array(y))
        assert fit.converged
        assert perceptron_predict(fit.weights, jnp.array(x, jnp.float32)).tolist() == y.tolist()

    def test_every_mistake_adds_the_signed_example(self):
        x, y = jnp.array([[1.0, 2.0], [3.0, 1.0]]), jnp.array([-1, 1])
        fit = fit_perceptron(jnp.zeros((1, 2)), x, y, 1)
        assert fit.weights.tolist() == [[2.0, -1.0]]  # 0 - (1, 2), which misjudges the second: + (3, 1)
        assert not fit.converged

    def test_says_so_where_nothing_separates(self):
        x, y = jnp.array([[1.0], [1.0]]), jnp.array([1, -1])
        fit = fit_perceptron(jnp.ones((1, 1)), x, y, 7)
        assert (int(fit.passes), bool(fit.converged)) == (7, False)


@pytest.mark.no_nnx
def test_linear_regression_recovers_the_example():
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    fit = fit_linear(x, jnp.array([3.0, 11.0, 10.0, 18.0]))
    np.testing.assert_allclose([*fit.slopes, fit.intercept], [7, 8, 3], atol=1e-3)


@pytest.mark.no_nnx
class TestConvolve:
    def test_by_hand(self):
        image = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
        np.testing.assert_array_equal(convolve(image, jnp.array([[1.0, 0.0], [0.0, 1.0]])), [[6, 8], [12, 14]])
        np.testing.assert_array_equal(convolve(image, jnp.array([[1.0, 2.0], [3.0, 4.0]])), [[37, 47], [67, 77]])

    @pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (4, 2), (6, 9)])
    @settings(deadline=None, max_examples=10)
    @given(st.integers(0, 2**32 - 1))
    def test_equals_the_primitive(self, kernel, seed):
        random = np.random.default_rng(seed)
        with jax.enable_x64(True):
            image, kernel = jnp.array(random.normal(size=(6, 9))), jnp.array(random.normal(size=kernel))
            expected = jax.lax.conv_general_dilated(image[None, None], kernel[None, None], (1, 1), "VALID")[0, 0]
            np.testing.assert_allclose(jax.jit(convolve)(image, kernel), expected, rtol=0, atol=1e-13)

    @settings(deadline=None, max_examples=10)
    @given(st.integers(0, 2**32 - 1), st.integers(0, 2), st.integers(0, 2))
    def test_follows_a_shift_and_is_linear(self, seed, down, right):
        random = np.random.default_rng(seed)
        image, kernel, other = (jnp.array(random.integers(-9, 9, size)) * 1.0 for size in ((9, 9), (3, 3), (3, 3)))
        shifted = jnp.roll(image, (down, right), (0, 1))
        np.testing.assert_array_equal(
            convolve(shifted, kernel)[down:, right:], convolve(image, kernel)[: 7 - down, : 7 - right]
        )
        np.testing.assert_array_equal(
            convolve(image, 2 * kernel + other), 2 * convolve(image, kernel) + convolve(image, other)
        )

    @pytest.mark.parametrize("shape", [(4, 1), (1, 4), (0, 2)])
    def test_refuses_a_kernel_that_does_not_fit(self, shape):
        with pytest.raises(InputError, match=r"expected \(1, 1\) at least and the image's \(3, 3\) at most"):
            convolve(jnp.ones((3, 3)), jnp.ones(shape))


class TestDigitModels:
    @pytest.mark.parametrize(
        ("model", "parameters"),
        [
            (lambda rngs: MLP(MLPConfig.sine(), rngs=rngs), 99_329),
            (lambda rngs: MLP(MLPConfig.digits(), rngs=rngs), 235_146),
            (lambda rngs: ConvDigit(ConvDigitConfig(), rngs=rngs), 95_571),
        ],
        ids=["sine", "digits", "convolution"],
    )
    def test_sizes(self, model, parameters):
        state = nnx.state(nnx.eval_shape(lambda: model(nnx.Rngs(0))), nnx.Param)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == parameters

    def test_images_and_rows_of_pixels_are_the_same(self):
        images = jax.random.uniform(jax.random.key(0), (2, 28, 28, 1))
        for model in (MLP(MLPConfig.digits(), rngs=nnx.Rngs(0)), ConvDigit(ConvDigitConfig(), rngs=nnx.Rngs(0))):
            np.testing.assert_array_equal(model(images), model(images.reshape(2, 784)))

    def test_refuse_other_sizes(self):
        for model in (MLP(MLPConfig.digits(), rngs=nnx.Rngs(0)), ConvDigit(ConvDigitConfig(), rngs=nnx.Rngs(0))):
            with pytest.raises(InputError, match="784"):
                model(jnp.ones((2, 32, 32, 1)))
        with pytest.raises(InputError, match="widths"):
            MLPConfig(widths=(3,))


class TestCausalAttention:
    def arrays(self):
        return tuple(jax.random.normal(key, (2, 5, 4)) for key in jax.random.split(jax.random.key(0), 3))

    def test_is_the_usual_form_with_query_and_key_swapped(self, float64):
        query, key, value = self.arrays()
        heads = [x[:, :, None] for x in (key, query, value)]  # one head
        usual = dot_product_attention(*heads, causal_mask(5))[0][:, :, 0]
        np.testing.assert_allclose(causal_attention(query, key, value), usual, rtol=0, atol=1e-14)
        unswapped = dot_product_attention(*(x[:, :, None] for x in (query, key, value)), causal_mask(5))[0][:, :, 0]
        assert jnp.abs(causal_attention(query, key, value) - unswapped).max() > 0.1

    def test_does_not_look_ahead(self):
        model = CausalAttention(CausalAttentionConfig(width=4), rngs=nnx.Rngs(0))
        x, y, _ = self.arrays()
        mixed = jnp.concatenate([x[:, :3], y[:, 3:]], axis=1)
        np.testing.assert_array_equal(model(x)[:, :3], model(mixed)[:, :3])
        assert not jnp.allclose(model(x)[:, 3:], model(mixed)[:, 3:])

    def test_refuses_another_width(self):
        with pytest.raises(InputError, match="width=4"):
            CausalAttention(CausalAttentionConfig(width=4), rngs=nnx.Rngs(0))(jnp.ones((1, 2, 5)))
