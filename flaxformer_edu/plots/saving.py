"""A figure as a file."""

from pathlib import Path
from typing import TYPE_CHECKING

from flaxformer_edu.errors import InputError
from flaxformer_edu.files import written_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".png", ".pdf", ".svg", ".jpg", ".jpeg")


def save_figure(figure: "Figure", path: Path, *, dpi: float | None = None) -> None:
    """Write the figure, of the kind that the path ends in, whole or not at all.

    Raises InputError for another ending, and where it cannot be written.
    """
    check_figure_name(path)
    with written_file(path) as draft:
        figure.savefig(draft, dpi="figure" if dpi is None else dpi)


def check_figure_name(path: Path) -> None:
    """Raise InputError unless the path ends in a kind of picture that can be written."""
    if path.suffix.lower() not in KINDS:
        raise InputError(f"{path} does not end in a kind of picture that can be written: call it {path.stem}.png")
