"""Timings and other figures, one module each: `python -m benchmarks.decoding --help`."""

import flaxformer_edu  # noqa: F401 (it opens the door that benchmarks end through, before they import what takes long)
