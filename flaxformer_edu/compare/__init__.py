"""Two models on the same inputs, layer by layer: where they first differ, by how much, and why."""

from flaxformer_edu.compare.comparing import models
from flaxformer_edu.compare.recorded import Recorded, record
from flaxformer_edu.compare.report import Diagnosis, Report, Row
from flaxformer_edu.compare.side_by_side import record_training, training
from flaxformer_edu.compare.training_curve import TrainingCurve
from flaxformer_edu.compare.training_report import TrainingReport

__all__ = [
    "Diagnosis",
    "Recorded",
    "Report",
    "Row",
    "TrainingCurve",
    "TrainingReport",
    "models",
    "record",
    "record_training",
    "training",
]
