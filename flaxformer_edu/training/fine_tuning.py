"""From a pretrained Vision Transformer to a new task: a new classifier, and smaller steps where less has to change."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from flaxformer_edu.errors import InputError
from flaxformer_edu.models import VisionTransformer
from flaxformer_edu.models.abstract import abstract
from flaxformer_edu.training.optimizers import Optimizer


def with_new_head(model: VisionTransformer, classes: int, **options: Any) -> VisionTransformer:
    """The same model with a zero-initialised classifier for `classes`: training starts at equal probabilities.

    Of the layers after the encoder only the norm is kept (Dosovitskiy et al. 2020, section 3.2: fine-tuning removes
    the representation layer). `options`, such as `dtype`, go to the model.
    """
    config = replace(model.config, classes=classes, representation=None)
    graphdef, state = nnx.split(abstract(VisionTransformer, config, **options))
    kept = dict(nnx.to_flat_state(nnx.state(model)))
    for path, variable in (new := dict(nnx.to_flat_state(state))).items():
        is_head = path[0] in ("head", "distilled_head")
        new[path] = variable.replace(
            jnp.zeros(variable.shape, variable.dtype) if is_head else jnp.asarray(kept[path][...])
        )
    return nnx.merge(graphdef, nnx.from_flat_state(new))


@dataclass(frozen=True, kw_only=True)
class LayerWise:
    """An optimizer for fine-tuning a Vision Transformer: the further from the classifier, the smaller the steps.

    Each layer's updates are `decay` times those of the layer above it: the classifier's as they are, the last block's
    times `decay`, the patches' times decay^(layers + 1). With decay 0 the classifier alone is trained, on frozen
    features. Source: Clark et al. 2020, "ELECTRA", and Bao et al. 2021, "BEiT".
    """

    optimizer: Optimizer
    layers: int
    decay: float = 1.0

    def __post_init__(self):
        if not 0 <= self.decay <= 1:
            raise InputError(f"decay is {self.decay}, expected 0 (train the classifier alone) to 1 (all layers alike)")

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimizer for a run of that many steps."""

        def scaled(path: tuple[Any, ...], update: Array) -> Array:
            factor = self.decay ** self.distance([step.key for step in path])
            return update * factor if factor else jnp.zeros_like(update)  # then its gradient is not computed either

        scale = optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))
        return optax.chain(self.optimizer.build(steps), scale)

    def distance(self, path: list[Any]) -> int:
        """How many layers stand between a parameter and the classifier's."""
        if path[:2] == ["encoder", "blocks"]:
            return self.layers - int(path[2])
        return (
            self.layers + 1 if path[0] in ("patch_embedding", "class_token", "distillation_token", "positions") else 0
        )
