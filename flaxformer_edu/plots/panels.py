"""What the pictures have in common: figures without a window, colours, images with something laid over them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Image = UInt8[np.ndarray, "height width channel"]
WIDTH = 7.5  # inches of a whole figure: 900 pixels
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
BLACK = 60  # of 255


def new_figure(columns: int, rows: int, *, width: float, height: float) -> "Figure":
    """A figure for a grid of panels of that many inches each."""
    from matplotlib.figure import Figure

    return Figure(figsize=(columns * width, rows * height), layout="constrained", dpi=120)


def show_image(axis: "Axes", image: Image) -> None:
    """The image without ticks, in grey where it has one channel."""
    height, width, channels = image.shape
    axis.set(xticks=[], yticks=[])
    pixels = image[..., 0] if channels == 1 else image
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))


def overlay(axis: "Axes", image: Image, shares: Float[np.ndarray, "row column"]) -> "ScalarMappable":
    """The image in grey under a grid of shares, coloured from 0 to their largest; what they are drawn by.

    The larger a share, the less of the image shows through. Its black is lightened, as it would swallow the colours.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width, _ = image.shape
    grey = np.rint(BLACK + (255 - BLACK) / 255 * image.mean(axis=2, keepdims=True))
    show_image(axis, grey.astype(np.uint8))
    scale = Normalize(0, shares.max())
    opacity = 0.3 + 0.5 * shares / shares.max()
    axis.imshow(shares, cmap="viridis", norm=scale, alpha=opacity, extent=(0, width, height, 0))
    return ScalarMappable(scale, "viridis")


def write_shares(axis: "Axes", image: Image, shares: Float[np.ndarray, "row column"]) -> None:
    """The shares as figures, each on its patch."""
    (height, width, _), (rows, columns) = image.shape, shares.shape
    for (i, j), share in np.ndenumerate(shares):
        x, y = (j + 0.5) * width / columns, (i + 0.5) * height / rows
        text = axis.text(x, y, f"{share:.2f}", color="white", fontsize=8, path_effects=outline())
        text.set(horizontalalignment="center", verticalalignment="center")


def outline():
    """A dark edge around light text, readable on any ground."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="black")]


def wrap(text: str, width: int = 34) -> str:
    """The text in lines of at most `width` characters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
