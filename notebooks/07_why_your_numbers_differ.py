# %% [markdown]
# # 7. Why your numbers differ: 18 tensors, two dropout streams
#
# After this notebook you can
#
# - say why a correct attention layer can print `self_attn_output error: 0.449` in CS231n's assignment;
# - follow a seed by hand, in NumPy, through the random bits, fractions, normals and dropout masks that PyTorch makes of
#   it, up to a tensor that the course prints;
# - distinguish an error caused by different masks from an error caused by a bug;
# - compare two implementations so that randomness cannot come between them.
#
# PyTorch is not needed: its random numbers are computed here. The last but one section asks a PyTorch, if there is
# one, which kind it is.

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
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from matplotlib.colors import ListedColormap

from flaxformer_edu import notebook
from flaxformer_edu.convert import load_weights
from flaxformer_edu.layers import MultiHeadAttention, sinusoidal_positions
from flaxformer_edu.reference import DROPOUT, RECIPES, SEED, TorchGenerator, compare, published_tensors, torch_weights

notebook.set_style()
np.set_printoptions(precision=4, suppress=True, floatmode="fixed")

# %% [markdown]
# ## One seed, two answers
#
# > "Completely reproducible results are not guaranteed across PyTorch releases, individual commits, or different
# > platforms." (PyTorch's documentation, "Reproducibility")
#
# CS231n's assignment on Transformers is checked by printed numbers: seed the generator, build the layer, apply it to
# random data, and compare with the tensor in the notebook. There are two editions, the public CS231n and the online
# XCS231N. Both print nine tensors, from the same code and the same seed. Here are both prints of the first one,
# self-attention, and their distance by the course's own measure: of all elements, the largest
#
# $$\frac{|a - b|}{|a| + |b|}$$
#
# where $a$ is one print and $b$ the other. It is 0 where they agree, and 1 where one of the two is 0 or the signs
# differ.

# %%
printed = {edition: {tensor.id: tensor for tensor in published_tensors(edition)} for edition in DROPOUT}
first = {edition: tensors["attention.self"] for edition, tensors in printed.items()}
print("seed", SEED)
for edition, tensor in first.items():
    print(f"\n{edition}, {tensor.title}:\n{tensor.values[0]}")
distance = compare(first["cs231n"], first["xcs231n"].values).max_rel_error
print(f"\nthe course's error of one edition, by the other's print: {distance:.3f}")
assert f"{distance:.3f}" == "0.449"

# %% [markdown]
# The course's own two answers are "wrong" by each other's measure. So whoever writes the layer correctly, and runs it
# on the other edition's kind of computer, gets that verdict too, and looks for a bug that is not there
# ([for example](https://github.com/mantasu/cs231n/issues/5)).
#
# Now look at the rows. The first and the last differ in every number, the second in none. That is a trace, and we
# shall follow it.
#
# ## The 18 tensors, computed
#
# The package holds both editions' prints, and seven **recipes** that compute them with our own layers: they draw the
# weights and the data from a `TorchGenerator`, in the order in which the course's code draws them from PyTorch's, and
# apply the layer in training mode, with dropout. The generator has one switch, `dropout`. Let us compute all tensors
# with both of its positions, and compare each with both prints. (`flaxformer-edu verify` does so with the right one.)
#
# A print of four decimals cannot be met closer than half a unit of the fourth; so the error is given as a multiple of
# what the rounding of the print allows, plus $10^{-6}$ for 32-bit arithmetic. Up to 1, the tensors agree to the last
# printed digit.

# %% picture="two_streams"
STREAMS = ("mkl", "generic")
ours = {stream: {} for stream in STREAMS}
for stream in STREAMS:
    for recipe in RECIPES:
        ours[stream] |= recipe(TorchGenerator(SEED, dropout=stream))

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for axis, (edition, tensors) in zip(axes, printed.items(), strict=True):
    rows = {s: [compare(t, np.asarray(ours[s][name])) for name, t in tensors.items()] for s in STREAMS}
    for stream, marker in zip(STREAMS, "os", strict=True):
        axis.plot([row.max_abs_error / row.tolerance for row in rows[stream]], range(9), marker, label=stream)
        print(f"{edition:8} computed with {stream:8} {sum(row.ok for row in rows[stream])} of 9 agree")
    axis.axvline(1, color="black", linestyle=":")
    axis.set(title=f"printed by {edition}", xscale="log", xlabel="error / rounding of the print")
    axis.set_yticks(range(9), [tensor.title for tensor in tensors.values()])
    axis.grid()
axes[0].invert_yaxis()
axes[0].legend(title="stream", loc="center")
plt.show()

# %% [markdown]
# With the one switch each edition comes out to the last digit, with the other it does not. One tensor agrees either
# way: the patch embedding, the only layer without dropout. So the weights and the data are the same everywhere, and
# the masks are not.
#
# Why would they not be? To see that, we follow the seed, step by step, with NumPy alone.
#
# ## From seed to bits to fractions
#
# PyTorch draws all random numbers of the CPU from one **Mersenne Twister** (Matsumoto and Nishimura 1998), which turns
# a seed into an endless sequence of *words* of 32 random bits. NumPy has the same one. A 32-bit float has room for 24
# binary digits, so `torch.rand` takes the low 24 bits of a word and divides by $2^{24}$. The result is a **fraction**:
# evenly spread from 0 up to, but not including, 1.

# %%
twister = np.random.RandomState(SEED)
words = twister.randint(0, 2**32, 16, dtype=np.uint32)
fractions = (words & (2**24 - 1)) * 2.0**-24
for word, fraction in zip(words[:4], fractions, strict=False):
    bits = f"{word:032b}"
    print(f"{bits[:8]} {bits[8:]}   the last 24 as a fraction: {fraction:.8f}")
np.testing.assert_array_equal(fractions, TorchGenerator(SEED).rand(16))
print("These are the first numbers of TorchGenerator(231).rand(16), which gives what torch.rand gives.")

# %% [markdown]
# ## From fractions to normal numbers
#
# `torch.randn` makes two normal numbers of two fractions $u$ and $v$ (Box and Muller 1958), as the coordinates of a
# point in the plane:
#
# $$z_1 = r \cos \varphi, \qquad z_2 = r \sin \varphi, \qquad r = \sqrt{-2 \ln(1 - u)}, \qquad \varphi = 2 \pi v$$
#
# The **radius** $r$ comes from $u$, the **angle** $\varphi$ from $v$. PyTorch works in blocks of 16 fractions:
# the first eight are the $u$ of eight points, the last eight their $v$.

# %%
radius, angle = np.sqrt(-2 * np.log(1 - fractions[:8])), 2 * math.pi * fractions[8:]
normals = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
print(normals)
np.testing.assert_allclose(TorchGenerator(SEED).randn(16), normals, atol=2e-6)

many = 16 * 30
u, v = TorchGenerator(SEED).rand(many).reshape(-1, 2, 8).swapaxes(0, 1)
z = TorchGenerator(SEED).randn(many).reshape(-1, 2, 8).swapaxes(0, 1)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8))
for axis, (x, y) in zip(axes, [(u, v), z], strict=True):
    axis.scatter(x, y, c=u, s=10)
    axis.plot(x[0], y[0], "k.", markersize=8)
    for j, direction in enumerate(angle):
        offset = 9 * math.cos(direction) - 3, 9 * math.sin(direction) - 3
        axis.annotate(str(j + 1), (x[0, j], y[0, j]), offset, textcoords="offset points", weight="bold")
    axis.set_aspect("equal")
axes[0].set(title="fractions", xlabel="$u$, of the radius", ylabel="$v$, of the angle")
axes[1].set(title="normal numbers", xlabel="$z_1$", ylabel="$z_2$", xlim=(-3, 3), ylim=(-3, 3))
plt.show()

# %% [markdown]
# Each point on the left becomes one on the right, of the same colour. The eight of our first block are black and
# numbered. Columns of the square become rings, rows become rays.
#
# An array of *fewer* than 16 normals is drawn in another way: one after the other, in 64-bit arithmetic, from fractions
# of 53 bits, which take two words each; the first of a pair gives the angle, the second the radius. It is the same idea
# and entirely different numbers, so `torch.randn(15)` is not the beginning of `torch.randn(16)`.


# %%
def wide_fractions(twister, count):
    """Fractions of 53 bits, each from two words, of which the first is the high half."""
    high, low = twister.randint(0, 2**32, (count, 2), dtype=np.uint32).astype(np.uint64).T
    return ((high << np.uint64(32) | low) & np.uint64(2**53 - 1)) * 2.0**-53


def few_normals(twister, shape):
    """An even number of normals, fewer than 16."""
    u = wide_fractions(twister, math.prod(shape)).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log1p(-u[:, 1])), 2 * math.pi * u[:, 0]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32).reshape(shape)


few = few_normals(np.random.RandomState(SEED), (14,))
print("of fewer than 16:", few[:5], "...")
print("of 16 or more:   ", normals[:5], "...")
np.testing.assert_allclose(TorchGenerator(SEED).randn(14), few, atol=1e-7)

# %% [markdown]
# ## From the seed to masks, in two ways
#
# > "The key idea is to randomly drop units (along with their connections) from the neural network during training."
# > (Srivastava et al. 2014, "Dropout", abstract)
#
# A **mask** says which elements are kept: each with a probability $p$, here 0.9; the others become 0. And here PyTorch
# has two ways, and takes the one or the other by how it was built and by the processor:
#
# - **generic**: a wide fraction for each element, kept where the fraction is below $p$;
# - **mkl**: a *single* word is the seed of another generator, from Intel's library MKL, which then makes a number for
#   each element. That generator is one line: the next number is 1132489760 times the last, modulo $2^{31} - 1$.
#
# Either is as good as the other; they only have nothing to do with each other.


# %%
def generic_mask(twister, shape, p):
    """A wide fraction per element."""
    return (wide_fractions(twister, math.prod(shape)) < p).reshape(shape)


def mkl_mask(twister, shape, p):
    """One word, as the seed of MKL's generator MCG31m1."""
    number = int(twister.randint(0, 2**32, dtype=np.uint32)) % (2**31 - 1) or 1
    numbers = []
    for _ in range(math.prod(shape)):
        numbers.append(number)
        number = 1132489760 * number % (2**31 - 1)
    return (np.array(numbers, np.float32) * np.float32(2**-31) < np.float32(p)).reshape(shape)


make_mask = {"mkl": mkl_mask, "generic": generic_mask}
masks = {stream: make_mask[stream](np.random.RandomState(SEED), (8, 32), 0.9) for stream in STREAMS}
for stream, mask in masks.items():
    np.testing.assert_array_equal(mask, TorchGenerator(SEED, dropout=stream).keep((8, 32), 0.9))
    print(f"{stream:8} drops {(~mask).sum()} of {mask.size} elements")
both = (~masks["mkl"] & ~masks["generic"]).sum()
print(f"both drop {both}; two masks that do not know of each other: {0.1 * 0.1 * 256:.1f} on average")

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 1.7), sharey=True)
for axis, (stream, mask) in zip(axes, masks.items(), strict=True):
    other = masks["generic" if stream == "mkl" else "mkl"]
    axis.imshow(~mask * (1 + ~other), cmap=ListedColormap(["#eeeeee", "#0072B2", "#D55E00"]), vmin=0, vmax=2)
    axis.set(title=f"{stream}, seed {SEED}", xlabel="column")
axes[0].set_ylabel("row")
plt.show()

# %% [markdown]
# These are the two masks of one seed. What a mask drops is coloured: orange where the other drops it too, else blue.
# They have about as many in common as chance would have it.
#
# That is not all. The masks come from the same twister as everything else, and the two ways take a different number of
# words from it. Whatever is drawn *after* the first dropout differs as well, be it the next mask, or data:

# %%
for stream in STREAMS:
    generator = TorchGenerator(SEED, dropout=stream)
    before = generator.randn(2)
    generator.keep((8, 32), 0.9)
    print(f"{stream:8} before the mask: {before}   after it: {generator.randn(2)}")
for stream in STREAMS:
    twister = np.random.RandomState(SEED)
    make_mask[stream](twister, (8, 32), 0.9)
    following = twister.randint(0, 2**32, dtype=np.uint32)
    sequence = np.random.RandomState(SEED).randint(0, 2**32, 1000, dtype=np.uint32)
    print(f"{stream:8} takes {int(np.flatnonzero(sequence == following)[0])} words for a mask of 256 elements")

# %% [markdown]
# The course draws the data of its second and third attention test after the dropout of the first. So there the two
# kinds of computer do not even get the same *question*.
#
# ## From the seed to a tensor of the course
#
# We have all that it takes to compute one of the printed tensors from the seed, without a framework. The smallest is
# that of `PositionalEncoding`: random data of length 2 and width 6, to which the sinusoids of "Attention Is All You
# Need" are added, and then dropout with rate 0.1. What is kept is divided by 0.9, so that the mean stays what it was.

# %%
shape, kept = (1, 2, 6), 0.9
results = {}
for edition, stream in DROPOUT.items():
    twister = np.random.RandomState(SEED)
    data = few_normals(twister, shape)
    mask = make_mask[stream](twister, shape, kept)
    encoded = data + sinusoidal_positions(2, 6)
    results[edition] = encoded * mask / kept
    row = compare(printed[edition]["positional_encoding"], results[edition])
    print(f"{edition}, masks as {stream}; ours, and what the course prints:")
    print(results[edition][0], printed[edition]["positional_encoding"].values[0], sep="\n")
    print(f"largest error {row.max_abs_error:.1e}, allowed {row.tolerance:.1e}\n")
    assert row.ok

# %%
steps = {
    "normals": data,
    "+ sinusoids": encoded,
    "cs231n (mkl)": results["cs231n"],
    "xcs231n (generic)": results["xcs231n"],
}
figure, axes = plt.subplots(1, 4, figsize=(8, 1.5), sharey=True)
for axis, (title, values) in zip(axes, steps.items(), strict=True):
    axis.imshow(values[0], cmap="RdBu_r", vmin=-2, vmax=2)
    for (i, j), value in np.ndenumerate(values[0]):
        axis.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color="w" if abs(value) > 1.2 else "k")
    axis.set(title=title, xlabel="width", xticks=range(6), yticks=[0, 1])
axes[0].set_ylabel("length")
plt.show()
dropped = results["cs231n"][0, 0, 4]
print(f"the element that mkl drops: {dropped}, the same element undropped: {results['xcs231n'][0, 0, 4]:.4f}")
assert dropped == 0
assert np.signbit(dropped)

# %% [markdown]
# A single element of twelve is dropped in the one edition, none in the other: there is the whole difference. It was in
# print all the time: CS231n prints that element as `-0.0000`, with a minus. PyTorch multiplies by the mask, and a
# negative number times 0 is the "negative zero" of floating-point arithmetic.
#
# ## What a right answer with different masks looks like
#
# Back to self-attention. Dropout acts on the attention weights there: a mask with an element for each head, query and
# key. Where both ways draw the same mask for a query, *that row must come out the same*. Let us draw the masks.


# %%
def before_dropout(stream):
    """The generator, with weights and data of the course's first test drawn from it."""
    generator = TorchGenerator(SEED, dropout=stream)
    weights = torch_weights.torch_init(generator, torch_weights.attention(8))
    return generator, weights, generator.randn(1, 3, 8)


attention_masks = {stream: before_dropout(stream)[0].keep((1, 2, 3, 3), 0.9) for stream in STREAMS}
for query in range(3):
    print(f"query {query}, kept keys of both heads:", end="")
    for stream, mask in attention_masks.items():
        print(f"   {stream}", *mask[0, :, query].astype(int), end="")
    print("   the same" if (attention_masks["mkl"] == attention_masks["generic"])[0, :, query].all() else "")
same = (attention_masks["mkl"] == attention_masks["generic"])[0].all(axis=(0, 2))
agree = (first["cs231n"].values == first["xcs231n"].values)[0].all(axis=1)
print("rows whose masks are the same:", same, "\nrows that both editions print alike:", agree)
assert (same == agree).all()

# %% [markdown]
# That is the trace from the beginning. Now for comparison some real bugs, with the *right* masks: the division by
# $\sqrt{d}$ forgotten, the kernel of the values not transposed (PyTorch stores it as output by input), and the
# output projection left out. Each is planted by changing the weights of the tested layer, which has the same effect.


# %%
def course_output(stream, change=None):
    """The course's first test: self-attention of two heads in training mode, with changed weights if asked for."""
    generator, weights, data = before_dropout(stream)
    layer = MultiHeadAttention(8, 2, dropout=0.1, rngs=nnx.Rngs(0))
    layer = load_weights(layer, weights | (change(weights) if change else {}), layout="cs231n")
    with jax.default_matmul_precision("highest"):
        return np.asarray(layer(jnp.array(data), rngs=generator))


def without_scale(weights):
    return {name: weights[name] * math.sqrt(8 // 2) for name in ("query.weight", "query.bias")}


def values_not_turned(weights):
    return {"value.weight": weights["value.weight"].T}


def without_projection(weights):
    return {"proj.weight": np.eye(8, dtype=np.float32), "proj.bias": np.zeros(8, np.float32)}


# %%
outputs = {
    "right code,\nother masks": course_output("generic"),
    "no scale,\nright masks": course_output("mkl", without_scale),
    "values not turned,\nright masks": course_output("mkl", values_not_turned),
    "no projection,\nright masks": course_output("mkl", without_projection),
    "right code,\nright masks": course_output("mkl"),
}
expected = first["cs231n"]
figure, axes = plt.subplots(1, 5, figsize=(8, 1.9), sharey=True)
for axis, (title, output) in zip(axes, outputs.items(), strict=True):
    row = compare(expected, output)
    errors = np.abs(output - expected.values)[0] / expected.tolerance
    image = axis.imshow(np.log10(np.maximum(errors, 1)), vmin=0, vmax=4, aspect="auto")
    axis.set_title(title, fontsize=9)
    axis.set(xlabel="width", yticks=range(3))
    print(f"{' '.join(title.split()):30} error {row.max_rel_error:.3f}, rows right: {(errors <= 1).all(axis=1).sum()}")
axes[0].set_ylabel("query")
scale = figure.colorbar(image, ax=axes, label="error / rounding", ticks=range(5))
scale.ax.set_yticklabels(["1", "10", "100", "1e3", "1e4"])
plt.show()

# %% [markdown]
# The number that the course reports does not distinguish them: correct code with different masks and a forgotten scale
# have much the same error. The rows do:
#
# - **different masks**: whole rows agree to the last digit, and others are far off;
# - **a bug** in how the layer computes: no row agrees.
#
# ## What to do
#
# 1. Compare **without dropout** first (`model.eval()` there, `model(x)` without `rngs` here). Both kinds of computer
#    then give the same, and so do all frameworks.
# 2. If training mode must be compared, **replay the masks**: `TorchGenerator(231, dropout="mkl")` and `"generic"` are
#    both kinds of computer. Any layer of the package takes one as `rngs`. Masks that a PyTorch model draws anew can be
#    recorded by `reference.torch_masks.RecordDropout`, and handed to our layer as `layers.RecordedMasks`.
# 3. Never "mend" a layer until its error falls: 0.449 may be the right answer.
#
# Which kind is your PyTorch? The next cell asks it, if there is one.

# %%
if find_spec("torch") is None:
    print("PyTorch is not installed here, so there is nothing to ask.")
else:
    import torch

    torch.manual_seed(SEED)
    np.testing.assert_allclose(torch.randn(16).numpy(), normals, atol=2e-6)
    torch.manual_seed(SEED)
    mask = torch.nn.functional.dropout(torch.ones(8, 32), 0.1).numpy() != 0
    kind = [stream for stream in STREAMS if (mask == masks[stream]).all()]
    print("PyTorch's normal numbers are those above; it draws its masks in the way called", *kind or ["neither"])

# %% [markdown]
# ## Exercises
#
# 1. Of twelve elements, as in `PositionalEncoding`, how often does dropout with rate 0.1 drop none, as in XCS231N? And
#    could one see from that print alone that dropout was on?
#
# <details><summary>Answer</summary>
#
# With probability $0.9^{12}$, that is 0.28: more often than once in four times. And yes: all elements are divided by
# 0.9. `(results["xcs231n"] / encoded)` is 1.1111 everywhere.
#
# </details>
#
# 2. Someone forgets to divide what is kept by 0.9. Which error does the course's measure report, in which elements, and
#    why is it always the same number?
#
# <details><summary>Answer</summary>
#
# For $a = x$ and $b = x / 0.9$ the measure is $(1/0.9 - 1) / (1/0.9 + 1) = 0.1 / 1.9 = 0.0526$, whatever $x$ is. An
# error that is the same for all elements means a factor.
#
# ```python
# mask = results["cs231n"] != 0
# print(compare(printed["cs231n"]["positional_encoding"], encoded * mask).max_rel_error)
# ```
#
# It prints 0.053, or a little more: small numbers are printed with few digits.
#
# </details>
#
# 3. `torch.randn(20)` is no multiple of 16. PyTorch transforms the first block, and then draws *the last 16 again*. How
#    many of the numbers of `TorchGenerator(231).randn(16)` can still be found in `TorchGenerator(231).randn(20)`?
#
# <details><summary>Answer</summary>
#
# Four: the elements 4 to 19 are overwritten.
#
# ```python
# a, b = TorchGenerator(231).randn(16), TorchGenerator(231).randn(20)
# print(np.flatnonzero(a == b[:16]))
# ```
#
# </details>
#
# 4. Write a test of your own attention layer that is right on every computer.
#
# <details><summary>Answer</summary>
#
# Put the same weights into your layer and into a reference, no dropout, and compare in 64-bit arithmetic with a
# tolerance such as 1e-12. Then nothing depends on the processor but the order of sums. Dropout deserves a test of
# its own: with a given mask, is the output what the mask says? Notebook 8 does this for whole models.
#
# </details>
