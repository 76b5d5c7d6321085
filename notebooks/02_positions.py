# %% [markdown]
# # 2. Positions: sinusoidal, learned, rotary, and a mistake
#
# After this notebook you can
#
# - show that attention by itself does not know the order of its tokens;
# - read the sinusoidal table, and say why its authors hoped that distances would be easy to learn from it;
# - say what rotary positions turn, and show that their scores depend on distances alone;
# - recognise a common mistake, multiplying by the sinusoids, by two measurements;
# - compare five ways to say where a token stands on real pictures.
#
# Data: the 1,797 handwritten digits that come with scikit-learn.

# %%
# Where the package is missing (on Colab, say): install it, with JAX for the accelerator that is there.
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("flaxformer_edu") is None:
    package = ".." if Path("../pyproject.toml").exists() else "flaxformer-edu"
    kinds = {"libtpu": "jax[tpu]", "jax_cuda12_plugin": "jax[cuda12]", "jax_cuda13_plugin": "jax[cuda13]"}
    jax_for = [kind for module, kind in kinds.items() if find_spec(module)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package, *jax_for], check=True)

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from einops import rearrange
from flax import nnx

from flaxformer_edu import notebook, plots
from flaxformer_edu.data import Batches, evaluation_batches, load_digits
from flaxformer_edu.layers import (
    BlockConfig,
    Encoder,
    MultiHeadAttention,
    Multiplied,
    Rotary,
    SinusoidalPositions,
    sinusoidal_positions,
)
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.plots import show_image
from flaxformer_edu.training import LoopConfig, Optimizer, classification, fit

notebook.set_style()
jax.config.update("jax_default_matmul_precision", "highest")  # GPUs and TPUs would round more

# %% [markdown]
# ## Without positions there is no order
#
# > "Since our model contains no recurrence and no convolution, in order for the model to make use of the order of the
# > sequence, we must inject some information about the relative or absolute position of the tokens in the sequence."
# > (Vaswani et al. 2017, section 3.5)
#
# Every step of an encoder treats all tokens alike: the projections, the feed-forward network and the norms work on each
# token by itself, and attention compares all with all. So if the tokens come in another order, the outputs come in that
# order, too, and are otherwise the same. This is called *permutation equivariance*. Let us shuffle ten random tokens
# before the encoder, and behind it, and compare:

# %%
encoder = Encoder(BlockConfig(width=32, heads=4, hidden=64, norm="pre"), 2, rngs=nnx.Rngs(0))
tokens = jax.random.normal(jax.random.key(0), (1, 10, 32))
order = jax.random.permutation(jax.random.key(1), 10)
located = SinusoidalPositions(10, 32)
for name, model in {"without positions": encoder, "with positions": lambda x: encoder(located(x))}.items():
    difference = jnp.abs(model(tokens[:, order]) - model(tokens)[:, order]).max()
    print(f"{name:17}: shuffled before or behind, the outputs differ by at most {difference:.1e}")

# %% [markdown]
# A picture says it better. A Vision Transformer reads a digit as 4 x 4 tiles of 2 x 2 pixels. If it does not know where
# a tile belongs, then a picture and the same tiles in another order are the same to it. The models below are not
# trained; the bars are their ten outputs.

# %%
digits = load_digits()
PIXELS = digits["train"].pixels  # mean and standard deviation of the training pixels
SIZES = {"patch_size": 2, "width": 64, "hidden": 128, "layers": notebook.budget(2, 1), "dropout": 0.0}


def shuffle_tiles(image, seed=0):
    """The picture's tiles of 2 x 2 pixels in a random order."""
    tiles = rearrange(image, "(row p) (column q) channel -> (row column) p q channel", p=2, q=2)
    tiles = np.random.default_rng(seed).permutation(tiles)
    return rearrange(tiles, "(row column) p q channel -> (row p) (column q) channel", row=4)


image = digits["test"]["images"][3]
pair = np.stack([image, shuffle_tiles(image)])
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, picture, title in zip(axes, pair, ("a digit", "its tiles, shuffled"), strict=False):
    show_image(axis, picture)
    axis.set_title(title)
for axis, positions in zip(axes[2:], ("none", "sinusoidal"), strict=True):
    model = VisionTransformer(replace(ViTConfig.digits(), positions=positions, **SIZES), rngs=nnx.Rngs(0))
    logits = model(PIXELS.normalise(pair))
    for side, (row, label) in enumerate(zip(logits, ("digit", "shuffled"), strict=True)):
        axis.bar(np.arange(10) + 0.4 * side, row, width=0.4, label=label)
    axis.set(title=f"positions: {positions}", xlabel="output", xticks=range(0, 10, 3))
    print(f"positions {positions}: the outputs differ by at most {jnp.abs(logits[0] - logits[1]).max():.1e}")
axes[2].legend(fontsize=7)
plt.show()

# %% [markdown]
# ## Sinusoidal positions
#
# The paper adds a vector to each token, which depends on nothing but the position $i$. Its features come in pairs, a
# sine and a cosine, which turn more slowly from pair to pair $k$ (`base` is 10,000):
#
# $$P_{i,2k} = \sin\left(i / \mathrm{base}^{2k/\mathrm{width}}\right), \qquad
# P_{i,2k+1} = \cos\left(i / \mathrm{base}^{2k/\mathrm{width}}\right)$$
#
# Think of the hands of many clocks: the first pair is the hand for seconds, the last one hardly moves.
#
# > "[...] we hypothesized it would allow the model to easily learn to attend by relative positions, since for any fixed
# > offset $k$, $PE_{pos+k}$ can be represented as a linear function of $PE_{pos}$." (section 3.5)
#
# The second half of that sentence can be checked: one matrix that takes every position's vector to the one five places
# further on, found by least squares.

# %%
LENGTH, WIDTH = 64, 64
table = sinusoidal_positions(LENGTH, WIDTH)
step = np.linalg.lstsq(table[:-5], table[5:], rcond=None)[0]
print(
    f"five places on, by one matrix for all positions: error at most {np.abs(table[:-5] @ step - table[5:]).max():.0e}"
)
similarity = table @ table.T / (WIDTH / 2)  # every vector has the squared length width / 2

figure, axes = plt.subplots(1, 3, figsize=(8, 2.8))
axes[0].imshow(table, cmap="RdBu_r", aspect="auto")
axes[0].set(title="the table", xlabel="feature", ylabel="position")
axes[1].imshow(similarity, vmin=0, vmax=1)
axes[1].set(title="similarity of two positions", xlabel="position", ylabel="position")
for position, style in ((10, "-"), (30, "--"), (50, ":")):
    axes[2].plot(np.arange(LENGTH) - position, similarity[position], style, label=f"position {position}")
axes[2].set(title="similarity by distance", xlabel="distance", ylabel="cosine")
axes[2].legend(fontsize=7, loc="upper left")
plt.show()

# %% [markdown]
# Similarity here is the cosine of the angle between two positions' vectors. It depends on the distance alone: the three
# curves on the right lie on top of each other. But these vectors are *added* to the tokens, and so a score between two
# tokens also holds products of content and position, and those do depend on where both stand. The model has to learn to
# live with that.
#
# ## Rotary positions
#
# > "[...] the proposed RoPE encodes the absolute position with a rotation matrix and meanwhile incorporates the
# > explicit relative position dependency in self-attention formulation." (Su et al. 2021, "RoFormer", abstract)
#
# RoPE adds nothing. In every layer it takes each query and key apart into pairs of features, and turns pair $k$ by
# the angle $i / \mathrm{base}^{2k/\mathrm{dim}}$, $i$ being the token's position. If the query turns by $a$ and the
# key by $b$, then their dot product changes as if the query alone had turned by $a - b$: it knows the distance, and
# nothing else.
#
# `Multiplied` is a mistake that is often taken for RoPE: it *multiplies* the features by the sines and cosines
# instead of turning pairs by them. The first two panels follow one pair of features, (1, 0.5), through eight
# positions.

# %%
ways = {"turned (rotary)": Rotary(), "multiplied": Multiplied()}
figure, axes = plt.subplots(1, 2, figsize=(6.5, 3))
for axis, (title, place) in zip(axes, ways.items(), strict=True):
    pairs = np.asarray(place(jnp.tile(jnp.array([1.0, 0.5]), (1, 8, 1, 1)))[0, :, 0])
    for i, (x, y) in enumerate(pairs):
        axis.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": plt.cm.viridis(i / 8)})
        axis.text(1.12 * x, 1.12 * y, str(i), ha="center", va="center")
    lengths = np.linalg.norm(pairs, axis=1)
    print(f"{title:16}: lengths from {lengths.min():.2f} to {lengths.max():.2f}")
    axis.set(title=title, xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xlabel="feature 0", ylabel="feature 1")
plt.show()

# %% [markdown]
# A turn keeps lengths, and so it loses nothing. The multiplication does not: at position 0 the sine is 0, and the first
# feature is gone, whatever it held.
#
# Now the scores. We put *the same* query at every position and *the same* key at every position, so that whatever
# differs between two scores is due to positions. If a score depends on the distance alone, each diagonal has one
# colour.

# %%
DIM = 32
query, key = jax.random.normal(jax.random.key(3), (2, 1, 1, 1, DIM))
everywhere = jnp.ones((1, LENGTH, 1, 1))
added = jnp.asarray(sinusoidal_positions(LENGTH, DIM), jnp.float32)[None, :, None]
ways = {"added": lambda x: x + added, "rotary": Rotary(), "multiplied": Multiplied()}
figure, axes = plt.subplots(1, 3, figsize=(8, 2.9))
for axis, (title, place) in zip(axes, ways.items(), strict=True):
    scores = np.asarray(jnp.einsum("bqhd,bkhd->qk", place(query * everywhere), place(key * everywhere))) / DIM**0.5
    spread = max(np.ptp(np.diagonal(scores, offset)) for offset in range(1 - LENGTH, LENGTH))
    print(
        f"{title:10}: scores from {scores.min():5.2f} to {scores.max():5.2f}, within a diagonal by up to {spread:.1e}"
    )
    drawn = axis.imshow(scores, cmap="RdBu_r", vmin=-np.abs(scores).max(), vmax=np.abs(scores).max())
    axis.set(title=title, xlabel="position of the key", ylabel="position of the query")
    figure.colorbar(drawn, ax=axis, shrink=0.8)
plt.show()

# %% [markdown]
# Only the rotary scores have diagonals of one colour. The second measurement is the one to remember, for it needs
# nothing but a layer: **move the whole sequence by 100 places**. Nothing about its order changes, so a layer that
# knows distances alone must attend as before.

# %%
for title, place in {"rotary": Rotary(), "multiplied": Multiplied()}.items():
    layer = MultiHeadAttention(32, 2, rotary=place, rngs=nnx.Rngs(0))
    here, there = (layer.with_weights(tokens, layer.keys_values(tokens, start=i), start=i)[1] for i in (0, 100))
    lost = int((place(jnp.ones((1, 1, 1, 16))) == 0).sum())
    change = jnp.abs(here - there).max()
    print(f"{title:10}: weights change by at most {change:.1e}; at position 0, {lost} of 16 features are lost")

# %% [markdown]
# Both answers disagree with RoPE's equation: so "multiplied" is not a variant of it but something else. Does it matter?
#
# ## Five models, the same digits
#
# A small Vision Transformer (two blocks, width 64) learns to read the digits as 16 tiles, with each way to say where
# a tile stands. All else, the seed too, is the same.

# %% budget=90
schemes = {
    "none": {"positions": "none"},
    "sinusoidal": {"positions": "sinusoidal"},
    "learned": {"positions": "learned"},
    "rotary": {"positions": "none", "rotary": Rotary()},
    "multiplied": {"positions": "none", "rotary": Multiplied()},
}
task, steps = classification(prepare=PIXELS.normalise), notebook.budget(500, 20)
optimizer = Optimizer(learning_rate=2e-3, weight_decay=0.05, schedule="cosine", warmup_steps=steps // 10)
results = {}
for name, fields in schemes.items():
    results[name] = fit(
        VisionTransformer(replace(ViTConfig.digits(), **SIZES, **fields), rngs=nnx.Rngs(0)),
        task.loss_fn,
        optimizer,
        Batches(digits["train"], 64, seed=0),
        LoopConfig(steps=steps, steps_per_call=10, evaluate_every=steps // 10),
        evaluate_fn=task.evaluate_fn,
        validation=lambda: evaluation_batches(digits["test"], 359),
        console=notebook.quiet_console(),
    )
    print(f"{name:11} accuracy {results[name].rows[-1]['eval_accuracy']:.3f}")
print(f"{len(digits['test'])} unseen digits; one of them makes {1 / len(digits['test']):.4f}")

# %%
figure, axes = plt.subplots(1, 2, sharex=True)
for name, result in results.items():
    for axis, metric in zip(axes, ("eval_loss", "eval_accuracy"), strict=True):
        rows = [row for row in result.rows if metric in row]
        axis.plot([row["step"] for row in rows], [row[metric] for row in rows], marker="o", markersize=3, label=name)
        axis.set(title=metric.replace("eval_", "of unseen digits: "), xlabel="step")
axes[1].legend(title="positions", loc="lower right")
plt.show()

# %% [markdown]
# Read the table with care: it was made of few digits. What stands out is that the model without
# positions is worse than all others, and yet far better than guessing (0.1): a bag of tiles says much about a digit,
# its ink and the directions of its strokes, but not where they are. To rank the others, train on all of MNIST with
# `python -m train.mnist_vit --compare`.
#
# Does the model without positions really not care? We show both models all test digits, and their shuffled tiles.

# %%
images = digits["test"]["images"]
shuffled = np.stack([shuffle_tiles(image, seed) for seed, image in enumerate(images)])
kept = {}
for name, result in results.items():
    accuracy = [
        float((result.model(PIXELS.normalise(batch)).argmax(axis=-1) == digits["test"]["labels"]).mean())
        for batch in (images, shuffled)
    ]
    kept[name] = accuracy
    print(f"{name:11} accuracy {accuracy[0]:.3f}, of shuffled digits {accuracy[1]:.3f}")
figure, axis = plt.subplots(figsize=(8, 2.4))
for side, label in enumerate(("digits", "shuffled tiles")):
    axis.bar(np.arange(5) + 0.4 * side, [pair[side] for pair in kept.values()], width=0.4, label=label)
axis.set(ylabel="accuracy", ylim=(0, 1.25), xticks=np.arange(5) + 0.2)
axis.set_xticklabels(list(kept))
axis.axhline(0.1, color="black", linestyle=":", label="guessing")
axis.legend(ncols=3, loc="upper center")
plt.show()

# %% [markdown]
# ## What the learned positions learned
#
# The learned vectors began as small random numbers, with no order among them. How alike are they now? The picture has a
# row and a column for each of the 16 tiles, in reading order; lines part the four rows of the picture. The model was
# never given the square: whatever it knows of it, it must have learned from the digits.

# %%
vectors = np.asarray(results["learned"].model.positions.embedding[...])
units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
cosines, places = units @ units.T, np.stack(np.divmod(np.arange(16), 4))
distances = np.abs(places[:, :, None] - places[:, None]).sum(axis=0)
for distance in range(1, 7):
    print(f"tiles {distance} steps apart: mean cosine {cosines[distances == distance].mean():5.2f}")
plots.position_similarity(vectors)

# %% [markdown]
# There is no square in it. The vectors of neighbouring tiles did not become alike; if anything, training pushed them
# apart, as the first lines of the print say. For this task that is enough: each place has a vector of its own, by
# which the layers above can know it. After training on far more and larger pictures, neighbouring patches do come to
# have similar vectors (Dosovitskiy et al. 2020, figure 7).
#
# ## Exercises
#
# 1. Without positions, does a *causal* encoder know the order? Hand `causal_mask(10)` to the encoder of the first
#    experiment, and shuffle again.
#
# <details><summary>Answer</summary>
#
# ```python
# from flaxformer_edu.layers import causal_mask
# mask = causal_mask(10)
# print(jnp.abs(encoder(tokens[:, order], mask) - encoder(tokens, mask)[:, order]).max())
# ```
#
# The outputs differ: under the mask the first token sees one token and the last one ten, so the order shows. Decoders
# can learn positions from this alone (Haviv et al. 2022, "Transformer Language Models without Positional Encodings
# Still Learn Positional Information").
#
# </details>
#
# 2. There are two layouts of RoPE: pairs $(k, k + \mathrm{dim}/2)$ and pairs $(2k, 2k + 1)$
#    (`Rotary(interleaved=True)`). Show that they give the same scores once the features of queries and keys are put
#    in another order. Why is it a mistake, all the same, to load a model's weights into the other one?
#
# <details><summary>Answer</summary>
#
# ```python
# x = jax.random.normal(jax.random.key(0), (1, 10, 1, 8))
# paired = rearrange(x, "... (two pair) -> ... (pair two)", two=2)
# ours, theirs = Rotary()(x), Rotary(interleaved=True)(paired)
# print(jnp.abs(jnp.einsum("bqhd,bkhd->qk", ours, ours) - jnp.einsum("bqhd,bkhd->qk", theirs, theirs)).max())
# ```
#
# The trained kernels expect one order of features. Loaded into the other layout, the pairs are made of features that
# do not belong together, and nothing complains: all shapes fit.
#
# </details>
#
# 3. What happens to a sequence that is longer than any in training? Try `SinusoidalPositions(10, 32)`,
#    `LearnedPositions(10, 32, rngs=nnx.Rngs(0))` and `Rotary()` on 11 tokens.
#
# <details><summary>Answer</summary>
#
# The first two raise an `InputError`, which says what to do. Sinusoids could go on (a larger `max_length` is all they
# need); learned vectors cannot: there is none for position 10. `Rotary` has no table and takes any length. That a
# model *can* be run on longer sequences does not mean that it does well there: it has never seen such distances.
#
# </details>
