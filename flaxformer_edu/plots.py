"""Pictures: one function each, which returns a matplotlib figure that belongs to no window."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, UInt8

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def captioned_pictures(
    pictures: Sequence[UInt8[np.ndarray, "height width 3"]], captions: Sequence[str], *, columns: int = 3
) -> "Figure":
    """A sheet of pictures, each with its caption below."""
    figure = new_figure(columns, -(-len(pictures) // columns), width=3.2, height=2.6)
    axes = figure.subplots(-(-len(pictures) // columns), columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, picture, caption in zip(axes, pictures, captions, strict=False):
        axis.imshow(picture)
        axis.set_title(wrap(caption), y=-0.02, verticalalignment="top", fontsize=9)
    return figure


def attention_received(
    images: UInt8[np.ndarray, "batch height width channel"],
    maps: Float[Array | np.ndarray, "layer batch head patch patch"],
    titles: Sequence[str],
) -> "Figure":
    """A row for each image: the image, then for each layer how much every patch is attended to (mean over the heads).

    Each map is scaled to its own range; the figures on it are the shares, which add up to 1.
    """
    layers, batch, _, _, patches = maps.shape
    side = round(patches**0.5)
    received = np.asarray(maps).mean(axis=(2, 3)).reshape(layers, batch, side, side)
    figure = new_figure(1 + layers, batch, width=1.9, height=1.9)
    for row, (image, title) in enumerate(zip(images, titles, strict=True)):
        height, width, channels = image.shape
        for column in range(1 + layers):
            axis = figure.add_subplot(batch, 1 + layers, row * (1 + layers) + column + 1)
            axis.set(xticks=[], yticks=[])
            axis.imshow(image[..., 0] if channels == 1 else image, cmap="gray_r", extent=(0, width, height, 0))
            if column == 0:
                axis.set_ylabel(title, fontsize=9)
                continue
            shares = received[column - 1, row]
            axis.imshow(shares, cmap="viridis", alpha=0.55, extent=(0, width, height, 0))
            if row == 0:
                axis.set_title(f"layer {column}", fontsize=9)
            if side <= 4:
                for (i, j), share in np.ndenumerate(shares):
                    x, y = (j + 0.5) * width / side, (i + 0.5) * height / side
                    text = axis.text(x, y, f"{share:.2f}", color="white", fontsize=8, path_effects=outline())
                    text.set(horizontalalignment="center", verticalalignment="center")
    return figure


def new_figure(columns: int, rows: int, *, width: float, height: float) -> "Figure":
    """A figure for a grid of panels of that many inches each."""
    from matplotlib.figure import Figure

    return Figure(figsize=(columns * width, rows * height), layout="constrained", dpi=120)


def outline():
    """A dark edge around light text, readable on any ground."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="black")]


def wrap(text: str, width: int = 34) -> str:
    """The text in lines of at most so many characters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
