"""Google's files, which no PyTorch model has: against the paper's equations in NumPy, an axis at a time."""

import jax.numpy as jnp
import numpy as np
import pytest
from parity.harness import assert_close

from flaxformer_edu import convert
from flaxformer_edu.models import VisionTransformer, ViTConfig

WIDTH, HEADS, HIDDEN, LAYERS, CLASSES, IMAGE, PATCH = 12, 3, 18, 2, 5, 12, 4
IMAGES = np.random.default_rng(0).normal(size=(3, IMAGE, IMAGE, 3))
SHAPES = {
    "cls": (1, 1, WIDTH),
    "embedding/kernel": (PATCH, PATCH, 3, WIDTH),
    "embedding/bias": (WIDTH,),
    "Transformer/posembed_input/pos_embedding": (1, 10, WIDTH),
    "Transformer/encoder_norm/scale": (WIDTH,),
    "Transformer/encoder_norm/bias": (WIDTH,),
    "pre_logits/kernel": (WIDTH, 7),
    "pre_logits/bias": (7,),
    "head/kernel": (7, CLASSES),
    "head/bias": (CLASSES,),
}
BLOCK = {
    "LayerNorm_0/scale": (WIDTH,),
    "LayerNorm_0/bias": (WIDTH,),
    **{
        f"MultiHeadDotProductAttention_1/{name}/{part}": shape
        for name in ("query", "key", "value")
        for part, shape in {"kernel": (WIDTH, HEADS, WIDTH // HEADS), "bias": (HEADS, WIDTH // HEADS)}.items()
    },
    "MultiHeadDotProductAttention_1/out/kernel": (HEADS, WIDTH // HEADS, WIDTH),
    "MultiHeadDotProductAttention_1/out/bias": (WIDTH,),
    "LayerNorm_2/scale": (WIDTH,),
    "LayerNorm_2/bias": (WIDTH,),
    "MlpBlock_3/Dense_0/kernel": (WIDTH, HIDDEN),
    "MlpBlock_3/Dense_0/bias": (HIDDEN,),
    "MlpBlock_3/Dense_1/kernel": (HIDDEN, WIDTH),
    "MlpBlock_3/Dense_1/bias": (WIDTH,),
}


@pytest.fixture
def weights():
    random = np.random.default_rng(0)
    blocks = {f"Transformer/encoderblock_{i}/{n}": s for i in range(LAYERS) for n, s in BLOCK.items()}
    return {name: 0.3 * random.normal(size=shape) for name, shape in (SHAPES | blocks).items()}


def norm(x, w, name):
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return normal * w[f"{name}/scale"] + w[f"{name}/bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(x, w, name):
    def heads(part):
        return np.einsum("nlw,whd->nlhd", x, w[f"{name}/{part}/kernel"]) + w[f"{name}/{part}/bias"]

    scores = np.einsum("nqhd,nkhd->nhqk", heads("query"), heads("key")) / np.sqrt(WIDTH / HEADS)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = np.einsum("nhqk,nkhd->nqhd", weights, heads("value"))
    return np.einsum("nqhd,hdw->nqw", mixed, w[f"{name}/out/kernel"]) + w[f"{name}/out/bias"]


def model(images, w):
    cut = images.reshape(3, 3, PATCH, 3, PATCH, 3)  # image, down, row, across, column, channel
    patches = np.einsum("ndracp,rcpw->ndaw", cut, w["embedding/kernel"]).reshape(3, 9, WIDTH) + w["embedding/bias"]
    x = np.concatenate([np.tile(w["cls"], (3, 1, 1)), patches], axis=1)
    x = x + w["Transformer/posembed_input/pos_embedding"]
    for i in range(LAYERS):
        name = f"Transformer/encoderblock_{i}"
        normal = norm(x, w, f"{name}/LayerNorm_0")
        x = x + attention(normal, w, f"{name}/MultiHeadDotProductAttention_1")
        first, second = f"{name}/MlpBlock_3/Dense_0", f"{name}/MlpBlock_3/Dense_1"
        h = gelu(norm(x, w, f"{name}/LayerNorm_2") @ w[f"{first}/kernel"] + w[f"{first}/bias"])
        x = x + h @ w[f"{second}/kernel"] + w[f"{second}/bias"]
    x = norm(x, w, "Transformer/encoder_norm")[:, 0]
    x = np.tanh(x @ w["pre_logits/kernel"] + w["pre_logits/bias"])
    return x @ w["head/kernel"] + w["head/bias"]


@pytest.mark.parametrize("merged", [False, True], ids=["separate", "merged"])
def test_outputs_and_round_trip(weights, merged, float64):
    sizes = {"width": WIDTH, "heads": HEADS, "hidden": HIDDEN, "layers": LAYERS, "patch_size": PATCH}
    more = {"classes": CLASSES, "image_size": IMAGE, "representation": 7, "activation": "gelu_tanh"}
    config = ViTConfig.b16(**sizes, **more, merged_qkv=merged)
    ours = convert.from_torch(VisionTransformer, config, weights, param_dtype=jnp.float64)
    assert_close("the output", ours(IMAGES), model(IMAGES, weights), 1e-12)
    back = convert.to_torch(ours, layout="google_npz")
    assert back.keys() == weights.keys()
    assert all((back[name] == array).all() for name, array in weights.items())
