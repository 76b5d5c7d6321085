"""Recipes, one per task: `python -m train.vit --help`."""

import flaxformer_edu  # noqa: F401 (it opens the door that recipes end through, before they import what takes long)
