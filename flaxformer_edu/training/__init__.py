"""Training: a pure step, the loop around it, and runs that can be stopped at any moment.

    def loss_fn(model, batch, rngs):
        logits = model(batch["images"], rngs=rngs)
        return cross_entropy(logits, batch["labels"]).mean(), {"accuracy": accuracy(logits, batch["labels"]).mean()}

    optimizer = Optimizer(name="adam", learning_rate=1e-4)
    result = fit(model, loss_fn, optimizer, train, LoopConfig(steps=500), folder="runs/mine")
    model, notes = open_model("runs/mine")              # of flaxformer_edu.runs

`step` holds what a step computes, `loop` what surrounds it, `tasks` and `losses` what is minimised.
"""

from flaxformer_edu.models.abstract import split_model
from flaxformer_edu.runs import DivergedError
from flaxformer_edu.training.config import BatchSource, LoopConfig, OptimizerConfig
from flaxformer_edu.training.evaluation import Evaluation
from flaxformer_edu.training.fine_tuning import LayerWise, with_new_head
from flaxformer_edu.training.loop import TrainResult, fit
from flaxformer_edu.training.losses import accuracy, captioning_loss, cross_entropy, translation_loss, word_accuracy
from flaxformer_edu.training.mesh import data_mesh, replicate, share, use_devices
from flaxformer_edu.training.optimizers import Optimizer
from flaxformer_edu.training.step import TrainState, compile_step, make_step, new_state
from flaxformer_edu.training.tasks import Task, captioning, classification, translation

__all__ = [
    "BatchSource",
    "DivergedError",
    "Evaluation",
    "LayerWise",
    "LoopConfig",
    "Optimizer",
    "OptimizerConfig",
    "Task",
    "TrainResult",
    "TrainState",
    "accuracy",
    "captioning",
    "captioning_loss",
    "classification",
    "compile_step",
    "cross_entropy",
    "data_mesh",
    "fit",
    "make_step",
    "new_state",
    "replicate",
    "share",
    "split_model",
    "translation",
    "translation_loss",
    "use_devices",
    "with_new_head",
    "word_accuracy",
]
