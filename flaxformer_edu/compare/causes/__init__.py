"""The causes that a difference usually has, each as changes to be tried. To add one, write a function and list it."""

from collections.abc import Callable, Iterator

from flaxformer_edu.compare.causes.attention import (
    attention_scale,
    head_order,
    mask_convention,
    rotary_layout,
    swapped_projections,
)
from flaxformer_edu.compare.causes.layers import (
    activation,
    dropout,
    norm_epsilon,
    norm_position,
    other_weights,
    transposed_kernel,
)
from flaxformer_edu.compare.causes.positions import bicubic_convention
from flaxformer_edu.compare.causes.precision import bfloat16, tf32
from flaxformer_edu.compare.causes.trial import Case, Trial

CAUSES: dict[str, Callable[[Case], Iterator[Trial]]] = {
    "dropout": dropout,
    "transposed_kernel": transposed_kernel,
    "swapped_projections": swapped_projections,
    "activation": activation,
    "norm_epsilon": norm_epsilon,
    "norm_position": norm_position,
    "attention_scale": attention_scale,
    "head_order": head_order,
    "mask_convention": mask_convention,
    "rotary_layout": rotary_layout,
    "bicubic_convention": bicubic_convention,
    "tf32": tf32,
    "bfloat16": bfloat16,
    "other_weights": other_weights,
}
