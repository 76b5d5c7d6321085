"""What `train.vit` can train: models, and how each is trained."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from flaxformer_edu.models import ViTConfig
from flaxformer_edu.training import Optimizer
from train import recipe


@dataclass(frozen=True, kw_only=True)
class Preset(recipe.Preset):
    """A model, and how it is trained."""

    model: Callable[..., ViTConfig]
    augment: bool = False
    mixed: bool = False
    label_smoothing: float = 0.0
    evaluations: int = 10


OVERFIT = Optimizer(name="adam", learning_rate=1e-3, weight_decay=1e-3)  # constant, and the decay is L2
adamw = partial(Optimizer, name="adamw", learning_rate=1e-3, schedule="cosine", decay="weights")
digits = Preset(
    model=ViTConfig.digits, optimizer=adamw(weight_decay=0.1), epochs=30, batch_size=32, warmup=0.05, ema_decay=0.98
)
PRESETS = {
    "cs231n": Preset(model=ViTConfig.cs231n, optimizer=adamw(weight_decay=0.05), epochs=2, batch_size=64, warmup=0.1),
    "tuned": Preset(
        model=ViTConfig.tuned, optimizer=adamw(weight_decay=0.05), epochs=2, batch_size=64, warmup=0.15, augment=True
    ),
    "compact": Preset(
        model=ViTConfig.compact, optimizer=adamw(weight_decay=0.06), epochs=100, batch_size=256, warmup=0.05,
        augment=True, mixed=True, label_smoothing=0.1, ema_decay=0.9995, dtype="bfloat16",
    ),
    "scratch": Preset(
        model=ViTConfig.scratch, optimizer=adamw(learning_rate=2e-3, weight_decay=0.05), epochs=20, batch_size=128,
        warmup=0.05, augment=True,
    ),
    "scratch_large": Preset(
        model=ViTConfig.scratch_large, optimizer=adamw(weight_decay=0.05), epochs=100, batch_size=256, warmup=0.05,
        augment=True, label_smoothing=0.1, dtype="bfloat16",
    ),
    "digits": digits,
    "mnist": replace(digits, epochs=3, batch_size=128),
}  # fmt: skip
