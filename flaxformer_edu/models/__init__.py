"""Models, each with a frozen config whose presets name the published ones.

`VisionTransformer`, `CaptioningTransformer`, `ViTCaptioner` and `Seq2SeqTransformer`; CS188's small networks (`MLP`,
`ConvDigit`, `CausalAttention`, `CharRNN`, the perceptron and linear regression); and `ConvNet`, to compare with.
"""

from flaxformer_edu.models.captioning import (
    CaptioningConfig,
    CaptioningTransformer,
    ViTCaptioner,
    ViTCaptionerConfig,
)
from flaxformer_edu.models.cnn import ConvNet, ConvNetConfig
from flaxformer_edu.models.course import (
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
from flaxformer_edu.models.language_id import CharRNN, CharRNNConfig
from flaxformer_edu.models.seq2seq import Seq2SeqConfig, Seq2SeqTransformer
from flaxformer_edu.models.vit import VisionTransformer
from flaxformer_edu.models.vit_config import ViTConfig

__all__ = [
    "MLP",
    "CaptioningConfig",
    "CaptioningTransformer",
    "CausalAttention",
    "CausalAttentionConfig",
    "CharRNN",
    "CharRNNConfig",
    "ConvDigit",
    "ConvDigitConfig",
    "ConvNet",
    "ConvNetConfig",
    "MLPConfig",
    "Seq2SeqConfig",
    "Seq2SeqTransformer",
    "ViTCaptioner",
    "ViTCaptionerConfig",
    "ViTConfig",
    "VisionTransformer",
    "causal_attention",
    "fit_linear",
    "fit_perceptron",
    "perceptron_predict",
]
