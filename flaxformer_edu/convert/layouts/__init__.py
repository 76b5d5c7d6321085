"""Naming schemes, one file each: which PyTorch names and axes correspond to ours."""

from collections.abc import Iterable

from flax import nnx

from flaxformer_edu.convert.layouts import cs188, cs231n, google_npz, hf_vit, scratch, timm, torch_nn, torchvision
from flaxformer_edu.convert.rules import ConversionError, Layout, Variants, apply, parameter_shapes
from flaxformer_edu.errors import InputError

LAYOUTS: dict[str, dict[type[nnx.Module], Variants]] = {
    "cs231n": {**cs231n.LAYOUTS},
    "cs188": {**cs188.LAYOUTS},
    "torch_nn": {**torch_nn.LAYOUTS},
    "torchvision": {**torchvision.LAYOUTS},
    "timm": {**timm.LAYOUTS},
    "hf_vit": {**hf_vit.LAYOUTS},
    "google_npz": {**google_npz.LAYOUTS},
    "scratch": {**scratch.LAYOUTS},
}


def find_layout(name: str, model: nnx.Module, weights: Iterable[str] = ()) -> Layout:
    """The layout of that name for such a model; of several variants the one with most names of `weights`.

    Raises InputError, listing what there is.
    """
    if name not in LAYOUTS:
        raise InputError(
            f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}, or hand in a Layout of your own"
        )
    variants = _variants(name, model)
    if not variants:
        known = ", ".join(known.__name__ for known in LAYOUTS[name])
        raise InputError(f"layout {name!r} does not describe {type(model).__name__}, only {known}")
    return max(variants, key=lambda layout: _shared_names(layout, model, weights))  # the first of equals


def detect_layout(weights: Iterable[str], model: nnx.Module) -> str:
    """The name of the layout by which such a model has most names of `weights`.

    Raises ConversionError where no layout has any of them, or several have the same number.
    """
    names = list(weights)
    shared = {
        layout: max((_shared_names(variant, model, names) for variant in _variants(layout, model)), default=0)
        for layout in LAYOUTS
    }
    best = [layout for layout, count in shared.items() if count == max(shared.values())]
    if max(shared.values()) == 0:
        raise ConversionError(
            f"no layout for {type(model).__name__} knows the names {', '.join(names[:3])}, ...: "
            "write rules for them (convert.Layout), or see whether the model is the right one"
        )
    if len(best) > 1:
        raise ConversionError(f"the names fit the layouts {', '.join(best)} alike: say which one is meant (layout=...)")
    return best[0]


def _variants(name: str, model: nnx.Module) -> tuple[Layout, ...]:
    for known, layout in LAYOUTS[name].items():
        if isinstance(model, known):
            return (layout,) if isinstance(layout, Layout) else layout(model)
    return ()


def _shared_names(layout: Layout, model: nnx.Module, weights: Iterable[str]) -> int:
    expected = {name for matched in apply(layout, parameter_shapes(model)) for name in matched.torch}
    return len(expected.intersection(weights))
