# %% [markdown]
# # 1. Attention: why the scale, why heads, why the last projection
#
# After this notebook you can
#
# - read attention as a lookup, and say what each symbol of its equation stands for;
# - show by measurement what the division by the square root of the dimension prevents;
# - say what two heads can do that one cannot, however wide it is;
# - say what the output projection is for, and what a layer without it cannot learn.
#
# These are the three parts of CS231n's first inline question on Transformers. Here they are answered by experiments,
# each of which you can change and run again. No data is needed, and no accelerator.

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
import inspect
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from einops import rearrange
from flax import nnx

from flaxformer_edu import notebook
from flaxformer_edu.data import ArrayDataset, Batches
from flaxformer_edu.layers import KeysValues, MultiHeadAttention, dot_product_attention, sinusoidal_positions
from flaxformer_edu.training import LoopConfig, Optimizer, fit

notebook.set_style()
jax.config.update("jax_default_matmul_precision", "highest")  # GPUs and TPUs would round more

# %% [markdown]
# ## A lookup that is never quite sure
#
# > "An attention function can be described as mapping a query and a set of key-value pairs to an output."
# > (Vaswani et al. 2017, "Attention Is All You Need", section 3.2)
#
# A Python `dict` does the same: it finds the one key that equals the query, and returns its value. Attention compares
# the query with *all* keys, and returns a mean of all values, in which the values of better fitting keys weigh more:
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# | symbol | what it is | axes in this package |
# |---|---|---|
# | $Q$ | the queries, one per row: what is looked for | `batch query head dim` |
# | $K$ | the keys: what each place offers to be found by | `batch key head dim` |
# | $V$ | the values: what is fetched from it | `batch key head dim` |
# | $d$ | the number of features of a query and of a key | `dim` |
# | $Q K^\top$ | the scores: the dot product of each query with each key | `batch head query key` |
# | softmax | turns a row of scores into weights that are positive and add up to 1 | `batch head query key` |
#
# This is the function that every model of the package uses, as it is tested against PyTorch:

# %%
print(inspect.getsource(dot_product_attention))

# %% [markdown]
# As a first experiment, eight keys stand around a circle, 45 degrees apart, and the value of each is the sine of its
# angle. The queries go once around the circle. So the function looks up a sine in a table of eight entries.
#
# A longer query (here 5 and 100 times as long) makes all scores larger, and the softmax more certain.

# %%
angles = {"keys": np.arange(8) * math.pi / 4, "queries": np.linspace(0, 2 * math.pi, 73)}
points = {name: jnp.stack([jnp.cos(a), jnp.sin(a)], axis=-1)[None, :, None] for name, a in angles.items()}
values = jnp.sin(angles["keys"])[None, :, None, None]

degrees = np.rad2deg(angles["queries"])
figure, axes = plt.subplots(1, 4, figsize=(8, 2.7), width_ratios=[1, 1, 1, 1.3])
for axis, length in zip(axes, (1, 5, 100), strict=False):
    found, weights = dot_product_attention(length * points["queries"], points["keys"], values)
    axis.imshow(weights[0, 0].T, aspect="auto", extent=(0, 360, 7.5, -0.5), vmin=0, vmax=1)
    axis.set(title=f"weights, length {length}", xlabel="query, degrees", ylabel="key", xticks=(0, 180, 360))
    axes[3].plot(degrees, found[0, :, 0, 0], label=f"length {length}")
axes[3].plot(degrees, np.sin(angles["queries"]), "k:", label="sine")
axes[3].set(title="what is fetched", xlabel="query, degrees", xticks=(0, 180, 360), ylim=(-1.1, 2.1))
axes[3].set_yticks([-1, 0, 1])
axes[3].legend(loc="upper center", ncols=2, fontsize=7, handlelength=1.2, columnspacing=1)
plt.show()
first = np.asarray(dot_product_attention(5 * points["queries"][:, :1], points["keys"], values)[1]).ravel()
print("weights of the first query at length 5:", first.round(2), "sum", first.sum().round(6))

# %% [markdown]
# With small scores every key has some weight, and the result is not far from the mean of all values, which is 0. With
# large ones the softmax picks a single key, as a `dict` would, and the result moves in steps: between the steps it
# hardly changes when the query moves a little. Keep that in mind, for it is what the scale is about.
#
# ## Why the scale?
#
# > "We suspect that for large values of $d_k$, the dot products grow large in magnitude, pushing the softmax function
# > into regions where it has extremely small gradients." (section 3.2.1; $d_k$ is our `dim`)
#
# If the features of queries and keys are independent, with mean 0 and variance 1, then a dot product is a sum of `dim`
# such products and has variance `dim`. That is a statement about numbers, so let us draw some: 256 queries and 64 keys
# of each size. Multiplying the query by $\sqrt{d}$ undoes the scale, without touching the function. Three things are
# measured:
#
# - the **standard deviation** of the scores;
# - the **entropy** of each query's weights, $-\sum_k w_k \ln w_k$: $\ln 64$ where all keys weigh the same, 0 where one
#   key has all the weight;
# - the **gradient**: the norm of the softmax's Jacobian $\mathrm{diag}(w) - w w^\top$, which holds all derivatives of a
#   query's weights $w$ by its scores. Of the 256 queries we take the median.

# %%
DIMS, QUERIES, KEYS = [2**k for k in range(1, notebook.budget(13, 6))], 256, 64


def measure(dim, scaled):
    """The scores' standard deviation, the mean entropy, the median norm of the Jacobian, the share of sure queries."""
    draws = jax.random.normal(jax.random.key(dim), (1, QUERIES + KEYS, 1, dim))
    query, key = draws[:, :QUERIES], draws[:, QUERIES:]
    query = query if scaled else query * math.sqrt(dim)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(dim)
    weights = dot_product_attention(query, key, key)[1][0, 0]
    entropy = jax.scipy.special.entr(weights).sum(axis=-1)
    jacobian = jax.vmap(jnp.diag)(weights) - jnp.einsum("qi,qj->qij", weights, weights)
    gradient = jnp.linalg.norm(jacobian, axis=(1, 2))
    return scores.std(), entropy.mean(), jnp.median(gradient), (weights.max(axis=-1) > 0.99).mean()


measured = {name: np.array([measure(dim, name == "with") for dim in DIMS]) for name in ("with", "without")}
names = ("deviation", "entropy", "gradient", "surer than 99 %")
print(f"ln {KEYS} = {math.log(KEYS):.3f}\n" + " " * 6 + "".join(f"{name:^20}" for name in names))
print("   dim" + f"{'with':>10}{'without':>10}" * 4)
for i, dim in enumerate(DIMS):
    print(f"{dim:6}" + "".join(f"{measured[name][i, k]:10.2g}" for k in range(4) for name in measured))

# %%
figure, axes = plt.subplots(1, 3)
for k, title in enumerate(["deviation of the scores", "entropy of the weights", "median norm of the gradient"]):
    for name, curve in measured.items():
        axes[k].plot(DIMS, curve[:, k], marker="o", markersize=3, label=f"{name} the scale")
    axes[k].set(title=title, xlabel="dim", xscale="log", yscale="linear" if k == 1 else "log")
    axes[k].set_xticks([2, 16, 128, 1024], ["2", "16", "128", "1024"])
axes[0].plot(DIMS, np.sqrt(DIMS), "k:", label="square root of dim")
axes[1].axhline(math.log(KEYS), color="black", linestyle=":", label="all keys alike")
axes[2].set_ylim(1e-6, 1)
for axis in axes:
    axis.grid()
    axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# Without the scale, the deviation grows as the footnote of the paper says it must, and the rest follows: the entropy
# falls towards 0, more and more queries have given nearly all their weight to one key before anything was learned,
# and for these the gradient has all but vanished. They cannot learn to look elsewhere: training would have to move
# scores whose changes do not change the weights. The curves *with* the scale are flat: a layer of any size starts
# alike.
#
# The last column of the table says how uneven this is. The gradient does not shrink for all queries alike; it vanishes
# for those that are sure, and the larger `dim`, the more of them there are.
#
# ## Why heads?
#
# > "Multi-head attention allows the model to jointly attend to information from different representation subspaces at
# > different positions. With a single attention head, averaging inhibits this." (section 3.2.2)
#
# What exactly does averaging inhibit? Hold the weights $w$ still; then the layer is linear in what it gathers. Token
# $q$ receives from token $k$ its features $x_k$, multiplied by some matrix. With one head that matrix is $w_{qk} M$,
# where $M$ is the product of the layer's value and output kernels: **the same matrix for every pair of tokens**, only
# more or less of it. With $h$ heads it is $w^1_{qk} M^1 + \dots + w^h_{qk} M^h$.
#
# This can be measured. JAX gives all derivatives of the outputs by the values; written as a table with a row for each
# pair of tokens and a column for each pair of features, its rank is the number of different things that the layer can
# do with what it gathers.

# %%
WIDTH = 32
x = jax.random.normal(jax.random.key(0), (1, 12, WIDTH))


def dependence(layer):
    """How output features depend on value features: a row per pair of tokens, a column per pair of features."""
    jacobian = jax.jacobian(lambda value: layer(x, x, value)[0])(x)[:, :, 0]
    return rearrange(jacobian, "query output key feature -> (query key) (output feature)")


layers = {heads: MultiHeadAttention(WIDTH, heads, rngs=nnx.Rngs(1)) for heads in (1, 2, 4, 8, 16)}
for heads, layer in layers.items():
    singular = np.linalg.svd(dependence(layer), compute_uv=False)
    plt.semilogy(range(1, 33), singular[:32] / singular[0], marker="o", markersize=3, label=str(heads))
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
    rank = (singular > 1e-5 * singular[0]).sum()
    print(f"heads {heads:2}, parameters {size}, rank {rank}")
    assert rank == heads
plt.title("singular values of the table of derivatives")
plt.xlabel("number of the singular value")
plt.ylabel("relative to the largest")
plt.legend(title="heads")
plt.grid()
plt.show()

# %% [markdown]
# The rank is the number of heads, and heads cost no parameters: the same kernels are only cut into more pieces. With a
# single head a token can take a little from here and much from there, but it must take it all *in the same way*. It
# cannot take the subject from one word and the tense from another, or know afterwards which came from where.
#
# Each head pays for this with a narrower `dim`, in which queries and keys must meet; that is exercise 3.
#
# ## Why the output projection?
#
# > "These are concatenated and once again projected, resulting in the final values." (section 3.2.2, of the heads)
#
# Concatenated, each head has its own slice of the features. `MultiHeadAttention(..., output_projection=False)`
# stops there. To see which head writes where, let one head at a time keep its values, and measure what comes out.


# %%
def written(layer):
    """Each head's part in each output feature: the root of its mean square over the tokens."""
    key, value = layer.keys_values(x)
    alone = [layer(x, KeysValues(key, value * one[:, None, None])) for one in jnp.eye(layer.heads)]
    return jnp.sqrt(jnp.square(jnp.stack(alone)).mean(axis=(1, 2)))


figure, axes = plt.subplots(2, 1, figsize=(8, 2.8), sharex=True)
for axis, output in zip(axes, (False, True), strict=True):
    parts = written(MultiHeadAttention(WIDTH, 4, output_projection=output, rngs=nnx.Rngs(1)))
    drawn = axis.imshow(parts, aspect="auto", vmin=0)
    axis.set(title=f"{'with' if output else 'without'} the output projection", ylabel="head", yticks=range(4))
    axis.set_yticklabels([1, 2, 3, 4])
    figure.colorbar(drawn, ax=axis, label="written")
    print(f"with output={output}, a head writes to {(parts > 0).sum(axis=1)} of {WIDTH} features")
axes[1].set_xlabel("feature of the output")
plt.show()

# %% [markdown]
# Without the projection a head can reach its own slice alone. That matters because of what follows: the layer's
# output is *added* to the residual stream, whose features have a meaning by then. Head 1 could never correct feature
# 20, and two heads could never add to, or subtract from, the same feature.
#
# ## All three, in one small task
#
# Let us put a layer to work that needs all of it: each token should hold **the difference between its left and its
# right neighbour**, an edge detector, in the first half of its features, and zeros in the second. Queries and keys
# are made of positions, values of contents. Three layers of the same width try:
#
# - one head, which cannot treat its two neighbours differently;
# - two heads without output projection: they can, but write to different features;
# - two heads and an output projection.
#
# The difference has variance 2 on half of the features, so a layer that does nothing has a mean squared error of 1; one
# that knows but one of the two neighbours cannot get below 0.5.

# %%
LENGTH, WIDTH = 10, 16
contents = np.random.default_rng(0).normal(size=(4096, LENGTH, WIDTH)).astype(np.float32)
differences = np.zeros_like(contents)
differences[:, 1:-1, : WIDTH // 2] = (contents[:, :-2] - contents[:, 2:])[..., : WIDTH // 2]
data = ArrayDataset(name="differences", arrays={"contents": contents, "differences": differences})
positions = jnp.asarray(sinusoidal_positions(LENGTH, WIDTH), jnp.float32)


def loss_fn(layer, batch, rngs):
    """The mean squared error of the tokens that have two neighbours."""
    where = jnp.broadcast_to(positions, batch["contents"].shape)
    error = layer(where, where, batch["contents"]) - batch["differences"]
    return jnp.square(error[:, 1:-1]).mean(), {}


# %%
variants = {"one head": (1, True), "two heads, no projection": (2, False), "two heads and projection": (2, True)}
steps = notebook.budget(1000, 20)
optimizer = Optimizer(name="adam", learning_rate=1e-2, schedule="cosine")
trained = {}
for name, (heads, output) in variants.items():
    layer = MultiHeadAttention(WIDTH, heads, output_projection=output, rngs=nnx.Rngs(0))
    loop = LoopConfig(steps=steps, steps_per_call=10)
    trained[name] = fit(layer, loss_fn, optimizer, Batches(data, 64, seed=0), loop, console=notebook.quiet_console())
    print(f"{name:26} mean squared error {np.mean([row['loss'] for row in trained[name].rows[-10:]]):.3f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(8, 2.6), width_ratios=[1.7, 1, 1, 1])
for (name, result), style in zip(trained.items(), ("-", "--", "-"), strict=True):
    axes[0].plot([row["loss"] for row in result.rows], style, label=name)
axes[0].set(title="training", xlabel="step", ylabel="mean squared error", ylim=(0, 1.4))
axes[0].legend(fontsize=7, loc="upper right")
one, two = (
    trained[name].model.with_weights(positions[None])[1][0] for name in ("one head", "two heads and projection")
)
for axis, title, weights in zip(axes[1:], ("one head", "two: head 1", "two: head 2"), (*one, *two), strict=True):
    drawn = axis.imshow(weights, vmin=0, vmax=1)
    axis.set(title=title, xlabel="key", ylabel="query", xticks=(0, 4, 9), yticks=(0, 4, 9))
    shares = np.asarray(weights[4, 3:6])
    print(f"{title}: token 4 looks left {shares[0]:.2f}, at itself {shares[1]:.2f}, right {shares[2]:.2f}")
figure.colorbar(drawn, ax=axes[3], label="weight", shrink=0.8)
plt.show()

# %% [markdown]
# Only the third layer learns the task. The maps show how: one of its heads looks back, the other one ahead (the first
# and the last token lack a neighbour and are not trained). Each may spend some weight on the token itself, too: in
# the difference of both, which the output projection takes, that part cancels. A layer with one head can look at one
# side only, or at a mixture of both, and the layer without projection cannot take the difference.
#
# ## The question, answered
#
# CS231n asks why the following were good choices. In one sentence each, with the experiment that shows it:
#
# 1. **Several heads**: one head applies the same matrix to whatever it gathers from anywhere (rank 1), $h$ heads apply
#    $h$ different ones, for the same number of parameters; a task that treats two places differently cannot be learned
#    by one head.
# 2. **The division by $\sqrt{d}$**: without it, scores of untrained queries and keys have the standard deviation
#    $\sqrt{d}$, so the softmax is all but decided before training, and its gradient vanishes for most queries of a
#    wide head.
# 3. **The last linear map**: without it, each head can write to its own slice of the features alone, so that heads
#    cannot add up their findings in a feature of the residual stream.
#
# ## Exercises
#
# 1. Divide by `dim` instead of its square root (hand `query / math.sqrt(dim)` to the function). What happens to the
#    three curves, and what would an untrained layer return?
#
# <details><summary>Answer</summary>
#
# The deviation now *falls*, like $1 / \sqrt{d}$, so the weights become equal and the entropy goes to $\ln 64$: an
# untrained layer returns the mean of all values, whatever the query. The gradient settles at that of equal weights.
# Training can recover from it by making queries and keys longer, which is why some recipes for very wide models do
# divide by `dim`.
#
# </details>
#
# 2. Check that `diag(w) - w w^T` is the Jacobian of the softmax.
#
# <details><summary>Answer</summary>
#
# ```python
# scores = jax.random.normal(jax.random.key(0), (5,))
# w = jax.nn.softmax(scores)
# np.testing.assert_allclose(jax.jacobian(jax.nn.softmax)(scores), jnp.diag(w) - jnp.outer(w, w), atol=1e-6)
# ```
#
# </details>
#
# 3. If heads are free, why not as many as there are features? Look at the scores: up to one number per row they are the
#    logarithms of the weights. What is the rank of `jnp.log(weights)`, less the mean of each row, with 12 tokens and
#    1, 4, 8 or 16 heads of a layer of width 32?
#
# <details><summary>Answer</summary>
#
# ```python
# for heads, layer in layers.items():
#     scores = jnp.log(layer.with_weights(x)[1][0])
#     singular = np.linalg.svd(scores - scores.mean(axis=-1, keepdims=True), compute_uv=False)
#     print(heads, (singular > 1e-5 * singular[:, :1]).sum(axis=1))
# ```
#
# Each head's scores are a product of two matrices with `dim` = 32 / heads columns, so their rank is at most `dim`. With
# 16 heads a head has two numbers to say which of the tokens it wants: it can no longer look for an arbitrary pattern.
# Bhojanapalli et al. 2020 ("Low-Rank Bottleneck in Multi-head Attention Models") is about this.
#
# </details>
#
# 4. With a *single* head, what does the output projection add? Compare the ranks of `dependence` with
#    `output_projection=False`, and then train "one head, no projection" on the task above.
#
# <details><summary>Answer</summary>
#
# Nothing that the value kernel could not do: $M$ is the product of both kernels, and a product of two square matrices
# is again one. The rank is 1 either way, and so is the error in the end; only the path of training differs. That is
# why the one-headed model `ViTConfig.tiles()` does without.
#
# </details>
