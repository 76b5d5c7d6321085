"""The course's two models against their PyTorch twins."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from parity.harness import assert_parity, channel_first

from flaxformer_edu import convert
from flaxformer_edu.models import CaptioningConfig, CaptioningTransformer, VisionTransformer, ViTConfig
from tests.twins import torch_twins

WORDS = {"<NULL>": 0, "<START>": 1, "<END>": 2, "cat": 3, "dog": 4}


def captioner(dtype):
    torch.manual_seed(1)
    twin = torch_twins.CaptioningTransformer(WORDS, 10, 12, num_heads=3, num_layers=2, max_length=8).to(dtype)
    config = CaptioningConfig.cs231n(vocab=5, features=10, width=12, heads=3, max_length=8)
    return config, twin


def vit(dtype):
    torch.manual_seed(2)
    sizes = {"image_size": 12, "patch_size": 4, "channels": 3, "width": 16, "layers": 2, "heads": 2, "hidden": 24}
    twin = torch_twins.VisionTransformer(12, 4, 3, 16, 2, 2, 24, 5).to(dtype)
    return ViTConfig(**sizes, classes=5, dropout=0.1, final_norm="none"), twin


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
class TestModels:
    def test_captioning(self, dtype, train):
        random = np.random.default_rng(0)
        features = random.normal(size=(3, 10)).astype(dtype)
        captions = random.integers(0, 5, (3, 8))  # padding among them: its embedding gets no gradient
        assert (captions == 0).any()
        with jax.enable_x64(dtype == np.float64):
            config, twin = captioner(torch.float64 if dtype == np.float64 else torch.float32)
            model = CaptioningTransformer(config, rngs=nnx.Rngs(0), param_dtype=dtype)
            assert_parity(model, twin, [features, captions], train=train)

    def test_vision_transformer(self, dtype, train):
        images = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype(dtype)
        with jax.enable_x64(dtype == np.float64):
            config, twin = vit(torch.float64 if dtype == np.float64 else torch.float32)
            model = VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=dtype)
            assert_parity(model, twin, [images], [channel_first(images)], train=train)


@pytest.mark.parametrize(("make", "model_type"), [(captioner, CaptioningTransformer), (vit, VisionTransformer)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_round_trip_is_bit_exact(make, model_type, dtype):
    with jax.enable_x64(dtype == torch.float64):
        config, twin = make(dtype)
        dtypes = {torch.float64: np.float64, torch.float32: np.float32, torch.bfloat16: jax.numpy.bfloat16}
        weights = twin.state_dict()
        model = convert.from_torch(model_type, config, weights, layout="cs231n", param_dtype=dtypes[dtype])
        back = convert.to_torch(model, layout="cs231n")
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        assert back[name].tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes(), name
