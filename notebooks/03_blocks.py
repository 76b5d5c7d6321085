# %% [markdown]
# # 3. Encoder and decoder blocks: norms, residual streams, masks
#
# After this notebook you can
#
# - read an encoder block and a decoder block, and say what goes through their residual stream;
# - tell pre-norm from post-norm, and measure what the difference does to the stream and to the gradients;
# - say why post-norm blocks want a warm-up, and see one fail without;
# - check who can see whom by derivatives, whatever a mask claims to do.
#
# Data: random numbers, and the 1,797 handwritten digits that come with scikit-learn.

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
import textwrap
from itertools import pairwise

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from matplotlib.colors import LogNorm

from flaxformer_edu import notebook
from flaxformer_edu.data import Batches, load_digits
from flaxformer_edu.layers import (
    BlockConfig,
    Decoder,
    DecoderBlock,
    Encoder,
    EncoderBlock,
    MultiHeadAttention,
    causal_mask,
    padding_mask,
)
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import LoopConfig, Optimizer, classification, fit

notebook.set_style()
jax.config.update("jax_default_matmul_precision", "highest")  # GPUs and TPUs would round more

# %% [markdown]
# ## A block is two sublayers on a stream
#
# > "We employ a residual connection around each of the two sub-layers, followed by layer normalization. That is, the
# > output of each sub-layer is LayerNorm(x + Sublayer(x))." (Vaswani et al. 2017, section 3.1)
#
# The sublayers are attention, in which tokens exchange what they know, and a feed-forward network, in which each
# token thinks by itself. `x` is the *residual stream*, `batch length width`: each sublayer reads it, and adds
# something to it. So an encoder block is two lines per sublayer; the norm stands in one of two places, and stays out of
# the other:

# %%
for function in (EncoderBlock.__call__, EncoderBlock.pre, EncoderBlock.post):
    print(textwrap.dedent(inspect.getsource(function)))

# %% [markdown]
# The two places of the layer normalisation:
#
# | | formula | the stream | used by |
# |---|---|---|---|
# | `norm="post"` | norm(x + sublayer(x)) | is normalised after every addition | Vaswani et al. 2017, CS231n |
# | `norm="pre"` | x + sublayer(norm(x)) | is only added to; one norm behind the stack | GPT-2, ViT, most since |
#
# Layer normalisation gives each token the mean 0 and the variance 1 over its features.
#
# ## What that does to the stream and to the gradients
#
# Let us build stacks of 4, 8 and 16 blocks of either kind, as they are before training, send random tokens through,
# and measure along the way:
#
# - the **size of the stream** behind each block: the root of the mean square of its features;
# - the **relative change**: the size of what the block added, divided by the size of the stream it was given;
# - the **gradient** of each block: the norm of the derivatives of a loss by all its parameters. The loss is the
#   product of the output with a fixed random direction, so that the gradient does not depend on what is to be
#   learned.

# %%
x, direction = jax.random.normal(jax.random.key(0), (2, 4, 16, 64))


def size(h):
    """The root of the mean square."""
    return float(jnp.sqrt(jnp.square(h).mean()))


def measure(norm, depth):
    """For each block of a stack: the size of the stream behind it, its relative change, the norm of its gradient."""
    config = BlockConfig(width=64, heads=4, hidden=256, norm=norm)
    graphdef, params = nnx.split(Encoder(config, depth, final_norm=norm == "pre", rngs=nnx.Rngs(0)))

    def loss(params):
        encoder, stream = nnx.merge(graphdef, params), [x]
        for block in encoder.blocks:
            stream.append(block(stream[-1]))
        output = stream[-1] if encoder.norm is None else encoder.norm(stream[-1])
        return (output * direction).mean(), stream

    gradients, stream = jax.jit(jax.grad(loss, has_aux=True))(params)
    sizes = [size(h) for h in stream[1:]]
    changes = [size(after - before) / size(before) for before, after in pairwise(stream)]
    return sizes, changes, [float(optax.tree.norm(gradients["blocks"][i])) for i in range(depth)]


DEPTHS = notebook.budget((4, 8, 16), (1, 2, 3))
measured = {norm: {depth: measure(norm, depth) for depth in DEPTHS} for norm in ("pre", "post")}
names = ("stream", "relative change", "gradient", "last gradient x sqrt(depth)")
print(" " * 16 + "".join(f"{name:^19}" for name in names))
for norm, stacks in measured.items():
    for depth, curves in stacks.items():
        ends = "".join(f"{curve[0]:8.3f} to {curve[-1]:.3f}  " for curve in curves)
        print(f"{norm:4}, {depth:2} blocks: {ends}{curves[2][-1] * depth**0.5:14.3f}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(8, 3.2))
for norm, colour in (("pre", "C0"), ("post", "C1")):
    for depth, style in zip(DEPTHS, (":", "--", "-"), strict=True):
        for axis, curve in zip(axes, measured[norm][depth], strict=True):
            axis.plot(range(1, depth + 1), curve, style, color=colour, label=f"{norm}, {depth} blocks")
for axis, title in zip(axes, ("size of the stream", "relative change", "gradient of the block"), strict=True):
    axis.set(title=title, xlabel="block", ylim=(0, None))
    axis.grid()
blocks = np.arange(1, DEPTHS[-1] + 1)
axes[0].plot(blocks, np.sqrt(1 + blocks), color="black", linewidth=0.8, label="square root of 1 + block")
handles, labels = axes[0].get_legend_handles_labels()
figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
plt.show()

# %% [markdown]
# (The shorter stacks begin with the same blocks as the longest one, so their first two curves lie under its.)
#
# **Post-norm** keeps the stream at size 1 by force. All blocks change it by a large part, and the last block's gradient
# is about the same in a stack of any depth.
#
# **Pre-norm** lets the stream grow. If what the blocks add is independent and of about the size of the input, the
# variances add up and the size grows like the square root of the number of blocks, which is the thin line. Three things
# follow:
#
# - a later block adds as much as an early one, but to a larger stream: its *relative* change falls. The deepest
#   blocks of a pre-norm stack do little at first;
# - the last norm divides by the size of the stream, and the gradient of every block with it: the deeper the stack,
#   the smaller the gradient of its last block, as one over the square root of the depth (last column of the table).
#   Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture", theorem 1, prove this, and the lack
#   of it in post-norm;
# - early blocks get more gradient than late ones, as all later blocks read what they wrote.
#
# What these curves do *not* show is a gradient that vanishes on its way back to the first block. The residual
# connections see to that, in both kinds.
#
# ## Does it matter? Twelve blocks, with and without warm-up
#
# > "To train a Transformer however, one usually needs a carefully designed learning rate warm-up stage, which is
# > shown to be crucial to the final performance [...]" (Xiong et al. 2020, abstract)
#
# They found that this holds for post-norm, and that pre-norm models train without.
# Here is the experiment on small Vision Transformers of twelve blocks, which read digits as four patches. The
# learning rate is 0.003 throughout, or rises to it over the first third of the steps.

# %% budget=90
digits = load_digits()["train"]
task = classification(prepare=digits.pixels.normalise)
steps = notebook.budget(200, 20)
runs = {}
for name, norm, warmup in (("pre", "pre", 0), ("post", "post", 0), ("post, warm-up", "post", steps // 3)):
    sizes = {"width": 64, "hidden": 128, "layers": notebook.budget(12, 3), "dropout": 0.0}
    runs[name] = fit(
        VisionTransformer(ViTConfig.digits(norm=norm, **sizes), rngs=nnx.Rngs(0)),
        task.loss_fn,
        Optimizer(learning_rate=3e-3, warmup_steps=warmup),
        Batches(digits, 64, seed=0),
        LoopConfig(steps=steps, steps_per_call=10),
        console=notebook.quiet_console(),
    )
    last = [row["loss"] for row in runs[name].rows[-30:]]
    print(f"{name:14} loss of the last 30 steps: {np.mean(last):.3f}")
print(f"guessing: ln 10 = {np.log(10):.3f}")

# %%
figure, axis = plt.subplots(figsize=(8, 2.8))
for (name, result), style in zip(runs.items(), ("-", "--", "-."), strict=True):
    losses = np.array([row["loss"] for row in result.rows])
    axis.plot(np.convolve(losses, np.ones(10) / 10, mode="valid"), style, label=name)
axis.axhline(np.log(10), color="black", linestyle=":", linewidth=1, label="guessing")
axis.set(xlabel="step", ylabel="loss, mean of 10 steps", ylim=(0, 3))
axis.grid()
axis.legend(ncols=4, fontsize=8, loc="upper right")
plt.show()

# %% [markdown]
# The post-norm model without warm-up stays where guessing is. With warm-up the same model learns, though unsteadily
# at this learning rate; the pre-norm model needs none. Adam's first steps are the reason why the beginning counts:
# they move every parameter by about the full learning rate, before its averages know which of the gradients can be
# trusted. In a post-norm stack all twelve blocks change the stream by a large part at once; in a pre-norm stack the
# late ones hardly do.
#
# That is no verdict. Liu et al. 2020 ("Understanding the Difficulty of Training Transformers") argue that the light
# touch of pre-norm's late blocks limits what such a model can become. It says why recipes differ.
#
# ## Masks: who can see whom?
#
# > "We also modify the self-attention sub-layer in the decoder stack to prevent positions from attending to subsequent
# > positions." (section 3.1)
#
# A mask is boolean, True means "may attend", and it broadcasts to `batch head query key`. Rather than believe it, we
# can measure it: the derivative of output token $i$ by input token $j$ must be zero wherever $i$ cannot see $j$,
# through all paths, over all blocks. A decoder block has a third sublayer, which attends to the *memory*, the
# encoder's output:

# %%
print(textwrap.dedent(inspect.getsource(DecoderBlock.__call__)))

# %%
config = BlockConfig(width=16, heads=2, hidden=32, norm="pre")
encoder, decoder = Encoder(config, 2, rngs=nnx.Rngs(0)), Decoder(config, 2, rngs=nnx.Rngs(1))
tokens, memory = jax.random.normal(jax.random.key(0), (2, 1, 8, 16))
ids = jnp.array([[5, 3, 8, 2, 9, 0, 0, 0]])  # the last three are padding, 0
causal, padding = causal_mask(8), padding_mask(ids)


def influence(function, inputs):
    """How strongly each output token depends on each input token: the norm of the derivatives between the two."""
    jacobian = jax.jit(jax.jacobian(lambda h: function(h[None])[0]))(inputs[0])
    return np.sqrt(np.square(jacobian).sum(axis=(1, 3)))


panels = {
    "encoder": influence(encoder, tokens),
    "encoder, padding mask": influence(lambda h: encoder(h, padding), tokens),
    "decoder, causal mask": influence(lambda h: decoder(h, memory, causal), tokens),
    "decoder by memory,\npadding mask": influence(lambda h: decoder(tokens, h, causal, padding), memory),
}

# %%
figure, axes = plt.subplots(1, 4, figsize=(8, 2.7))
for axis, (title, strength) in zip(axes, panels.items(), strict=True):
    seen = np.ma.masked_equal(strength, 0)
    drawn = axis.imshow(seen, norm=LogNorm(0.1, 10))
    axis.set_facecolor("lightgrey")
    axis.set_title(title, fontsize=8)
    axis.set(xlabel="memory token" if "memory" in title else "input token")
    axis.set(xticks=(0, 4, 7), yticks=(0, 4, 7))
    print(f"{title.replace(chr(10), ' '):33} {int((strength == 0).sum()):2} of 64 derivatives are exactly 0")
axes[0].set_ylabel("output token")
figure.colorbar(drawn, ax=axes, label="norm of the derivatives", shrink=0.6)
plt.show()
assert (panels["decoder, causal mask"][~np.asarray(causal)] == 0).all()

# %% [markdown]
# Grey is exactly zero, not merely small. From left to right:
#
# - without a mask everybody sees everybody;
# - tokens 5 to 7 are padding, and no *other* token depends on them. They do depend on themselves, through the residual
#   connection, which is why losses and means must leave padding out as well;
# - under the causal mask no token depends on a later one. That is what lets a decoder be trained on all positions of
#   a sentence at once: the prediction behind each word cannot see the next one;
# - the memory may be seen by all tokens of the decoder, except for its padding.
#
# One case needs a decision: a query that may attend to *nothing*. The softmax over nothing has no value. Here such a
# row of weights is all zeros, and the layer returns its output projection's bias, for all such queries the same:

# %%
layer = MultiHeadAttention(16, 2, rngs=nnx.Rngs(0))
output, weights = layer.with_weights(tokens, mask=jnp.zeros((8, 8), bool))
print("sum of the weights:", float(weights.sum()), "  largest output:", float(jnp.abs(output).max()))

# %% [markdown]
# PyTorch's layers return NaN in this case, or zeros, depending on which of them you ask.
#
# ## Exercises
#
# 1. A mask of shape `(batch, query, key)` is refused by this package. Why, although NumPy's rules would broadcast it?
#    Try `layer(tokens, mask=causal[None])`.
#
# <details><summary>Answer</summary>
#
# Scores have the shape `(batch, head, query, key)`. Aligned from the right, the mask's first axis would meet `head`:
# with as many examples as heads, each *head* would get the mask of an *example*, without a complaint. Say which you
# mean: `mask[:, None]` is a mask for each example.
#
# </details>
#
# 2. In the first experiment the stream of a post-norm stack has the size 1. Train one of the models above
#    (`runs["post, warm-up"].model`) and look again: is it still 1?
#
# <details><summary>Answer</summary>
#
# Not exactly. A layer norm has a scale and a bias for each feature, which begin at 1 and 0 and are trained like all
# other parameters. Look at `jnp.abs(model.encoder.blocks[-1].norm2.scale[...])`.
#
# </details>
#
# 3. Some pre-norm models draw the last kernel of each branch smaller, by the square root of the number of branches
#    (GPT-2 does). Which of the three curves does that change, and how?
#
# <details><summary>Answer</summary>
#
# The first two. What the branches add in all has then the same variance at any depth, so the stream stays near its
# first size instead of growing, and every block's relative change is small from the start. For the gradients,
# measure: the last norm no longer divides by a large number, but less reaches the inner kernels of a branch through
# its smaller last one.
#
# </details>
#
# 4. Take the residual connection away, in thought: what would `influence` of a stack look like, and where would the
#    gradient go? Measure it for one attention layer: `influence(lambda h: layer(h), tokens)`.
#
# <details><summary>Answer</summary>
#
# The diagonal would no longer stand out: untrained attention takes nearly the mean of all tokens, so after a few such
# layers all tokens are nearly alike, and what distinguished them is gone (Dong et al. 2021, "Attention is not all you
# need: pure attention loses rank doubly exponentially with depth").
#
# </details>
