"""Transformers, and the small networks courses teach before them, in JAX and Flax NNX.

Layers are in `flaxformer_edu.layers`, models in `flaxformer_edu.models`, PyTorch weights come in and go out through
`flaxformer_edu.convert`, and `flaxformer_edu.reference` holds what the courses publish and PyTorch's random numbers.

Importing it sets the switch that keeps XLA's compiler right where the installed release is wrong (`compiler.py`).
In our own programs it first opens the door that they end through (`door.py`).
"""

from flaxformer_edu import door

if door.is_program():
    door.watch()

from flaxformer_edu.compiler import guard

guard()
