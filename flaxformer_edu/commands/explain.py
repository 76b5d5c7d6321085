"""`flaxformer-edu explain`: pictures of what a model that was trained here looks at in a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, UInt8
from rich.console import Console

from flaxformer_edu import plots
from flaxformer_edu.commands.checkpoint import check_notes, open_checkpoint, picture_batches, preprocessing_of
from flaxformer_edu.decode import write_captions
from flaxformer_edu.errors import InputError
from flaxformer_edu.layers import attention_rollout, patch_shares
from flaxformer_edu.models import VisionTransformer, ViTCaptioner, ViTConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Square = UInt8[np.ndarray, "height width channel"]
REMEDY = "which sees no pixels: hand in a model trained by python -m train.vit, train.mnist_vit or train.captioning "
REMEDY += "--preset pixels"


def explain(
    picture: Path,
    *,
    checkpoint: str | Path,
    out: Path = Path("explained"),
    layer: int | None = None,
    head: int | None = None,
    caption: str | None = None,
    kind: Literal["png", "svg"] = "png",
) -> int:
    """Draw what the model looks at, and print its answer. Raises InputError where it cannot.

    `layer` and `head` count from 1; without them, the last layer and the mean of the heads.
    """
    model, notes = open_checkpoint(checkpoint, (VisionTransformer, ViTCaptioner), (), REMEDY)
    captions = isinstance(model, ViTCaptioner)
    check_notes(checkpoint, notes, ("idx_to_word",) if captions else ())
    if caption is not None and not captions:
        raise InputError(f"--caption is given, but {checkpoint} holds a model that writes none")
    vision: ViTConfig = model.config.vision if captions else model.config
    drawn_layer: int = numbered("layer", layer, model.config.layers) or model.config.layers
    head = numbered("head", head, model.config.heads)
    preprocessing = preprocessing_of(notes, vision)
    ((squares, _),) = picture_batches([picture], preprocessing)
    square, image = preprocessing.levels(squares[0]), jnp.asarray(preprocessing.normalise(squares))
    if captions:
        answer, figures = explain_caption(model, square, image, notes["idx_to_word"], caption, drawn_layer, head)
    else:
        class_names = notes.get("class_names") or [f"class {i}" for i in range(vision.classes or 0)]
        answer, figures = explain_class(model, square, image, class_names, drawn_layer, head)
    vectors = position_vectors(model.vision if captions else model)
    if vectors is not None:
        prefix = 0 if vision.positions_of_patches_only else vision.prefix
        figures["positions"] = plots.position_similarity(vectors, prefix=prefix)
    console = Console(soft_wrap=True, highlight=False)
    console.print(answer, markup=False)
    for name, figure in figures.items():
        plots.save_figure(figure, out / f"{name}.{kind}")
        console.print(f"wrote {out / name}.{kind}", markup=False)
    return 0


def numbered(name: str, number: int | None, count: int) -> int | None:
    """The number itself. Raises InputError unless it is one of 1 to `count`."""
    if number is not None and not 1 <= number <= count:
        raise InputError(f"{name} is {number}, but the model has {name}s 1 to {count}")
    return number


def explain_class(
    model: VisionTransformer,
    square: Square,
    image: Float[Array, "1 height width channel"],
    class_names: Sequence[str],
    layer: int,
    head: int | None,
) -> tuple[str, dict[str, "Figure"]]:
    """The likeliest classes, and what the tokens that are classified attend to."""
    structure, params = nnx.split(model)

    @jax.jit
    def run(params: Any, image: Array) -> tuple[Array, Array]:
        merged = nnx.merge(structure, params)
        return jax.nn.softmax(merged(image).astype(jnp.float32))[0], merged.attention_maps(image)

    probabilities, maps = run(params, image)
    best = np.argsort(-np.asarray(probabilities))[:3]
    answer = "taken for: " + ", ".join(f"{class_names[i]} ({probabilities[i]:.3f})" for i in best)
    c = model.config

    def on_grid(weights: Array) -> Array:
        shares = patch_shares(weights, prefix=c.prefix, class_token=c.pooling != "mean")
        return to_grid(shares, c)

    chosen, which = choose(maps, layer, head)
    figures = {
        "attention": plots.attention_grid(square, on_grid(maps[:, 0])),
        which.replace(" ", "_"): plots.attention_map(square, on_grid(chosen[0]), title=which),
        "rollout": plots.attention_map(square, on_grid(attention_rollout(maps)[0]), title="rollout of all layers"),
    }
    return answer, figures


def explain_caption(
    model: ViTCaptioner,
    square: Square,
    image: Float[Array, "1 height width channel"],
    idx_to_word: Sequence[str],
    caption: str | None,
    layer: int,
    head: int | None,
) -> tuple[str, dict[str, "Figure"]]:
    """The caption, and what the model looks at when it writes each word."""
    text = write_captions(model, np.asarray(image), list(idx_to_word))[0] if caption is None else caption
    words = text.split()
    ids = word_ids(words, idx_to_word)
    before = jnp.array([[model.config.start_id, *ids[:-1]]])  # each word is written at the one before it
    structure, params = nnx.split(model)

    @jax.jit
    def attention(params: Any, image: Array, before: Array) -> Array:
        return nnx.merge(structure, params).attention_to_memory(image, before)

    maps = attention(params, image, before)
    chosen, which = choose(maps, layer, head)
    patches = chosen[0][:, model.config.vision.prefix :]
    return f"{which}: {text}", {"words": plots.attended_words(square, words, to_grid(patches, model.config.vision))}


def word_ids(words: Sequence[str], idx_to_word: Sequence[str]) -> list[int]:
    """The words' ids. Raises InputError for a caption without words, and for words that the model never saw."""
    if not words:
        raise InputError("the caption has no words: hand in one with --caption")
    numbers = {word: i for i, word in enumerate(idx_to_word)}
    if unknown := [word for word in words if word not in numbers]:
        raise InputError(f"the model's vocabulary of {len(idx_to_word)} words lacks {', '.join(map(repr, unknown))}")
    return [numbers[word] for word in words]


def choose(
    maps: Float[Array, "layer batch head query key"], layer: int, head: int | None
) -> tuple[Float[Array, "batch query key"], str]:
    """One layer's weights, of one head or the mean of all; and their name."""
    weights = maps[layer - 1]
    if head is None:
        return weights.mean(axis=1), f"layer {layer}"
    return weights[:, head - 1], f"layer {layer} head {head}"


def to_grid(shares: Float[Array, "*batch patch"], config: ViTConfig) -> Float[Array, "*batch row column"]:
    """The patches as they lie on the image."""
    return rearrange(shares, "... (row column) -> ... row column", row=config.image_size // config.patch_size)


def position_vectors(model: VisionTransformer) -> Float[Array, "length width"] | None:
    """The position vectors that are added to the tokens; None if the model adds none."""
    if model.positions is None:
        return None
    c = model.config
    length = c.patches + (0 if c.positions_of_patches_only else c.prefix)
    return model.positions(jnp.zeros((1, length, c.width)))[0]
