# %% [markdown]
# # 10. From one device to many, and from one day to the next
#
# After this notebook you can
#
# - say what `jax.jit` compiles, what makes it compile again, and count both;
# - share a batch among several devices without changing the model, and check that the gradient stays the same;
# - read old code that uses `pmap`, and say what has replaced it;
# - stop a training run at any moment, resume it, and show that it ends as if it had never been stopped.
#
# One processor is enough: JAX can present it as several devices, which compute the same as several GPUs or TPUs would,
# only no faster. Where there are GPUs or TPUs, the notebook uses those.

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
import signal
from collections import Counter
from dataclasses import replace
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import PartitionSpec

from flaxformer_edu import notebook
from flaxformer_edu.data import Batches, load_digits, load_words
from flaxformer_edu.layers import BlockConfig, EncoderBlock
from flaxformer_edu.models import VisionTransformer, ViTConfig
from flaxformer_edu.training import (
    LoopConfig,
    Optimizer,
    classification,
    cross_entropy,
    data_mesh,
    fit,
    share,
    split_model,
    use_devices,
)

notebook.set_style()
use_devices(4)  # of a processor, and before JAX computes anything; GPUs and TPUs are as many as there are
print(f"{jax.device_count()} devices of the kind {jax.default_backend()!r}")

# %% [markdown]
# ## What `jit` compiles, and when it does so again
#
# > "This recorded sequence of computations can then be efficiently applied within XLA to new inputs with the same shape
# > and dtype, without having to re-execute the Python code."
# > (JAX's documentation, "Tracing")
#
# So a call of a function under `jax.jit` may do up to three things:
#
# 1. **trace**: run the Python code once, with stand-ins that have a shape and a type but no values, and record what is
#    computed;
# 2. **compile**: let XLA make a program for this device of the record;
# 3. **execute** the program, with the values.
#
# The first two are slow, and remembered. By what? Let us count. Tracing runs the Python code, so a line of Python that
# counts is enough; JAX reports compilations to any listener.

# %%
count = Counter()


def listen(event: str, duration_secs: float, **about: str | int) -> None:
    """Count the compilations of `scaled_sum`."""
    count["compiled"] += event.endswith("backend_compile_duration") and "scaled_sum" in str(about.get("fun_name"))


jax.monitoring.register_event_duration_secs_listener(listen)


@jax.jit
def scaled_sum(x, scale):
    """The function that is watched."""
    count["traced"] += 1
    return jnp.tanh(scale * x).sum()


x = jnp.ones((8, 3))
calls = {
    "a first call, x of 8 x 3, scale 2.0": (x, 2.0),
    "other values": (x + 1, 3.0),
    "x from NumPy": (np.ones((8, 3), np.float32), 2.0),
    "another shape: x of 9 x 3": (jnp.ones((9, 3)), 2.0),
    "another type: x of integers": (jnp.ones((8, 3), int), 2.0),
    "the scale an integer, 2": (x, 2),
    "the scale an array, jnp.float32(2)": (x, jnp.float32(2)),
    "the first call again": (x, 2.0),
    "the same x, shared among the devices": (share({"x": x}, data_mesh(8))["x"], 2.0),
}
print(f"{'':40}traced  compiled")
for name, arguments in calls.items():
    before = count.copy()
    scaled_sum(*arguments)
    print(f"{name:40}{count['traced'] - before['traced']:6}  {count['compiled'] - before['compiled']:8}")

# %% [markdown]
# Different values cost nothing. Another shape, another type, another *place* where the array lives: each gets a program
# of its own, and the earlier ones are kept. The two lines about the scale are the ones that surprise. A Python number
# has a "weak" type, which gives way to that of the arrays it meets; an array has a type that does not. To JAX they are
# different, so decide for one and stay with it.
#
# The function itself is remembered, too, as an object. A loop that says `jax.jit(lambda x: ...)` each time around makes
# a new object, and compiles anew, each time. Compile once, outside the loop.
#
# ## Texts of every length
#
# Texts differ in length, and each new length is a new shape. Here are batches of 16 texts, each text of one to
# twelve words of the bundled list. The letters of a batch are padded to the length of its longest text, as they must
# be to make an array at all. Three ways to go on:
#
# - leave the batch as it is;
# - pad it to the next multiple of 16;
# - pad every batch to the longest text of all.
#
# The watched function is an encoder block; for the count, its input may as well be zeros.

# %%
random, BATCHES = np.random.default_rng(0), notebook.budget(100, 10)
letters = (load_words()["train"]["words"] >= 0).sum(axis=1)  # how many each word of the list has
words = random.integers(1, 13, size=(BATCHES, 16))  # how many each text has
texts = np.array([[(random.choice(letters, n) + 1).sum() - 1 for n in batch] for batch in words])
longest = texts.max(axis=1)
lengths = {
    "as they come": longest,
    "to a multiple of 16": -(-longest // 16) * 16,
    "all to the longest": np.full(BATCHES, longest.max()),
}
for way, of_batches in lengths.items():
    print(f"{way:20} {1 - texts.sum() / (16 * of_batches.sum()):.0%} of the places are padding")

# %%
graphdef, params = split_model(EncoderBlock(BlockConfig(width=8, heads=1, hidden=8), rngs=nnx.Rngs(0)))
for way, of_batches in lengths.items():
    traced = []

    def watched(params, x, traced=traced):
        """The block; `traced` gets longer whenever this Python code runs."""
        traced.append(x.shape)
        return nnx.merge(graphdef, params)(x)

    block, programs = jax.jit(watched), []
    for length in of_batches:
        block(params, jnp.zeros((16, length, 8)))
        programs.append(len(traced))
    plt.step(range(1, BATCHES + 1), programs, where="post", label=way)
    print(f"{way:20} {programs[-1]:3} programs for {BATCHES} batches")
plt.gca().set(title="programs compiled so far", xlabel="batch", ylabel="programs", ylim=(0, None))
plt.legend()
plt.show()

# %% [markdown]
# Left as they are, the batches ask for new programs time and again, for rare lengths turn up late. Padded to the
# longest, all of them share one program, which computes more padding. A few sizes in between are the usual compromise.
# Images have one size, and the recipes of this package leave out the last, smaller batch of an epoch (`Batches` has
# whole batches only), so that a training run is compiled once.
#
# ## A batch on several devices
#
# > "Compiler-based automatic sharding is where you program as if using a single 'global view' machine, and the compiler
# > chooses how to shard data [...] and how to partition computation into per-device programs with collectives."
# > (JAX's documentation, "Distributed arrays and automatic parallelization")
#
# Three words first. A **mesh** is a grid of devices whose axes have names; ours has one axis, `data`. A **sharding**
# says which part of an array lies on which device of the mesh. A **collective** is an operation between devices, such
# as the sum of what each of them has.
#
# `share` spreads a batch over the mesh: its examples are divided, everything else stays whole. The array that comes out
# is used like any other; only its `sharding` tells that it lies in several places.

# %%
digits = load_digits()
task = classification(prepare=digits["train"].pixels.normalise)
config = replace(ViTConfig.digits(), layers=notebook.budget(2, 1))
train = Batches(digits["train"], batch_size=64, seed=0)
mesh = data_mesh(64)
shared = share(train(0), mesh)
images = shared["images"]
print(f"images of shape {images.shape}:\n{images.sharding}")

figure = plt.figure(figsize=(8, 2.7))
for part, place in zip(figure.subfigures(1, mesh.size, squeeze=False)[0], images.addressable_shards, strict=True):
    number = place.device.id
    part.set_facecolor(plt.get_cmap("Pastel1")(number))
    part.suptitle(
        f"device {number}: images {place.index[0].start or 0} to {(place.index[0].stop or 64) - 1}", fontsize=9
    )
    for axis, image in zip(part.subplots(4, 4).flat, place.data, strict=False):
        axis.imshow(image, cmap="gray")
        axis.axis("off")

# %% [markdown]
# The parameters go the other way: each device has all of them (`replicate`). This division of labour is called data
# parallelism. Arrays may also be cut along other axes, a kernel along its width, say, so that models fit that no single
# device could hold; `jax.debug.visualize_array_sharding` draws how a matrix lies. Here the whole mesh is for examples:

# %%
jax.debug.visualize_array_sharding(images[:, :, 0, 0])

# %% [markdown]
# ## The same gradient
#
# Is the result the same? The loss $L$ of a batch $B$ is a mean over its examples, and so is its gradient by the
# parameters $\theta$. With the examples divided among $m$ devices, $B_k$ being what device $k$ has,
#
# $$\nabla_\theta L(B) = \frac{1}{m} \sum_{k=1}^{m} \nabla_\theta L(B_k)$$
#
# Each device computes its own term, and one collective, an *all-reduce*, adds them up and gives each the sum. In exact
# arithmetic that is the same number. In floating-point arithmetic the order of additions matters, in the last digits.
#
# We compute the gradient of a Vision Transformer with dropout, on one device and on all, in float32 and in float64.
# Neither the model nor the loss says a word about devices.


# %%
def make_gradient(param_dtype):
    """A ViT's parameters, and the function (params, batch) -> gradient."""
    graphdef, params = split_model(VisionTransformer(config, rngs=nnx.Rngs(0), param_dtype=param_dtype))

    def loss_of(params, batch):
        return task.loss_fn(nnx.merge(graphdef, params), batch, nnx.Rngs(231))[0]

    return params, jax.jit(jax.grad(loss_of))


differences = {}
for dtype in ("float32", "float64"):
    with jax.enable_x64(dtype == "float64"):
        params, gradient = make_gradient(dtype)
        one = gradient(params, share(train(0), data_mesh(64, jax.devices()[:1])))
        many = gradient(params, share(train(0), mesh))
        one, many = (jax.device_get(jax.tree.leaves(tree)) for tree in (one, many))
    largest = max(abs(x).max() for x in one)
    differences[dtype] = [float(abs(a - b).max() / largest) for a, b in zip(one, many, strict=True)]
    print(f"{dtype}: {len(one)} gradients; largest difference {max(differences[dtype]):.0e} of the largest number")
assert max(differences["float32"]) < 1e-4
assert max(differences["float64"]) < 1e-12 or jax.default_backend() == "tpu"

# %%
for dtype, values in differences.items():
    lines = plt.plot(range(1, len(values) + 1), values, "o", markersize=4, label=dtype)
    plt.axhline(np.finfo(dtype).eps, color=lines[0].get_color(), linewidth=0.8, linestyle=":")
plt.gca().set(title=f"gradient on {mesh.size} devices less that on one, relative to the largest number", yscale="log")
plt.gca().set(xlabel="number of the parameter", ylabel="difference", ylim=(1e-18, 1e-5))
plt.legend()
plt.show()

# %% [markdown]
# The dotted lines are the distance from 1 to the next number of each type. All differences are of that order, in
# float64 as in float32. A mistake, a gradient summed instead of averaged, say, would be seen in both types at the same
# height.
#
# The dropout masks were the same, too. In the global view they belong to the batch as a whole, and each device draws
# its part of them.
#
# Who wrote the communication? The compiler. What it made of the very same function can be read:

# %%
params, gradient = make_gradient("float32")
for name, devices in {"one device": jax.devices()[:1], f"{mesh.size} devices": jax.devices()}.items():
    batch = share(train(0), data_mesh(64, devices))
    program = gradient.lower(params, batch).compile().as_text() or ""
    print(f"{name}: {len(re.findall(r' all-reduce(?:-start)?[(]', program))} all-reduce in the program")

# %% [markdown]
# ## What became of `pmap`
#
# > "The purpose of `pmap` is to express single-program multiple-data (SPMD) programs." (its documentation)
#
# For years `jax.pmap` was *the* way to several devices, and much code still uses it. It takes the other point of view,
# that of one device: the batch gets an additional axis with one entry for each device, the function is written for one
# entry, and collectives are written by hand. Where the `pmean` is forgotten, each device goes its own way, and no error
# tells.
#
# The global view came with `pjit`, which was merged into `jit` in February 2023; it is what was used above. For the
# times when one does want to write what each device does there is `shard_map`. Its design document, of January 2023,
# says of `pmap` that "over time we found it has fatal flaws". Since JAX 0.8, `pmap` itself is built on `jit` and
# `shard_map`, and its documentation begins: "Old way of doing parallel map."
#
# Here are the two views of one device, old and new, on the same loss (without dropout; exercise 3 says why):

# %%
graphdef, params = split_model(VisionTransformer(config, rngs=nnx.Rngs(0)))


def loss_of(params, batch):
    """The mean loss of a batch, or of a part of one."""
    logits = nnx.merge(graphdef, params)(digits["train"].pixels.normalise(batch["images"]))
    return cross_entropy(logits, batch["labels"]).mean()


def by_pmap(params, batch):
    """One device's view, as it used to be written: the batch has an axis of devices, which the result has, too."""
    cut = {name: rearrange(x, "(device batch) ... -> device batch ...", device=mesh.size) for name, x in batch.items()}
    one = lambda params, batch: jax.lax.pmean(jax.grad(loss_of)(params, batch), "data")  # noqa: E731
    many = jax.pmap(one, axis_name="data", in_axes=(None, 0))(params, cut)
    return jax.tree.map(lambda x: x[0], many)


def by_shard_map(params, batch):
    """One device's view, as it is written now: the specs say how each argument is divided, and the mean is explicit."""
    one = lambda params, batch: jax.lax.pmean(loss_of(params, batch), "data")  # noqa: E731
    everywhere, divided = PartitionSpec(), PartitionSpec("data")
    many = jax.shard_map(one, mesh=mesh, in_specs=(everywhere, divided), out_specs=everywhere)
    return jax.jit(jax.grad(many))(params, batch)


# %%
expected = jax.jit(jax.grad(loss_of))(params, share(train(0), data_mesh(64, jax.devices()[:1])))
gradients = {
    "jit": jax.jit(jax.grad(loss_of))(params, shared),
    "shard_map": by_shard_map(params, shared),
    "pmap": by_pmap(params, train(0)),
}
for name, found in gradients.items():
    errors = jax.tree.map(lambda a, b: float(abs(np.asarray(a) - np.asarray(b)).max()), found, expected)
    print(f"{name:10} differs from one device by at most {max(jax.tree.leaves(errors)):.0e}")
    assert max(jax.tree.leaves(errors)) < 1e-4

# %% [markdown]
# ## A run that is interrupted
#
# Long runs end early: the power fails, the cluster wants its machine back, somebody closes the laptop. What must be
# saved for a run to go on *exactly* as it would have? All that the next step depends on:
#
# | what | why |
# |---|---|
# | the parameters | of course |
# | the optimizer's memory | Adam's two moments; without them the first steps after resuming differ |
# | the step's number | the learning rate's schedule depends on it |
# | the seed | dropout: the random key of step $t$ is `fold_in(key(seed), t)` |
# | the place in the data | nothing to save: `Batches` is a function of the seed and the step |
#
# The last two lines are a choice. A generator that goes on from number to number would have to be saved as well, and so
# would an iterator over the data. Functions of the step have no state. This is all that a checkpoint holds here:

# %%
STEPS = notebook.budget(240, 24)
optimizer = Optimizer(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=STEPS // 8)
loop = LoopConfig(steps=STEPS, save_every=STEPS // 4)


def run(batches, **options):
    """A ViT trained on these batches; with a folder, from where the run in the folder has got to."""
    model = VisionTransformer(config, rngs=nnx.Rngs(0))
    return fit(model, task.loss_fn, optimizer, batches, loop, console=notebook.quiet_console(), **options)


whole = run(train)
for name in ("step", "seed", "params", "optimizer"):
    leaves = jax.tree.leaves(getattr(whole.state, name))
    print(f"{name:10}{len(leaves):4} arrays of {sum(leaf.size for leaf in leaves):8,} numbers")

# %% [markdown]
# The optimizer remembers twice as much as the model has parameters, which is worth knowing before a disk is bought.
#
# Now the same run with two misfortunes. At one step the batches raise an exception that is not caught, as if the power
# had failed: what was done since the last checkpoint is lost. Later the process is sent SIGTERM, the polite request to
# end, with which clusters announce that they need the machine. `fit` finishes the step it is at, saves, and leaves the
# program. After each misfortune we simply call it again with the same folder.


# %%
class PowerCut(Exception):
    """Nobody catches this, except for us, who want to go on with the notebook."""


class Unlucky(Batches):
    """The same batches; before some of the steps something happens, once."""

    def __init__(self, misfortunes):
        super().__init__(digits["train"], batch_size=64, seed=0)
        self.misfortunes, self.asked = misfortunes, []

    def __call__(self, step):
        self.asked.append(step)
        misfortune = self.misfortunes.pop(step, None)
        if misfortune == "power cut":
            raise PowerCut
        if misfortune == "SIGTERM":
            signal.raise_signal(signal.SIGTERM)
        return super().__call__(step)


# %%
home = TemporaryDirectory()
misfortunes = {STEPS * 5 // 12: "power cut", STEPS * 17 // 24: "SIGTERM"}
attempts, resumed = [], None
while resumed is None:
    unlucky = Unlucky(misfortunes)
    try:
        resumed, end = run(unlucky, folder=Path(home.name)), "the end"
    except PowerCut:
        end = "a power cut"
    except SystemExit as error:
        end = f"exit status {error.code}"
    attempts.append(unlucky.asked)
    print(f"attempt {len(attempts)}: from step {unlucky.asked[0] + 1} to {end} at step {unlucky.asked[-1] + 1}")
twice = sum(map(len, attempts)) - STEPS
print(f"{twice} of {STEPS} batches were asked for twice")

# %% [markdown]
# After the power cut, the second attempt goes back to the last checkpoint (there is one every quarter of the run).
# After SIGTERM nothing is lost, and the exit status is the one that shells expect of a process which that signal ended.
#
# Is the result the same? Not nearly: *exactly*. Every parameter, both of Adam's moments and each step's loss are
# compared for equality, without any tolerance. For comparison, the whole run is done once more on a single device.


# %%
def arrays(result):
    """All that a run ends with."""
    return jax.device_get(jax.tree.leaves(result.state))


for mine, theirs in zip(arrays(resumed), arrays(whole), strict=True):
    np.testing.assert_array_equal(mine, theirs)
assert resumed.rows == whole.rows
print(f"equal, bit for bit: {len(arrays(whole))} arrays, and {len(whole.rows)} losses and accuracies")
single = run(train, mesh=data_mesh(64, jax.devices()[:1]))
losses = {name: np.array([row["loss"] for row in result.rows])
          for name, result in {"whole": whole, "resumed": resumed, "single": single}.items()}  # fmt: skip
for name, result in {"resumed": resumed, "single": single}.items():
    loss = abs(losses[name] - losses["whole"]).max()
    same = [(a == b).mean() for a, b in zip(arrays(result), arrays(whole), strict=True)]
    print(f"{name:8} losses differ by at most {loss:.0e}; on average {np.mean(same):.0%} of an array are equal")

# %%
figure, axes = plt.subplots(1, 2, width_ratios=[3, 2])
axes[0].plot(range(1, STEPS + 1), losses["whole"], color="lightgrey", linewidth=5, label="never stopped")
ends = [following[0] for following in attempts[1:]] + [STEPS]
for number, (asked, end) in enumerate(zip(attempts, ends, strict=True), 1):
    steps = np.arange(asked[0], end)
    axes[0].plot(steps + 1, losses["resumed"][steps], linewidth=1.2, label=f"attempt {number}")
axes[0].axvspan(attempts[1][0] + 1, attempts[0][-1] + 1, color="C1", alpha=0.15, label="done twice")
axes[0].set(title="training", xlabel="step", ylabel="loss", ylim=(0, None))
axes[0].legend()
for name, label in {"single": "on a single device", "resumed": "resumed"}.items():
    axes[1].plot(range(1, STEPS + 1), abs(losses[name] - losses["whole"]), ".", markersize=3, label=label)
axes[1].set(title="loss less that of the run never stopped", xlabel="step")
axes[1].set_yscale("symlog", linthresh=1e-9)
axes[1].set_ylim(-3e-10, 1e-4)
axes[1].legend()
plt.show()

# %% [markdown]
# The run on a single device makes the same additions in another order. Its losses stay within the rounding of float32,
# and yet most of its parameters have become other numbers. Neither of the two is the right one. So "bit for bit" holds
# for the same number of devices of the same kind, with the same version of JAX.
#
# The suite of the package does this with less ceremony: `tests/training/test_kill.py` kills a training process with
# SIGKILL, which no program can answer, ten times at random moments.
#
# ## Exercises
#
# 1. Make the scale a constant of the program, by `jax.jit(..., static_argnames="scale")`. How many programs are there
#    after calls with 1.0, 2.0 and 3.0? When is that what you want?
#
# <details><summary>Answer</summary>
#
# Three: the value of a static argument is compiled into the program, and remembered with it. That is right for what
# decides *which* computation is made, such as the number of heads or a flag, and wrong for numbers that change all the
# time, such as a learning rate.
#
# </details>
#
# 2. Four devices and a batch of 50 examples: what does `data_mesh(50)` do, and what does `share` say if you insist on
#    all four?
#
# <details><summary>Answer</summary>
#
# ```python
# print(data_mesh(50).size)                         # 2, the largest number up to 4 that divides 50
# share({"images": np.zeros((50, 8, 8, 1))}, mesh)  # an InputError, which names the two numbers and says what to do
# ```
#
# </details>
#
# 3. In the view of one device, use dropout: hand `rngs=nnx.Rngs(231)` to the model in `loss_of`. The gradients of
#    `pmap` and `shard_map` now differ from that of `jit`. Why? And how would you mend it?
#
# <details><summary>Answer</summary>
#
# Each device draws the masks for its own part of the batch from the same key, so all parts get the same masks. They are
# less random than they should be, and nobody notices. A device's own key is
# `jax.random.fold_in(key, jax.lax.axis_index("data"))`. The masks are then independent, though still different from
# those of `jit`. In the global view there is nothing to mend.
#
# </details>
#
# 4. In the picture of the gradients, divide each difference by the largest number of its *own* parameter. Two of them
#    now stand out, in both types, with differences as large as the gradient itself. Which, and why is nothing wrong?
#
# <details><summary>Answer</summary>
#
# ```python
# paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree.leaves_with_path(params)]
# print([path for path, a, b in zip(paths, one, many, strict=True) if abs(a - b).max() > 0.01 * abs(a).max()])
# ```
#
# They are the biases of the keys. Such a bias adds the same number to all scores of a query, which the softmax does not
# see: its gradient is 0. What is computed is the rounding of that 0, and it may be anything that small.
#
# </details>
#
# 5. What happens if you resume the run in the folder with another learning rate?
#
# <details><summary>Answer</summary>
#
# `fit` raises an `InputError`, which names the setting, its value in the folder and its value now. A run that went on
# under other settings would be neither the old run nor a new one.
#
# ```python
# optimizer = replace(optimizer, learning_rate=1e-3)
# run(train, folder=Path(home.name))
# ```
#
# </details>
