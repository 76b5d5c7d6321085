"""From a picture of any size to the numbers a model sees, pixel for pixel as the library that trained it."""

from flaxformer_edu.data.preprocessing.published import (
    assumed_for,
    describe_transformers,
    read_timm,
    read_transformers,
)
from flaxformer_edu.data.preprocessing.resizing import resize_picture
from flaxformer_edu.data.preprocessing.steps import Preprocessing

__all__ = ["Preprocessing", "assumed_for", "describe_transformers", "read_timm", "read_transformers", "resize_picture"]
