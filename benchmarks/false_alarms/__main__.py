"""Does `compare.models` cry wolf, and does it miss the wolf? 50 correct ports, and 300 with one fault planted.

    python -m benchmarks.false_alarms
    python -m benchmarks.false_alarms --seed 1 --json figures.json
    python -m benchmarks.false_alarms --only faults --faults 48

The ports are of PyTorch's own encoders, the course's models, a tutorial's, torchvision's, timm's and transformers',
1 to 48 blocks deep, in float32 and bfloat16. A fault, of one of the kinds in `all_faults.FAULTS`, is found if the
report does not say that all agree, and located if the first divergence is where it was planted, or a parameter that
differs is. Exit status 1 where a port raises an alarm, or more than one fault in a hundred is not found.
"""

import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks.false_alarms.all_faults import FAULTS
from benchmarks.false_alarms.families import KINDS
from benchmarks.false_alarms.ports import Port, Size, port
from benchmarks.false_alarms.sites import Site, Unsuitable
from flaxformer_edu import compare
from flaxformer_edu.files import write_text

DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
SHALLOW = (2, 3, 4, 6)  # where faults are planted: the deeper, the slower, and no harder
TYPES = ("float32", "bfloat16")
SIZES = {name: (16, 4, 32) if i % 2 else (24, 3, 40) for i, name in enumerate(KINDS)}
MISSED = 0.01  # of the faults may be


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to try."""

    seed: int = 0
    ports: int = 50
    faults: int = 300
    only: Literal["ports", "faults"] | None = None
    json: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one comparison.

    `fault` is what was planted, "" in a correct port; `where`: in which of our layers. `gap` is the largest difference
    of a layer in units of its tolerance, in the types as they are.
    """

    port: str
    depth: int
    type: str
    fault: str
    where: str
    found: bool
    located: bool
    first: str
    gap: float
    seconds: float


def ports(seed: int, count: int) -> Iterator[Trial]:
    """Correct ones: each fifth against a recorded run, each eighth with gradients, each sixth of mixed types."""
    kinds = list(KINDS)
    for i in range(count):
        random = np.random.default_rng((seed, 0, i))
        dtype = TYPES[int(random.integers(2))]
        made = _made(kinds[i % len(kinds)], DEPTHS[i % len(DEPTHS)], dtype, random, mixed=i % 6 == 5)
        theirs: Any = made.theirs
        gradients = i % 8 == 7 and made.size.depth <= 8
        if i % 5 == 4:
            theirs = compare.record(None, theirs, made.inputs, gradients=gradients)
        yield _trial(made, theirs, dtype, "", "", gradients=gradients)


def faults(seed: int, count: int) -> Iterator[Trial]:
    """Each kind in turn, in a port that has a place for it."""
    names = list(FAULTS)
    for i in range(count):
        random = np.random.default_rng((seed, 1, i))
        name, where = names[i % len(names)], ""
        while not where:
            dtype, depth = TYPES[int(random.integers(2))], int(random.choice(SHALLOW))
            made = _made(str(random.choice(list(KINDS))), depth, dtype, random)
            try:
                where = FAULTS[name](Site(made, int(random.integers(depth)), random))
            except Unsuitable:
                continue
            yield _trial(made, made.theirs, dtype, name, where)


def _made(kind: str, depth: int, dtype: str, random: np.random.Generator, *, mixed: bool = False) -> Port:
    """A port of which both sides have one type; `mixed`, ours holds its parameters in float32."""
    width, heads, hidden = SIZES[kind]
    options = {"param_dtype": "float32", "dtype": dtype} if mixed else {"param_dtype": dtype}
    return port(kind, KINDS[kind], Size(depth=depth, width=width, heads=heads, hidden=hidden), random, dtype, **options)


def _trial(made: Port, theirs: Any, dtype: str, fault: str, where: str, *, gradients: bool = False) -> Trial:
    start = time.perf_counter()
    inputs = None if isinstance(theirs, compare.Recorded) else made.inputs
    options = {"diagnose": False, "compiled": False, "gradients": gradients}
    report = compare.models(made.ours, theirs, inputs, layout=made.layout, **options)
    different = [row.layer for row in report.parameters if not row.agrees]
    first = None if report.first_divergence is None else report.first_divergence.layer
    places = [*different, *([] if first is None else [first])]
    gaps = [row.max_rel / row.tolerance for row in (*report.layers, *(report.gradients or ()))]
    return Trial(
        port=made.kind + (", recorded" if inputs is None else "") + (", gradients" if gradients else ""),
        depth=made.size.depth,
        type=dtype,
        fault=fault,
        where=where,
        found=not report.agrees,
        located=any(_is_within(place, where) for place in places),
        first=", ".join(places[:3]) if not report.agrees else "",
        gap=max(gaps),
        seconds=round(time.perf_counter() - start, 2),
    )


def _is_within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}.")


def summary(trials: list[Trial]) -> dict[str, Any]:
    """What they come to."""
    correct, wrong = ([x for x in trials if bool(x.fault) == faulty] for faulty in (False, True))
    return {
        "correct ports": len(correct),
        "false alarms": sum(x.found for x in correct),
        "largest gap": max((round(x.gap, 3) for x in correct), default=None),
        "faults": len(wrong),
        "kinds of faults": len({x.fault for x in wrong}),
        "found": sum(x.found for x in wrong),
        "located": sum(x.located for x in wrong),
        "not found": dict(Counter(f"{x.fault}, {x.type}" for x in wrong if not x.found)),
        "not located": dict(Counter(f"{x.fault}, {x.type}" for x in wrong if x.found and not x.located)),
        "seconds": round(sum(x.seconds for x in trials)),
    }


def main(settings: Settings) -> int:
    """Print a line for each false alarm and each fault that was not found or not located, then what it all comes to."""
    warnings.simplefilter("ignore")
    torch.manual_seed(settings.seed)
    trials = list[Trial]()
    kinds = {"ports": ports(settings.seed, settings.ports), "faults": faults(settings.seed, settings.faults)}
    for name, made in kinds.items():
        for trial in made if settings.only in (None, name) else ():
            trials.append(trial)
            if not (trial.located if trial.fault else not trial.found):
                print(json.dumps(asdict(trial)), flush=True)
            print(f"{name}: {len(trials)}", end="\r", file=sys.stderr, flush=True)
    result = {"seed": settings.seed, **summary(trials)}
    print(json.dumps(result))
    if settings.json is not None:
        text = json.dumps({**result, "trials": [asdict(trial) for trial in trials]}, indent=2)
        write_text(settings.json, text + "\n")
    missed = result["faults"] - result["found"]
    return 1 if result["false alarms"] or missed > MISSED * result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
