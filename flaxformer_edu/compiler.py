"""The faults of XLA that are known, and the switches that cure them, set when the package is imported.

XLA's compiler for the CPU hands reductions, and the products fused with them, to a library called YNNPACK. In the
releases named below that gives wrong numbers without a word, or kills the process. XLA reads its switches from the
variable XLA_FLAGS when the first backend opens, so `import flaxformer_edu` sets them there, and leaves alone what the
user has set. The README says what was measured; `flaxformer-edu doctor` tries the installed compiler out.
"""

import os
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from jaxlib.version import __version__ as JAXLIB

VARIABLE = "XLA_FLAGS"

# For tests and small budgets, where most of the time goes into compiling small programs, and most of that into XLA's
# newer generator of code for the CPU. jaxlib 0.11 has no other, and ends the process at a flag that it does not know.
QUICK_TO_COMPILE = "--xla_cpu_parallel_codegen_split_count=1" + (
    " --xla_cpu_use_fusion_emitters=false" if JAXLIB.startswith("0.10.") else ""
)


class CompilerWarning(UserWarning):
    """The compiler in use is known to be wrong, and it is too late, or not ours, to set the switch that cures it."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a release of XLA does wrong, and the switch that cures it."""

    what: str
    switch: str
    """The switch's name, without dashes."""
    cure: str
    """Its value that cures the fault."""
    shipped: str
    """Its value that says what XLA does where nothing is set: for trying the fault out."""
    since: tuple[int, int, int]
    """The first jaxlib that is wrong. A release that is found to be right will end the range."""
    reports: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The switch as XLA_FLAGS wants it."""
        return f"--{self.switch}={self.cure}"

    @property
    def options(self) -> dict[str, str]:
        """The switch as `jax.jit(function, compiler_options=...)` wants it, whatever XLA_FLAGS says."""
        return {self.switch: self.cure}

    @property
    def remedy(self) -> str:
        """The line that cures the fault in a shell."""
        return f'export {VARIABLE}="${VARIABLE} {self.flag}"'


# All of YNNPACK's fusions are off. Of the three kinds that are on (individual_dot, individual_convolution, reduce)
# "-reduce" takes out only the one whose faults are known; it is no faster, and jax.jit's options do not take it.
YNNPACK = Fault(
    what="products and sums fused by YNNPACK are wrong on the CPU, or kill the process",
    switch="xla_cpu_experimental_ynn_fusion_type",
    cure="",
    shipped="+reduce",
    since=(0, 10, 2),
    reports=("jax-ml/jax#39103", "jax-ml/jax#39257", "jax-ml/jax#40412"),
)
# Of the faults reported for GPUs (jax-ml/jax#39486, #39100, #40633) none has a switch that is known to cure it.
KNOWN_FAULTS = (YNNPACK,)


def faults(jaxlib: str = JAXLIB) -> tuple[Fault, ...]:
    """The known faults of a release of jaxlib, by default of the installed one.

    >>> [fault.switch for fault in faults("0.10.2")], faults("0.10.1")
    (['xla_cpu_experimental_ynn_fusion_type'], ())
    """
    release = tuple(int(number) for number in re.findall(r"\d+", jaxlib)[:3])
    return tuple(fault for fault in KNOWN_FAULTS if release >= fault.since)


def guard() -> None:
    """Set the switches that cure the installed compiler, except those that the user has set; warn where it is late."""
    for fault in faults():
        if fault.switch in flags():
            continue
        if _backend_is_open():
            _warn(fault, f"Import flaxformer_edu before anything opens a backend, or run\n{fault.remedy}")
        elif _flags_file():
            _warn(fault, f"Add {fault.flag} to the file that {VARIABLE} names, {_flags_file()}")
        else:
            os.environ[VARIABLE] = f"{os.environ.get(VARIABLE, '')} {fault.flag}".strip()


def flags() -> str:
    """XLA's flags: what the variable says, or the file that it names."""
    file = _flags_file()
    return file.read_text() if file else os.environ.get(VARIABLE, "")


def _flags_file() -> Path | None:
    value = os.environ.get(VARIABLE, "").strip()
    return Path(value) if value and not value.startswith("-") and Path(value).is_file() else None


def _backend_is_open() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")  # jax has no public way to ask that does not open one
    return bridge is not None and bridge.backends_are_initialized()


def _warn(fault: Fault, cure: str) -> None:
    reports = ", ".join(fault.reports)
    wrong = f"with jaxlib {JAXLIB}, {fault.what} ({reports}), and the switch that cures it is not set."
    warnings.warn(f"{wrong} {cure}", CompilerWarning, stacklevel=4)  # at the line that imports the package
