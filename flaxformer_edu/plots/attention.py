"""What attention looks at, laid over the picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float, UInt8

from flaxformer_edu.plots.panels import WIDTH, new_figure, overlay, show_image, write_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGIBLE = 5  # patches a side up to which their shares are written on them


def attention_map(
    image: UInt8[np.ndarray, "height width channel"],
    shares: Float[Array | np.ndarray, "row column"],
    title: str = "attention",
) -> "Figure":
    """The image, and beside it how much of the attention falls on each patch."""
    shares = np.asarray(shares)
    figure = new_figure(1, 1, width=WIDTH, height=3.6)
    plain, covered = figure.subplots(1, 2)
    show_image(plain, image)
    plain.set_title("the model sees", fontsize=10)
    drawn = overlay(covered, image, shares)
    covered.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=covered, label="share of the attention", shrink=0.9)
    if len(shares) <= LEGIBLE:
        write_shares(covered, image, shares)
    return figure


def attention_grid(
    image: UInt8[np.ndarray, "height width channel"], shares: Float[Array | np.ndarray, "layer head row column"]
) -> "Figure":
    """The image, then a row for each layer and a column for each head.

    Each panel's colours reach from 0 to its own largest share, which stands below: heads differ too much for one scale.
    """
    shares = np.asarray(shares)
    layers, heads = shares.shape[:2]
    side = min(2.4, WIDTH / (1 + heads))
    figure = new_figure(1 + heads, layers, width=side, height=side + 0.15)
    axes = figure.subplots(layers, 1 + heads, squeeze=False)
    for axis in axes[1:, 0]:
        axis.axis("off")
    show_image(axes[0, 0], image)
    axes[0, 0].set_title("the model sees", fontsize=9)
    for (layer, head), axis in np.ndenumerate(axes[:, 1:]):
        draw_shares(axis, image, shares[layer, head], figures=heads <= 3)
        if layer == 0:
            axis.set_title(f"head {head + 1}", fontsize=9)
        if head == 0:
            axis.set_ylabel(f"layer {layer + 1}", fontsize=9)
    return figure


def draw_shares(
    axis: "Axes",
    image: UInt8[np.ndarray, "height width channel"],
    shares: Float[np.ndarray, "row column"],
    figures: bool,
) -> None:
    """Shares over an image, as `figures` where there is room for them, or else with the largest one below."""
    overlay(axis, image, shares)
    if figures and len(shares) <= LEGIBLE:
        write_shares(axis, image, shares)
    else:
        axis.set_xlabel(f"at most {shares.max():.2f}", fontsize=7, labelpad=2)


def attended_words(
    image: UInt8[np.ndarray, "height width channel"],
    words: Sequence[str],
    shares: Float[Array | np.ndarray, "word row column"],
    *,
    columns: int = 4,
) -> "Figure":
    """The image, then for each word of its caption where the model looked when it wrote it.

    Each word's colours reach from 0 to its own largest share, which stands below.
    """
    shares = np.asarray(shares)
    rows = -(-(1 + len(words)) // columns)
    figure = new_figure(columns, rows, width=WIDTH / columns, height=WIDTH / columns + 0.35)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[1 + len(words) :]:
        axis.axis("off")
    show_image(axes[0], image)
    axes[0].set_title("the model sees", fontsize=10)
    for axis, word, share in zip(axes[1:], words, shares, strict=False):
        draw_shares(axis, image, share, figures=False)
        axis.set_title(word, fontsize=11, fontweight="bold")
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
    axes = figure.subplots(batch, 1 + layers, squeeze=False)
    for row, (image, title) in enumerate(zip(images, titles, strict=True)):
        show_image(axes[row, 0], image)
        axes[row, 0].set_ylabel(title, fontsize=9)
        for layer in range(layers):
            axis = axes[row, 1 + layer]
            overlay(axis, image, received[layer, row])
            if row == 0:
                axis.set_title(f"layer {layer + 1}", fontsize=9)
            if side <= LEGIBLE:
                write_shares(axis, image, received[layer, row])
    return figure
