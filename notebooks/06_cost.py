# %% [markdown]
# # 6. What attention costs
#
# After this notebook you can
#
# - count the operations of an attention layer, and of a whole Vision Transformer, with pencil and paper;
# - say what becomes of them, and of the parameters, when the width, the image's side, the patch size or the depth is
#   doubled, which CS231n asks in its third inline question on Transformers;
# - check such a count against what the compiler counts, and against the clock, and say why the three differ;
# - say at which length the square of the length begins to matter, and what it does to memory.
#
# No data is needed: what a network costs does not depend on what it is shown.

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
import os
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from flaxformer_edu import notebook
from flaxformer_edu.layers import MultiHeadAttention
from flaxformer_edu.models import VisionTransformer, ViTConfig

notebook.set_style()

# %% [markdown]
# ## One layer, counted by hand
#
# > "In terms of computational complexity, self-attention layers are faster than recurrent layers when the sequence
# > length $n$ is smaller than the representation dimensionality $d$." (Vaswani et al. 2017, section 4)
#
# Their table 1 gives $O(n^2 \cdot d)$ for self-attention and $O(n \cdot d^2)$ for a recurrent layer. Constants matter
# to whoever pays, so let us count them. Multiplying a matrix of $a \times b$ numbers by one of $b \times c$ takes $abc$
# multiplications and as many additions: $2abc$ **operations** (FLOPs, floating-point operations).
#
# With $N$ tokens (the `length` of the sequence) of `width` $D$:
#
# | step | shapes | operations |
# |---|---|---|
# | query, key, value, out: four linear maps | $(N \times D)(D \times D)$ | $8 N D^2$ |
# | scores $QK^\top$, all heads together | $(N \times D)(D \times N)$ | $2 N^2 D$ |
# | weighted sums of the values | $(N \times N)(N \times D)$ | $2 N^2 D$ |
#
# The number of heads $h$ drops out: each works with $D/h$ features, and there are $h$ of them. So the linear maps cost
# in proportion to $N$, everything between two tokens in proportion to $N^2$:


# %%
def attention_operations(length, width):
    """Operations of the four linear maps, and of what happens between every two tokens."""
    return 8 * length * width**2, 4 * length**2 * width


for length in (64, 256, 1024):
    linear, pairs = attention_operations(length, 128)
    share = pairs / (linear + pairs)
    print(f"{length:5} tokens of width 128: {linear:12,} + {pairs:12,} operations; between tokens: {share:.0%}")

# %% [markdown]
# ## The same layer, counted by the compiler
#
# Before a function runs, JAX hands it to the compiler XLA, which reports what the compiled program will do. Nothing has
# to be computed for that: a `ShapeDtypeStruct` stands for an array of which only shape and type are known, and
# `nnx.eval_shape` builds a layer without drawing a single weight. Beside the operations we ask for the memory that the
# program needs on the way. There, one thing stands out: the weights, $h N^2$ numbers of 4 bytes.


# %%
def compiled(module, *shape):
    """The program that XLA makes of the module for one input of that shape."""
    graphdef, params = nnx.split(module)
    function = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))
    return function.lower(params, jax.ShapeDtypeStruct(shape, jnp.float32)).compile()


WIDTH, HEADS = 128, 4
LENGTHS = [2**k for k in range(4, notebook.budget(13, 9))]
layer = nnx.eval_shape(lambda: MultiHeadAttention(WIDTH, HEADS, rngs=nnx.Rngs(0)))
programs = [compiled(layer, 1, length, WIDTH) for length in LENGTHS]
counted = np.array([program.cost_analysis()["flops"] for program in programs])
memory = np.array([program.memory_analysis().temp_size_in_bytes for program in programs])
predicted = np.array([attention_operations(length, WIDTH) for length in LENGTHS])
print("tokens   million operations   ratio       MiB of memory")
print("         by hand     by XLA           weights      in all")
for i, length in enumerate(LENGTHS):
    hand, weights = predicted[i].sum(), HEADS * length**2 * 4
    print(f"{length:6} {hand / 1e6:9.1f} {counted[i] / 1e6:10.1f} {counted[i] / hand:7.3f}", end="")
    print(f" {weights / 2**20:9.2f} {memory[i] / 2**20:11.2f}")
assert np.allclose(counted, predicted.sum(axis=1), rtol=0.1) or jax.default_backend() != "cpu"

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
axes[0].plot(LENGTHS, predicted[:, 0], "--", label="linear maps: $8ND^2$")
axes[0].plot(LENGTHS, predicted[:, 1], "--", label="between tokens: $4N^2D$")
axes[0].plot(LENGTHS, predicted.sum(axis=1), color="grey", label="both, by hand")
axes[0].plot(LENGTHS, counted, "o", color="black", markersize=4, label="counted by XLA")
axes[0].axvline(2 * WIDTH, color="grey", linewidth=0.8, linestyle=":")
axes[0].annotate("N = 2D", (2 * WIDTH, counted[0]), xytext=(4, 0), textcoords="offset points", fontsize=8)
axes[0].set(title=f"operations of one layer, width {WIDTH}", ylabel="operations")
axes[1].plot(LENGTHS, HEADS * np.square(LENGTHS) * 4, "--", color="C1", label="attention weights: $4hN^2$ bytes")
axes[1].plot(LENGTHS, memory, "o", color="black", markersize=4, label="all of it, by XLA")
axes[1].set(title="memory that it needs on the way", ylabel="bytes")
for axis in axes:
    axis.set(xscale="log", yscale="log", xlabel="tokens N")
    axis.set_xticks([16, 64, 256, 1024, 4096][: notebook.budget(5, 3)], minor=False)
    axis.get_xaxis().set_major_formatter("{x:.0f}")
    axis.minorticks_off()
    axis.legend(fontsize=8)

# %% [markdown]
# The compiler counts a few per cent more than we did, and the more so the longer the sequence: it includes the softmax,
# the scale and the biases, which are no matrix products. The memory is about twice that of the weights, as the scores
# they are made from take as much. Where the two dashed lines cross, at $N = 2D$ (dotted), half of the work is done
# between tokens. To its right each doubling of $N$ costs four times as much, in operations and in memory. The memory is
# why long sequences need other algorithms, such as FlashAttention (Dao et al. 2022), which gives the same result
# without ever holding all weights at once.
#
# ## Four doublings
#
# Now a whole Vision Transformer. An image of side $S$ is cut into patches of side $P$, so $N = (S / P)^2$. One block is
# attention and a feed-forward network of two linear maps, from $D$ to $H$ features and back: $4NDH$ operations. With
# $L$ blocks, $C$ channels and $K$ classes that makes
#
# $$L\,(8ND^2 + 4N^2D + 4NDH) + 2NP^2CD + 2DK$$
#
# The last two terms are the patches' embedding and the classifier. The parameters are counted alike: a linear map from
# $a$ to $b$ features has $ab + b$ of them, a normalisation $2D$. The course asks what doubling does to the cost:
# predict before you read on, for each of the four, by which factor the attention layers' operations grow or shrink. (By
# *width* we mean $D$; $H$ is kept at $4D$.)

# %%
base = ViTConfig(
    image_size=32, patch_size=4, classes=10, width=128, hidden=512, layers=4, heads=4, norm="pre", final_norm="tokens"
)
MODELS = {
    "base": base,
    "width x 2": replace(base, width=256, hidden=1024),
    "image side x 2": replace(base, image_size=64),
    "patch size x 2": replace(base, patch_size=8),
    "depth x 2": replace(base, layers=8),
}


def predict(c):
    """Operations of the attention layers, operations of the whole model, parameters."""
    attention = c.layers * sum(attention_operations(c.patches, c.width))
    pixels = c.patch_size**2 * c.channels
    others = c.layers * 4 * c.patches * c.width * c.hidden + 2 * c.width * (c.patches * pixels + c.classes)
    block = 4 * (c.width**2 + c.width) + 2 * c.width * c.hidden + c.hidden + c.width + 4 * c.width
    around = pixels * c.width + c.width + 2 * c.width + c.width * c.classes + c.classes
    return np.array([attention, attention + others, c.layers * block + around])


for name, config in MODELS.items():
    attention, whole, parameters = predict(config)
    print(f"{name:15} {config.patches:4} patches {attention / 1e6:8.1f} million operations in attention, "
          f"{whole / 1e6:6.1f} in all; {parameters:10,} parameters")  # fmt: skip

# %% [markdown]
# ## Predicted, counted, and timed
#
# Now the same three figures from the real networks. First XLA's counts, for the attention layers alone and for the
# whole model, and the parameters, one by one:

# %%
networks = {name: VisionTransformer(config, rngs=nnx.Rngs(0)) for name, config in MODELS.items()}
counts = {}
for name, network in networks.items():
    c = network.config
    layer = compiled(network.encoder.blocks[0].attention, 1, c.patches, c.width).cost_analysis()["flops"]
    whole = compiled(network, 1, c.image_size, c.image_size, c.channels).cost_analysis()["flops"]
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(network)))
    counts[name] = np.array([c.layers * layer, whole, parameters])

ratios = {name: (predict(MODELS[name]) / predict(base), counts[name] / counts["base"]) for name in MODELS}
print("times the base model's   attention       whole model      parameters")
print(" " * 22 + "  by hand    XLA" * 2 + "  by hand   real")
for name, (hand, real) in ratios.items():
    print(f"{name:22}" + "".join(f"{hand[k]:9.3f}{real[k]:7.3f}" for k in range(3)))
    assert predict(MODELS[name])[2] == counts[name][2], "parameters are predicted exactly"
    if jax.default_backend() == "cpu":  # elsewhere kernels from libraries do some of the work, which XLA may not see
        assert np.allclose(hand, real, rtol=0.1), "operations are predicted to ten per cent"

# %% [markdown]
# Then the clock. Each model works through a batch of eight images, in turn, round after round, so that whatever else
# the computer is doing disturbs all of them alike. Single times are noisy, so we take the median over the rounds, and
# give the quartiles with it: half of all rounds lie between them. If they are far apart, the computer was busy, and the
# medians are worth little.

# %%
BATCH, ROUNDS = 8, notebook.budget(40, 3)
runs = []
for network in networks.values():
    shape = (BATCH, network.config.image_size, network.config.image_size, 3)
    runs.append((compiled(network, *shape), nnx.split(network)[1], jnp.ones(shape)))


def seconds(program, params, images):
    """How long the program takes, until its result is there: JAX returns before it is."""
    started = time.perf_counter()
    program(params, images).block_until_ready()
    return time.perf_counter() - started


for run in runs:
    seconds(*run)  # the first run is left out: it pays for what is set up once
rounds = np.array([[seconds(*run) for run in runs] for _ in range(ROUNDS)])
low, clock, high = np.quantile(rounds, [0.25, 0.5, 0.75], axis=0) / np.median(rounds[:, 0])
for name, *figures in zip(MODELS, clock, low, high, strict=True):
    print("{:15} {:6.2f} times the base model's time (quartiles {:.2f} and {:.2f})".format(name, *figures))
print(f"{ROUNDS} rounds on a {jax.devices()[0].platform}, {os.cpu_count()} cores; other computers, other ratios")

# %%
figure, axis = plt.subplots(figsize=(8, 3.2))
names, rows = list(MODELS)[1:], np.arange(len(MODELS) - 1)
series = {
    "attention, by hand": ([ratios[name][0][0] for name in names], "s", "C0"),
    "attention, XLA": ([ratios[name][1][0] for name in names], "x", "black"),
    "whole model, by hand": ([ratios[name][0][1] for name in names], "o", "C1"),
    "whole model, XLA": ([ratios[name][1][1] for name in names], "+", "black"),
    "whole model, clock": (clock[1:], "D", "C2"),
    "parameters": ([ratios[name][1][2] for name in names], "v", "C3"),
}
for shift, (label, (values, marker, colour)) in zip((0.3, 0.3, 0.1, 0.1, -0.1, -0.3), series.items(), strict=True):
    axis.plot(values, rows[::-1] + shift, marker, color=colour, label=label, markersize=7)
    if label.endswith("clock"):
        axis.hlines(rows[::-1] + shift, low[1:], high[1:], color=colour)
axis.set(xscale="log", xlabel="times the base model's", title="what doubling does", ylim=(-0.6, 3.6))
axis.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["1/4", "1/2", "1", "2", "4", "8"])
axis.minorticks_off()
axis.set_yticks(rows[::-1], names)
legend = axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# Read it line by line, with the formula beside it:
#
# - **Depth** is the easy one: every block costs the same, so twice as many cost twice as much, in everything but the
#   few parameters outside the blocks.
# - **Width** quadruples the linear maps ($D^2$) but only doubles what happens between tokens ($D$). The sum lies
#   between 2 and 4, and nearer to 4 the fewer tokens there are.
# - **The image's side** quadruples the number of patches. The linear maps grow by 4, what happens between tokens by
#   $4^2 = 16$. The parameters do not change at all: that is why a trained model can be given larger images.
# - **The patch size** is the same in reverse: a quarter of the patches. Only the embedding's parameters grow.
#
# The count by hand and by XLA give nearly the same ratios: what we left out (softmax, GELU, normalisation) is a small
# part of the whole. The clock is another matter, and it answers differently on every computer: large matrix products
# use a processor better than small ones, and reading and writing memory takes time that no count of operations
# contains. Use the formula to know what grows, and the clock to know what you wait for.
#
# ## Training costs three times as much
#
# Backpropagation needs two products for each one of the forward pass: with $y = xW$ and the loss's gradient $\bar y$,
# the gradients are $\bar x = \bar y W^\top$ and $\bar W = x^\top \bar y$, of as many operations each. So a training
# step should take three times the operations of the forward pass:

# %%
graphdef, params = nnx.split(networks["base"])


def loss(params, images):
    """Any scalar will do: only the operations are counted."""
    return nnx.merge(graphdef, params)(images).sum()


images = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32)
forward, training = (
    jax.jit(function).lower(params, images).compile().cost_analysis()["flops"]
    for function in (loss, jax.value_and_grad(loss))
)
print(f"with gradients: {training / forward:.2f} times the operations of the forward pass, counted by XLA")
assert 2.7 < training / forward < 3.3 or jax.default_backend() != "cpu"

# %% [markdown]
# ## When does the square hurt?
#
# In a block, the part between tokens reaches half of all operations where $4N^2D = 8ND^2 + 4NDH$, which is $N = 2D +
# H$; with the usual $H = 4D$ that is $N = 6D$. Below, its share for ViT-B/16 (Dosovitskiy et al. 2020), whose width is
# 768, at growing image sides, and the same for a width of 192 (ViT-Ti/16).

# %%
sides = np.arange(64, 2049, 16)
figure, axis = plt.subplots(figsize=(8, 3))
for name, config in {"ViT-B/16": ViTConfig.b16(), "ViT-Ti/16": ViTConfig.ti16()}.items():
    tokens = (sides // config.patch_size) ** 2 + config.prefix
    share = tokens / (tokens + 2 * config.width + config.hidden)
    axis.plot(sides, share, label=f"{name}: width {config.width}")
    for side in (224, 384, 1024):
        length, between = tokens[sides == side][0], share[sides == side][0]
        print(f"{name:9} at {side:4} pixels: {length:5} tokens, {between:4.0%} of the operations between them")
axis.axvline(224, color="grey", linewidth=0.8, linestyle=":")
axis.annotate("224 pixels", (224, 0.93), xytext=(4, 0), textcoords="offset points", fontsize=8)
axis.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
axis.set(xlabel="side of the image, in pixels", ylabel="share of the operations", ylim=(0, 1))
axis.set_title("what happens between tokens, of all operations in a block")
legend = axis.legend()

# %% [markdown]
# At the size it was published for, ViT-B/16 spends nearly all its operations in plain linear maps (the first printed
# line). "Attention is quadratic" is true, and for small images and wide models it is not what you pay for. For large
# images and narrow models it is.
#
# ## Exercises
#
# **1.** Halve the patch size of `base` to 2, and at the same time halve the width (and $H$). Do the attention layers
# get cheaper or more expensive? Predict, then ask `predict` and `compiled`.
#
# <details><summary>Answer</summary>
#
# $N$ becomes $4N$, $D$ becomes $D/2$. The linear maps: $8 \cdot 4N \cdot D^2/4$, as before. Between tokens: $4 \cdot
# 16N^2 \cdot D/2$, eight times as much. So more expensive, and how much depends on the share that the second part had.
#
# </details>
#
# **2.** You may spend four times the parameters. Would you rather double the width or quadruple the depth? What does
# each cost in operations?
#
# <details><summary>Answer</summary>
#
# Parameters of the blocks go with $LD^2$, so both give four times as many. The linear maps' operations, $LND^2$, grow
# by four either way. Between tokens, $LN^2D$, the deep model pays four times and the wide one only twice. The wide one
# also has larger matrix products, which processors like, and no longer chain of layers that must wait for each other.
#
# </details>
#
# **3.** A causal mask forbids half of all pairs of tokens. Does XLA count fewer operations for `layer(x,
# mask=causal_mask(length))`? Try it (`flaxformer_edu.layers.causal_mask`).
#
# <details><summary>Answer</summary>
#
# No, slightly more: all scores are computed, and those that are forbidden are replaced afterwards. To save the half, a
# program has to know beforehand which blocks of the score matrix are empty, as FlashAttention's kernels do.
#
# </details>
#
# **4.** A decoder writes $N$ words, one after the other. How many operations does self-attention take in all if it is
# given the whole prefix again for each word, and how many if keys and values of earlier words are kept
# (`flaxformer_edu.decode` does that)? Count the highest power of $N$ only.
#
# <details><summary>Answer</summary>
#
# Without the cache, word $n$ costs $8nD^2 + 4n^2D$; the sum over $n$ is about $4N^2D^2 + \tfrac{4}{3}N^3D$: the third
# power. With it, word $n$ costs $8D^2 + 4nD$, in all $8ND^2 + 2N^2D$: the second power, as for one pass over the
# finished sentence.
#
# </details>
