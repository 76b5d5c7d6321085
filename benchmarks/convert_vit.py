"""ViT-B/16 at full size: logits, the time to convert its 346 MB, and the memory that reading takes.

    python -m benchmarks.convert_vit               # on Linux, whose /proc tells the memory

The weights are random. `flaxformer-edu convert`, the same in one process, and PyTorch (torch.load, load_state_dict,
torch.save) take turns, so that a busy machine slows down all of them.
"""

import contextlib
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import tyro

from benchmarks.counts import checked
from flaxformer_edu import convert
from flaxformer_edu.commands.convert import convert as command
from flaxformer_edu.models import VisionTransformer, ViTConfig
from tests.twins.libraries import import_torchvision

READING = """
import sys
from pathlib import Path
from flaxformer_edu import convert

def peak():  # in bytes; what getrusage gives is inherited from the process that started this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

before = peak()
total = sum(float(array.sum()) for array in convert.read(sys.argv[1]).values())
print(peak() - before)
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    rounds: int = 5
    images: int = 2


def twin() -> torch.nn.Module:
    """torchvision's model; every parameter is random, also those that begin at zero."""
    torch.manual_seed(0)
    model = import_torchvision().models.vit_b_16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def logits_error(model: torch.nn.Module, path: Path, images: int) -> float:
    """The largest difference of two logits, in units of the largest logit."""
    pixels = np.random.default_rng(0).normal(size=(images, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(pixels.transpose(0, 3, 1, 2))).numpy()
    with jax.default_matmul_precision("highest"):
        ours = convert.from_torch(VisionTransformer, ViTConfig.b16(), convert.read(path))(pixels)
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def converters(model: torch.nn.Module, path: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """What takes turns: PyTorch, and ours to each kind of target."""

    def pytorch() -> None:
        model.load_state_dict(torch.load(path))
        torch.save(model.state_dict(), folder / "pytorch.pth")

    ours = {name: folder / name for name in ("ours.pth", "ours.safetensors", "ours")}
    return {
        "pytorch": pytorch,
        **{
            f"to {name}": lambda to=to: command(str(path), to, target_layout=layout_of(to)) for name, to in ours.items()
        },
    }


def layout_of(target: Path) -> str | None:
    """timm's names where the target is a file: not those that the source has."""
    return "timm" if target.suffix else None


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        run()
    return time.perf_counter() - start


def main(settings: Settings) -> None:
    """Print a line of JSON."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, path = twin(), folder / "vit_b_16.pth"
        torch.save(model.state_dict(), path)
        turns: dict[str, list[float]] = {}
        for _ in range(settings.rounds):
            for name, run in converters(model, path, folder).items():
                for old in folder.glob("ours*"):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
                turns.setdefault(name, []).append(seconds(run))
        medians = {name: statistics.median(times) for name, times in turns.items()}
        arguments = [sys.executable, "-c", READING, str(path)]
        memory = int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
        size = path.stat().st_size
        row = {
            "megabytes": round(size / 1e6, 1),
            "logits_relative_error": logits_error(model, path, settings.images),
            "seconds": {name: round(value, 3) for name, value in medians.items()},
            "ratio": {name: round(value / medians["pytorch"], 2) for name, value in medians.items()},
            "reading_peak_over_file": round(memory / size, 3),
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main(checked(tyro.cli(Settings)))
