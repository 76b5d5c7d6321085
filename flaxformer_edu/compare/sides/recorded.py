"""Everything that a comparison needs of one side, so that it can also be kept in a file, and come from one."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np

from flaxformer_edu.compare.sides.records import Call, Gradients, Recording
from flaxformer_edu.convert import readers
from flaxformer_edu.errors import InputError

FORMAT = "flaxformer-edu recorded run, version 1"
REMEDY = "record it where the model is, with compare.record or flaxformer-edu compare --record"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a model of PyTorch ("torch") or one of ours ("flax") computed on some inputs.

    inputs: as ours takes them.
    parameters, stepped: by name, before and after one step of an optimizer; None where there was none.
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
        arrays = {f"{group}/{name}": x for group, members in groups.items() for name, x in members.items()}
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
