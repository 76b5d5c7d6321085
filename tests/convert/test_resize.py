"""Positions for another image size, by each library's convention."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_close
from parity.vit_libraries import library, randomised
from scipy.ndimage import zoom

from flaxformer_edu import convert
from flaxformer_edu.convert import convention_of, resize_positions
from flaxformer_edu.convert.resize import Convention
from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer, ViTConfig

SIDES = [2, 3, 5, 6, 7, 8, 16]  # from 6: far down, down, the same, up, far up
SIZES = {"image_size": 24, "patch_size": 4, "width": 8, "layers": 1, "heads": 2, "hidden": 12, "classes": 3}


def vit(dtype=jnp.float32, **changes):
    model = VisionTransformer(ViTConfig.b16(**{**SIZES, **changes}), rngs=nnx.Rngs(0), param_dtype=dtype)
    table = model.positions.embedding
    table[...] = jax.random.normal(jax.random.key(1), table.shape, dtype)
    return model


def resized(side, convention, dtype=jnp.float32):
    """The table before, that of the patches alone, and the table after."""
    model = vit(dtype)
    models = (model, resize_positions(model, 4 * side, convention=convention))
    before, after = (np.asarray(model.positions.embedding[...]) for model in models)
    np.testing.assert_array_equal(after[0], before[0])
    return before, before[1:].reshape(6, 6, 8), after


@pytest.mark.parametrize("side", SIDES)
def test_antialiased_is_timms(side):
    before, _, after = resized(side, "antialiased")
    resample = library("timm.layers").resample_abs_pos_embed
    assert_close("the table", after, resample(torch.tensor(before)[None], [side, side])[0].numpy(), 1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_antialiased_in_float64(side, float64):
    _, grid, after = resized(side, "antialiased", jnp.float64)
    options = {"size": (side, side), "mode": "bicubic", "antialias": True}
    theirs = torch.nn.functional.interpolate(torch.tensor(grid).permute(2, 0, 1)[None], **options)
    expected = theirs[0].permute(1, 2, 0).reshape(-1, 8)
    np.testing.assert_allclose(after[1:], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("side", SIDES)
def test_plain_is_transformers(side, float64):
    module = library("transformers.models.vit.modeling_vit")
    before, _, after = resized(side, "plain", jnp.float64)
    embeddings = module.ViTEmbeddings(module.ViTConfig(image_size=24, patch_size=4, hidden_size=8)).double()
    embeddings.position_embeddings.data = torch.tensor(before)[None]
    tokens = torch.zeros(1, 1 + side**2, 8)
    expected = embeddings.interpolate_pos_encoding(tokens, 4 * side, 4 * side)[0]
    np.testing.assert_allclose(after, expected.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("side", SIDES)
def test_corners_is_torchvisions(side, float64):
    interpolate = library("torchvision.models.vision_transformer").interpolate_embeddings
    before, _, after = resized(side, "corners", jnp.float64)
    theirs = interpolate(4 * side, 4, {"encoder.pos_embedding": torch.tensor(before)[None]})["encoder.pos_embedding"]
    np.testing.assert_allclose(after, theirs[0].numpy(), atol=1e-12, rtol=0)


def test_the_layout_says_which():
    layouts = ("timm", "hf_vit", "torchvision", "google_npz", "scratch", None)
    conventions = [convention_of(layout) for layout in layouts]
    assert conventions == ["antialiased", "plain", "corners", "linear", "antialiased", "antialiased"]


def interpolated(grid, side):
    """Row by row and column by column, the corners in place."""
    points = np.linspace(0, len(grid) - 1, side)
    for axis in (0, 1):
        grid = np.apply_along_axis(lambda line: np.interp(points, range(len(line)), line), axis, grid)
    return grid


@pytest.mark.parametrize("side", SIDES)
def test_linear_is_googles(side, float64):
    _, grid, after = resized(side, "linear", jnp.float64)
    expected = zoom(grid, (side / 6, side / 6, 1), order=1)
    np.testing.assert_allclose(expected, interpolated(grid, side), atol=1e-12, rtol=0)
    np.testing.assert_allclose(after[1:], expected.reshape(-1, 8), atol=1e-12, rtol=0)


@pytest.mark.parametrize("convention", get_args(Convention))
class TestEach:
    def test_the_model_works_and_keeps_its_weights(self, convention):
        model = vit(distilled=True)
        larger = resize_positions(model, 32, convention=convention)
        assert larger(jnp.ones((1, 32, 32, 3))).shape == (1, 3)
        assert (larger.config.image_size, model.config.image_size) == (32, 24)
        np.testing.assert_array_equal(larger.head.kernel[...], model.head.kernel[...])
        np.testing.assert_array_equal(larger.positions.embedding[:2], model.positions.embedding[:2])
        assert larger.positions.embedding.shape == (2 + 64, 8)
        assert model.positions.embedding.shape == (2 + 36, 8)

    def test_no_class_token_and_no_positions_in_front(self, convention):
        for changes in ({"class_token": False, "pooling": "mean"}, {"prefix_positions": False}):
            smaller = resize_positions(vit(**changes), 16, convention=convention)
            assert smaller.positions.embedding.shape == (16, 8)
            assert smaller(jnp.ones((1, 16, 16, 3))).shape == (1, 3)

    def test_a_constant_stays_constant(self, convention):
        model = vit()
        model.positions.embedding[...] = jnp.full_like(model.positions.embedding[...], 0.7)
        table = resize_positions(model, 60, convention=convention).positions.embedding[...]
        np.testing.assert_allclose(table, 0.7, atol=1e-6)

    def test_half_precision_stays_half(self, convention):
        model, wide = vit(jnp.bfloat16), vit()
        wide.positions.embedding[...] = model.positions.embedding[...].astype(np.float32)
        half, whole = (resize_positions(m, 36, convention=convention).positions.embedding[...] for m in (model, wide))
        assert half.dtype == jnp.bfloat16
        np.testing.assert_array_equal(half, whole.astype(jnp.bfloat16))


@pytest.mark.parametrize("positions", ["sinusoidal", "sinusoidal_2d", "none"])
def test_positions_that_are_not_learned_are_computed_anew(positions):
    config = ViTConfig.b16(**SIZES, positions=positions)
    model = resize_positions(VisionTransformer(config, rngs=nnx.Rngs(0)), 32)
    assert model(jnp.ones((1, 32, 32, 3))).shape == (1, 3)
    assert model.config.image_size == 32


def test_timms_own_resizing_gives_the_same_logits():
    timm = library("timm").models
    sizes = {"img_size": 24, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 1.5}
    twin = randomised(timm.VisionTransformer(**sizes, num_classes=3), torch.float32)
    model = convert.from_torch(VisionTransformer, ViTConfig.b16(**SIZES), twin.state_dict())
    twin.set_input_size(img_size=(32, 32))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    expected = twin(torch.tensor(images.transpose(0, 3, 1, 2))).detach()
    np.testing.assert_allclose(resize_positions(model, 32)(images), expected, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_is_said():
    with pytest.raises(InputError, match="convention is 'bicubic', expected one of antialiased, plain, corners"):
        resize_positions(vit(), 32, convention="bicubic")
    with pytest.raises(InputError, match="image_size 30 is not divisible by patch_size 4"):
        resize_positions(vit(), 30)
