"""Naming schemes, one file each: which PyTorch names and axes correspond to ours."""

from flax import nnx

from flaxformer_edu.convert.layouts import cs231n, torch_nn
from flaxformer_edu.convert.rules import Layout
from flaxformer_edu.errors import InputError

LAYOUTS: dict[str, dict[type[nnx.Module], Layout]] = {"cs231n": cs231n.LAYOUTS, "torch_nn": torch_nn.LAYOUTS}


def find_layout(name: str, model_type: type[nnx.Module]) -> Layout:
    """The layout of that name for models of that type. Raises InputError, listing what there is."""
    if name not in LAYOUTS:
        raise InputError(
            f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}, or hand in a Layout of your own"
        )
    for known, layout in LAYOUTS[name].items():
        if issubclass(model_type, known):
            return layout
    known = ", ".join(known.__name__ for known in LAYOUTS[name])
    raise InputError(f"layout {name!r} does not describe {model_type.__name__}, only {known}")
