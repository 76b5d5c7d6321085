"""`flaxformer-edu doctor`: what runs here and whether its compiler is right, on one page for a bug report."""

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from flaxformer_edu import canaries, compiler
from flaxformer_edu.files import cache_folder, write_json

PACKAGES = ("flaxformer-edu", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
EXTRAS = ("torch", "tensorboardX", "sacrebleu", "tokenizers", "huggingface_hub", "jupytext")
VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "NNX_GRAPH_MODE", "NNX_GRAPH_UPDATES")
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_disable_jit", "jax_disable_most_optimizations")
REPORT_IT = "No switch is known that cures this. Please report it with this page; jaxlib 0.10.1 passes all of them."

Page = dict[str, dict[str, Any]]  # for each section, the name and the content of each line


def page(verdicts: Iterable[canaries.Verdict]) -> Page:
    """The page, section by section. The canaries' verdicts are lists of outcome, detail and source."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "extras": {name: _version(name) for name in EXTRAS},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "devices": {str(device): f"{device.device_kind}, {_memory(device)}" for device in jax.devices()},
        "settings": {name: os.environ.get(name) for name in VARIABLES}
        | {name: jax.config.values[name] for name in SETTINGS},
        "caches": {
            "data": _cache(cache_folder()),
            "compiled programs": _cache(jax.config.values["jax_compilation_cache_dir"]),
        },
        "canaries": {verdict.canary: asdict(verdict) for verdict in verdicts},
        "speed": {"product": _speed(1024 if jax.default_backend() == "cpu" else 8192)},
    }


def cures(verdicts: Iterable[canaries.Verdict]) -> list[str]:
    """What to do about the canaries that failed; empty if none did."""
    if all(verdict.ok for verdict in verdicts):
        return []
    flags = compiler.flags().split()
    return [fault.remedy for fault in compiler.KNOWN_FAULTS if fault.flag not in flags] or [REPORT_IT]


def run(json_file: Path | None) -> int:
    """Print the page; 1 if a canary fails, else 0."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    verdicts = list(canaries.run())
    report = page(verdicts)
    for section, lines in report.items():
        console.print(f"\n{section}")
        for name, said in lines.items():
            console.print(f"  {name:<32}{_line(said)}")
    advice = cures(verdicts)
    if advice:
        console.print("\nThe compiler is wrong here. The cure:", *advice, sep="\n")
    if json_file is not None:
        write_json(json_file, report | {"cures": advice})
    return 1 if advice else 0


def _line(said: Any) -> str:
    if isinstance(said, dict):
        return f"{said['outcome']}: {said['detail']} ({said['report']})"
    return "-" if said is None else str(said)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory(device: Any) -> str:
    if device.platform == "cpu":  # its memory is the machine's
        return _size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return _size((device.memory_stats() or {}).get("bytes_limit"))


def _cache(folder: str | Path | None) -> str | None:
    if folder is None:
        return None
    return f"{folder}, {_size(sum(file.stat().st_size for file in Path(folder).rglob('*') if file.is_file()))}"


def _size(count: int | None) -> str:
    return "memory unknown" if count is None else f"{count / 2**20:,.0f} MiB"


def _speed(width: int, repetitions: int = 5) -> str:
    """The best of a few products of two square float32 matrices."""
    matrix = jnp.ones((width, width), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        multiply(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return f"{2 * width**3 / min(seconds) / 1e9:.0f} GFLOP/s, {width} x {width}, float32"
