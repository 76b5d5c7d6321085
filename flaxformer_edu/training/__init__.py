"""Training: a pure step, the loop around it, and runs that can be stopped at any moment.

    def loss_fn(model, batch, rngs):
        logits = model(batch["images"], rngs=rngs)
        return cross_entropy(logits, batch["labels"]).mean(), {"accuracy": accuracy(logits, batch["labels"]).mean()}

    optimiser = Optimiser(name="adam", learning_rate=1e-4)
    result = fit(model, loss_fn, optimiser, train, LoopConfig(steps=500), folder=folder)
    model, notes = open_model(folder)

`step` holds what a step computes, `loop` what surrounds it.
"""

from flaxformer_edu.training.config import LoopConfig
from flaxformer_edu.training.evaluation import Evaluation
from flaxformer_edu.training.folder import open_model, save_model
from flaxformer_edu.training.loop import BatchSource, TrainResult, fit
from flaxformer_edu.training.losses import accuracy, captioning_loss, cross_entropy, translation_loss, word_accuracy
from flaxformer_edu.training.mesh import data_mesh, replicate, share, use_devices
from flaxformer_edu.training.metrics import DivergedError, read_rows
from flaxformer_edu.training.optimisers import Optimiser
from flaxformer_edu.training.state import TrainState, new_state, split_model
from flaxformer_edu.training.step import compile_step, make_step

__all__ = [
    "BatchSource",
    "DivergedError",
    "Evaluation",
    "LoopConfig",
    "Optimiser",
    "TrainResult",
    "TrainState",
    "accuracy",
    "captioning_loss",
    "compile_step",
    "cross_entropy",
    "data_mesh",
    "fit",
    "make_step",
    "new_state",
    "open_model",
    "read_rows",
    "replicate",
    "save_model",
    "share",
    "split_model",
    "translation_loss",
    "use_devices",
    "word_accuracy",
]
