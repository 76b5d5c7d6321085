"""Models, each with a frozen config whose presets name the published ones."""

from flaxformer_edu.models.captioning import CaptioningConfig, CaptioningTransformer
from flaxformer_edu.models.vit import VisionTransformer, ViTConfig

__all__ = ["CaptioningConfig", "CaptioningTransformer", "ViTConfig", "VisionTransformer"]
