"""What XLA does to a program that its switches can undo.

A switch is tried out by compiling the program once more with it, whatever XLA_FLAGS says. The faults that are known
come first, then what turns off more and more.
"""

from dataclasses import dataclass

import jax

from flaxformer_edu.compiler import KNOWN_FAULTS


@dataclass(frozen=True)
class Switch:
    """One of XLA's switches, by its name without dashes, and a value that may make a difference vanish.

    what: what XLA does without it.
    reports: of the fault that it cures, where that is known.
    verifies: whether it makes XLA check its own work, and fail where that is wrong.
    """

    name: str
    value: str | int | bool
    what: str
    reports: tuple[str, ...] = ()
    verifies: bool = False

    @property
    def flag(self) -> str:
        """As XLA_FLAGS wants it."""
        return f"--{self.name}={str(self.value).lower()}"

    @property
    def explanation(self) -> str:
        """What XLA does, where that is reported, and what undoes it."""
        known = f" ({', '.join(self.reports)})" if self.reports else ""
        return f"the compiler, XLA: {self.what}{known}; set XLA_FLAGS={self.flag}"


EVERYWHERE = (
    Switch("xla_allow_excess_precision", False, "narrow numbers are kept in a wider type on the way"),
    Switch("xla_disable_hlo_passes", "fusion", "operations are fused"),
    Switch("xla_backend_optimization_level", 0, "its machine code is optimised"),
)
ON = {
    "cpu": (
        *(Switch(fault.switch, fault.cure, fault.what, fault.reports) for fault in KNOWN_FAULTS),
        Switch("xla_cpu_experimental_xnn_fusion_type", "", "products and sums are fused by XNNPACK"),
        Switch("xla_cpu_experimental_onednn_fusion_type", "", "products and sums are fused by oneDNN"),
    ),
    "gpu": (
        Switch("xla_gpu_verify_triton_fusion_numerics", True, "it finds Triton's fusions wrong itself", verifies=True),
        Switch("xla_gpu_enable_triton_gemm", False, "products are compiled by Triton"),
        Switch("xla_gpu_autotune_level", 0, "products are tuned"),
    ),
}


def switches() -> tuple[Switch, ...]:
    """Those to try on the backend in use."""
    return (*ON.get(jax.default_backend(), ()), *EVERYWHERE)
