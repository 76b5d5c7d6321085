"""`flaxformer_edu.compare` as most tests use it: ours is not compiled, which test_compare_compiled and the pairs of
libraries are for, and which takes longer than all else."""

from functools import partial

from flaxformer_edu import compare
from flaxformer_edu.compare import Recorded, Report, Row, record

__all__ = ["Recorded", "Report", "Row", "models", "record"]

models = partial(compare.models, compiled=False)
