"""Two models on the same inputs, layer by layer: where they first differ, by how much, and why."""

from flaxformer_edu.compare.comparing import models
from flaxformer_edu.compare.report import Diagnosis, Report, Row

__all__ = ["Diagnosis", "Report", "Row", "models"]
