"""What `compare.models` costs, against a plain forward of both models: a clean pair, after one call to warm up.

    python -m benchmarks.compare_overhead

Two Vision Transformers (ours and transformers') and two encoders (ours and PyTorch's own), with the same random weights
in float32. The models run eagerly while they are compared, so the plain forward of ours is timed like that, and also
compiled; what "compiled too" adds is nearly all XLA's time. All take turns, so that a busy machine slows down all of
them; the ratios are of medians.
"""

import json
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
import tyro
from flax import nnx

from benchmarks.counts import checked
from flaxformer_edu import compare, convert
from flaxformer_edu.convert import find_layout
from flaxformer_edu.layers import BlockConfig, Encoder
from flaxformer_edu.models import VisionTransformer, ViTConfig
from tests.twins.libraries import import_torchvision

LAYERS, WIDTH, HEADS, HIDDEN, IMAGE, PATCH, CLASSES = 6, 192, 3, 768, 64, 8, 10
SIZES = {"image_size": IMAGE, "patch_size": PATCH}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    batch: int = 8
    rounds: int = 15


@dataclass(frozen=True)
class Pair:
    """Two models and how to compare them."""

    ours: nnx.Module
    theirs: torch.nn.Module
    inputs: np.ndarray
    layout: str

    def compare(self, **options: Any) -> compare.Report:
        """The report; it must be clean."""
        report = compare.models(self.ours, self.theirs, self.inputs, layout=self.layout, **options)
        if not report.agrees:
            raise SystemExit(report.summary)
        return report


def vision_transformers(batch: int) -> Pair:
    """Ours and transformers'."""
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        import_torchvision()  # transformers imports it, and fails beside a PyTorch for processors alone
    import transformers

    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = transformers.ViTConfig(**sizes, intermediate_size=HIDDEN, num_labels=CLASSES, **SIZES)
    theirs = transformers.ViTForImageClassification(config).eval()
    sizes = {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "hidden": HIDDEN, "classes": CLASSES}
    ours = VisionTransformer(ViTConfig.b16(**sizes, norm_epsilon=1e-12, **SIZES), rngs=nnx.Rngs(0))
    weights = theirs.state_dict()
    ours = convert.load_weights(ours, weights, layout=find_layout("hf_vit", ours, weights))
    images = np.random.default_rng(0).normal(size=(batch, IMAGE, IMAGE, 3)).astype(np.float32)
    return Pair(ours, theirs, images, "hf_vit")


def encoders(batch: int) -> Pair:
    """Ours and PyTorch's own."""
    layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, activation="gelu", batch_first=True)
    theirs = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval()
    ours = Encoder(BlockConfig(width=WIDTH, heads=HEADS, hidden=HIDDEN), LAYERS, rngs=nnx.Rngs(0))
    ours = convert.load_weights(ours, theirs.state_dict(), layout="torch_nn")
    tokens = np.random.default_rng(0).normal(size=(batch, (IMAGE // PATCH) ** 2, WIDTH)).astype(np.float32)
    return Pair(ours, theirs, tokens, "torch_nn")


def turns(pair: Pair) -> dict[str, Callable[[], Any]]:
    """What takes turns."""
    images = pair.inputs.ndim == 4
    tensor = torch.tensor(pair.inputs.transpose(0, 3, 1, 2) if images else pair.inputs)
    graphdef, state = nnx.split(pair.ours)
    compiled = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))

    def forward() -> None:
        with torch.no_grad():
            pair.theirs(tensor)

    return {
        "theirs": forward,
        "ours": lambda: jax.block_until_ready(pair.ours(pair.inputs)),  # pyright: ignore[reportCallIssue]
        "ours, compiled": lambda: jax.block_until_ready(compiled(state, pair.inputs)),
        "compare": lambda: pair.compare(compiled=False),
        "compare, no referee": lambda: pair.compare(compiled=False, referee=False),
        "compare, compiled too": pair.compare,
        "compare, gradients": lambda: pair.compare(compiled=False, gradients=True),
        "compare, gradients, compiled too": lambda: pair.compare(gradients=True),
    }


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(settings: Settings) -> None:
    """Print a line of JSON for each pair."""
    for name, make in {"transformers' ViT": vision_transformers, "nn.TransformerEncoder": encoders}.items():
        runs, times = turns(make(settings.batch)), dict[str, list[float]]()
        for run in runs.values():
            run()
        for _ in range(settings.rounds):
            for key, run in runs.items():
                times.setdefault(key, []).append(seconds(run))
        medians = {key: statistics.median(values) for key, values in times.items()}
        plain = medians["ours"] + medians["theirs"]
        row = {
            "pair": name,
            "milliseconds": {key: round(1000 * value, 1) for key, value in medians.items()},
            "compare / (ours + theirs)": round(medians["compare"] / plain, 2),
            "compare / (ours, compiled + theirs)": round(
                medians["compare"] / (medians["ours, compiled"] + medians["theirs"]), 2
            ),
            "without the referee / (ours + theirs)": round(medians["compare, no referee"] / plain, 2),
            "compiled too / (ours + theirs)": round(medians["compare, compiled too"] / plain, 2),
            "with gradients / (ours + theirs)": round(medians["compare, gradients"] / plain, 2),
            "with gradients, compiled too / (ours + theirs)": round(
                medians["compare, gradients, compiled too"] / plain, 2
            ),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main(checked(tyro.cli(Settings)))
