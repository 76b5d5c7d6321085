"""Everything that a comparison needs of one side, so that it can also be kept in a file, and come from one."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
from flax import nnx

from flaxformer_edu.compare import recording
from flaxformer_edu.compare.gradients import Backward, Gradients, gradients, stepped
from flaxformer_edu.compare.recording import Call, Recording
from flaxformer_edu.convert import readers
from flaxformer_edu.convert.rules import parameter_name
from flaxformer_edu.errors import InputError

FORMAT = "flaxformer-edu recorded run, version 1"
REMEDY = "record it where the model is, with compare.record or flaxformer-edu compare --record"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a model of PyTorch ("torch") or one of ours ("flax") computed on some inputs.

    inputs: as ours takes them.
    parameters, stepped: by name, before and after one step of an optimiser; None where there was none.
    leaves: whether each layer, by its path, has none within.
    calls, gradients: of each layer that was called; None where gradients were not asked for.
    """

    framework: Literal["torch", "flax"]
    inputs: tuple[np.ndarray, ...]
    parameters: Arrays
    leaves: Mapping[str, bool]
    calls: Recording
    gradients: Gradients | None = None
    stepped: Arrays | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an .npz file, which appears under its name when it is complete.

        Raises InputError where the name has another ending, or there is no such folder.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise InputError(f"cannot write the recorded run {path}: its name must end in .npz")
        groups = self._groups()
        arrays = {f"{group}/{name}": x for group, found in groups.items() for name, x in found.items()}
        narrow = [name for name, x in arrays.items() if x.dtype == ml_dtypes.bfloat16]  # .npz has no such type
        about = {
            "format": FORMAT,
            "framework": self.framework,
            "leaves": dict(self.leaves),
            "calls": list(self.calls),
            "groups": list(groups),
            "bfloat16": narrow,
        }
        arrays |= {name: arrays[name].astype(np.float32) for name in narrow}
        readers.write(path, {"about": np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays})

    def _groups(self) -> dict[str, Arrays]:
        """All arrays, by what they are."""
        groups: dict[str, Arrays] = {
            "inputs": {str(i): x for i, x in enumerate(self.inputs)},
            "parameters": self.parameters,
            "outputs": {path: call.output for path, call in self.calls.items()},
            "given": {path: call.input for path, call in self.calls.items() if call.input is not None},
        }
        if self.stepped is not None:
            groups["stepped"] = self.stepped
        if self.gradients is not None:
            groups["gradients"] = self.gradients.parameters
            groups["output_gradients"] = {path: call.output for path, call in self.gradients.outputs.items()}
        return groups

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recorded":
        """The run in a file; nothing in it is executed. Raises InputError where it is damaged, or anything else."""
        if not Path(path).is_file():
            raise InputError(f"no file {path}: {REMEDY}")
        try:
            return cls._of(readers.read(path))
        except InputError as error:
            raise InputError(f"{path} is no recorded run ({error}): {REMEDY}") from None
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is no recorded run ({type(error).__name__}: {error!s:.100}): {REMEDY}") from None

    @classmethod
    def _of(cls, arrays: dict[str, np.ndarray]) -> "Recorded":
        about = json.loads(arrays.pop("about").tobytes())
        if about["format"] != FORMAT or about["framework"] not in ("torch", "flax"):
            raise InputError(f"its format is {about['format']!r:.60}, expected {FORMAT!r}")
        arrays |= {name: arrays[name].astype(ml_dtypes.bfloat16) for name in about["bfloat16"]}
        groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in about["groups"]}
        for name, x in arrays.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = x
        backward = None
        if "gradients" in groups:
            outputs = {path: Call(groups["output_gradients"][path], None) for path in about["calls"]}
            backward = Gradients(groups["gradients"], outputs)
        return cls(
            framework=about["framework"],
            inputs=tuple(groups["inputs"][str(i)] for i in range(len(groups["inputs"]))),
            parameters=groups["parameters"],
            leaves=dict(about["leaves"]),
            calls={path: Call(groups["outputs"][path], groups["given"].get(path)) for path in about["calls"]},
            gradients=backward,
            stepped=groups.get("stepped"),
        )


def record(
    model: Any,
    inputs: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    torch_inputs: Sequence[Any] | None = None,
    gradients: bool = False,
    loss: Callable[[Any], Any] | None = None,
    step: Any = None,
) -> Recorded:
    """Run a model of PyTorch, or one of ours, and keep what `models` needs of it, in a file if `path` is given.

    The arguments are those of `models`; `loss` and `step` are this side's alone. Raises InputError where the model
    does not run on the inputs, or the file cannot be written.
    """
    backward = Backward(loss, step) if gradients or loss is not None or step is not None else None
    with precision(model):
        found = run(model, as_arguments(inputs), torch_inputs, backward)
    if path is not None:
        found.save(path)
    return replace(found, parameters={name: x.copy() for name, x in found.parameters.items()})


def run(model: Any, inputs: Sequence[Any], torch_inputs: Sequence[Any] | None, backward: Backward | None) -> Recorded:
    """What a model of either kind computes on inputs as ours takes them."""
    arrays = tuple(np.asarray(x) for x in inputs)
    if isinstance(model, nnx.Module):
        return _run_ours(model, arrays, backward)
    if not hasattr(model, "state_dict"):
        raise InputError(f"theirs is {type(model).__name__}, expected a torch.nn.Module or a model of ours")
    from flaxformer_edu.compare import torch_gradients, torch_side

    given = their_inputs(arrays) if torch_inputs is None else torch_inputs
    if backward is None:
        calls, found, after = torch_side.record_torch(model, given), None, None
    else:
        calls, found, after = torch_gradients.record_backward(model, given, backward)
    return Recorded(
        framework="torch",
        inputs=arrays,
        parameters=torch_side.parameters(model),
        leaves=torch_side.leaves(model),
        calls=calls,
        gradients=found,
        stepped=after,
    )


def _run_ours(model: nnx.Module, inputs: tuple[np.ndarray, ...], backward: Backward | None) -> Recorded:
    calls = recording.record(model, inputs)
    found = None if backward is None else gradients(model, inputs, calls, backward.loss)
    after = None
    if found is not None and backward is not None and backward.optimiser is not None:
        after = stepped(model, found.parameters, backward.optimiser)
    return Recorded(
        framework="flax",
        inputs=inputs,
        parameters=recording.parameters(model),
        leaves=leaves(model),
        calls=calls,
        gradients=found,
        stepped=after,
    )


def as_arguments(inputs: Any) -> tuple[Any, ...]:
    """A model's arguments, of which the user may hand in one alone."""
    return tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)


def their_inputs(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images as PyTorch takes them; anything else as it is."""
    images = [x.ndim == 4 and x.dtype != bool for x in inputs]
    return [np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if i else x for x, i in zip(inputs, images, strict=True)]


def leaves(model: nnx.Module) -> dict[str, bool]:
    """Whether each of our layers has none within."""
    paths = [path for path, _ in nnx.iter_modules(model)]
    holders = {path[:end] for path in paths for end in range(len(path))}
    return {parameter_name(path): path not in holders for path in paths}


def precision(*models: Any) -> AbstractContextManager[Any]:
    """With 64-bit types where one of the models is one of ours, and of float64."""
    double = any(recording.float_type(model) == np.float64 for model in models if isinstance(model, nnx.Module))
    return jax.enable_x64(True) if double else nullcontext()
