# %% [markdown]
# # 8. From PyTorch to JAX: converting, comparing, finding the bug
#
# After this notebook you can
#
# - read the weights of a PyTorch model, and tell a converter which of its tensors becomes which of ours;
# - say which mistakes a converter cannot see, and how large the damage of each is;
# - compare a model and its port layer by layer, and find the first layer that differs, and why;
# - train both from the same seed, on the same batches, with the same dropout, and lay one curve on the other.
#
# The first half needs no PyTorch, the second compares with it.

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
import re
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from einops import rearrange
from flax import nnx
from IPython.display import display

from flaxformer_edu import compare, convert, notebook, plots
from flaxformer_edu.data import Batches, load_digits
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import LoopConfig, Optimizer, classification, cross_entropy, fit

notebook.set_style()
TORCH = find_spec("torch") is not None
if not TORCH:
    print("PyTorch is missing (pip install 'flaxformer-edu[torch]'): the cells that begin with `if TORCH` do nothing")

# %% [markdown]
# ## A file from elsewhere
#
# Usually somebody else trained a model, in PyTorch, and you have a file. So that nothing need be downloaded, we make
# one: CS231n's Vision Transformer, small, trained for a moment on scikit-learn's digits, and written as a PyTorch file
# under the names of the course's modules. From here on we pretend to know nothing but the file and the model's code.

# %%
home, digits = TemporaryDirectory(), load_digits()
course = ViTConfig.cs231n(image_size=8, channels=1, patch_size=2)
config = replace(course, width=64, layers=4, hidden=128, init="lecun")
start = VisionTransformer(config, rngs=nnx.Rngs(0))
trained = fit(
    start,
    classification(prepare=digits["train"].pixels.normalise).loss_fn,
    Optimizer(learning_rate=2e-3, schedule="cosine", warmup_steps=notebook.budget(40, 2)),
    Batches(digits["train"], batch_size=64, seed=0),
    LoopConfig(steps=notebook.budget(300, 10)),
    console=notebook.quiet_console(),
).model
file = Path(home.name) / "vit.pth"
convert.write(file, convert.to_torch(trained, layout="cs231n"))

# %%
weights = convert.read(file)  # a dict of NumPy arrays; PyTorch is not needed, and nothing in the file is executed
print(f"{len(weights)} tensors, of which the first and the last few are:")
for name in [*weights][:8] + [*weights][-4:]:
    print(f"{name:44} {weights[name].dtype}  {weights[name].shape}")

# %% [markdown]
# ## Rules
#
# Two things differ between the frameworks: the names, and the order of the axes.
#
# > "Applies an affine linear transformation to the incoming data: $y = xA^T + b$" (PyTorch's documentation of
# > `nn.Linear`)
#
# So PyTorch's `weight` is $A$, with the axes `output input`; a `kernel` in Flax is $A^T$, with `input output`. Images
# are `batch channel height width` there and `batch height width channel` here, and so are the pixels of a patch.
#
# A **rule** says this once: PyTorch's name, our name, and an einops pattern from their axes to ours. `{i}` stands for a
# number. A **layout** is the list of all rules for a family of models. This is the course's:

# %%
print("where a name begins with dots: transformer.layers.{i} there, encoder.blocks.{i} here\n")
for rule in convert.find_layout("cs231n", trained).rules:
    if "qkv" not in rule.ours:  # for models that keep the three projections in one
        torch_name, our_name = (re.sub(r".*\.\{i\}", "..", name) for name in (rule.torch, rule.ours))
        print(f"{torch_name:28} {our_name:34} {rule.pattern or ''}")

# %% [markdown]
# The first pattern is the one to look at twice. A patch's pixels are a row of numbers, which PyTorch's code lists
# channel by channel and ours pixel by pixel.
#
# A pattern read from right to left is the way back. Hence conversion can be checked by itself: there and back again
# must give the same bits.

# %%
model = convert.from_torch(VisionTransformer, config, weights, layout="cs231n")
back = convert.to_torch(model, layout="cs231n")
assert back.keys() == weights.keys()
assert all((back[name] == weights[name]).all() for name in weights)
print(f"{len(back)} tensors are the same, bit for bit")

# %% [markdown]
# ## Strictness: one error that lists everything
#
# A converter that skips what it does not know makes models that run, and are wrong. This one is strict both ways: each
# tensor is used exactly once, and each parameter is filled exactly once. Let us spoil the file in four ways.

# %%
spoilt = dict(weights)
spoilt["classifier.weight"] = spoilt.pop("head.weight")  # another name
spoilt["optimizer_step"] = np.array(300)  # not of the model
del spoilt["transformer.layers.2.norm_self.bias"]
spoilt["transformer.layers.0.ffn.fc1.weight"] = weights["transformer.layers.0.ffn.fc1.weight"].T
try:
    convert.from_torch(VisionTransformer, config, spoilt, layout="cs231n")
except convert.ConversionError as error:
    print(error)

# %% [markdown]
# The tensor with another name is listed twice, as missing and as unused. Each line is a thing to do: write a rule,
# transpose axes, or, for what you really do not need, list it in the layout's `ignore`. The README shows how a
# layout for a model of one's own grows from an empty one this way.
#
# ## What no converter can see
#
# The four spoilt tensors had a wrong name or a wrong shape. But a square matrix has the same shape when transposed;
# heads in another order are as many; and what is *not* in the file, such as the activation or a norm's epsilon, cannot
# be checked against it at all. Here are six such mistakes, each in all four blocks, all accepted without a word. How
# large is the damage, in the logits and in the accuracy?
#
# The logits are computed in float64, so that rounding plays no part. For comparison, the last line is the right model
# in float32: rounding alone.


# %%
def at(layers, change):
    """The weights, with `change` made to those of the given layers of each attention."""
    ends = tuple(f"self_attn.{layer}.weight" for layer in layers)
    return {name: change(x) if name.endswith(ends) else x for name, x in weights.items()}


def merge_otherwise(x):
    """The output projection, for heads that are merged in another order."""
    return rearrange(x, "output (head dim) -> output (dim head)", head=config.heads)


swap = {"query": "key", "key": "query"}
mistakes = {
    "norm before the sublayer": (replace(config, norm="pre"), weights),
    "attention not transposed": (config, at(["query", "key", "value", "proj"], np.transpose)),
    "heads merged in another order": (config, at(["proj"], merge_otherwise)),
    "query and key swapped": (config, {re.sub("query|key", lambda m: swap[m[0]], k): x for k, x in weights.items()}),
    "tanh GELU": (replace(config, activation="gelu_tanh"), weights),
    "epsilon 1e-6 instead of 1e-5": (replace(config, norm_epsilon=1e-6), weights),
}

# %%
images = np.asarray(digits["test"].pixels.normalise(digits["test"]["images"]))
labels = digits["test"]["labels"]


def logits_of(config, weights, dtype="float64"):
    """The logits of the test images, of a model with these weights."""
    with jax.enable_x64(dtype == "float64"):
        model = convert.from_torch(VisionTransformer, config, weights, layout="cs231n", param_dtype=np.dtype(dtype))
        return np.asarray(nnx.jit(model)(images.astype(dtype)))


right = logits_of(config, weights)
found = {name: logits_of(*changed) for name, changed in mistakes.items()}
found["none, but float32"] = logits_of(config, weights, "float32")
errors = {name: abs(logits - right).max() / abs(right).max() for name, logits in found.items()}
print(f"{'the right model':30}          accuracy {(right.argmax(axis=1) == labels).mean():.3f}")
for name, logits in found.items():
    print(f"{name:30} {errors[name]:.0e}   accuracy {(logits.argmax(axis=1) == labels).mean():.3f}")

# %%
figure, axis = plt.subplots(figsize=(8, 2.7))
axis.barh(range(len(errors)), [*errors.values()], color=["C1"] * len(mistakes) + ["C0"])
axis.set(xscale="log", xlim=(1e-8, 4), xlabel="largest error of a logit, relative to the largest logit")
axis.set_yticks(range(len(errors)), [*errors])
axis.invert_yaxis()
axis.grid(axis="y", visible=False)

# %% [markdown]
# The first four are disasters, and the accuracy shows them, at least to somebody who knows what it should be. The last
# two do not change the accuracy. They are found by comparing numbers or not at all, and the smallest of them is so near
# to the rounding of float32 that one had better compare in float64: there, a port that is right differs in the
# fifteenth digit, and everything else sticks out.
#
# ## Layer by layer
#
# Now to PyTorch's side. This is the model as the course's students write it, and the only code that we have of it. What
# its parts are called stands in the file's names.

# %%
if TORCH:
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Attention(nn.Module):
        def __init__(self, width, heads, dropout):
            super().__init__()
            self.query, self.key, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))
            self.attn_drop, self.heads = nn.Dropout(dropout), heads

        def forward(self, x):
            linears = (self.query, self.key, self.value)
            q, k, v = (linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for linear in linears)
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
            return self.proj((self.attn_drop(weights) @ v).transpose(1, 2).flatten(2))

    class FeedForward(nn.Module):
        def __init__(self, width, hidden, dropout):
            super().__init__()
            self.fc1, self.activation = nn.Linear(width, hidden), nn.GELU()
            self.dropout, self.fc2 = nn.Dropout(dropout), nn.Linear(hidden, width)

        def forward(self, x):
            return self.fc2(self.dropout(self.activation(self.fc1(x))))

    class Block(nn.Module):
        def __init__(self, width, heads, hidden, dropout):
            super().__init__()
            self.self_attn, self.ffn = Attention(width, heads, dropout), FeedForward(width, hidden, dropout)
            self.norm_self, self.norm_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
            self.drop = nn.Dropout(dropout)

        def forward(self, x):
            x = self.norm_self(x + self.drop(self.self_attn(x)))
            return self.norm_ffn(x + self.drop(self.ffn(x)))

    class Encoder(nn.Module):
        def __init__(self, blocks):
            super().__init__()
            self.layers = nn.ModuleList(blocks)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    class Patches(nn.Module):
        def __init__(self, size, channels, width):
            super().__init__()
            self.size, self.proj = size, nn.Linear(size * size * channels, width)

        def forward(self, images):
            return self.proj(F.unfold(images, self.size, stride=self.size).mT)

    class Positions(nn.Module):
        def __init__(self, width, dropout):
            super().__init__()
            self.width, self.dropout = width, nn.Dropout(dropout)

        def forward(self, x):
            place, pair = torch.arange(x.shape[1])[:, None], torch.arange(0, self.width, 2)
            angle = place.double() * 10_000.0 ** (-pair.double() / self.width)
            return self.dropout(x + torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(x.dtype))

    class TheirViT(nn.Module):
        def __init__(self, patch, channels, width, layers, heads, hidden, classes, dropout=0.1):
            super().__init__()
            self.patch_embed = Patches(patch, channels, width)
            self.positional_encoding = Positions(width, dropout)
            self.transformer = Encoder(Block(width, heads, hidden, dropout) for _ in range(layers))
            self.head = nn.Linear(width, classes)

        def forward(self, images):
            return self.head(self.transformer(self.positional_encoding(self.patch_embed(images))).mean(1))


# %% [markdown]
# PyTorch reads the same numbers from the file. `compare.models` runs both on the same images, notes what every layer
# gives (PyTorch's by forward hooks), and lines the layers up by the same rules that converted the weights.

# %%
batch = images[:8].astype(np.float64)


def build_theirs(weights, layers=config.layers) -> Any:
    """PyTorch's model in float64, with these weights."""
    theirs = TheirViT(2, 1, config.width, layers, config.heads, config.hidden, 10)
    theirs.load_state_dict({name: torch.tensor(x) for name, x in weights.items()})
    return theirs.double().eval()


if TORCH:
    assert all((x.numpy() == weights[name]).all() for name, x in torch.load(file, weights_only=True).items())
    theirs = build_theirs(weights)
    with jax.enable_x64(True):
        ours = convert.from_torch(VisionTransformer, config, weights, layout="cs231n", param_dtype=np.float64)
    clean = compare.models(ours, theirs, batch, layout="cs231n")
    print(clean.summary)
    for row in clean.layers[:12]:
        print(f"{row.layer:38} {row.theirs:40} {row.shape!s:14} {row.max_rel:.0e}")

# %% [markdown]
# These are the first twelve rows, in the order of computation; `print(clean)` shows them all. The last number is the
# largest difference in units of the layer's largest value. The two models agree to the last digits of float64:
# that is what "ported correctly" looks like.
#
# ## A bug is planted, twice
#
# Two copies of PyTorch's model get one fault each, of the kind that happens when code is rewritten from memory:
#
# - in block 1, GELU's tanh approximation, which is the default in JAX, and not in PyTorch;
# - in block 2, the epsilon of a norm: $10^{-6}$, Flax's default, instead of PyTorch's $10^{-5}$.

# %%
reports = {}
if TORCH:
    reports["no fault"] = clean
    tanh, epsilon = build_theirs(weights), build_theirs(weights)
    tanh.transformer.layers[1].ffn.activation = nn.GELU("tanh")
    epsilon.transformer.layers[2].norm_self.eps = 1e-6
    for name, faulty in {"tanh GELU in block 1": tanh, "epsilon in block 2": epsilon}.items():
        reports[name] = compare.models(ours, faulty, batch, layout="cs231n")
        print(f"{name}\n{reports[name].summary}\n")

# %% picture="first_divergence"
if TORCH:
    figure, axis = plt.subplots(figsize=(8, 3.2))
    for name, report in reports.items():
        axis.semilogy([max(row.max_rel, 1e-17) for row in report.layers], "o-", markersize=3, linewidth=0.8, label=name)
    axis.axhline(clean.layers[0].tolerance, color="black", linestyle=":", linewidth=1)
    names = [row.layer for row in clean.layers]
    blocks = [next(i for i, name in enumerate(names) if name.startswith(f"encoder.blocks.{k}.")) for k in range(4)]
    axis.set_xticks(blocks, [f"block {k}" for k in range(4)], ha="left")
    axis.set(title="difference at each layer, in the order of computation", ylim=(1e-18, 1), ylabel="relative")
    axis.legend()
    plt.show()

# %% [markdown]
# Up to the fault, nothing; from there on everything is wrong, also what is right in itself, because it is given wrong
# inputs. (The dotted line is the tolerance.) Looking at the output alone, one sees a wrong number. Looking at all
# layers, one sees where it begins.
#
# The activation is a function, and has no output of its own in the list. So the report names the layer behind it,
# `mlp.down`, and adds that the cause lies between that one and `mlp.up`. Then it goes a step further: it tries the
# usual causes out at this place, one by one, on a copy of our model, and names one only if the difference vanishes
# with it.
#
# In float32, would we have found them, too?

# %%
if TORCH:
    ours32 = convert.from_torch(VisionTransformer, config, weights, layout="cs231n")
    for name, faulty in {"tanh GELU in block 1": tanh, "epsilon in block 2": epsilon}.items():
        report = compare.models(ours32, faulty.float(), batch.astype(np.float32), layout="cs231n")
        print(f"{name}\n{report.summary}\n")

# %% [markdown]
# The tanh is found, the epsilon is not: its trace lies within the tolerance that rounding demands. This is why the
# advice is: compare in float64, even if you will never compute in it again.
#
# `report.to_html(path)` writes all of this as one page for a browser; on the command line, `flaxformer-edu compare`
# does the same for a folder and a file.
#
# ## Two trainings, one curve
#
# Equal outputs are half of it. Training adds the loss, the gradients, the optimizer with its defaults, and dropout,
# which draws random numbers in each framework's own way. `compare.training` makes both sides use PyTorch's: it notes
# how each mask is drawn, and our model replays the same masks (notebook 7 is about how). Weights, batches and seed
# are the same anyway. Then the losses must agree, step by step.
#
# Two runs: one in which both optimizers are given the same weight decay, one in which both are left to their defaults.

# %%
train = digits["train"]
pixels = np.asarray(train.pixels.normalise(train["images"]))
batches = Batches(replace(train, arrays={"images": pixels, "labels": train["labels"]}), batch_size=32, seed=0)


def loss(model, batch, rngs):
    """Ours; `rngs` are the dropout masks."""
    return cross_entropy(model(batch["images"], rngs=rngs), batch["labels"]).mean()


def torch_loss(model, batch):
    """PyTorch's."""
    return torch.nn.functional.cross_entropy(model(batch["images"]), batch["labels"])


# %%
optimizers = {"the same weight decay": {"weight_decay": 1e-2}, "each framework's default": {}}
curves = {}
if TORCH:
    with jax.enable_x64(True):  # two blocks are enough for this
        small = VisionTransformer(replace(config, layers=2), rngs=nnx.Rngs(0), param_dtype=np.float64)
    for name, decay in optimizers.items():
        curves[name] = compare.training(
            small,
            build_theirs(convert.to_torch(small, layout="cs231n"), layers=2),
            batches,
            loss=loss,
            torch_loss=torch_loss,
            optimizer=optax.adamw(1e-3, **decay),
            torch_optimizer=lambda parameters, decay=decay: torch.optim.AdamW(parameters, lr=1e-3, **decay),
            steps=notebook.budget(60, 4),
            seed=231,
            layout="cs231n",
        )
        print(f"{name}\n{curves[name].summary}\n")
    assert curves["the same weight decay"].agrees

# %% picture="side_by_side"
if TORCH:
    figure = plots.side_by_side(curves)
    figure.set_dpi(90)
    display(figure)

# %% [markdown]
# On the left, the thin line lies on the broad one, and the difference below is rounding, from the first step to the
# last. On the right the upper picture looks just the same. Only the lower one shows that the runs are not: optax's
# AdamW decays weights by 1e-4, PyTorch's by 1e-2, by default. The summary says from which step on, and what
# to look at. Two curves that look alike prove little; differences of a known size do.
#
# ## Exercises
#
# 1. In the table of mistakes, "attention not transposed" turned four kernels of each block. Why not those of the
#    feed-forward network?
#
# <details><summary>Answer</summary>
#
# They are of 64 x 128 and 128 x 64 numbers. Transposed, they have the wrong shape, and the converter says so, as it did
# for the spoilt file. Only square kernels are in danger, and in attention all of them are square.
#
# </details>
#
# 2. Plant a fault that is on no list: let the feed-forward network of block 3 give 1.001 times as much.
#
# <details><summary>Answer</summary>
#
# ```python
# faulty = build_theirs(weights)
# faulty.transformer.layers[3].ffn.register_forward_hook(lambda module, given, output: 1.001 * output)
# print(compare.models(ours, faulty, batch, layout="cs231n").summary)
# ```
#
# The layer is found, and the cause is not: the report says how many were tried. It would rather say nothing than guess.
#
# </details>
#
# 3. A model can compute the right output and the wrong gradient. Detach the output of the attention in block 1 on
#    PyTorch's side, so that no gradient flows back through it, and compare with `gradients=True`.
#
# <details><summary>Answer</summary>
#
# ```python
# faulty = build_theirs(weights)
# faulty.transformer.layers[1].self_attn.register_forward_hook(lambda module, given, output: output.detach())
# print(compare.models(ours, faulty, batch, layout="cs231n", gradients=True).summary)
# ```
#
# All layers agree, and the gradients do not. The report names the first that differs, going backwards.
#
# </details>
#
# 4. Your colleague has PyTorch and no JAX, you have JAX and no PyTorch. How do you compare trainings?
#
# <details><summary>Answer</summary>
#
# ```python
# with_adam = {"torch_loss": torch_loss, "torch_optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-3)}
# curve = compare.record_training(build_theirs(weights), batches, steps=80, **with_adam)
# curve.save("curve.npz")  # so far with PyTorch; from here on without
# print(compare.training(ours, "curve.npz", loss=loss, optimizer=optax.adam(1e-3)).summary)
# ```
#
# The file holds the losses, the weights, the batches, and how the masks are drawn; the masks themselves are drawn
# again, by a copy of PyTorch's generator in NumPy. `compare.record` does the same for the outputs of all layers.
#
# </details>
