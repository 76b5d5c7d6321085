"""What the notebooks share: the small budget, the look of their pictures, and training without a progress bar."""

import os
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")
FAST = "FLAXFORMER_EDU_FAST"


def is_fast() -> bool:
    """Whether the environment variable FLAXFORMER_EDU_FAST asks for the small budget: it is set, and not to 0."""
    return os.environ.get(FAST, "0") not in ("", "0")


def budget(full: T, fast: T) -> T:
    """`full`; or `fast`, enough to see that the code works, where FLAXFORMER_EDU_FAST asks for it.

    >>> steps = budget(600, 20)
    """
    return fast if is_fast() else full


def set_style() -> None:
    """Make matplotlib's figures 8 inches wide, with small letters and colours that colour-blind readers can tell apart.

    In Jupyter, the figures that `flaxformer_edu.plots` returns are then shown, too.
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    from flaxformer_edu.plots.panels import COLOURS

    plt.get_backend()  # Jupyter learns here how to show a figure
    plt.rcParams.update({
        "figure.figsize": (8, 3),
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.alpha": 0.3,
        "image.cmap": "viridis",
        "image.interpolation": "nearest",
        "legend.frameon": False,
    })  # fmt: skip


def quiet_console() -> Console:
    """What to hand to `fit` as its console, so that nothing is printed while it trains."""
    return Console(quiet=True, force_jupyter=False)
