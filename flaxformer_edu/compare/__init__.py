"""Two models on the same inputs, layer by layer: where they first differ, by how much, and why."""

from flaxformer_edu.compare.causes.trial import Diagnosis
from flaxformer_edu.compare.comparing import models
from flaxformer_edu.compare.curves.curve import TrainingCurve
from flaxformer_edu.compare.curves.report import TrainingReport
from flaxformer_edu.compare.curves.side_by_side import record_training, training
from flaxformer_edu.compare.report import Report
from flaxformer_edu.compare.rows import Row
from flaxformer_edu.compare.sides.recorded import Recorded
from flaxformer_edu.compare.sides.running import record

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
