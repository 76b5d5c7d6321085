"""Rules that most layouts share."""

from flaxformer_edu.convert.rules import Rule


def linear(torch: str, ours: str) -> tuple[Rule, ...]:
    """nn.Linear stores its weight output first."""
    return Rule(f"{torch}.weight", f"{ours}.kernel", "output input -> input output"), Rule(
        f"{torch}.bias", f"{ours}.bias"
    )


def layer_norm(torch: str, ours: str) -> tuple[Rule, ...]:
    """nn.LayerNorm calls its scale weight."""
    return Rule(f"{torch}.weight", f"{ours}.scale"), Rule(f"{torch}.bias", f"{ours}.bias")
