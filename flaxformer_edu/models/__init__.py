"""Models, each with a frozen config whose presets name the published ones."""

from flaxformer_edu.models.captioning import (
    CaptioningConfig,
    CaptioningTransformer,
    ViTCaptioner,
    ViTCaptionerConfig,
)
from flaxformer_edu.models.seq2seq import Seq2SeqConfig, Seq2SeqTransformer
from flaxformer_edu.models.vit import VisionTransformer
from flaxformer_edu.models.vit_config import ViTConfig

__all__ = [
    "CaptioningConfig",
    "CaptioningTransformer",
    "Seq2SeqConfig",
    "Seq2SeqTransformer",
    "ViTCaptioner",
    "ViTCaptionerConfig",
    "ViTConfig",
    "VisionTransformer",
]
