"""How alike the vectors are that say where a token stands."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array, Float

from flaxformer_edu.plots.panels import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def position_similarity(vectors: Float[Array | np.ndarray, "length width"], *, prefix: int = 0) -> "Figure":
    """The cosine between every two positions' vectors (Dosovitskiy et al. 2020, figure 7, as one matrix).

    `prefix` tokens stand in front of the patches. Lines part them from the patches, and each row of patches from the
    next where the patches make a square.
    """
    vectors = np.asarray(vectors, np.float64)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity = units @ units.T
    patches = len(vectors) - prefix
    side = round(patches**0.5)
    step = side if side**2 == patches else patches
    starts = np.arange(prefix, len(vectors), step)
    figure = new_figure(1, 1, width=6.2, height=5.2)
    axis = figure.subplots()
    drawn = axis.imshow(similarity, cmap="viridis", vmin=min(0, similarity.min()), vmax=1)
    for start in starts[0 if prefix else 1 :]:
        axis.axhline(start - 0.5, color="white", linewidth=0.6)
        axis.axvline(start - 0.5, color="white", linewidth=0.6)
    middles = starts + (step - 1) / 2
    names = [f"row {i + 1}" for i in range(len(starts))] if step < patches else ["patches"]
    if prefix:
        middles, names = np.array([(prefix - 1) / 2, *middles]), ["class", *names]
    axis.set_xticks(middles, names, rotation=90 if len(names) > 6 else 0, fontsize=9)
    axis.set_yticks(middles, names, fontsize=9)
    axis.set_title("how alike the positions' vectors are", fontsize=11)
    figure.colorbar(drawn, label="cosine")
    return figure
